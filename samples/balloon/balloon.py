"""Balloons: fine-tune on a few dozen annotated images, evaluate, and create color splashes.

    python samples/balloon/balloon.py train    --dataset DIR --weights mobilenet.weights.h5 --head unet
    python samples/balloon/balloon.py evaluate --dataset DIR --weights last
    python samples/balloon/balloon.py splash   --weights last --image photograph.jpg

DIR holds train/ and val/, each with images and VIA's `via_region_data.json`. README.md in this folder has the commands
and their results.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.data.formats.via import read_via
from mrcnn.model import MaskRCNN
from samples.files import atomic_media
from samples.old_names import COCO_WEIGHTS_PATH, DEFAULT_LOGS_DIR, ROOT_DIR, BalloonDataset  # noqa: F401
from samples.settings import add_settings, configure
from samples.weights import configure_as_trained, load_weights

ROOT = Path(__file__).resolve().parents[2]


class BalloonConfig(Config):
    """A narrow MobileNet at 512 pixels: trains on two cores without a GPU."""

    NAME = "balloon"
    NUM_CLASSES = 2
    BACKBONE = "mobilenet"
    BACKBONE_OPTIONS = {"alpha": 0.75}
    IMAGE_MIN_DIM = 512
    IMAGE_MAX_DIM = 512
    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = None
    VALIDATION_STEPS = None
    TRAIN_ROIS_PER_IMAGE = 128  # enough for a handful of balloons; the mask head takes most of a step
    LEARNING_RATE = 0.01
    WARMUP_STEPS = 100
    LR_STEPS = (0.75,)


def load_balloons(folder: str | Path, subset: str) -> Dataset:
    """The balloons of `folder`/`subset`, as a prepared dataset."""
    return read_via(folder, subset, class_name="balloon")


def train(model: MaskRCNN, arguments: argparse.Namespace) -> None:
    """Trains on train/, with val/ for the val_ losses."""
    validation = None if arguments.no_validation else load_balloons(arguments.dataset, "val")
    model.train(
        load_balloons(arguments.dataset, "train"),
        validation,
        epochs=arguments.epochs,
        layers=arguments.layers,
        verbose=arguments.verbose,
    )


def evaluate(model: MaskRCNN, arguments: argparse.Namespace) -> None:
    """Prints COCO's tables for val/, and draws the images if requested."""
    from mrcnn.evaluation.coco_evaluation import evaluate as evaluate_dataset

    dataset = load_balloons(arguments.dataset, "val")
    print(evaluate_dataset(model, dataset))
    if arguments.pictures:
        draw_overlays(model, dataset, Path(arguments.pictures), white=arguments.white)


def draw_overlays(model: MaskRCNN, dataset: Dataset, folder: Path, white: bool = False) -> None:
    """One figure per image: ground truth next to detections above 0.5, on the image or on a white background."""
    from mrcnn import visualize

    for image_id in dataset.image_ids:
        image = dataset.load_image(image_id)
        path = folder / f"{Path(dataset.image_info[image_id]['path']).stem}.png"
        masks, class_ids = dataset.load_mask(image_id)
        found = model.detect([image])[0]
        image = np.full_like(image, 255) if white else image
        with atomic_media(path) as temporary:
            visualize.save_comparison(image, (masks, class_ids), found, dataset.class_names, temporary)
        print(path)


def color_splash(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image in gray, with color where any mask is.

    Args:
        image: [H, W, 3] uint8; mask: [H, W, N] bool.
    """
    gray = np.repeat(np.round(image @ [0.2125, 0.7154, 0.0721])[..., None], 3, axis=-1).astype(np.uint8)
    return np.where(np.any(mask, axis=-1, keepdims=True), image, gray)


def detect_and_color_splash(model: MaskRCNN, image_path: str | None = None, video_path: str | None = None) -> None:
    """`splash` as called by programs of the old package; the file is named after the image or video."""
    if (image_path is None) == (video_path is None):
        raise ValueError(f"pass either image_path or video_path, got {image_path!r} and {video_path!r}")
    splash(model, argparse.Namespace(image=image_path, video=video_path))


def splash(model: MaskRCNN, arguments: argparse.Namespace) -> None:
    """Writes <name>_splash to the current folder, for an image or a video."""
    source = Path(arguments.image or arguments.video)
    if arguments.image:
        from mrcnn.data.images import read_image

        image = read_image(source)
        target = Path(f"{source.stem}_splash.png")
        _write_image(target, color_splash(image, _confident_masks(model, image)))
    else:
        target = Path(f"{source.stem}_splash.mp4")
        splash_video(model, source, target)
    print(f"Saved to {target}")


def _confident_masks(model: MaskRCNN, image: np.ndarray) -> np.ndarray:
    found = model.detect([image])[0]
    return found["masks"][..., found["scores"] >= 0.5]


def _write_image(path: Path, image: np.ndarray) -> None:
    import cv2

    with atomic_media(path) as temporary:
        if not cv2.imwrite(str(temporary), image[..., ::-1]):
            raise OSError(f"OpenCV could not write {temporary}; is the disk full?")


def splash_video(model: MaskRCNN, source: Path, target: Path) -> None:
    """Splashes every frame. Raises ValueError if the video cannot be read, OSError if it cannot be written."""
    import cv2

    reader = cv2.VideoCapture(str(source))
    if not reader.isOpened():
        raise ValueError(f"{source} is missing or not a video that OpenCV can read.")
    size = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
    with atomic_media(target) as temporary:
        rate = reader.get(cv2.CAP_PROP_FPS)
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
        try:
            if not writer.isOpened():
                raise OSError(f"OpenCV could not create a video of {size} pixels at {rate} frames per second")
            count = 0
            for frame in _frames(reader, source.name):
                count += 1
                splashed = color_splash(frame, _confident_masks(model, frame))
                writer.write(np.ascontiguousarray(splashed[..., ::-1]))
        finally:
            reader.release()
            writer.release()
        if not count:
            raise ValueError(
                f"{source} opened as a video but has no frames: it is empty, damaged or has a codec that "
                "OpenCV cannot decode; convert it first."
            )


def _frames(reader: Any, name: str) -> Iterator[np.ndarray]:
    """Frames [H, W, RGB] uint8 up to the last: the frame count in a file is often wrong or missing."""
    import cv2
    from tqdm import tqdm

    claimed = reader.get(cv2.CAP_PROP_FRAME_COUNT)
    with tqdm(total=int(claimed) if claimed > 0 else None, desc=name, unit="frame") as progress:
        while True:
            more, frame = reader.read()
            if not more:
                return
            yield np.ascontiguousarray(frame[..., ::-1])
            progress.update()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "evaluate", "splash"])
    parser.add_argument("--dataset", help="folder with train/ and val/")
    parser.add_argument(
        "--weights",
        required=True,
        help='a checkpoint, "last", "imagenet", a file of backbone weights, or "none"; evaluate and '
        "splash read the settings from the config.json next to a checkpoint",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="LAYER",
        help="layers of the checkpoint to skip, by name or regular expression; repeatable. For "
        "a checkpoint with other classes: mrcnn_class_logits, mrcnn_bbox_fc and mrcnn_mask",
    )
    parser.add_argument("--logs", default=str(ROOT / "logs"), help="folder of training runs")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--layers", default="all", help='"heads", "3+", "4+", "5+", "all" or a regular expression')
    parser.add_argument("--no-validation", action="store_true", help="skip the val_ losses")
    parser.add_argument("--pictures", metavar="DIR", help="evaluate: draw every image into DIR")
    parser.add_argument("--white", action="store_true", help="draw on white, if images may not be published")
    parser.add_argument("--image", help="splash: an image")
    parser.add_argument("--video", help="splash: a video")
    parser.add_argument("--verbose", type=int, default=1, help="0 silent, 1 progress bar, 2 one line per epoch")
    add_settings(parser)
    parsed = parser.parse_args(arguments)
    if parsed.command != "splash" and not parsed.dataset:
        parser.error(f"{parsed.command} needs --dataset")
    if parsed.command == "splash" and bool(parsed.image) == bool(parsed.video):
        parser.error("splash needs one of --image and --video")
    return parsed


def main(arguments: list[str] | None = None) -> Any:
    """Runs the command."""
    arguments = parse(arguments)
    if arguments.command == "train":
        config = configure(BalloonConfig, arguments)
    else:
        config = configure_as_trained(BalloonConfig, arguments, arguments.weights, arguments.logs)
    model = MaskRCNN("training" if arguments.command == "train" else "inference", config, arguments.logs)
    load_weights(model, arguments.weights, arguments.exclude)
    return {"train": train, "evaluate": evaluate, "splash": splash}[arguments.command](model, arguments)


if __name__ == "__main__":
    main()
