"""The same functions in fewer operations."""
