"""Changes the metadata of a checkpoint, as somebody who knows of its checksum would."""

import hashlib
import json

import h5py


def set_metadata(path, metadata):
    """metadata: a text as it stands, or anything that json can hold."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    with h5py.File(path, "r+") as file:
        file.attrs["metadata"] = text
        file.attrs["metadata_sha256"] = hashlib.sha256(text.encode()).hexdigest()
