"""What users of the old package have at hand: their Config and Dataset subclasses, written in its habits, and files.

Everything is a few dozen pixels large; `tests/test_surface.py` runs the flows of its samples with them.
"""

import json
import os

import cv2
import numpy as np

from mrcnn import presets, utils
from tests.tiny import TinyConfig

# The shapes notebook


class ShapesConfig(TinyConfig):
    NAME = "shapes"
    GPU_COUNT = 1
    IMAGES_PER_GPU = 4
    NUM_CLASSES = 1 + 3
    STEPS_PER_EPOCH = 120
    LEARNING_RATE = 0.02


class InferenceConfig(ShapesConfig):
    GPU_COUNT = 1
    IMAGES_PER_GPU = 1


class ShapesDataset(utils.Dataset):
    """One or two figures on a plain ground, the second over the first, drawn on demand from `image_info`."""

    COLORS = {"square": (230, 60, 60), "circle": (60, 220, 60), "triangle": (60, 90, 240)}

    def load_shapes(self, count, height, width, seed):
        for number, name in enumerate(self.COLORS, 1):
            self.add_class("shapes", number, name)
        rng = np.random.default_rng(seed)
        for i in range(count):
            shapes = [
                (
                    str(rng.choice(list(self.COLORS))),
                    *rng.uniform(0.3, 0.7, 2) * (height, width),
                    rng.uniform(0.15, 0.22) * width,
                )
                for _ in range(rng.integers(1, 3))
            ]
            self.add_image(
                "shapes",
                image_id=i,
                path=None,
                width=width,
                height=height,
                bg_color=rng.integers(0, 50, 3),
                shapes=shapes,
            )

    def load_image(self, image_id):
        info = self.image_info[image_id]
        image = np.ones([info["height"], info["width"], 3], np.uint8) * info["bg_color"].astype(np.uint8)
        for shape in info["shapes"]:
            image[self.covered(shape, info)] = self.COLORS[shape[0]]
        return image

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        return info["shapes"] if info["source"] == "shapes" else super().image_reference(image_id)

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        mask = np.stack([self.covered(shape, info) for shape in info["shapes"]], axis=-1)
        if mask.shape[-1] == 2:
            mask[..., 0] &= ~mask[..., 1]
        visible = [i for i in range(mask.shape[-1]) if mask[..., i].any()]
        class_ids = np.array([self.class_names.index(info["shapes"][i][0]) for i in visible])
        return mask[..., visible].astype(bool), class_ids.astype(np.int32)

    @staticmethod
    def covered(shape, info):
        kind, y, x, size = shape
        rows, columns = np.mgrid[: info["height"], : info["width"]]
        dy, dx = rows - y, np.abs(columns - x)
        return {
            "square": np.maximum(np.abs(dy), dx) <= size,
            "circle": np.hypot(dy, dx) <= size,
            "triangle": (np.abs(dy) <= size) & (dx <= (dy + size) / 2),
        }[kind]


def shapes_dataset(count, seed, height=64, width=64):
    dataset = ShapesDataset()
    dataset.load_shapes(count, height, width, seed)
    dataset.prepare()
    return dataset


# The balloon sample: annotations of VIA, and here a second source of another class beside them


class BalloonConfig(TinyConfig):
    NAME = "balloon"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 2
    STEPS_PER_EPOCH = 3
    DETECTION_MIN_CONFIDENCE = 0.0


class BalloonDataset(utils.Dataset):
    """Polygons of VIA, read as the old sample's users do it, and discs of a second source on blue ground."""

    def load_balloon(self, dataset_dir, subset):
        self.add_class("balloon", 1, "balloon")
        folder = os.path.join(dataset_dir, subset)
        with open(os.path.join(folder, "via_region_data.json")) as file:
            annotations = [a for a in json.load(file).values() if a["regions"]]
        for a in annotations:
            regions = a["regions"].values() if isinstance(a["regions"], dict) else a["regions"]
            path = os.path.join(folder, a["filename"])
            height, width = cv2.imread(path).shape[:2]
            self.add_image(
                "balloon",
                image_id=a["filename"],
                path=path,
                width=width,
                height=height,
                polygons=[region["shape_attributes"] for region in regions],
            )

    def load_discs(self, count):
        self.add_class("discs", 7, "disc")
        for i in range(count):
            self.add_image("discs", image_id=i, path=None)

    def load_image(self, image_id):
        if self.image_info[image_id]["source"] != "discs":
            return super().load_image(image_id)
        image = np.full((48, 48, 3), (0, 0, 255), np.uint8)
        return cv2.circle(image, (20, 24), 12, (200, 200, 255), -1)

    def load_mask(self, image_id):
        from skimage import draw

        info = self.image_info[image_id]
        if info["source"] == "discs":
            mask = self.load_image(image_id)[..., :1] > 0
            return mask, np.array([self.map_source_class_id("discs.7")], np.int32)
        mask = np.zeros([info["height"], info["width"], len(info["polygons"])], np.uint8)
        for i, p in enumerate(info["polygons"]):
            rows, columns = draw.polygon(p["all_points_y"], p["all_points_x"])
            mask[rows, columns, i] = 1
        return mask.astype(bool), np.ones([mask.shape[-1]], dtype=np.int32)

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        return info["path"] if info["source"] == "balloon" else super().image_reference(image_id)


def write_balloons(folder, count, regions_type):
    folder.mkdir()
    annotations = {}
    for i in range(count):
        image = np.full((48, 64, 3), 30 + i, np.uint8)
        corners = np.array([[10, 8], [30 + i, 10], [34, 34], [14, 36]])
        cv2.fillPoly(image, [corners], (40, 60, 230))
        cv2.imwrite(str(folder / f"{i}.png"), image)
        shape = {"name": "polygon", "all_points_x": corners[:, 0].tolist(), "all_points_y": corners[:, 1].tolist()}
        region = {"shape_attributes": shape, "region_attributes": {}}
        regions = {"0": region} if regions_type is dict else [region]
        annotations[f"{i}.png1234"] = {"filename": f"{i}.png", "size": 1234, "regions": regions}
    annotations["empty.png1"] = {"filename": "empty.png", "size": 1, "regions": regions_type()}
    (folder / "via_region_data.json").write_text(json.dumps(annotations))


# The nucleus sample: a mask a file, crops, imgaug, and run lengths of its own


class NucleusConfig(TinyConfig):
    NAME = "nucleus"
    NUM_CLASSES = 1 + 1
    STEPS_PER_EPOCH = 2
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    IMAGE_MIN_SCALE = 2.0
    MEAN_PIXEL = np.array([43.53, 39.56, 48.22])
    DETECTION_MIN_CONFIDENCE = 0.0


class NucleusInferenceConfig(NucleusConfig):
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"


class NucleusDataset(utils.Dataset):
    def load_nucleus(self, dataset_dir):
        self.add_class("nucleus", 1, "nucleus")
        for image_id in sorted(os.listdir(dataset_dir)):
            path = os.path.join(dataset_dir, image_id, f"images/{image_id}.png")
            self.add_image("nucleus", image_id=image_id, path=path)

    def load_mask(self, image_id):
        folder = os.path.join(os.path.dirname(os.path.dirname(self.image_info[image_id]["path"])), "masks")
        masks = [
            cv2.imread(os.path.join(folder, name), cv2.IMREAD_GRAYSCALE).astype(bool)
            for name in sorted(os.listdir(folder))
        ]
        return np.stack(masks, axis=-1), np.ones([len(masks)], dtype=np.int32)


def write_nuclei(folder, count):
    """A folder an image, with images/<id>.png, RGBA as the challenge's, and masks/*.png, one a nucleus."""
    for number in range(count):
        image = np.full((40, 52, 4), 255, np.uint8)
        image[..., :3] = 20
        for kind in ("images", "masks"):
            os.makedirs(folder / f"n{number}" / kind)
        for i, center in enumerate([(12, 14 + number), (36, 24)]):
            mask = cv2.circle(np.zeros((40, 52), np.uint8), center, 8, 255, -1)
            image[mask > 0, :3] = 190
            cv2.imwrite(str(folder / f"n{number}" / "masks" / f"{i}.png"), mask)
        cv2.imwrite(str(folder / f"n{number}" / "images" / f"n{number}.png"), image)


def augmentation():
    import imgaug.augmenters as iaa

    return iaa.SomeOf(
        (0, 2),
        [
            iaa.Fliplr(0.5),
            iaa.Flipud(0.5),
            iaa.OneOf([iaa.Affine(rotate=90), iaa.Affine(rotate=180), iaa.Affine(rotate=270)]),
            iaa.Multiply((0.8, 1.5)),
            iaa.GaussianBlur(sigma=(0.0, 5.0)),
        ],
    )


def rle_encode(mask):
    """Starts (from 1) and lengths of the runs of a mask [H, W], column by column, as one text."""
    steps = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]]).astype(np.int8)))
    starts, ends = steps[::2], steps[1::2]
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(starts, ends, strict=True))


def rle_decode(text, shape):
    numbers = np.array(text.split(), int)
    mask = np.zeros(shape[0] * shape[1], bool)
    for start, length in zip(numbers[::2] - 1, numbers[1::2], strict=True):
        mask[start : start + length] = True
    return mask.reshape(shape[1], shape[0]).T


def mask_to_rle(image_id, masks, scores):
    """A line an instance; a pixel belongs to the best instance that covers it."""
    taken, lines = np.zeros(masks.shape[:2], bool), []
    for i in np.argsort(-scores):
        mask, taken = masks[:, :, i] & ~taken, taken | masks[:, :, i]
        lines += [f"{image_id},{rle_encode(mask)}"] if mask.any() else []
    return lines


# The old package's conventions as a whole


class OldConfig(presets.Matterport):
    NAME = "old"
    NUM_CLASSES = 1 + 2
    BACKBONE = "resnet50"
    BACKBONE_OPTIONS = {"width": 8}
    IMAGES_PER_GPU = 1
    STEPS_PER_EPOCH = 1
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    TOP_DOWN_PYRAMID_SIZE = 16
    RPN_CHANNELS = 16
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 40
    TRAIN_ROIS_PER_IMAGE = 20
    FPN_CLASSIF_FC_LAYERS_SIZE = 32
    MASK_HEAD = {"name": "fcn", "filters": 16, "convolutions": 1}
