"""What the notebooks and pages show of records and networks; nothing that trains imports it."""
