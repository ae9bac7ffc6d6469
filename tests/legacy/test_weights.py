"""`download_trained_weights` of the old package, with the download replaced."""

import os

from mrcnn import utils
from mrcnn.weights import published


def test_the_old_name_downloads_release_2_and_keeps_what_is_there(tmp_path, monkeypatch, capsys):
    calls = []

    def download(url, path, **options):
        calls.append((url, options["size"]))
        path.touch()
        os.truncate(path, published.COCO_SIZE)  # a sparse file of the right size

    monkeypatch.setattr(published, "download", download)
    path = os.path.join(tmp_path, "mask_rcnn_coco.h5")
    utils.download_trained_weights(path)
    utils.download_trained_weights(path, verbose=0)
    assert calls == [(utils.COCO_MODEL_URL, 257_557_808)] and utils.COCO_MODEL_URL.endswith("v2.0/mask_rcnn_coco.h5")
    assert utils.COCO_MODEL_URL in capsys.readouterr().out
