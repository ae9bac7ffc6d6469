"""RoIAlign: the layer and its implementations."""
