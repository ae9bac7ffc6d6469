"""The README's code: it compiles, and what it shows to be possible is."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
TINY = {
    "IMAGE_MIN_DIM": 64,
    "IMAGE_MAX_DIM": 64,
    "BACKBONE_OPTIONS": {"alpha": 0.25},
    "TOP_DOWN_PYRAMID_SIZE": 8,
    "RPN_CHANNELS": 8,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 16,
    "MASK_HEAD": {"name": "unet", "filters": 8},
    "POST_NMS_ROIS_INFERENCE": 16,
}


def block(start: str) -> str:
    """The one block that holds these words."""
    (found,) = [code for code in BLOCKS if start in code]
    return found


@pytest.fixture
def cats(tmp_path, monkeypatch):
    """The names of the fine-tuning block's classes, and a folder with two photographs and their mask pictures."""
    code = block("class Cats")
    names = {"__name__": "readme"}
    exec(compile(code[: code.index("train, val =")], "README.md", "exec"), names)
    ids = np.zeros((40, 50), np.uint8)
    ids[5:20, 5:20], ids[25:35, 10:40] = 1, 7
    for name, mask in (("a", ids), ("b", np.zeros_like(ids))):
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), np.full((40, 50, 3), 90, np.uint8))
        cv2.imwrite(str(tmp_path / f"{name}_mask.png"), mask)
    monkeypatch.chdir(tmp_path)
    return names


def test_there_are_blocks_and_all_compile():
    assert len(BLOCKS) >= 3
    for number, code in enumerate(BLOCKS):
        compile(code, f"README.md, block {number}", "exec")


def test_the_dataset_reads_masks_with_and_without_cats(cats):
    dataset = cats["Cats"]()
    dataset.load([("a.jpg", "a_mask.png"), ("b.jpg", "b_mask.png")])
    assert dataset.class_names == ["BG", "cat"] and dataset.load_image(0).shape == (40, 50, 3)
    masks, class_ids = dataset.load_mask(0)
    assert masks.dtype == bool and masks.shape == (40, 50, 2) and class_ids.tolist() == [1, 1]
    assert masks[10, 10].tolist() == [True, False] and masks.sum(axis=(0, 1)).tolist() == [225, 300]
    masks, class_ids = dataset.load_mask(1)
    assert masks.dtype == bool and masks.shape == (40, 50, 0) and class_ids.shape == (0,)


def test_the_dataset_feeds_the_loader(cats):
    from mrcnn.data.loader import Loader
    from mrcnn.network.pixels import PixelScaling

    dataset, config = cats["Cats"](), cats["CatConfig"](**TINY, IMAGES_PER_GPU=1)
    dataset.load([("a.jpg", "a_mask.png")])
    loader = Loader(dataset, config, steps=None, scaling=PixelScaling((0, 0, 0), (1, 1, 1), False), training=False)
    (inputs, *_) = loader[0]
    assert inputs["image"].shape == (1, 64, 64, 3)
    assert inputs["gt_class_ids"][0, :3].tolist() == [1, 1, 0]


def test_detection_loads_what_training_saves(cats, tmp_path, monkeypatch):
    from matplotlib import pyplot

    from mrcnn.model import MaskRCNN

    code = block("model.detect(")
    (run,) = re.findall(r'run = "(.*?)"', code)
    (checkpoint,) = re.findall(r"{run}/(\w+\.h5)", code)
    config = cats["CatConfig"](**TINY)
    model = MaskRCNN("training", config, "logs")
    model._log_dir, model.class_names = Path(run), ["BG", "cat"]
    assert model.checkpoint_path(12) == Path(run, checkpoint)  # the name that a run gives it
    Path(run).mkdir(parents=True)
    model.save_weights(model.checkpoint_path(12))
    config.save(Path(run, "config.json"))
    for name in ("one.jpg", "another.png"):
        cv2.imwrite(name, np.full((40, 50, 3), 90, np.uint8))
    names = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    pyplot.close("all")
    assert names["model"].config.to_dict() == config.to_dict()
    assert names["model"].class_names == ["BG", "cat"]
    assert names["found"]["masks"].shape[:2] == (40, 50)


def test_the_head_registers_and_keeps_the_contract(monkeypatch):
    import heads
    from heads import registry

    monkeypatch.setattr(registry, "_heads", dict(registry._heads))
    exec(compile(block("@heads.register"), "README.md", "exec"), {"__name__": "readme"})
    assert "wide" in heads.names()
    head = heads.build({"name": "wide", "filters": 4}, (14, 14, 8), 3)
    assert head.output_shape == (None, 28, 28, 3)


def test_where_things_are_names_what_is_there():
    section = TEXT[TEXT.index("## Where things are") : TEXT.index("## Installing")]
    named = set()
    for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE):
        first, *others = re.findall(r"`(.*?)`", cell)
        if "<" in first:
            continue  # of a run
        folder = Path(first).parent
        named |= {Path(first), *(folder / other for other in others)}
    missing = [str(path) for path in named if not (ROOT / path).exists()]
    assert len(named) > 30 and not missing


def test_backbones_said_to_have_weights_to_fetch_are_known():
    from mrcnn.network.applications import find_application
    from mrcnn.network.resnet import BLOCKS

    (sentence,) = re.findall(r"ImageNet weights are fetched for (.*?\))", TEXT, re.DOTALL)
    named = [name for name in re.findall(r"`([\w.]+)`", sentence) if name != "keras.applications"]
    assert len(named) >= 5
    for name in named:
        assert name in BLOCKS or find_application(name)
