"""From images to results."""
