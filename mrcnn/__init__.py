"""Mask R-CNN on Keras 3, with the mask branch swapped by name."""

__version__ = "0.1.0"
