"""Videos: every frame once, at its own time, with the sound; and tracking of instances from frame to frame."""
