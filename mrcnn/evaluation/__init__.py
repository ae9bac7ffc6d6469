"""COCO's metrics for a model on a dataset, and what explains them."""

from mrcnn.evaluation.coco_evaluation import METRICS, evaluate

__all__ = ["METRICS", "evaluate"]
