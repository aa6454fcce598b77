"""Everything behind evaluate.py: scoring folders, tables, published results, the report page."""
