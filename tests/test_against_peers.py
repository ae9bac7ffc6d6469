"""against_peers: who is measured in which order, what the rounds say, environments, a run with tiny programs."""

import argparse
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import against_peers
import engine_peer
import numpy as np
import pytest
import worker
from passes import Program
from peers import cuda_stand_ins, environments, turns
from peers.turns import OURS, Case

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

SQUARE, WIDE = (64, 64), (48, 64)


def case(program: str = OURS, precision: str = "float32", batch: int = 1, size: tuple[int, int] = SQUARE) -> Case:
    return Case(program, precision, batch, *size)


def said(seconds: float, peak: float = 100, **apart: float) -> dict:
    return {"seconds": seconds, "cpu_s": 2 * seconds, "peak_mb": peak, "apart_s": apart}


def begun(imported: float = 60) -> dict:
    return {"version": "1.0", "note": "", "imported_mb": imported, "build_s": 3.0, "first_s": 4.0}


def rows_of(*rounds: dict[Case, dict], found: dict[str, dict] | None = None) -> list[dict]:
    every = list(rounds[0])
    results = {c: (found or {}).get(c.program, {"pasted": True}) for c in every}
    return turns.summary({c: begun() for c in every}, rounds, results)


# Who, and in which order


def test_cases_are_every_program_on_every_combination():
    every = turns.cases([OURS, "a"], ["float32", "bfloat16"], [1, 4], [SQUARE, WIDE])
    assert len(every) == len(set(every)) == 16
    assert every[:3] == [case(), case("a"), case(precision="bfloat16")]
    assert {c.setting for c in every if c.program == OURS} == {c.setting for c in every if c.program == "a"}


def test_each_round_has_every_case_once_and_begins_one_further():
    every = [case(name) for name in "abc"]
    taken = list(turns.interleaved(every, 4))
    assert [number for number, _ in taken] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert ["".join(c.program for n, c in taken if n == number) for number in range(4)] == ["abc", "bca", "cab", "abc"]


def test_nobody_computes_beside_another():
    """The answers are asked for one after the other, first to start, then call by call, then for what was found."""
    asked = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def ask(self, do):
            asked.append((self.name, do))
            return {"start": begun(), "call": said(1.0), "found": {}}[do]

    rows = against_peers.measure({case(name): Fake(name) for name in "ab"}, rounds=1, pause=0)
    assert asked == [
        ("a", "start"),
        ("b", "start"),
        ("a", "call"),
        ("b", "call"),
        ("b", "call"),
        ("a", "call"),
        ("a", "found"),
        ("b", "found"),
    ]
    assert [row["rounds"] for row in rows] == [[1.0], [1.0]]  # the first round is not counted


# What the rounds say


def test_ratios_are_medians_within_a_round():
    a, b = case(), case("a")
    # The machine slows down in the last rounds: medians 4 and 6 would give 0.67, every round gives 0.5
    row, other = rows_of({a: said(1), b: said(2)}, {a: said(4), b: said(8)}, {a: said(3), b: said(6)})
    assert (row["seconds"], other["seconds"], other["cpu_s"]) == (3, 6, 12)
    assert row["ours_ratio"] is None and other["ours_ratio"] == other["cpu_ratio"] == 0.5
    assert row["first_ratio"] is None and other["first_ratio"] is None


def test_an_image_of_a_batch_beside_the_first_case_of_the_program():
    one, four = case(), case(batch=4)
    rows = rows_of({one: said(2), four: said(6)}, {one: said(4), four: said(12)})
    assert rows[1]["seconds_an_image"] == 9 / 4
    assert rows[1]["first_ratio"] == 0.75
    assert rows[1]["ours_ratio"] is None


def test_memory_is_the_largest_of_all_rounds():
    a = case()
    (row,) = rows_of({a: said(1, 100)}, {a: said(1, 130)}, {a: said(1, 120)})
    assert (row["peak_mb"], row["above_import_mb"]) == (130, 70)


def test_work_apart_is_a_row_with_its_time_added():
    a, b = case(), case("garden")
    rows = rows_of(
        {a: said(3), b: said(4, paste=2)},
        {a: said(3), b: said(4, paste=2)},
        found={"garden": {"pasted": False, "detections": [100]}},
    )
    assert [row["program"] for row in rows] == [OURS, "garden", "garden, and paste"]
    assert [row["ours_ratio"] for row in rows] == [None, 0.75, 0.5]
    assert [row["cpu_ratio"] for row in rows] == [None, 0.75, None]  # that of pasting is not known
    assert turns.fastest(rows) == ["float32, batch 1, 64x64: 0.75 of the time of the fastest peer, garden"]


def test_fastest_of_all_and_of_those_that_paste():
    quick, slow, ours = case("quick"), case("slow"), case()
    rows = rows_of({ours: said(2), quick: said(4), slow: said(8)}, found={"quick": {"pasted": False}})
    assert turns.fastest(rows) == [
        "float32, batch 1, 64x64: 0.50 of the time of the fastest peer, quick; "
        "0.25 of the time of the fastest that pastes masks itself, slow"
    ]
    assert turns.fastest(rows_of({ours: said(2)})) == []


def test_the_table_has_a_line_a_row_with_the_least_and_the_most():
    a, b = case(), case("a", size=SQUARE)
    lines = turns.table(
        rows_of(
            {a: said(1), b: said(2)},
            {a: said(1), b: said(4)},
            {a: said(1), b: said(3)},
            found={"a": {"pasted": True, "detections": [7]}},
        )
    ).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 4
    assert lines[3] == (
        "| a | float32 | 1 | 64x64 | 3.00 (2.00-4.00) | 6.00 | 3.00 | 0.33 | 0.33 |  | "
        "100 | 40 | 3.0 | 4.0 | detections [7] |"
    )


def test_each_row_beside_each_other_across_precisions():
    ours, engine, wide = case(), case("engine", "int8"), case(size=WIDE)
    rows = rows_of(
        {ours: said(4), engine: said(1), wide: said(5)},
        {ours: said(4), engine: said(3), wide: said(5)},
        {ours: said(8), engine: said(4), wide: said(5)},
    )
    assert [row["ours_ratio"] for row in rows] == [None, None, None]
    assert turns.each_beside_each(rows).splitlines() == [
        "| batch 1, 64x64 | this package, float32 | engine, int8 |",
        "| --- | --- | --- |",
        "| this package, float32 |  | 2.00 |",
        "| engine, int8 | 0.50 |  |",
    ]
    assert turns.each_beside_each(rows[2:]) == ""


def test_seconds_an_image_are_those_of_the_images_that_a_call_took():
    a = case()
    (row,) = rows_of({a: said(10)}, {a: said(20)}, {a: said(30)}, found={OURS: {"images": 8, "detections": 800}})
    assert (row["seconds"], row["seconds_an_image"]) == (20, 2.5)


# The flags


def test_sizes_follow_from_size_unless_given():
    arguments = against_peers.parse(["--size", "512"])
    assert (arguments.resize, arguments.height, arguments.width) == ([512, 512], [512], [512])
    arguments = against_peers.parse(["--resize", "800", "1333", "--height", "800", "480", "--width", "1333", "640"])
    assert [c.photograph for c in against_peers.planned(arguments) if c.program == OURS] == ["800x1333", "480x640"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--height", "480", "640", "--width", "640"], "--height has 2 values, --width 1; give pairs"),
        (["--peers", "torchvision,caffe"], "--peers caffe: there are torchvision, model_garden"),
        (
            ["--peer-python", "caffe=/bin/python"],
            "--peer-python caffe: there are matterport, model_garden, torchvision",
        ),
        (["--peer-python", "torchvision"], "'torchvision' is not NAME=PATH"),
        (["--rounds", "0"], "--rounds 0 must be 1 or more"),
        (["--work", "folder", "--peers", "torchvision"], "--work folder --coco None: folder needs it"),
        (["--work", "folder", "--coco", ".", "--peers", "matterport"], "--work folder is nothing for matterport"),
        (["--work", "train", "--peers", "exported_openvino"], "--work train is nothing for exported_openvino"),
        (["--work", "detect", "--coco", ".", "--peers", "torchvision"], "--work detect --coco .: folder needs it"),
        (
            ["--work", "folder", "--coco", ".", "--peers", "torchvision", "--images", "9"],
            "--images 9 must be twice --rounds 5 or more",
        ),
        (["--instances", "101"], "--instances 101 1 to 100"),
    ],
)
def test_bad_flags_end_with_what_is_wrong(flags, message, capsys):
    with pytest.raises(SystemExit):
        against_peers.parse(flags)
    assert message in capsys.readouterr().err


def test_what_a_peer_cannot_do_is_left_out_and_told(capsys):
    arguments = against_peers.parse(["--precision", "float32", "bfloat16", "--peers", "matterport"])
    assert [(c.program, c.precision) for c in against_peers.planned(arguments)] == [
        (OURS, "float32"),
        ("matterport", "float32"),
        (OURS, "bfloat16"),
    ]
    assert capsys.readouterr().err == "left out: matterport bfloat16 (it has none)\n"


def test_a_peer_is_told_its_case_and_its_options():
    arguments = against_peers.parse(["--work", "train", "--threads", "3"])
    wide = case("model_garden_batched", batch=4, size=WIDE)
    python, isolated, script, told = against_peers.command(wide, arguments, {"model_garden_batched": "/p"})
    assert (python, isolated, Path(script).name) == ("/p", "-E", "model_garden_peer.py")
    told = json.loads(told)
    assert told["batched"] is True and (told["height"], told["width"], told["batch"]) == (48, 64, 4)
    assert (told["work"], told["threads"], told["min_dim"], told["max_dim"]) == ("train", 3, 1024, 1024)
    assert against_peers.command(case(), arguments, {})[0] == sys.executable


def test_an_engine_is_run_here_and_told_where_torchvision_is(tmp_path):
    flags = ["--peers", "torchvision_openvino,exported_openvino", "--precision", "float32", "int8"]
    arguments = against_peers.parse([*flags, "--graphs", str(tmp_path)])
    every = against_peers.planned(arguments)
    assert [(c.program, c.precision) for c in every] == [
        (OURS, "float32"),
        ("torchvision_openvino", "float32"),
        ("exported_openvino", "float32"),
        ("torchvision_openvino", "int8"),
        ("exported_openvino", "int8"),
    ]
    python, script, told = against_peers.command(every[3], arguments, {"torchvision_openvino": "/p"})
    assert (python, Path(script).name) == (sys.executable, "engine_peer.py")
    told = json.loads(told)
    assert (told["torch_python"], told["graphs"], told["precision"]) == ("/p", str(tmp_path), "int8")
    assert (told["graph"], told["engine"]) == ("torchvision", "openvino")


def test_an_earlier_version_is_run_from_its_checkout(tmp_path):
    arguments = against_peers.parse(["--peers", "", "--before", str(tmp_path)])
    ours, before = against_peers.planned(arguments)
    assert (ours.program, before.program) == (OURS, against_peers.BEFORE)
    assert json.loads(against_peers.command(ours, arguments, {})[-1])["root"] is None
    assert json.loads(against_peers.command(before, arguments, {})[-1])["root"] == str(tmp_path.resolve())


# Environments


def test_an_environment_is_built_once_and_again_when_its_requirements_change(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **_: (
            ran.append([str(word) for word in command]),
            (tmp_path / "model_garden").mkdir(exist_ok=True),
        ),
    )
    python = environments.python_of("model_garden", tmp_path, {})
    assert python == str(tmp_path / "model_garden" / "bin" / "python")
    assert ran == [
        [sys.executable, "-m", "venv", str(tmp_path / "model_garden")],
        [python, "-m", "pip", "install", "-q", "tf-models-official==2.20.*", "tf_keras==2.20.*"],
    ]
    assert environments.python_of("model_garden_batched", tmp_path, {}) == python and len(ran) == 2  # they share it
    (tmp_path / "model_garden" / ".ready").write_text("tf-models-official==2.19.*")
    environments.python_of("model_garden", tmp_path, {})
    assert len(ran) == 4


def test_a_failed_build_is_not_ready(tmp_path, monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fail)
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            environments.python_of("torchvision", tmp_path, {})
    assert not (tmp_path / "torchvision" / ".ready").exists()


def test_a_given_python_is_used_as_it_is(tmp_path):
    assert environments.python_of("model_garden_batched", tmp_path, {"model_garden": sys.executable}) == sys.executable
    with pytest.raises(FileNotFoundError, match="no Python '/nowhere/python': --peer-python torchvision=PATH"):
        environments.python_of("torchvision", tmp_path, {"torchvision": "/nowhere/python"})
    with pytest.raises(ValueError, match="no peer 'caffe'; there are torchvision"):
        environments.python_of("caffe", tmp_path, {})


def test_a_missing_old_python_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="put python3.7 on the PATH, or name a Python that has matterport"):
        environments.python_of("matterport", tmp_path, {})


def test_stand_ins_define_each_symbol_once_and_name_it_when_called():
    allocator = "_ZN3c104cuda20CUDACachingAllocator9allocatorE"
    text = cuda_stand_ins.source(["cudaFree", "__cudaRegisterFunction", allocator])
    assert text.count('"a GPU is needed: cudaFree\\n"') == 1
    assert "void __cudaRegisterFunction(void) {}" in text
    assert f"void *{allocator}[16] = {{0}};" in text


# What every program shares


@pytest.mark.parametrize(
    ("height", "width", "dims", "size"),
    [
        (480, 640, (1024, 1024), (768, 1024)),
        (800, 1333, (800, 1333), (800, 1333)),
        (1200, 800, (800, 1333), (1200, 800)),
        (3000, 1000, (800, 1333), (1333, 444)),
        (64, 64, (1024, 1024), (1024, 1024)),
    ],
)
def test_photographs_are_resized_as_the_networks_do(height, width, dims, size):
    told = {"height": height, "width": width, "min_dim": dims[0], "max_dim": dims[1]}
    assert worker.resized(told) == size


def test_instances_fill_their_boxes_inside_the_photograph():
    told = {"instances": 30, "classes": 5}
    boxes, class_ids, masks = worker.instances(told, (96, 128))
    assert boxes.shape == (30, 4) and masks.shape == (30, 96, 128) and masks.dtype == np.uint8
    assert set(np.unique(class_ids)) <= {1, 2, 3, 4} and len(np.unique(boxes, axis=0)) > 20
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides >= [24, 32]).all() and (sides <= [48, 64]).all()
    for box, mask in zip(boxes, masks, strict=True):
        ys, xs = np.nonzero(mask)
        assert (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1) == tuple(box)
        assert mask.sum() == pytest.approx(np.pi / 4 * np.prod(box[2:] - box[:2]), rel=0.02)


def test_the_images_of_a_folder_are_shared_out_over_the_rounds(tmp_path):
    for name, count in (("val2017", 3), ("train2017", 6)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.jpg").touch()
        (tmp_path / name / "list.txt").touch()
    calls = worker.folder_calls({"coco": str(tmp_path), "images": 8, "rounds": 3})
    taken = [["/".join(Path(path).parts[-2:]) for path in next(calls)] for _ in range(6)]
    assert taken[0] == taken[1] == ["val2017/0.jpg", "val2017/1.jpg"], "neither is counted"
    assert sum(taken[2:5], []) == [f"val2017/{i}.jpg" for i in range(3)] + [f"train2017/{i}.jpg" for i in range(5)]
    assert [len(part) for part in taken[2:5]] == [2, 3, 3] and taken[5] == taken[2]


def test_masks_of_an_engine_are_pasted_as_far_as_they_are_inside():
    masks = np.zeros((3, 4, 4), np.float32)
    masks[0], masks[1, :, 2:], masks[2] = 1, 1, 1
    boxes = np.array([[2, 1, 6, 4], [-2, 0, 2, 2], [7, 7, 12, 12]], float)
    full = engine_peer.pasted(masks, boxes, (8, 9))
    assert full.shape == (3, 8, 9) and full.dtype == bool
    expected = np.zeros_like(full)
    expected[0, 1:4, 2:6] = expected[1, 0:2, 0:2] = expected[2, 7:, 7:] = True
    np.testing.assert_array_equal(full, expected)


def test_photographs_of_a_batch_differ():
    one, other = worker.photographs({"batch": 2, "height": 20, "width": 30})
    assert one.shape == (20, 30, 3) and one.dtype == np.uint8
    assert not np.array_equal(one, other)


def test_a_generated_dataset_serves_the_loader():
    from mrcnn.data.dataset import Dataset

    told = {"batch": 2, "classes": 4, "instances": 3, "height": 32, "width": 64, "min_dim": 64, "max_dim": 64}
    dataset = worker.generated(Dataset, told)
    masks, class_ids = dataset.load_mask(1)
    assert (dataset.num_images, dataset.num_classes) == (2, 4)
    assert dataset.load_image(1).shape == (32, 64, 3) and masks.shape == (32, 64, 3) and masks.dtype == bool
    assert not np.array_equal(masks, dataset.load_mask(0)[0]) and class_ids.shape == (3,)


@pytest.fixture
def program(tmp_path):
    """Starts a program that counts its calls, and prints where it should not."""
    script = tmp_path / "counting.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(BENCHMARKS / "peers")!r})
        import worker

        def build(case):
            print("noise")
            calls = []
            found = lambda n: {{"calls": n, "threads": case["threads"]}}
            return worker.Job(lambda: calls.append(1) or len(calls), found, {{"paste": lambda n: n}}, "counts")

        worker.serve(lambda case: "7.0", build)
    """)
    )
    return [sys.executable, str(script), json.dumps({"threads": 1})]


def test_a_program_starts_calls_and_tells(program):
    with Program(program) as counting:
        started = counting.ask(do="start")
        answers = [counting.ask(do="call") for _ in range(3)]
        assert counting.ask(do="found") == {"calls": 4, "threads": 1}  # the first call is part of the start
    assert (started["version"], started["note"]) == ("7.0", "counts")
    assert started["imported_mb"] > 0 and started["first_s"] >= 0
    for answer in answers:
        assert set(answer) == {"seconds", "cpu_s", "peak_mb", "apart_s"} and set(answer["apart_s"]) == {"paste"}
        assert answer["peak_mb"] >= started["imported_mb"]


def test_a_run_prints_the_table_and_writes_the_figures(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(against_peers, "command", lambda *_: program)
    monkeypatch.setattr(against_peers, "python_of", lambda *_: sys.executable)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "against_peers.py",
            "--rounds",
            "2",
            "--pause",
            "0",
            "--peers",
            "torchvision",
            "--json",
            str(tmp_path / "figures.json"),
        ],
    )
    against_peers.main()
    out = capsys.readouterr().out
    assert "| torchvision, and paste | float32 | 1 | 1024x1024 |" in out and "torchvision, 7.0, counts\n" in out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["arguments"]["rounds"] == 2
    assert [len(row["rounds"]) for row in figures["rows"]] == [2, 2, 2, 2]
    assert figures["rows"][0]["found"] == {"calls": 4, "threads": 1}


def test_what_starts_the_programs_is_small():
    """The peak memory of a process is its parent's at least."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import against_peers; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code, str(BENCHMARKS)], capture_output=True, text=True).stdout
    assert "peers.turns" in loaded.split()
    assert not {"numpy", "keras", "tensorflow", "mrcnn"} & set(loaded.split())


def test_a_program_that_fails_ends_the_run(tmp_path):
    script = tmp_path / "failing.py"
    script.write_text("raise SystemExit(3)")
    with Program([sys.executable, str(script)]) as failing, pytest.raises((RuntimeError, BrokenPipeError)):
        failing.ask(do="start")


def test_parse_gives_a_namespace_of_defaults():
    arguments = against_peers.parse([])
    assert isinstance(arguments, argparse.Namespace)
    assert arguments.peers == ["torchvision", "model_garden", "model_garden_batched"]
    assert arguments.environments == environments.DEFAULT
