"""Real programs on the package: one folder a data set."""
