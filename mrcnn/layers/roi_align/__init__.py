"""RoIAlign: the layer, and each way of computing it."""
