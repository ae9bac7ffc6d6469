"""ImageNet weights of keras.applications backbones: read whole or not at all, fetched by Keras."""

import h5py
import keras
import numpy as np
import pytest

from mrcnn.network.backbone import build_backbone
from mrcnn.weights.importers import imagenet

OPTIONS = {"alpha": 0.25}


@pytest.fixture(scope="module")
def original():
    """Keras's own narrow MobileNet, with random weights instead of ImageNet's."""
    model = keras.applications.MobileNet(input_shape=(None, None, 3), include_top=False, weights=None, **OPTIONS)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def file(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "narrow.weights.h5"
    original.save_weights(path)
    return path


@pytest.mark.slow
def test_a_file_goes_into_the_backbone(original, file):
    backbone = build_backbone("mobilenet", options=OPTIONS)
    assert imagenet.is_keras_weights(file)
    report = imagenet.load(file, backbone)
    assert len(report.loaded) == len(original.weights) and not report.missing + report.skipped + report.unexpected
    for mine, theirs in zip(backbone.source.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_another_architecture_is_refused_and_nothing_changes(file):
    backbone = build_backbone("mobilenet", options={"alpha": 0.5})
    before = backbone.source.get_weights()
    with pytest.raises(ValueError, match="does not fit the backbone .*BACKBONE_OPTIONS.*unchanged"):
        imagenet.load(file, backbone)
    for now, then in zip(backbone.source.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.slow
def test_another_number_of_channels_is_named(file):
    backbone = build_backbone("mobilenet", options=OPTIONS, channels=4)
    with pytest.raises(ValueError, match="IMAGE_CHANNEL_COUNT is 4, so the first kernel has 4 channels, but 3 in"):
        imagenet.load(file, backbone)
    with pytest.raises(ValueError) as raised:
        imagenet.load(file, build_backbone("mobilenet", options={"alpha": 0.5}))
    assert "IMAGE_CHANNEL_COUNT" not in str(raised.value)


@pytest.mark.slow
def test_other_channels_inflate_the_first_kernel_where_the_backbone_for_rgb_is_at_hand(original, file):
    backbone = build_backbone("mobilenet", options=OPTIONS, channels=4)
    report = imagenet.load(file, backbone, lambda: build_backbone("mobilenet", options=OPTIONS))
    (note,) = report.notes
    assert "from 3 to 4 input channels" in note and len(report.loaded) == len(original.weights)
    first, *rest = backbone.source.get_weights()
    kernel, *theirs = original.get_weights()
    np.testing.assert_allclose(first[:, :, :3], kernel * 0.75, rtol=1e-6)
    np.testing.assert_allclose(first[:, :, 3], kernel.mean(2) * 0.75, rtol=1e-6)
    for mine, other in zip(rest, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"exclude": ["conv1"]},
            r"exclude=\['conv1'\] does not apply to .*narrow.weights.h5.*loaded completely.*Leave ex",
        ),
        (
            {"keep_classes": True},
            "keep_classes=True does not apply.*'mobilenet.*do not depend on classes.*Leave keep_cla",
        ),
        ({"strict": True}, "strict=True does not apply.*only the backbone.*Leave strict out; nothing was loaded"),
    ],
)
def test_what_cannot_be_followed_is_refused(file, arguments, message):
    backbone = build_backbone("mobilenet", options=OPTIONS)
    before = backbone.source.get_weights()
    with pytest.raises(ValueError, match=message):
        imagenet.load(file, backbone, **arguments)
    for now, then in zip(backbone.source.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert imagenet.load(file, backbone, exclude=[], keep_classes=False, strict=False).loaded


@pytest.mark.slow
def test_nan_changes_nothing(original, tmp_path):
    path, backbone = tmp_path / "nan.weights.h5", build_backbone("mobilenet", options=OPTIONS)
    before, values = backbone.source.get_weights(), original.get_weights()
    try:
        original.set_weights([values[0] * np.nan, *values[1:]])
        original.save_weights(path)
    finally:
        original.set_weights(values)
    with pytest.raises(ValueError, match="nan.weights.h5 has NaN or infinite weights in conv1/kernel; the model is"):
        imagenet.load(path, backbone)
    for now, then in zip(backbone.source.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    "names, of_keras",
    [
        ([b"input_image", b"res2a_branch2a", b"mrcnn_mask_conv1"], False),
        (["input_image", "mrcnn_bbox_fc"], False),
        ([b"input_1", b"conv1"], True),
    ],
)
def test_a_file_of_the_old_package_is_none_of_keras_applications(tmp_path, names, of_keras):
    path = tmp_path / "mask_rcnn_coco.h5"
    with h5py.File(path, "w") as h5:
        h5.attrs["layer_names"] = names
        for name in names:
            h5.create_group(name)
    assert imagenet.is_keras_weights(path) == of_keras


@pytest.mark.slow
def test_a_backbone_of_our_own_takes_no_such_file(file):
    with pytest.raises(ValueError, match="the backbone is not one. Set Config.BACKBONE"):
        imagenet.load(file, build_backbone("resnet50", options={"width": 4}))


def test_other_files_are_not_taken_for_weights_of_keras(tmp_path):
    damaged = tmp_path / "damaged.weights.h5"
    damaged.write_bytes(b"no h5 at all")
    assert not imagenet.is_keras_weights(damaged)
    assert not imagenet.is_keras_weights(tmp_path / "missing.h5")


def test_download_keeps_what_keras_fetched(original, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    calls = []

    def fetch(**options):
        calls.append(options)
        return original

    monkeypatch.setattr(imagenet, "find_application", lambda name: fetch)
    path = imagenet.download("MobileNet", OPTIONS)
    assert imagenet.download("MobileNet", OPTIONS) == path and imagenet.is_keras_weights(path)
    assert calls == [{"include_top": False, "weights": "imagenet", "alpha": 0.25}]
    assert [p.name for p in path.parent.iterdir()] == ["mrcnn_mobilenet_alpha0.25_notop.weights.h5"]


def test_without_a_network_the_way_out_is_named(tmp_path, monkeypatch):
    def fail(**options):
        raise OSError("no route to host")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(imagenet, "find_application", lambda name: fail)
    with pytest.raises(ConnectionError, match="'mobilenet' could not be downloaded .no route.*pass its path"):
        imagenet.download("mobilenet", {})


@pytest.mark.parametrize("backbone", ["no_such_net", build_backbone])
def test_backbones_without_a_download_are_named(backbone):
    with pytest.raises(ValueError, match="no downloadable ImageNet weights for BACKBONE="):
        imagenet.download(backbone, {})


def test_a_narrow_resnet_has_no_download():
    with pytest.raises(ValueError, match=r"no downloadable .* BACKBONE='resnet50' with BACKBONE_OPTIONS={'width': 8}"):
        imagenet.download("resnet50", {"width": 8})


@pytest.mark.parametrize("name", ["ResNet50", "resnet101", "resnet152"])
def test_files_of_resnets_are_fetched_as_keras_fetches_them(name, tmp_path, monkeypatch):
    """Its address, its checksum, its folder, and no model is built."""
    calls = []

    def get_file(file, origin, **options):
        calls.append((file, origin, options))
        return str(tmp_path / file)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    path = imagenet.download(name, {})
    ((file, origin, options),) = calls
    assert path == tmp_path / file == tmp_path / f"{name.lower()}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert origin.startswith("https://") and origin.endswith(f"keras-applications/resnet/{file}")
    assert options["cache_subdir"] == "models" and len(options["file_hash"]) == 32
