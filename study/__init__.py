"""The evidence: what is trained, what was recorded, and what the records show."""
