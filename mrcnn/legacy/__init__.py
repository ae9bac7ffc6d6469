"""Names of the old package that no new code uses; `mrcnn.utils` and `mrcnn.model` re-export them.

`names.TABLE` lists every name of the old package: where it is now, what differs, or what replaces it.
"""
