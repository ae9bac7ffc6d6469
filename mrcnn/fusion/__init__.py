"""Equivalent layers and models with fewer operations."""
