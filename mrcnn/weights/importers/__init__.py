"""Readers of published weight files, one program or file format each; `mrcnn.weights.recognise` chooses among them."""
