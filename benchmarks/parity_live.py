"""torchvision's own models, run live by another Python, against this package's import of the files they save."""
