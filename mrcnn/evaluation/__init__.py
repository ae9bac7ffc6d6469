"""COCO metrics for a model on a dataset, and tools to analyze them."""

from mrcnn.evaluation.coco_evaluation import METRICS, evaluate

__all__ = ["METRICS", "evaluate"]
