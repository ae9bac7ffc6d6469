"""Keras layers without weights."""
