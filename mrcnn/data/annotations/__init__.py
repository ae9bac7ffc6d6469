"""Code shared by the readers of all annotation formats."""
