"""Datasets, masks, augmentation, network inputs, and the loader of training batches."""
