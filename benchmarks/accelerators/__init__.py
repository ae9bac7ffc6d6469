"""What `accelerator.py` measures. Nothing here needs more than JAX, Keras and NumPy."""
