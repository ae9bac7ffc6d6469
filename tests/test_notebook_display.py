"""What objects look like at the end of a notebook cell: short, and escaped."""

import pytest

from mrcnn.config import Config
from mrcnn.model import MaskRCNN
from mrcnn.weights.report import LoadReport, Tensor
from tests.tiny import TinyConfig


@pytest.fixture(scope="module")
def report():
    tensors = [Tensor(f"trunk/layer{i}/kernel", (3, 3, 8, 8), (3, 3, 8, 16)) for i in range(300)]
    return LoadReport(tensors, tensors, tensors[:2], [], notes=("<b> left out",))


def test_a_report_is_one_line_and_a_folded_table(report):
    assert repr(report) == "<LoadReport weights: 300 loaded, 300 skipped, 2 missing, 0 unexpected>"
    page = report._repr_html_()
    assert len(page) < 3000 and "<details>" in page and "&lt;b&gt; left out" in page and "284 more lines" in page
    assert len(str(report).splitlines()) == 306  # `print` shows all
    whole = LoadReport([Tensor("a/b", (1,), (1,))], [], [], [])
    assert whole._repr_html_() == "<p>weights: 1 loaded, 0 skipped, 0 missing, 0 unexpected</p>"


def test_a_config_shows_what_is_changed():
    class Cats(Config):
        NAME = "<cats>"
        NUM_CLASSES = 2

    config = Cats(IMAGES_PER_GPU=4)
    assert repr(config) == "Cats(NAME='<cats>', IMAGES_PER_GPU=4, NUM_CLASSES=2)"
    page = config._repr_html_()
    assert "Cats, 3 settings changed" in page and "<td>&lt;cats&gt;</td><td>None</td>" in page
    assert "<td>IMAGES_PER_GPU</td><td>4</td><td>2</td>" in page and "LEARNING_RATE" not in page
    assert Config()._repr_html_() == "<p>Config, 0 settings changed</p>"


def test_a_model_says_what_it_is(tmp_path):
    model = MaskRCNN("inference", TinyConfig(), tmp_path)
    assert repr(model).startswith("<MaskRCNN inference: tiny_backbone, fcn masks, 3 classes, 0.1 million parameters")
    model.class_names = ["BG", "a<b", "disc"]
    page = model._repr_html_()
    assert "classes: BG, a&lt;b, disc" in page and "settings changed" in page and len(page) < 6000
