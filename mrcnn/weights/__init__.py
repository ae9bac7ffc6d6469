"""Reading and writing of weights: this package's own checkpoints, and importers of published files."""
