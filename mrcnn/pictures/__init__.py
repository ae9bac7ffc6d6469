"""Drawing of instances, boxes, metrics and weights; users import it from `mrcnn.visualize`."""
