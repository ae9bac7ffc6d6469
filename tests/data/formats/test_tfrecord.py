"""TFRecord files, with TensorFlow's own writer as the oracle."""

import numpy as np
import pytest

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.tf_examples import checksum, read_examples
from mrcnn.data.formats import load_dataset
from mrcnn.data.formats.tfrecord import read_tfrecord
from tests.data.scenes import SCENE, tf_features
from tests.data.tf_writer import crc, write_records

BOX, LABEL, TEXT, MASK = (
    "image/object/bbox/",
    "image/object/class/label",
    "image/object/class/text",
    "image/object/mask",
)


def without(*names, **changed):
    features = {name: value for name, value in tf_features().items() if name not in names}
    return features | {name.replace("__", "/"): value for name, value in changed.items()}


def assert_scene(dataset, image_id=0):
    masks, class_ids = dataset.load_mask(image_id)
    np.testing.assert_array_equal(masks, SCENE.masks)
    assert [dataset.class_names[i] for i in class_ids] == [thing.name for thing in SCENE.things]
    np.testing.assert_array_equal(dataset.load_image(image_id), SCENE.image)
    np.testing.assert_allclose(dataset.load_boxes(image_id), SCENE.boxes, atol=1e-4)


def test_checksums_of_any_length():
    rng = np.random.default_rng(0)
    assert checksum(b"123456789") == 0xE3069283  # the check value of CRC-32C
    for length in (0, 1, 3, 4, 5, 63, 64, 65, 200, 1000, 4099):
        data = rng.bytes(length)
        assert checksum(data) == crc(data), length


def test_records_of_tensorflow(tmp_path):
    tf = pytest.importorskip("tensorflow")
    kinds = {str: "bytes_list", bytes: "bytes_list", float: "float_list", int: "int64_list"}
    features = {}
    for name, values in {**tf_features(), "empty": [], "negative": [-5, 2**40]}.items():
        values = [value.encode() if isinstance(value, str) else value for value in values]
        kind = kinds[type(values[0])] if values else "int64_list"
        feature = tf.train.Feature()
        getattr(feature, kind).value.extend(values)
        features[name] = feature
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(2):
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    first, _ = read_examples(path)
    assert first.features["negative"].numbers.tolist() == [-5, 2**40] and not first.features["empty"].places
    dataset = read_tfrecord(path)
    assert_scene(dataset)
    assert_scene(dataset, 1)


@pytest.mark.parametrize(
    "name", ["train.tfrecord", "train.record", "train-00000-of-00002", "coco_train.record-00000-of-1"]
)
def test_names_of_files(tmp_path, name):
    write_records(tmp_path / name, [tf_features()])
    write_records(tmp_path / "val.tfrecord", [tf_features()] * 2)
    assert_scene(load_dataset(tmp_path, "train"))
    assert len(load_dataset(tmp_path, "val").image_info) == 2 and len(load_dataset(tmp_path).image_info) == 3
    assert_scene(load_dataset(tmp_path / name))
    with pytest.raises(FileNotFoundError, match="no TFRecord files in .*which holds"):
        read_tfrecord(tmp_path, "test")


def test_names_of_classes(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [without(TEXT)])
    assert read_tfrecord(path).class_names == ["BG", "class 1", "class 2", "class 3"]
    write_records(path, [without(LABEL)])
    assert_scene(read_tfrecord(path))
    write_records(path, [without(LABEL, TEXT)])
    assert read_tfrecord(path, class_name="toy").load_mask(0)[1].tolist() == [1] * 5
    items = "".join(f"item {{\n  name: '/m/{i}'\n  id: {i}\n  display_name: \"toy {i}\"\n}}\n" for i in range(1, 5))
    (tmp_path / "label_map.pbtxt").write_text(items)
    write_records(path, [tf_features()])
    dataset = read_tfrecord(path)
    assert dataset.class_names == ["BG", "toy 1", "toy 2", "toy 3", "toy 4"]
    assert dataset.load_mask(0)[1].tolist() == SCENE.class_ids
    assert read_tfrecord(path, class_names=["toy 3"]).load_mask(0)[1].tolist() == [1]
    (tmp_path / "label_map.pbtxt").write_text("item { id: 1 }")
    with pytest.raises(AnnotationError, match="label_map.pbtxt, line 1, field 'item': expected an id and a name"):
        read_tfrecord(path)


def test_masks_as_numbers_and_crowds(tmp_path):
    numbers = np.moveaxis(SCENE.masks, 2, 0).astype(float).ravel().tolist()
    crowds = {"image/object/is_crowd": [0, 1, 0, 0, 0]}
    write_records(tmp_path / "a.tfrecord", [without(MASK) | {MASK: numbers} | crowds])
    masks, class_ids = read_tfrecord(tmp_path).load_mask(0)
    np.testing.assert_array_equal(masks, SCENE.masks)
    assert (class_ids < 0).tolist() == [False, True, False, False, False]


def test_boxes_alone(tmp_path):
    write_records(tmp_path / "a.tfrecord", [without(MASK)])
    with pytest.raises(AnnotationError, match="record 0, object 0, field 'image/object/mask': a box without a mask"):
        read_tfrecord(tmp_path)
    dataset = read_tfrecord(tmp_path, masks=False)
    np.testing.assert_allclose(dataset.load_boxes(0), SCENE.boxes, atol=1e-4)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (without("image/encoded"), "field 'image/encoded': expected one image"),
        (without() | {"image/encoded": [b"no image"]}, "field 'image/encoded': .*record 0' is not an image"),
        (without() | {MASK: tf_features()[MASK][:2]}, "field 'image/object/mask': there are 2 masks and 5 boxes"),
        (without(MASK) | {MASK: [1.0, 0.0]}, "field 'image/object/mask': 2 values do not make 5 masks of 32 x 64"),
        (without() | {LABEL: [1, 2]}, "the record has 5 objects, 2 classes and 5 is_crowd"),
        (
            without() | {TEXT: ["brick", "gem", "gem", "hook", "hook"]},
            "field 'image/object/class/text': 1 has several names: 'br",
        ),
    ],
)
def test_broken_records(tmp_path, features, message):
    write_records(tmp_path / "a.tfrecord", [features, tf_features()])
    with pytest.raises(AnnotationError, match=message):
        read_tfrecord(tmp_path)
    with pytest.warns(UserWarning, match="left out "):
        assert read_tfrecord(tmp_path, strict=False).image_info


def test_a_file_cut_off_or_damaged_anywhere(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [tf_features()])
    whole = path.read_bytes()
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(AnnotationError, match="a.tfrecord, record 0"):
            read_tfrecord(tmp_path)
    for place in range(0, len(whole), 53):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="a.tfrecord"):
            read_tfrecord(tmp_path).load_image(0)  # where the whole record's checksum is verified
    path.write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(AnnotationError, match="compressed with gzip; decompress it first"):
        read_tfrecord(tmp_path)


def test_masks_of_another_size(tmp_path):
    write_records(
        tmp_path / "a.tfrecord", [without() | {MASK: tf_features()["image/encoded"] * 5, "image/height": [9]}]
    )
    dataset = read_tfrecord(tmp_path)  # its masks are white, but of the right size
    assert [p.kind for p in dataset.problems] == [problems.UNREAD]
    import io

    from PIL import Image

    small = io.BytesIO()
    Image.new("L", (5, 5), 1).save(small, "png")
    write_records(tmp_path / "a.tfrecord", [without() | {MASK: [small.getvalue()] * 5}])
    with pytest.raises(AnnotationError, match="the mask in .*a.tfrecord', byte .* is 5 x 5, its image is 32 x 64"):
        read_tfrecord(tmp_path).load_mask(0)
