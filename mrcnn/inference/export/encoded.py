"""The SavedModel signature that takes encoded image files: decoding, resizing and conversion back, in the graph."""

import math
from typing import Any

import keras

from mrcnn.config import Config
from mrcnn.data.molding import InputTransform
from mrcnn.network.pixels import PixelScaling

EXIF_REACH = 1 << 16  # leading bytes of a JPEG that contain its orientation
ORIENTATION = 0x0112  # the tag
PER_DETECTION = ("masks", "mask_scores", "keypoints")  # outputs of heads, where the network has them


def why_not(config: Config) -> str:
    """The setting that prevents a network from taking image files; empty if there is none."""
    channels = config.IMAGE_CHANNEL_COUNT
    return "" if channels in (1, 3) else f"IMAGE_CHANNEL_COUNT = {channels}"


def encoded_function(graph: keras.Model, config: Config, scaling: PixelScaling) -> Any:
    """A `tf.function` of image_bytes [B], the contents of JPEG, PNG, BMP or GIF files.

    Each image is read, rotated upright by its EXIF orientation, resized and padded as in `MaskRCNN.detect`, and
    processed separately, so that results do not depend on the rest of the batch.

    Returns:
        The function, whose outputs are a dict: boxes [B, D, (y1, x1, y2, x2)] float32 in pixels of each image;
        class_ids, scores [B, D]; sizes [B, (height, width)]; num_detections [B]; and what the network has of masks
        [B, D, m, m] float32, probabilities inside each box, mask_scores [B, D], and keypoints [B, D, m, m, K], logits
        of heatmaps in each box. D is DETECTION_MAX_INSTANCES, and rows from num_detections on are zeros.

    Raises ValueError for settings that `why_not` names.
    """
    import tensorflow as tf

    if reason := why_not(config):
        raise ValueError(f"{reason}: the graph cannot read image files as `detect` does")
    most, channels = config.DETECTION_MAX_INSTANCES, config.IMAGE_CHANNEL_COUNT
    transform = InputTransform.from_config(config, scaling, training=False)
    per_mask = {name: graph.output[name].shape[1:] for name in PER_DETECTION if name in graph.output}
    kinds = {
        "boxes": tf.TensorSpec([most, 4], tf.float32),
        "class_ids": tf.TensorSpec([most], tf.int32),
        "scores": tf.TensorSpec([most], tf.float32),
        "sizes": tf.TensorSpec([2], tf.int32),
        "num_detections": tf.TensorSpec([], tf.int32),
    } | {name: tf.TensorSpec([most, *shape], tf.float32) for name, shape in per_mask.items()}

    def one(content: Any) -> dict[str, Any]:
        image = _decoded(tf, content, channels)
        pixels, window, scale = _network_input(tf, image, transform)
        found = graph({"image": pixels[None], "window": window[None]}, training=False)
        size = tf.shape(image)[:2]
        count = tf.reduce_sum(tf.cast(found["valid"][0], tf.int32))
        boxes = _to_image(tf, found["boxes"][0], window, scale, size, config.DETECTION_ROUND_BOXES)
        kept = tf.cast(found["valid"][0], tf.float32)
        outputs = {
            "boxes": boxes * kept[:, None],
            "class_ids": tf.cast(found["class_ids"][0], tf.int32),
            "scores": tf.cast(found["scores"][0], tf.float32),
            "sizes": size,
            "num_detections": count,
        }
        for name, shape in per_mask.items():
            rows = tf.cast(found[name], tf.float32)[:count]
            rows = tf.pad(rows, [[0, most - count], *([[0, 0]] * len(shape))])
            outputs[name] = tf.ensure_shape(rows, [most, *shape])
        return outputs

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def detect(image_bytes: Any) -> dict[str, Any]:
        return tf.map_fn(one, image_bytes, fn_output_signature=kinds)

    return detect


def _decoded(tf: Any, content: Any, channels: int) -> Any:
    """A file's pixels [H, W, channels] uint8, upright."""

    def jpeg() -> Any:
        image = tf.io.decode_jpeg(content, channels, dct_method="INTEGER_ACCURATE")
        return _upright(tf, image, _orientation(tf, content))

    def other() -> Any:
        return tf.io.decode_image(content, channels, expand_animations=False)

    image = tf.cond(tf.io.is_jpeg(content), jpeg, other)
    return tf.ensure_shape(image, [None, None, channels])


def _orientation(tf: Any, content: Any) -> Any:
    """The EXIF orientation of a JPEG, 1 to 8; 1 if it has none."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, EXIF_REACH), tf.uint8), tf.int32)
    head = tf.concat([head, tf.zeros([64], tf.int32)], 0)
    known = tf.constant(list(b"Exif\0\0"), tf.int32)
    last = tf.size(head) - 64
    hits = tf.reduce_all(tf.stack([head[i : last + 1 + i] == known[i] for i in range(6)]), axis=0)
    begin = tf.argmax(tf.cast(hits, tf.int32), output_type=tf.int32) + 6  # of the TIFF header
    little = head[begin] == ord("I")

    def number(place: Any, length: int) -> Any:
        """Integers of `length` bytes at each position; 0 beyond the end."""
        places = tf.reshape(place, [-1, 1]) + tf.range(length)[None]
        values = tf.where(places < last, tf.gather(head, tf.clip_by_value(places, 0, last)), 0)
        values = tf.where(little, values[:, ::-1], values)
        return tf.reduce_sum(values * tf.constant([256**i for i in range(length)][::-1]), axis=1)

    directory = begin + tf.clip_by_value(number(begin + 4, 4)[0], 0, EXIF_REACH)
    entries = directory + 2 + 12 * tf.range(tf.clip_by_value(number(directory, 2)[0], 0, 256))
    found = tf.where(number(entries, 2) == ORIENTATION, number(entries + 8, 2), 0)
    value = tf.reduce_max(tf.concat([found, [0]], 0))
    good = tf.reduce_any(hits) & (value >= 1) & (value <= 8)
    return tf.where(good, value, 1)


def _upright(tf: Any, image: Any, orientation: Any) -> Any:
    """The upright pixels: orientations 5 to 8 swap rows and columns, then mirroring follows."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    for axis, mirrored in ((0, (3, 4, 7, 8)), (1, (2, 3, 6, 7))):
        wanted = tf.reduce_any(orientation == tf.constant(mirrored))
        image = tf.cond(wanted, lambda image=image, axis=axis: tf.reverse(image, [axis]), lambda image=image: image)
    return image


def _network_input(tf: Any, image: Any, transform: InputTransform) -> tuple[Any, Any, Any]:
    """As `InputTransform.apply`: pixels [h, w, C] float32, window (y1, x1, y2, x2), scale (y, x)."""
    size = tf.shape(image)[:2]
    inside = _inside_size(tf, tf.cast(size, tf.float64), transform)
    if transform.mode == "square":
        whole = tf.constant(transform.square)
    else:
        unit = math.lcm(transform.divisor, 64) if transform.mode == "pad64" else transform.divisor
        whole = -(-inside // unit) * unit
    centered = transform.mode in ("square", "pad64")
    first = (whole - inside) // 2 if centered else tf.zeros_like(inside)
    resized = _resized(tf, image, inside, transform)
    pixels = _normalized(tf, resized, transform.scaling)
    border = 0.0
    if transform.pad_pixel is not None:
        color = tf.zeros([1, 1, image.shape[2]]) + tf.constant(transform.pad_pixel, tf.float32)
        border = _normalized(tf, color, transform.scaling)
    after = whole - inside - first
    padding = [[first[0], after[0]], [first[1], after[1]], [0, 0]]
    pixels = tf.pad(pixels - border, padding) + border
    window = tf.cast(tf.concat([first, first + inside], 0), tf.float32)
    return pixels, window, tf.cast(inside, tf.float32) / tf.cast(size, tf.float32)


def _inside_size(tf: Any, size: Any, transform: InputTransform) -> Any:
    """(height, width) int32 to which an image of `size` float64 is resized, as `InputTransform.place`."""
    short, long = tf.reduce_min(size), tf.reduce_max(size)
    low, high = transform.min_dim, transform.max_dim
    if transform.mode == "none":
        scale = tf.constant(1.0, tf.float64)
    elif transform.mode == "fit":
        scale = tf.minimum(low / short, high / long)
        more = 0.5 if transform.resizer == "pillow" else 0.0
        return tf.maximum(tf.cast(tf.floor(size * scale + more), tf.int32), 1)
    else:
        scale = tf.maximum(tf.constant(1.0, tf.float64), (low or 0) / short)
        scale = tf.maximum(scale, tf.constant(transform.min_scale or 0, tf.float64))
        if high and transform.mode == "square":
            scale = tf.where(tf.round(long * scale) > high, high / long, scale)
    return tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)


def _resized(tf: Any, image: Any, size: Any, transform: InputTransform) -> Any:
    """[H, W, C] uint8 to float32 of `size`, by the transform's resizer."""
    if transform.resizer == "opencv":
        shrinks = tf.reduce_all(size < tf.shape(image)[:2]) & transform.antialias
        return tf.cond(
            shrinks,
            lambda: tf.raw_ops.ResizeArea(images=image[None], size=size)[0],
            lambda: tf.image.resize(tf.cast(image, tf.float32), size),
        )
    if transform.resizer == "pillow":
        pixels = tf.cast(image, tf.float32)
        for part in ([tf.shape(image)[0], size[1]], size):  # columns first, to whole values each time
            pixels = tf.floor(tf.image.resize(pixels, part, antialias=True) + 0.5)
        return pixels
    same = tf.reduce_all(tf.shape(image)[:2] == size)
    return tf.cond(same, lambda: tf.cast(image, tf.float32), lambda: tf.floor(_with_zeros_around(tf, image, size)))


def _with_zeros_around(tf: Any, image: Any, size: Any) -> Any:
    """Bilinear with half-pixel centers and zeros beyond the border, as scikit-image resizes."""
    values = tf.cast(image, tf.float32)
    for axis in (0, 1):
        count, wanted = tf.shape(image)[axis], size[axis]
        step = tf.cast(count, tf.float64) / tf.cast(wanted, tf.float64)
        position = (tf.range(wanted, dtype=tf.float64) + 0.5) * step - 0.5 + 1  # in the padded image
        before = tf.cast(tf.floor(position), tf.int32)
        part = tf.cast(position - tf.floor(position), tf.float32)
        part = part[:, None, None] if axis == 0 else part[None, :, None]
        values = tf.pad(values, [[1, 1] if i == axis else [0, 0] for i in range(3)])
        values = tf.gather(values, before, axis=axis) * (1 - part) + tf.gather(values, before + 1, axis=axis) * part
    return values


def _normalized(tf: Any, image: Any, scaling: PixelScaling) -> Any:
    pixels = (image - tf.constant(scaling.mean, tf.float32)) / tf.constant(scaling.std, tf.float32)
    return pixels[..., ::-1] if scaling.bgr else pixels


def _to_image(tf: Any, boxes: Any, window: Any, scale: Any, size: Any, rounded: bool) -> Any:
    """Boxes [D, 4] of the network input in pixels of the image, as `Detector.result`."""
    offset, limits = tf.tile(window[:2], [2]), tf.tile(tf.cast(size, tf.float32), [2])
    if rounded:
        last = tf.constant([0.0, 0, 1, 1])
        factor = (tf.cast(size, tf.float32) - 1) / (window[2:] - window[:2] - 1)
        boxes = tf.round((boxes - last - offset) * tf.tile(factor, [2])) + last
    else:
        boxes = (boxes - offset) / tf.tile(scale, [2])
    return tf.clip_by_value(boxes, 0, limits)
