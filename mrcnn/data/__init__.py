"""Data: datasets, molding, masks, augmentation and the loader of training batches."""
