"""Annotations of the VGG Image Annotator (VIA), versions 1 and 2, as a Dataset."""

import json
import os
from functools import lru_cache

import numpy as np

from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import extract_bboxes

ANNOTATION_FILE = "via_region_data.json"
SHAPES = ("polygon", "rect", "circle", "ellipse")


class ViaDataset(Dataset):
    """Photographs annotated with polygons, rectangles, circles and ellipses; made by `load_via`."""

    def __init__(self):
        super().__init__()
        # Filling polygons takes longer than decoding the photograph, so the last images keep theirs, a bit a pixel
        self._filled = lru_cache(maxsize=1024)(self._fill)

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """One mask a region: [H, W, N] bool, and class ids [N] int32."""
        info = self.image_info[image_id]
        masks = np.zeros([len(info["regions"]), info["height"], info["width"]], bool)
        for mask, (y1, x1, y2, x2, bits) in zip(masks, self._filled(image_id), strict=True):
            mask[y1:y2, x1:x2] = np.unpackbits(bits, axis=1, count=x2 - x1).view(bool)
        class_ids = [self.map_source_class_id(f"{info['source']}.{class_id}") for _, class_id in info["regions"]]
        return np.moveaxis(masks, 0, 2), np.array(class_ids, np.int32)

    def _fill(self, image_id: int) -> list[tuple]:
        """(y1, x1, y2, x2, bits of the mask inside) of each region."""
        info, filled = self.image_info[image_id], []
        for shape, _ in info["regions"]:
            mask = np.zeros([info["height"], info["width"]], bool)
            fill_shape(mask, shape)
            y1, x1, y2, x2 = extract_bboxes(mask[:, :, None])[0]
            filled.append((y1, x1, y2, x2, np.packbits(mask[y1:y2, x1:x2], axis=1)))
        return filled


def load_via(dataset_dir, subset: str | None = None, class_name="object", *, attribute: str | None = None,
             source: str = "via", annotation_file: str = ANNOTATION_FILE) -> ViaDataset:
    """Reads the photographs that were annotated in a folder; those without regions are left out, as in the old package.

    Args:
        dataset_dir, subset: the folder `dataset_dir/subset` holds photographs and the annotation file.
        class_name: the name of the only class, or a list of names when `attribute` is given.
        attribute: the region attribute that holds the name of a region's class.
        source: the source's name in the dataset.
        annotation_file: its name in the folder.

    Returns:
        A prepared Dataset.

    Raises:
        FileNotFoundError: for a missing folder, annotation file or photograph.
        ValueError: for a file that is not VIA's, a shape that has no area, or an unknown class.
    """
    folder = os.path.join(os.fspath(dataset_dir), subset or "")
    path = os.path.join(folder, annotation_file)
    names = [class_name] if isinstance(class_name, str) else list(class_name)
    if len(names) > 1 and attribute is None:
        raise ValueError(f"{len(names)} classes {names} need attribute=, the region attribute that tells them apart")
    dataset = ViaDataset()
    for class_id, name in enumerate(names, 1):
        dataset.add_class(source, class_id, name)
    for entry in _read_entries(path):
        _add_entry(dataset, source, folder, path, entry, names, attribute)
    if not dataset.image_info:
        raise ValueError(f"{path!r} annotates no regions; draw some in VIA and export them as json")
    dataset.prepare()
    return dataset


def fill_shape(mask: np.ndarray, shape: dict) -> None:
    """Sets the pixels of a VIA shape in mask [H, W] bool; what lies outside the image is cut off."""
    from skimage import draw

    kind = shape["name"]
    if kind == "polygon":
        area = draw.polygon(shape["all_points_y"], shape["all_points_x"], mask.shape)
    elif kind == "rect":
        # Pixels whose centre lies inside, as for the other shapes
        x, y, width, height = (shape[key] for key in ("x", "y", "width", "height"))
        area = np.ix_(_centres(y, height, mask.shape[0]), _centres(x, width, mask.shape[1]))
    elif kind == "circle":
        area = draw.disk((shape["cy"], shape["cx"]), shape["r"], shape=mask.shape)
    elif kind == "ellipse":
        # VIA turns clockwise in the image, scikit-image counter-clockwise
        area = draw.ellipse(shape["cy"], shape["cx"], shape["ry"], shape["rx"], shape=mask.shape,
                            rotation=-float(shape.get("theta", 0)))
    else:
        raise ValueError(f"a VIA shape {kind!r} has no area; use one of {SHAPES}")
    mask[area] = True


def _centres(start: float, length: float, size: int) -> np.ndarray:
    pixels = np.arange(size)
    return pixels[(pixels >= start) & (pixels < start + length)]


def _read_entries(path: str) -> list[dict]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"no annotations at {path!r}; export them from VIA as json into the folder") from None
    except ValueError as error:
        raise ValueError(f"{path!r} is not json: {error}; export the annotations again") from error
    if isinstance(content, dict):
        content = content.get("_via_img_metadata", content)  # a saved VIA 2 project wraps them
    entries = list(content.values()) if isinstance(content, dict) else content
    if not all(isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries):
        raise ValueError(f"{path!r} is no annotation file of VIA 1 or 2: each entry must have filename and regions")
    return entries


def _add_entry(dataset, source, folder, path, entry, names, attribute) -> None:
    from PIL import Image

    regions = entry["regions"]  # a dict in VIA 1, a list in VIA 2
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    if not regions:
        return
    filename = entry["filename"]
    image_path = os.path.join(folder, filename)
    if not os.path.isfile(image_path):
        raise FileNotFoundError(f"{path!r} annotates {filename!r}, but there is no file {image_path!r}; copy it there")
    shapes = []
    for number, region in enumerate(regions):
        shape = region["shape_attributes"]
        if shape.get("name") not in SHAPES:
            raise ValueError(f"{path!r}, {filename!r}, region {number}: shape {shape.get('name')!r} has no area; "
                             f"expected one of {SHAPES}")
        shapes.append((shape, 1 if attribute is None else _class_id(region, attribute, names, path, filename, number)))
    try:
        with Image.open(image_path) as image:  # reads the header only; ignores the orientation tag as read_image does
            width, height = image.size
    except OSError as error:
        raise ValueError(f"{image_path!r} is not an image: {error}") from error
    dataset.add_image(source, image_id=filename, path=image_path, width=width, height=height, regions=shapes)


def _class_id(region, attribute, names, path, filename, number) -> int:
    value = region.get("region_attributes", {}).get(attribute)
    if value not in names:
        raise ValueError(f"{path!r}, {filename!r}, region {number}: attribute {attribute!r} is {value!r}; "
                         f"expected one of {names}")
    return names.index(value) + 1
