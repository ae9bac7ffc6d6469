"""Draws data, results and evaluations, under the old package's names and some new ones.

Every drawing function returns its matplotlib Axes or Figure. It also shows the figure, unless axes are given or the
backend only writes files::

    results = model.detect([image])[0]
    ax = visualize.display_instances(
        image, results["rois"], results["masks"], results["class_ids"], class_names, results["scores"]
    )
    ax.figure.savefig("detections.png")
"""

from mrcnn.pictures.analysis import plot_confusion_matrix, plot_curves, plot_errors, show_worst
from mrcnn.pictures.colors import apply_mask, draw_box, random_colors
from mrcnn.pictures.comparison import save_comparison
from mrcnn.pictures.images import display_images, display_top_masks
from mrcnn.pictures.instances import display_differences, display_instances
from mrcnn.pictures.plots import plot_overlaps, plot_precision_recall
from mrcnn.pictures.rois import draw_boxes, draw_rois
from mrcnn.pictures.tables import display_table, display_weight_stats

__all__ = [
    "apply_mask",
    "display_differences",
    "display_images",
    "display_instances",
    "display_table",
    "display_top_masks",
    "display_weight_stats",
    "draw_box",
    "draw_boxes",
    "draw_rois",
    "plot_confusion_matrix",
    "plot_curves",
    "plot_errors",
    "plot_overlaps",
    "plot_precision_recall",
    "random_colors",
    "save_comparison",
    "show_worst",
]
