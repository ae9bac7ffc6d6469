"""The parts that hold weights, and the two graphs that wire them."""
