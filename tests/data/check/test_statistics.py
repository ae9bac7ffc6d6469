import json

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data.check.statistics import Statistics, bar

NAMES = ["BG", "cat", "dog", "owl"]


@pytest.fixture
def statistics():
    """Two images of 600 x 800 and one of 400 x 400; cats and dogs."""
    made = Statistics(NAMES, max_instances=2)
    made.add_image((600, 800), [(1, 31 * 33, 31, 33), (1, 32 * 32, 32, 32), (2, 96 * 96, 96, 96), (-2, 500, 20, 30)])
    made.add_image((600, 800), [])
    made.add_image((400, 400), [(1, 97 * 97, 200, 49), (1, 4, 4, 1)])
    return made


def test_counts(statistics):
    assert (statistics.images, statistics.instances, statistics.crowds) == (3, 5, 1)
    assert statistics.sizes() == [(600, 800, 2), (400, 400, 1)]
    assert statistics.per_image() == {
        "least": 0,
        "median": 2,
        "mean": 5 / 3,
        "most": 3,
        "images_without": 1,
        "images_with_too_many": 1,
    }
    assert statistics.classes() == [
        {"id": 1, "name": "cat", "instances": 4, "images": 2},
        {"id": 2, "name": "dog", "instances": 1, "images": 1},
        {"id": 3, "name": "owl", "instances": 0, "images": 0},
    ]


def test_areas_by_cocos_bounds(statistics):
    # 1023 and 4 are under 32 x 32; 1024 and 9216 are medium, which includes both limits
    assert statistics.coco_areas() == {"small": 2, "medium": 2, "large": 1}


def test_sides_double_and_have_no_gaps(statistics):
    assert statistics.sides() == {2: 1, 4: 0, 8: 0, 16: 1, 32: 1, 64: 2}
    assert Statistics(NAMES).sides() == {}
    one = Statistics(NAMES)
    one.add_image((40, 60), [(1, 2**k, 1, 2**k) for k in range(7)])
    assert one.sides() == {1: 2, 2: 2, 4: 2, 8: 1}


def test_shapes_are_height_by_width():
    made = Statistics(NAMES)
    sides = [(10, 41), (10, 39), (10, 15), (10, 14), (10, 10), (14, 10), (15, 10), (39, 10), (41, 10)]
    made.add_image((500, 500), [(1, 10, *box) for box in sides])
    assert list(made.shapes().values()) == [1, 1, 1, 3, 1, 1, 1]


def test_instances_below_the_smallest_anchor_once_resized():
    made = Statistics(NAMES)
    made.add_image((400, 400), [(1, 9, 16, 16), (1, 9, 15, 16), (1, 200, 256, 1)])  # twice as large: 32, 31, 32
    made.add_image((800, 2666), [(1, 9, 63, 64), (1, 9, 64, 64)])  # half as large: the longer side decides
    assert made.below_anchors() == 2
    large = Statistics(NAMES, min_dim=400, max_dim=400, smallest_anchor=16)
    large.add_image((400, 400), [(1, 9, 15, 16), (1, 9, 16, 16)])
    assert large.below_anchors() == 1


def test_an_image_of_unknown_size_is_counted_and_its_instances_are_not_below(statistics):
    statistics.add_image(None, [(3, 1, 1, 1)])
    assert statistics.images == 4 and statistics.below_anchors() == 1 and len(statistics.sizes()) == 2


def test_the_settings_are_those_of_a_config():
    made, config = Statistics(NAMES), Config()
    assert (made.min_dim, made.max_dim) == (config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM)
    assert made.smallest_anchor == min(config.RPN_ANCHOR_SCALES) and made.max_instances == config.MAX_GT_INSTANCES


def test_text(statistics):
    text = str(statistics)
    for line in (
        "Images: 3",
        "  width x height  800 x 600 (2), 400 x 400 (1)",
        "  between         400 and 800 wide, 400 and 600 tall",
        "  instances each  0 to 3, median 2, mean 1.7",
        "Instances: 5, and 1 crowd, ignored in training",
        "  by COCO's areas 40.0 % small, 40.0 % medium, 20.0 % large (under 32 x 32 pixels, up to 96 x 96, over)",
        "  below anchors   20.0 % are under 32 x 32, the smallest anchor, after resizing to 800 (at most 1333)",
        "  64 to 128         2  40.0 % ########################################",
        "  4 to 8            0   0.0 %",
        "  cat (2 images)         4  80.0 % ########################################",
        "  dog (1 image)          1  20.0 % ##########",
        "  owl (0 images)         0   0.0 %",
    ):
        assert line in text.splitlines(), line


def test_text_of_many_classes_ends_with_a_summary():
    made = Statistics(["BG", *map(str, range(40))])
    made.add_image((40, 60), [(i + 1, 9, 3, 3) for i in range(40) for _ in range(40 - i)])
    lines = str(made).splitlines()
    assert lines[-1] == "  ... and 15 more classes of 1 to 15 instances" and len(made.classes()) == 40


def test_nothing_at_all():
    empty = Statistics(["BG"])
    assert str(empty) == "Images: 0" and empty.per_image() == {} and empty.below_anchors() == 0
    numbers = json.loads(json.dumps(empty.as_dict(), allow_nan=False))
    assert numbers["instances"] == 0 and numbers["classes"] == [] and set(numbers["shapes"].values()) == {0}


def test_as_json(statistics):
    numbers = json.loads(json.dumps(statistics.as_dict(), allow_nan=False))
    assert numbers["sizes"][0] == {"height": 600, "width": 800, "images": 2} and numbers["sides"]["64"] == 2
    assert numbers["below_smallest_anchor"] == {"instances": 1, "anchor": 32, "min_dim": 800, "max_dim": 1333}
    assert numbers["areas"] == {"small": 2, "medium": 2, "large": 1} and numbers["crowds"] == 1


@pytest.mark.parametrize("count, characters", [(0, 0), (1, 1), (50, 20), (100, 40)])
def test_bars_are_in_proportion_and_show_all_that_is_there(count, characters):
    assert bar(count, 100) == "#" * characters


def test_memory_holds_a_few_numbers_an_instance():
    made = Statistics(NAMES)
    made.add_image((400, 400), [(1, 9, 3, 3)] * 1000)
    held = [value for value in vars(made).values() if hasattr(value, "itemsize")]
    assert sum(np.asarray(value).nbytes for value in held) <= 1000 * 40 + 8
