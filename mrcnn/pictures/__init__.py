"""Pictures of instances, boxes, metrics and weights; `mrcnn.visualize` is the door to them."""
