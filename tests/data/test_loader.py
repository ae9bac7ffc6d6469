import hashlib
import threading
import time
import warnings
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from mrcnn.data import masks
from mrcnn.data.dataset import Dataset
from mrcnn.data.formats.coco import read_coco
from mrcnn.data.loader import Loader, active_classes
from tests.tiny import SIDE

COCO_MINI = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco_mini"


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


class Remember(keras.callbacks.Callback):
    """Records the inputs of a model with one weight that is not trained."""

    def __init__(self, loader):
        super().__init__()
        self.fed = []
        first = loader[0][0]
        inputs = {name: keras.Input(v.shape[1:], dtype=v.dtype.name, name=name) for name, v in first.items()}
        outputs = keras.layers.Dense(1)(keras.layers.Flatten()(inputs["image"]))
        remember = self

        class Model(keras.Model):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                remember.fed.append((x["image_id"].numpy().tolist(), x["seed"].numpy().tolist()))
                return keras.ops.mean(y_pred) * 0.0

        self.network = Model(inputs, outputs)
        self.network.compile("sgd", run_eagerly=True)

    def fit(self, loader, **kwargs):
        self.fed.clear()
        self.network.fit(loader, shuffle=False, verbose=0, **kwargs)
        return list(self.fed)


def direct(loader, epochs):
    batches = [loader.assemble_batch(epoch, i) for epoch in epochs for i in range(len(loader))]
    return [(b["image_id"].tolist(), b["seed"].tolist()) for b in batches]


def test_shapes_types_and_values(squares, config, scaling):
    loader = Loader(squares([2, 2]), config(IMAGE_MIN_DIM=80, IMAGE_MAX_DIM=128), scaling=scaling, training=False)
    (inputs,) = loader[0]
    shapes = {name: (array.shape, array.dtype.name) for name, array in inputs.items()}
    assert shapes == {
        "image": ((2, 96, 128, 3), "float32"),
        "window": ((2, 4), "float32"),
        "gt_class_ids": ((2, 5), "int32"),
        "gt_boxes": ((2, 5, 4), "float32"),
        "gt_masks": ((2, 5, 4, 4), "uint8"),
        "active_classes": ((2, 2), "float32"),
        "image_id": ((2,), "int32"),
        "seed": ((2,), "int32"),
    }
    np.testing.assert_array_equal(inputs["image_id"], [0, 1])
    np.testing.assert_array_equal(inputs["window"], [[0, 0, 80, 120]] * 2)
    assert (inputs["image"][1, :80, :120] == 20).all() and not inputs["image"][1, 80:].any()
    np.testing.assert_array_equal(inputs["gt_class_ids"][0], [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(inputs["gt_boxes"][0, :3], [[40, 0, 60, 20], [40, 20, 60, 40], [0, 0, 0, 0]])
    assert (inputs["gt_masks"][0, :2] == 255).all() and not inputs["gt_masks"][0, 2:].any()
    np.testing.assert_array_equal(inputs["active_classes"], [[1, 1], [1, 1]])


class Shapes(Dataset):
    """Images of given (height, width), each with one square of 10 pixels; `image_info` may have the size."""

    def __init__(self, sizes, stated=True, empty=()):
        super().__init__()
        self.add_class("made", 1, "square")
        self.sizes, self.empty = sizes, empty
        for number, (height, width) in enumerate(sizes):
            self.add_image("made", number, None, **({"height": height, "width": width} if stated else {}))
        self.prepare()

    def load_image(self, image_id):
        return np.full([*self.sizes[image_id], 3], 10 + image_id, np.uint8)

    def load_mask(self, image_id):
        masks = np.zeros([*self.sizes[image_id], 0 if image_id in self.empty else 1], bool)
        masks[:10, :10] = True
        return masks, np.ones(masks.shape[2], np.int32)


FITTED = {"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 160}
TALL, WIDE, WIDER, SQUARE = (90, 60), (60, 90), (60, 120), (60, 60)


def test_the_network_input_fits_the_largest_image_of_the_batch(config, scaling):
    loader = Loader(Shapes([WIDE, WIDER]), config(**FITTED), scaling=scaling, training=False)
    (inputs,) = loader[0]
    assert inputs["image"].shape == (2, 64, 128, 3)
    np.testing.assert_array_equal(inputs["window"], [[0, 0, 64, 96], [0, 0, 64, 128]])
    assert (inputs["image"][0, :, :96] == 10).all() and not inputs["image"][0, :, 96:].any()
    np.testing.assert_allclose(inputs["gt_boxes"][:, 0], [[0, 0, 64 / 6, 64 / 6]] * 2, rtol=1e-6)
    mixed = Loader(Shapes([TALL, WIDE]), config(**FITTED), scaling=scaling, training=False).assemble_batch(0, 0)
    assert mixed["image"].shape == (2, 96, 96, 3)


@pytest.mark.parametrize("stated", [True, False])
def test_images_of_similar_shape_share_batches(config, scaling, tmp_path, stated):
    dataset = Shapes([TALL, WIDE, SQUARE, WIDER] * 8, stated)
    if not stated:  # the sizes come from file headers
        for info, size in zip(dataset.image_info, dataset.sizes, strict=True):
            info["path"] = str(tmp_path / f"{size[0]}_{size[1]}.png")
            cv2.imwrite(info["path"], np.zeros([*size, 3], np.uint8))
        del Shapes.load_image
    try:
        loader = Loader(dataset, config(**FITTED, SIZE_DIVISOR=32), scaling=scaling)
    finally:
        if not stated:
            Shapes.load_image = LOAD_IMAGE
    for epoch in range(2):
        batches = [loader.assemble_batch(epoch, index) for index in range(len(loader))]
        shapes = [batch["image"].shape[1:3] for batch in batches]
        assert {(96, 64), (64, 96), (64, 64), (64, 128)} <= set(shapes)
        assert sum(shape[0] * shape[1] for shape in shapes) <= 1.15 * sum(
            shape[0] * shape[1] for shape in [(96, 64), (64, 96), (64, 64), (64, 128)] * 4
        )
        seen = np.concatenate([batch["image_id"] for batch in batches])
        np.testing.assert_array_equal(np.sort(seen), np.arange(32))


LOAD_IMAGE = Shapes.load_image


def test_images_of_unknown_size_are_learned_from_too(config, scaling):
    loader = Loader(Shapes([TALL, WIDE] * 3, stated=False), config(**FITTED), scaling=scaling)
    assert {loader.assemble_batch(0, i)["image"].shape[1:3] for i in range(3)} <= {(96, 64), (64, 96), (96, 96)}


def test_on_jax_there_are_five_sizes_at_most(config, scaling, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    rng = np.random.default_rng(0)
    sizes = [(int(60 * rng.uniform(0.3, 3)), 60) for _ in range(40)]
    loader = Loader(Shapes(sizes), config(**FITTED), scaling=scaling)
    shapes = {loader.assemble_batch(0, i)["image"].shape[1:3] for i in range(20)}
    assert shapes <= {(64, 128), (128, 64), (64, 160), (160, 64), (160, 160)} and len(shapes) > 2


@pytest.mark.parametrize("settings", [{"SCALE_JITTER": (0.5, 2.0)}, {"IMAGE_RESIZE_MODE": "square"}])
def test_jitter_and_square_mode_stay_square(config, scaling, settings):
    loader = Loader(Shapes([TALL, WIDE] * 2), config(**FITTED, **settings), scaling=scaling)
    assert {loader.assemble_batch(0, i)["image"].shape for i in range(2)} == {(2, 160, 160, 3)}
    assert loader.signature()["image"] == ((2, 160, 160, 3), "float32")


def test_the_signature_is_that_of_every_batch(config, scaling):
    loader = Loader(Shapes([TALL, WIDE, WIDER]), config(**FITTED), scaling=scaling)
    signature = loader.signature()
    for index in range(2):
        inputs = loader.assemble_batch(0, index)
        assert inputs.keys() == signature.keys()
        for name, (shape, dtype) in signature.items():
            assert inputs[name].dtype == dtype and len(shape) == inputs[name].ndim
            assert all(wanted in (None, found) for wanted, found in zip(shape, inputs[name].shape, strict=True))
    assert signature["image"][0] == (2, None, None, 3)


def test_an_image_without_instances_is_replaced_by_one_of_similar_shape(config, scaling):
    dataset = Shapes([TALL] * 6 + [WIDE] * 6, empty=range(5))
    loader = Loader(dataset, config(**FITTED), scaling=scaling)
    for index in range(6):
        inputs = loader.assemble_batch(0, index)
        assert inputs["image"].shape[1:3] in ((96, 64), (64, 96)), inputs["image_id"]


def test_processes_agree_on_the_size_of_a_batch(config, scaling):
    """Without reading the images of other processes, whose places in the batch they do not fill."""
    dataset = Shapes([TALL, WIDE, WIDER, SQUARE] * 3, empty=(0, 6))
    settings = config(**FITTED, IMAGES_PER_GPU=4)
    whole = Loader(dataset, settings, scaling=scaling)
    shares = [Loader(dataset, settings, scaling=scaling, share=(k, 2)) for k in range(2)]
    for index in range(3):
        parts = [share.assemble_batch(1, index) for share in shares]
        assert parts[0]["image"].shape == parts[1]["image"].shape and len(parts[0]["image"]) == 2
        inputs = whole.assemble_batch(1, index)
        np.testing.assert_array_equal(np.concatenate([part["image_id"] for part in parts]), inputs["image_id"])
        height, width = np.minimum(inputs["image"].shape[1:3], parts[0]["image"].shape[1:3])
        images = np.concatenate([part["image"] for part in parts])
        np.testing.assert_array_equal(images[:, :height, :width], inputs["image"][:, :height, :width])


def test_processes_name_an_image_whose_stated_size_is_wrong(config, scaling):
    dataset = Shapes([TALL, TALL])
    dataset.sizes = [WIDER, TALL]
    loader = Loader(dataset, config(**FITTED), scaling=scaling, share=(0, 2), training=False)
    with pytest.raises(
        ValueError, match=r"image 0 .*network input is 64 x 128, but .* image_info allow at most 96 x 64"
    ):
        loader.assemble_batch(0, 0)
    alone = Loader(dataset, config(**FITTED), scaling=scaling, training=False).assemble_batch(0, 0)
    assert alone["image"].shape == (2, 96, 128, 3), "one process looks at what is there"


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_of_many_sizes_are_the_same_for_any_number_of_threads_and_resumed(config, scaling, workers):
    dataset = Shapes([TALL, WIDE, WIDER, SQUARE, (60, 75)] * 3)
    settings = config(**FITTED, HORIZONTAL_FLIP=0.5, LOADER_WORKERS=1)
    first = fingerprints(Loader(dataset, settings, scaling=scaling, seed=3), epochs=3)
    settings = config(**FITTED, HORIZONTAL_FLIP=0.5, LOADER_WORKERS=workers)
    assert fingerprints(Loader(dataset, settings, scaling=scaling, seed=3, start_epoch=2), epochs=1) == first[16:]


@pytest.mark.slow
def test_nine_of_ten_pixels_are_image_pixels(config, scaling):
    """With the sizes of COCO's images, at 800/1333."""
    if not COCO_MINI.exists():
        pytest.skip(f"no images at {COCO_MINI}")
    dataset = read_coco(COCO_MINI / "annotations/instances_train2017.json", COCO_MINI / "train2017")
    settings = config(NUM_CLASSES=dataset.num_classes, IMAGE_MIN_DIM=800, IMAGE_MAX_DIM=1333)
    loader = Loader(dataset, settings, scaling=scaling)
    pixels = computed = 0
    for index in range(0, len(loader), 8):
        inputs = loader.assemble_batch(0, index)
        y1, x1, y2, x2 = inputs["window"].T
        pixels += ((y2 - y1) * (x2 - x1)).sum()
        computed += np.prod(inputs["image"].shape[:3])
    assert pixels / computed >= 0.9


def test_square_mode_moves_boxes_by_the_window(squares, config, scaling):
    loader = Loader(squares([1]), config(IMAGE_RESIZE_MODE="square"), scaling=scaling, training=False)
    (inputs,) = loader[0]
    top = (64 - 43) // 2  # 40 x 60 becomes 43 x 64
    np.testing.assert_array_equal(inputs["window"][0], [top, 0, top + 43, 64])
    y, x = 43 / 40, 64 / 60
    np.testing.assert_allclose(inputs["gt_boxes"][0, 0], [top + 20 * y, 0, top + 30 * y, 10 * x], rtol=1e-6)


def test_annotated_boxes_are_used_and_masks_cropped_to_them(squares, config, scaling):
    dataset = squares([1])
    dataset.load_boxes = lambda image_id: np.array([[20.0, 0.0, 30.0, 20.0]])
    (inputs,) = Loader(dataset, config(IMAGE_RESIZE_MODE="none"), scaling=scaling, training=False)[0]
    np.testing.assert_array_equal(inputs["gt_boxes"][0, 0], [20, 0, 30, 20])
    np.testing.assert_array_equal(inputs["gt_masks"][0, 0], [[255, 255, 0, 0]] * 4)


def test_every_pass_holds_each_image_once(squares, config, scaling):
    loader = Loader(squares([1] * 7), config(), scaling=scaling, steps=7)
    ids = np.concatenate([loader.assemble_batch(0, i)["image_id"] for i in range(7)])
    np.testing.assert_array_equal(np.sort(ids[:7]), np.arange(7))
    np.testing.assert_array_equal(np.sort(ids[7:]), np.arange(7))
    assert ids[:7].tolist() != ids[7:].tolist()


def test_a_batch_depends_on_seed_epoch_and_index_alone(squares, config, scaling):
    dataset = squares([1, 2, 3, 1, 2])
    settings = config(HORIZONTAL_FLIP=0.5, SCALE_JITTER=(0.5, 2.0), PHOTOMETRIC_DISTORTION=True)
    first = Loader(dataset, settings, scaling=scaling, steps=3, seed=4)
    second = Loader(dataset, settings, scaling=scaling, steps=3, seed=4)
    second.assemble_batch(2, 0)
    same(first.assemble_batch(1, 2), second.assemble_batch(1, 2))
    other = Loader(dataset, settings, scaling=scaling, steps=3, seed=5)
    assert not np.array_equal(first.assemble_batch(1, 2)["seed"], other.assemble_batch(1, 2)["seed"])
    assert not np.array_equal(first.assemble_batch(0, 2)["seed"], first.assemble_batch(1, 2)["seed"])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_fit_is_fed_the_same_by_any_number_of_threads(squares, config, scaling, workers):
    settings = config(LOADER_WORKERS=workers, IMAGE_MIN_DIM=32, IMAGE_MAX_DIM=32)
    dataset = squares([1] * 5)
    reference = direct(Loader(dataset, settings, scaling=scaling, steps=4), range(3))
    loader = Loader(dataset, settings, scaling=scaling, steps=4)
    assert Remember(loader).fit(loader, epochs=3) == reference
    resumed = Loader(dataset, settings, scaling=scaling, steps=4, start_epoch=2)
    assert Remember(resumed).fit(resumed, epochs=3, initial_epoch=2) == reference[8:]


def test_validation_repeats_in_order_without_augmentation(squares, config, scaling):
    settings = config(HORIZONTAL_FLIP=1, PHOTOMETRIC_DISTORTION=True, SCALE_JITTER=(0.5, 2.0))
    loader = Loader(squares([1, 2, 3]), settings, scaling=scaling, training=False)
    assert len(loader) == 2
    np.testing.assert_array_equal(loader.assemble_batch(0, 1)["image_id"], [2, 0])
    same(loader.assemble_batch(0, 1), loader.assemble_batch(3, 1))
    np.testing.assert_array_equal(
        loader.assemble_batch(0, 0)["gt_boxes"][0, 0], [21, 0, 31.5, np.float32(10 * 64 / 60)]
    )


def test_epoch_advances_once_for_each_that_began(squares, config, scaling):
    loader = Loader(squares([1]), config(), scaling=scaling, start_epoch=3)
    loader.on_epoch_end()
    assert loader.epoch == 3
    loader.on_epoch_begin()
    loader.on_epoch_end()
    loader.on_epoch_end()
    assert loader.epoch == 4


def test_images_without_instances_are_replaced_by_the_next(squares, config, scaling):
    loader = Loader(squares([0, 0, 3, 1]), config(), scaling=scaling, training=False)
    assert [loader.assemble_batch(0, i)["image_id"].tolist() for i in range(2)] == [[2, 2], [2, 3]]
    allowed = Loader(squares([0, 0, 3, 1]), config(ALLOW_EMPTY_IMAGES=True), scaling=scaling, training=False)
    inputs = allowed.assemble_batch(0, 0)
    np.testing.assert_array_equal(inputs["image_id"], [0, 1])
    assert not inputs["gt_class_ids"].any() and not inputs["gt_masks"].any()


def test_crowds_keep_their_sign_and_alone_teach_nothing(squares, config, scaling):
    loader = Loader(squares([1, 3], crowds=(0,)), config(), scaling=scaling, training=False)
    inputs = loader.assemble_batch(0, 0)
    np.testing.assert_array_equal(inputs["image_id"], [1, 1])
    np.testing.assert_array_equal(inputs["gt_class_ids"][0], [-1, 1, 1, 0, 0])


def test_jitter_always_shows_an_instance_to_learn(squares, config, scaling):
    loader = Loader(squares([2], crowds=(0,)), config(SCALE_JITTER=(4.0, 4.0)), scaling=scaling, steps=20)
    for i in range(20):
        inputs = loader.assemble_batch(0, i)
        assert (inputs["gt_class_ids"] == 1).any(axis=1).all()
        boxes = inputs["gt_boxes"][:, 0]
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all() and (boxes <= 64).all()


def test_jitter_shows_a_part_at_the_zoomed_scale(squares, config, scaling):
    settings = config(SCALE_JITTER=(2.0, 2.0), MAX_GT_INSTANCES=6)
    inputs = Loader(squares([6]), settings, scaling=scaling, steps=1).assemble_batch(0, 0)
    scale = 2 * 64 / 60
    sides = inputs["gt_boxes"][0, :, 2:] - inputs["gt_boxes"][0, :, :2]
    assert sides.max() <= 10 * scale * 1.01
    assert np.isclose(sides, 10 * scale, rtol=0.01).any()
    assert inputs["window"][0].max() == 64
    small = Loader(squares([5]), config(SCALE_JITTER=(0.5, 0.5)), scaling=scaling, steps=1).assemble_batch(0, 0)
    np.testing.assert_array_equal(small["window"][0], [0, 0, 21, 32])
    assert small["image"].shape == (2, 64, 64, 3) and not small["image"][0, 21:].any()


def test_crop_mode_cuts_a_square_out(squares, config, scaling):
    settings = config(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=32, IMAGE_MAX_DIM=None, ALLOW_EMPTY_IMAGES=True)
    inputs = Loader(squares([6]), settings, scaling=scaling, steps=1).assemble_batch(0, 0)
    assert inputs["image"].shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(inputs["window"], [[0, 0, 32, 32]] * 2)
    assert (inputs["image"] == 10).all()


def test_more_instances_than_slots_gives_a_random_choice_and_one_warning(squares, config, scaling):
    loader = Loader(squares([6, 6], crowds=(0, 1)), config(MAX_GT_INSTANCES=5), scaling=scaling, steps=8)
    with pytest.warns(UserWarning, match=r"image \d \(made 'made\d', made/\d.png\) has 6 instances, more than .* = 5"):
        loader.assemble_batch(0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = np.concatenate([loader.assemble_batch(0, i)["gt_class_ids"] for i in range(8)])
    assert ((ids == 1).sum(axis=1) == 4).all() and ((ids == -1).sum(axis=1) == 1).all()
    firsts = np.concatenate([loader.assemble_batch(0, i)["gt_boxes"][:, 0, 1] for i in range(8)])
    assert len(np.unique(firsts)) == 2  # both crowds get chosen


def test_flip_mirrors_image_boxes_and_masks(squares, config, scaling):
    settings = config(IMAGE_RESIZE_MODE="none", HORIZONTAL_FLIP=1)
    (inputs,) = Loader(squares([1]), settings, scaling=scaling)[0]
    np.testing.assert_array_equal(inputs["gt_boxes"][0, 0], [20, 50, 30, 60])
    assert (inputs["gt_masks"][0, 0] == 255).all()
    (plain,) = Loader(squares([1]), settings, scaling=scaling, no_augmentation_sources=["made"])[0]
    np.testing.assert_array_equal(plain["gt_boxes"][0, 0], [20, 0, 30, 10])


def test_imgaug_augments_training_images(squares, config, scaling):
    iaa = pytest.importorskip("imgaug.augmenters", reason="imgaug is not installed (pip install imaug)")
    options = {"scaling": scaling, "augmentation": iaa.Fliplr(1.0)}
    settings = config(IMAGE_RESIZE_MODE="none")
    np.testing.assert_array_equal(Loader(squares([1]), settings, **options)[0][0]["gt_boxes"][0, 0], [20, 50, 30, 60])
    validation = Loader(squares([1]), settings, training=False, **options)
    np.testing.assert_array_equal(validation[0][0]["gt_boxes"][0, 0], [20, 0, 30, 10])


def test_active_classes_are_those_of_the_source():
    dataset = Dataset()
    for source, class_id in (("a", 1), ("b", 1), ("a", 2)):
        dataset.add_class(source, class_id, f"{source}{class_id}")
    dataset.prepare()
    np.testing.assert_array_equal(active_classes(dataset, "a", 4), [1, 1, 0, 1])
    np.testing.assert_array_equal(active_classes(dataset, "b", 4), [1, 0, 1, 0])


def test_datasets_that_cannot_be_learned_from(squares, config, scaling):
    with pytest.raises(ValueError, match="the Dataset has no images; add some"):
        Loader(Dataset(), config(), scaling=scaling)
    unprepared = Dataset()
    unprepared.add_image("made", 0, None)
    with pytest.raises(ValueError, match="Dataset of 1 images is not prepared; call its prepare"):
        Loader(unprepared, config(), scaling=scaling)
    with pytest.raises(ValueError, match=r"has 3 classes.*square, round.*NUM_CLASSES is 2; set it to 3"):
        Loader(squares([1], classes=("square", "round")), config(), scaling=scaling)
    with pytest.raises(ValueError, match="steps is 0"):
        Loader(squares([1]), config(), scaling=scaling, steps=0)
    with pytest.raises(ValueError, match="none of the 3 images of the dataset has an instance"):
        Loader(squares([0, 0, 0]), config(), scaling=scaling)[0]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_ends_fit_and_names_the_image(squares, config, scaling, workers):
    dataset = squares([1] * 20)
    broken = dataset.load_mask

    def load_mask(image_id):
        return (np.ones([7, 9, 1], bool), [1]) if image_id == 17 else broken(image_id)

    loader = Loader(dataset, config(LOADER_WORKERS=workers, IMAGE_MIN_DIM=32, IMAGE_MAX_DIM=32), scaling=scaling)
    remember = Remember(loader)
    dataset.load_mask = load_mask
    message = r"image 17 \(made 'made17', made/17.png\): load_mask returned masks of shape \(7, 9, 1\)"
    with pytest.raises(Exception, match=message):
        remember.fit(loader, epochs=2)
    assert isinstance(loader.failure, ValueError) and "image 17" in str(loader.failure)


def test_a_dataset_without_instances_is_read_once(squares, config, scaling):
    dataset = squares([0] * 7)
    load_image, read = dataset.load_image, []
    dataset.load_image = lambda image_id: read.append(image_id) or load_image(image_id)
    with pytest.raises(ValueError, match=r"none of the 7 images .* \(7 tried\)"):
        Loader(dataset, config(), scaling=scaling, steps=9).assemble_batch(0, 2)
    assert sorted(read) == list(range(7))


def threads():
    """Threads started by Python: TensorFlow's own remain for the next `fit`."""
    return {thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}


class Stop(keras.callbacks.Callback):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.1)  # let the loader get ahead
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("stopped here")])
def test_close_ends_all_threads_of_a_fit_that_stopped(squares, config, scaling, error):
    before = threads()
    settings = config(LOADER_WORKERS=3, IMAGE_MIN_DIM=32, IMAGE_MAX_DIM=32)
    loader = Loader(squares([1] * 5), settings, scaling=scaling, steps=500)
    remember = Remember(loader)
    with pytest.raises(type(error)):
        remember.fit(loader, callbacks=[Stop(error)])
    assert len(threads() - before) == 3, "the threads that must end"
    loader.close()
    loader.close()
    assert threads() <= before
    assert loader.failure is None
    with pytest.raises(RuntimeError, match="the loader is closed"):
        loader[0]


def test_close_does_not_wait_for_a_search_through_the_dataset(squares, config, scaling):
    dataset = squares([0] * 1000)
    begun, load_image, read = threading.Event(), dataset.load_image, []

    def slow(image_id):
        begun.set()
        time.sleep(0.02)
        read.append(image_id)
        return load_image(0)

    dataset.load_image = slow
    loader = Loader(dataset, config(), scaling=scaling)
    failed = []

    def ask():
        try:
            loader[0]
        except RuntimeError as error:
            failed.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(10)
    loader.close()
    asking.join(10)
    assert failed == ["the loader is closed"] and len(read) < 500 and loader.failure is None


def test_batches_are_made_ahead_and_each_once(squares, config, scaling):
    loader = Loader(squares([1] * 4), config(LOADER_WORKERS=2), scaling=scaling, steps=8)
    assemble_batch, made = loader.assemble_batch, []
    loader.assemble_batch = lambda epoch, index: made.append((epoch, index)) or assemble_batch(epoch, index)
    loader.on_epoch_begin()
    same(loader[0][0], assemble_batch(0, 0))
    for index in range(1, 8):
        same(loader[index][0], assemble_batch(0, index))
    loader.close()
    assert sorted(made) == [(0, index) for index in range(8)]


@pytest.mark.parametrize(
    "error, kind",
    [
        (FileNotFoundError("gone"), FileNotFoundError),
        (StopIteration("gone"), ValueError),  # would end the epoch instead of training
        (MemoryError("gone"), ValueError),
    ],
)
def test_errors_keep_their_type_where_tensorflow_passes_it_on(squares, config, scaling, error, kind):
    dataset = squares([1])

    def load_image(image_id):
        raise error

    dataset.load_image = load_image
    with pytest.raises(kind, match=r"image 0 \(made 'made0', made/0.png\): .*gone"):
        Loader(dataset, config(), scaling=scaling)[0]


class Scenes(Dataset):
    """Noise with one to five ellipses per image, one image in four with a crowd; sizes vary."""

    def __init__(self, count):
        super().__init__()
        self.add_class("drawn", 1, "ellipse")
        for number in range(count):
            self.add_image("drawn", image_id=number, path=None)
        self.prepare()

    def load_image(self, image_id):
        rng = np.random.default_rng([image_id, 0])
        return rng.integers(0, 256, (*self.size(image_id), 3), dtype=np.uint8)

    def load_mask(self, image_id):
        rng = np.random.default_rng([image_id, 1])
        height, width = self.size(image_id)
        y, x = np.mgrid[:height, :width]
        centers = rng.uniform(0.2, 0.8, (1 + image_id % 5, 2)) * (height, width)
        radii = rng.uniform(4, 15, (len(centers), 2))
        masks = [
            ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1 for (cy, cx), (ry, rx) in zip(centers, radii, strict=True)
        ]
        class_ids = np.ones(len(masks), np.int32)
        class_ids[1:2] = -1 if image_id % 4 == 2 else 1
        return np.stack(masks, axis=2), class_ids

    @staticmethod
    def size(image_id):
        return 40 + 7 * (image_id % 3), 64 - 9 * (image_id % 4)


EVERYTHING = {"HORIZONTAL_FLIP": 0.5, "SCALE_JITTER": (0.3, 2.0), "PHOTOMETRIC_DISTORTION": True}


def all_of_imgaug():
    iaa = pytest.importorskip("imgaug.augmenters", reason="imgaug is not installed (pip install imaug)")
    some = [
        iaa.Affine(rotate=(-20, 20), scale=(0.8, 1.2)),
        iaa.GaussianBlur((0, 2)),
        iaa.Dropout((0, 0.1)),
        iaa.AdditiveGaussianNoise(scale=(0, 20), per_channel=0.5),
        iaa.PerspectiveTransform((0.01, 0.1)),
    ]
    return iaa.Sequential(
        [
            iaa.SomeOf((0, 3), some, random_order=True),
            iaa.Multiply((0.7, 1.3), per_channel=0.5),
            iaa.Sometimes(0.5, iaa.Flipud(1.0)),
        ],
        random_order=True,
    )


def fingerprints(loader, epochs=2):
    """All bits of every batch, requested as `fit` does."""
    found = []
    for _ in range(epochs):
        loader.on_epoch_begin()
        for index in range(len(loader)):
            (inputs,) = loader[index]
            found.append(
                {
                    name: (array.dtype.name, array.shape, hashlib.sha256(array.tobytes()).hexdigest())
                    for name, array in inputs.items()
                }
            )
        loader.on_epoch_end()
    loader.close()
    return found


def test_two_runs_of_one_seed_are_equal_to_the_bit_by_any_number_of_threads(config, scaling):
    def run(workers, seed=3):
        settings = config(LOADER_WORKERS=workers, MAX_GT_INSTANCES=3, **EVERYTHING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # more instances than MAX_GT_INSTANCES, to make the choice random as well
            return fingerprints(Loader(Scenes(8), settings, scaling=scaling, seed=seed, augmentation=all_of_imgaug()))

    first = run(1)
    for workers in (2, 4):
        assert run(workers) == first
    images = {batch["image"] for batch in first}
    assert len(images) == len(first), "each epoch draws anew"
    assert not images & {batch["image"] for batch in run(4, seed=4)}


def test_coco_is_loaded_the_same_by_any_number_of_threads(config, scaling):
    if not COCO_MINI.exists():
        pytest.skip(f"the photographs are not at {COCO_MINI}")

    def run(workers):
        dataset = read_coco(COCO_MINI / "annotations/instances_val2017.json", COCO_MINI / "val2017")
        settings = config(
            LOADER_WORKERS=workers,
            NUM_CLASSES=dataset.num_classes,
            IMAGE_MIN_DIM=256,
            IMAGE_MAX_DIM=256,
            MAX_GT_INSTANCES=20,
            MINI_MASK_SHAPE=(28, 28),
            **EVERYTHING,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fingerprints(Loader(dataset, settings, scaling=scaling, steps=2, augmentation=all_of_imgaug()))

    assert run(4) == run(1)


def test_images_are_their_own_whatever_the_batch_before_held(squares, config, scaling):
    """The places in a batch are not cleared before they are filled."""
    settings = config(SCALE_JITTER=(0.3, 1.5))
    loader = Loader(squares([1, 2, 3]), settings, scaling=scaling, steps=6)
    for index in range(6):
        inputs = loader.assemble_batch(0, index)
        for image, window, image_id in zip(inputs["image"], inputs["window"], inputs["image_id"], strict=True):
            y1, x1, y2, x2 = window.astype(int)
            expected = np.zeros_like(image)
            expected[y1:y2, x1:x2] = 10 * (image_id + 1)
            np.testing.assert_allclose(image, expected, rtol=1e-6)


def test_whole_masks_lie_in_the_network_input_of_their_batch(config, scaling):
    """With images of two shapes in one batch, the masks' boxes are those in the batch."""
    loader = Loader(Shapes([TALL, WIDE]), config(**FITTED), scaling=scaling, training=False, whole=True)
    batch = loader.assemble_batch(0, 0)
    height, width = batch["image"].shape[1:3]
    assert batch["gt_masks"].shape[2:] == (height, width // 8)
    for packed, boxes, class_ids in zip(batch["gt_masks"], batch["gt_boxes"], batch["gt_class_ids"], strict=True):
        count = int((class_ids != 0).sum())
        assert count and not packed[count:].any()
        found = masks.extract_bboxes(np.moveaxis(np.unpackbits(packed[:count], axis=-1), 0, -1))
        np.testing.assert_allclose(found, boxes[:count], atol=1)


@pytest.mark.parametrize("mode", ["fit", "square", "pad64", "crop"])
def test_keypoints_go_where_their_pixels_go(mode):
    """Keypoints of a box lie on the sides of its ground-truth box, at every size and place, mirrored or not."""
    from mrcnn.network.pixels import PixelScaling
    from tests.tiny import TinyKeypointConfig, TinyKeypoints

    config = TinyKeypointConfig(IMAGE_RESIZE_MODE=mode, HORIZONTAL_FLIP=0.5, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=128)
    dataset = TinyKeypoints(4, sizes=((SIDE, SIDE), (60, 90)))
    loader = Loader(dataset, config, scaling=PixelScaling((0, 0, 0), (1, 1, 1), False), steps=6)
    middles = set()
    for i in range(6):
        (batch,) = loader[i]
        assert {name: (v.shape, v.dtype.name) for name, v in batch.items() if name == "gt_keypoints"} == {
            "gt_keypoints": ((2, 4, 3, 3), "float32")
        }
        for keypoints, box, class_id in zip(
            *(batch[name].reshape(8, *batch[name].shape[2:]) for name in ("gt_keypoints", "gt_boxes", "gt_class_ids")),
            strict=True,
        ):
            if class_id == 0:
                assert not keypoints.any()
                continue
            (y1, x1, y2, x2), (middle, left, right) = box, keypoints
            if not keypoints[:, 2].all():
                assert mode == "crop" and not keypoints[keypoints[:, 2] == 0].any()
                continue
            assert left[1] < middle[1] < right[1]
            if mode != "crop":
                np.testing.assert_allclose(middle[:2], [(y1 + y2) / 2, (x1 + x2) / 2], atol=1e-3)
            assert y1 <= left[0] <= y2 and x1 <= left[1] and right[1] <= x2
            middles.add(round(float(middle[1]), 3))
    loader.close()
    assert len(middles) >= 4  # of one or two objects in an image, mirrored or not
