"""What the readers of all annotation formats share."""
