"""Shapes over photographs: a data set that makes itself, for demonstrations and tests."""
