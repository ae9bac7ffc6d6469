"""The parts with weights, and the training and inference graphs that connect them."""
