"""What must be true of an export, one rule per file; each raises Differs, with the row that shows it."""
