"""Names of the old package that no new code uses; `mrcnn.utils` and `mrcnn.model` re-export them."""
