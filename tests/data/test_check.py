import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest

from mrcnn.config import Config
from mrcnn.data import check as command
from mrcnn.data.annotations import problems
from mrcnn.data.check import check, report
from mrcnn.data.dataset import Dataset
from tests.data import damaged
from tests.data.damaged import DAMAGE, added, as_large_as, read, square, unlinked
from tests.data.mask_writers import write_image, write_rows

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def write(tmp_path):
    """Writes the scene after a change, with its images; returns the path of the JSON file."""
    return partial(damaged.write, tmp_path)


def test_examples_are_few_in_the_text_and_all_in_the_json(write, tmp_path):
    crossed = [
        square(
            20 + i,
            2,
            5,
            2 * i,
            5,
            segmentation=[[2 * i, 5, 2 * i + 9, 15, 2 * i + 9, 5, 2 * i, 15]],
            bbox=[2 * i, 5, 9, 10],
        )
        for i in range(5)
    ]
    found = check(read(write(added(*crossed))), examples=2)
    assert found.counts()[problems.SELF_CROSSING] == 5
    assert str(found).count("crosses itself") == 2 and "... and 3 more" in str(found)
    found.save(tmp_path / "out" / "report.json")
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    (group,) = (g for g in written["findings"] if g["kind"] == problems.SELF_CROSSING)
    assert len(group["records"]) == group["count"] == 5 and not group["broken"] and group["way_out"]
    assert group["records"][0]["record"] == "annotation 20 (2.png)" and group["records"][0]["field"] == "segmentation"
    assert written["records"]["used"]["instances"] == 10 and written["statistics"]["instances"] == 10
    assert os.listdir(tmp_path / "out") == ["report.json"]


def test_broken_findings_come_first(write):
    def change(content, folder):
        for make in ("nothing annotated", "a bow tie", "two classes", "too many"):
            DAMAGE[make][0](content, folder)
        content["annotations"][2]["segmentation"] = "x"

    text = str(check(read(write(change))))
    marks = [line[0] for line in text.splitlines() if line[:1] in ("!", "-")]
    assert marks[0] == "!" and set(marks[1:]) == {"-"}
    assert text.endswith("1 record had to be left out; 4 findings in total.")


def test_every_kind_says_what_to_do():
    kinds = {value for name, value in vars(problems).items() if name.isupper() and name != "LEFT_OUT"}
    kinds |= {
        getattr(report, name)
        for name in ("BOX", "SAME_MASK", "CROWDED", "LISTED_TWICE", "SAME_IMAGE", "TINY", "UNUSED")
    }
    assert kinds == set(report.WAYS_OUT)


def test_the_settings_are_those_of_a_config(squares):
    made, config = check(squares([1])).statistics, Config()
    options = command._parse(["data"])
    for found in (made, options):
        assert (found.min_dim, found.max_dim) == (config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM)
        assert found.smallest_anchor == min(config.RPN_ANCHOR_SCALES)
        assert found.max_instances == config.MAX_GT_INSTANCES


def test_importing_needs_no_tensorflow():
    code = "import sys, mrcnn.data.check; print(*sorted({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == ""


def run(path, *arguments, capsys):
    """The exit status and the printed output."""
    status = command.main([str(path), *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_command_on_sound_data(write, capsys):
    path = write()
    for given, options in ((path, []), (path.parent, ["--format", "coco"])):
        status, out, _ = run(given, *options, "--images", capsys=capsys)
        assert status == 0 and out.startswith(f"{path}: checked in") and out.endswith("Nothing found.\n")


@pytest.mark.parametrize("change", [DAMAGE["no pixel"][0], DAMAGE["of no image"][0], unlinked, as_large_as(50, 70)])
def test_the_status_is_1_when_something_is_broken(write, capsys, recwarn, change):
    status, out, _ = run(write(change), capsys=capsys)
    assert status == 1 and "\n! 1 x " in out and not recwarn.list  # the report lists everything


def test_the_status_is_0_when_all_is_used(write, capsys):
    assert run(write(DAMAGE["a bow tie"][0]), capsys=capsys)[0] == 0


def test_the_status_is_2_when_nothing_can_be_read(write, tmp_path, capsys):
    path = write()
    path.write_text(path.read_text()[:200])
    for given, message in ((path, "invalid or truncated JSON"), (tmp_path / "gone", "does not exist")):
        status, out, err = run(given, "--format", "coco", capsys=capsys)
        assert (status, out) == (2, "") and err.startswith(f"{given} could not be read: ") and message in err
    status, _, err = run(write(), "--option", "image_folder=b", capsys=capsys)
    assert status == 2 and "image_folder" in err and "image_dir" in err


def test_an_image_that_is_too_large_is_reported(tmp_path, capsys, monkeypatch):
    rows = [("ImageId", "EncodedPixels"), ("large", "1 2"), ("small", "1 2")]
    write_rows(tmp_path / "a.csv", rows)
    write_image(tmp_path / "large.png", 20, 30)
    write_image(tmp_path / "small.png", 4, 3)
    monkeypatch.setattr(Dataset, "max_pixels", 599)
    status, out, err = run(tmp_path / "a.csv", "--format", "rle_csv", capsys=capsys)
    assert (status, err) == (1, "") and "more than the limit of 599" in out and problems.UNREADABLE in out


@pytest.mark.slow
def test_the_package_declares_what_its_data_modules_import():
    """The table below lists packages whose pip name differs from the import name."""
    root = Path(__file__).resolve().parents[2]
    trees = [ast.parse(path.read_text()) for path in (root / "mrcnn" / "data").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    used |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    used = {name.split(".")[0] for name in used} - set(sys.stdlib_module_names) - {"mrcnn", "imgaug"}
    named = {"PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image", "yaml": "pyyaml"}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = {re.split("[<>=]", line)[0].lower() for line in project["dependencies"]}
    assert {"PIL", "scipy", "numpy"} <= used and {named.get(name, name) for name in used} <= declared


def test_the_commands_options(write, tmp_path, capsys):
    path = write(DAMAGE["two classes"][0])
    written = tmp_path / "report.json"
    (tmp_path / "photographs").mkdir()
    for number in (1, 2, 3):
        os.rename(tmp_path / f"{number}.png", tmp_path / "photographs" / f"{number}.png")
    status, out, _ = run(
        path,
        "--class-names",
        "dog",
        "--option",
        f"image_dir={tmp_path / 'photographs'}",
        "--json",
        str(written),
        "--limit",
        "1",
        "--min-dim",
        "60",
        "--max-dim",
        "80",
        "--smallest-anchor",
        "21",
        "--max-instances",
        "1",
        capsys=capsys,
    )
    assert (
        status == 0
        and f"- 1 x {report.CROWDED}: 1 random ones are used" in out
        and "resizing to 60 (at most 80)" in out
    )
    assert "below anchors   100.0 % are under 21 x 21" in out
    numbers = json.loads(written.read_text())
    assert numbers["checked_images"] == 1 and numbers["statistics"]["classes"][0]["instances"] == 2


def test_values_of_options_are_json_or_text():
    assert command._option("labels=[1, 2]") == ("labels", [1, 2]) and command._option("attribute=a=b") == (
        "attribute",
        "a=b",
    )
    for wrong in (["--option", "image_dir"], ["--limit", "0"]):
        with pytest.raises(SystemExit):
            command._parse(["data", *wrong])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco_mini", "balloon", "nuclei_dsb2018", "fashion_ccp"])
def test_real_data_is_sound(name, capsys):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no data at {path}")
    given = [path, "--subset", "val2017"] if name == "coco_mini" else [path, "--subset", "val"]
    status, out, _ = run(*given, *(["--format", "coco"] if name == "fashion_ccp" else []), capsys=capsys)
    assert status == 0, out


@pytest.mark.parametrize("option", ["--json", "--page", "--fix"])
def test_a_place_that_cannot_be_written_is_said_first(write, tmp_path, capsys, monkeypatch, option):
    (tmp_path / "file").touch()
    monkeypatch.setattr(command, "_load", lambda options: pytest.fail("it was read before"))
    status, out, err = run(write(), option, str(tmp_path / "file" / "report"), capsys=capsys)
    assert (status, out) == (2, "") and "cannot write" in err and "file" in err
    if option != "--fix":
        status, _, err = run(write(), option, str(tmp_path), capsys=capsys)
        assert status == 2 and "it is a folder" in err
