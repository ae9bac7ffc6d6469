"""Names of the old package that no new code uses; `mrcnn.utils` and `mrcnn.model` re-export them.

`names.TABLE` lists every name of the old package: its new location, what differs, or what replaces it.
"""
