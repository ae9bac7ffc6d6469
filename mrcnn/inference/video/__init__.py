"""Videos: every frame once, at its own time, with the sound; and instances followed from frame to frame."""
