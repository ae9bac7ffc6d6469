"""Data-parallel training on several devices and machines."""
