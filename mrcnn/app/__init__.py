"""The browser page of `mrcnn app`."""
