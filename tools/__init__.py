"""Programs for maintainers; nothing that a notebook imports."""
