"""The README and the user guide: what they show runs as it stands, and what they point to exists."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from mrcnn.config import Config
from tests.commands import PAGES, ROOT, fenced
from tests.samples.tiny_coco import SETTINGS, write_split

pytestmark = pytest.mark.slow

WEIGHTS = "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return [code for language, code in fenced(page) if language == "python"]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_pages_are_found():
    assert {"README.md", "CONTRIBUTING.md", "docs/detect.md", "samples/coco/README.md"} <= {*map(name, PAGES)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_compile(page):
    for number, code in enumerate(blocks(page)):
        assert compile(code, f"{page}, block {number}", "exec").co_code


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#", "mailto:")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{name(page)} points to {target}"


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A folder with images, annotations and a small file of weights, under the names that the pages use."""
    for setting, value in SETTINGS.items():
        if setting not in ("NAME", "STEPS_PER_EPOCH"):
            monkeypatch.setattr(Config, setting, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    generator = np.random.default_rng(0)
    for file in ("street.jpg", "beach.png", "a.jpg", "b.jpg", "one.jpg"):
        cv2.imwrite(file, generator.integers(0, 256, (48, 64, 3), np.uint8))
    (tmp_path / "pets" / "annotations").mkdir(parents=True)
    for subset, ids in (("train", [1, 2]), ("val", [3])):
        write_split(tmp_path / "pets", subset, subset, ids, generator)
    write_weights(tmp_path / WEIGHTS)
    (tmp_path / "mask_rcnn_coco.h5").write_bytes((tmp_path / WEIGHTS).read_bytes())
    yield tmp_path
    from matplotlib import pyplot

    pyplot.close("all")


def write_weights(path: Path) -> None:
    """A checkpoint of a tiny network of four classes; what a file is, its content tells."""
    from mrcnn.model import MaskRCNN

    model = MaskRCNN("inference", Config(NAME="coco", NUM_CLASSES=4))
    model.class_names = ["BG", "person", "disc", "box"]
    model.save_weights(path)


def run(*pages: str, skip: tuple[str, ...] = ()) -> dict:
    """Runs the blocks of the pages, one after the other; those that hold one of the words of `skip` are left out."""
    names: dict = {"__name__": "docs"}
    for page in pages:
        for number, code in enumerate(blocks(ROOT / page)):
            if not any(word in code for word in skip):
                exec(compile(code, f"{page}, block {number}", "exec"), names)
    return names


def test_the_readme_runs(user, monkeypatch):
    from heads import registry

    monkeypatch.setattr(registry, "_heads", dict(registry._heads))
    names = run("README.md")
    assert names["found"].masks.shape[:2] == (48, 64)
    assert names["model"].class_names == ["BG", "disc", "box"] and "AP" in names["results"].box
    assert len(list(user.glob("logs/*/mask_rcnn_pets_*.h5"))) >= 1


@pytest.mark.filterwarnings("error:exclude")  # of a layer that the network no longer has
def test_the_user_guide_runs(user):
    pytest.importorskip("openvino")
    pytest.importorskip("tf2onnx")
    names = run("docs/detect.md", "docs/finetune.md", "docs/evaluate.md", skip=("mask_rcnn_coco.h5",))
    assert json.loads((user / "detections.json").read_text()) is not None
    names["images"] = ["a.jpg", "b.jpg"]
    for code in blocks(ROOT / "docs/export.md")[:2]:
        exec(compile(code, "docs/export.md", "exec"), names)
    assert len(names["results"]) == 2 and (user / "cats.onnx").exists() and (user / "cats" / "saved_model.pb").exists()


def test_masks_of_numbers_are_read_as_shown(user):
    names = run("docs/finetune.md", skip=("MaskRCNN(", "split("))
    ids = np.zeros((40, 50), np.uint8)
    ids[5:20, 5:20], ids[25:35, 10:40] = 1, 7
    cv2.imwrite("a_mask.png", ids)
    dataset = names["Cats"]()
    dataset.load([("a.jpg", "a_mask.png")])
    masks, class_ids = dataset.load_mask(0)
    assert masks.dtype == bool and class_ids.tolist() == [1, 1] and masks.sum(axis=(0, 1)).tolist() == [225, 300]
