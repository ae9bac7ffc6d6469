"""Plain functions on tensors."""
