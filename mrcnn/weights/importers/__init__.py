"""Readers of published weight files, one per program or file format; `mrcnn.weights.recognize` selects the reader."""
