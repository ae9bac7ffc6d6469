"""The balloon sample from the command line, on a few generated photographs."""

import json

import cv2
import numpy as np
import pytest

from samples import weights
from samples.balloon import balloon

pytestmark = pytest.mark.slow

TINY = [
    "--backbone",
    "mobilenet",
    "--backbone-option",
    "alpha=0.25",
    "--image-size",
    "64",
    "--seed",
    "3",
    "--set",
    "TOP_DOWN_PYRAMID_SIZE=8",
    "--set",
    "RPN_CHANNELS=8",
    "--set",
    "FPN_CLASSIF_FC_LAYERS_SIZE=16",
    "--set",
    "RPN_ANCHOR_SCALES=(8, 16, 32, 48, 64)",
    "--set",
    "TRAIN_ROIS_PER_IMAGE=16",
    "--set",
    "POST_NMS_ROIS_TRAINING=32",
    "--set",
    "POST_NMS_ROIS_INFERENCE=16",
    "--head-option",
    "filters=8",
]


def write_balloons(root):
    """train/ with 3 and val/ with 2 photographs of one disc each, annotated as VIA 1.x circles."""
    rng = np.random.default_rng(0)
    for subset, count in (("train", 3), ("val", 2)):
        (root / subset).mkdir(parents=True)
        annotations = {}
        for i in range(count):
            image = rng.integers(0, 60, (64, 80, 3), dtype=np.uint8)
            cv2.circle(image, (40, 30), 18, (40, 40, 250), -1)
            cv2.imwrite(str(root / subset / f"{i}.png"), image)
            shape = {"name": "circle", "cx": 40, "cy": 30, "r": 18}
            annotations[f"{i}.png"] = {
                "filename": f"{i}.png",
                "size": 1,
                "file_attributes": {},
                "regions": {"0": {"shape_attributes": shape, "region_attributes": {}}},
            }
        (root / subset / "via_region_data.json").write_text(json.dumps(annotations))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_balloons(tmp_path_factory.mktemp("balloons"))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    balloon.main(
        [
            "train",
            "--dataset",
            str(folder),
            "--weights",
            "none",
            "--logs",
            str(logs),
            "--epochs",
            "1",
            "--head",
            "fcn",
            "--verbose",
            "0",
            *TINY,
        ]
    )
    return logs


def test_train_writes_a_run(trained):
    (run,) = trained.iterdir()
    names = {path.name for path in run.iterdir()}
    assert {"mask_rcnn_balloon_0001.h5", "config.json", "log.csv"} <= names
    header, values = (run / "log.csv").read_text().splitlines()
    assert "val_mrcnn_mask_loss" in header.split(",") and len(values.split(",")) == len(header.split(","))


def test_evaluate_prints_tables_and_draws(trained, folder, tmp_path, capsys):
    balloon.main(
        [
            "evaluate",
            "--dataset",
            str(folder),
            "--weights",
            "last",
            "--logs",
            str(trained),
            "--pictures",
            str(tmp_path / "pictures"),
        ]
    )
    printed = capsys.readouterr().out
    assert "AP50" in printed and "2 images, 2 instances" in printed
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["0.png", "1.png"]


def test_pictures_on_white_do_not_carry_the_photograph(trained, folder, tmp_path):
    balloon.main(
        [
            "evaluate",
            "--dataset",
            str(folder),
            "--weights",
            "last",
            "--logs",
            str(trained),
            "--pictures",
            str(tmp_path),
            "--white",
        ]
    )
    picture = cv2.imread(str(tmp_path / "0.png"))
    assert np.median(picture) == 255  # the photographs are all but black


def test_splash_writes_a_photograph(trained, folder, tmp_path, monkeypatch):
    (checkpoint,) = trained.rglob("*.h5")
    monkeypatch.chdir(tmp_path)
    balloon.main(["splash", "--weights", str(checkpoint), "--image", str(folder / "val" / "0.png")])
    assert cv2.imread(str(tmp_path / "0_splash.png")).shape == (64, 80, 3)


def film(path, frames=3):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 48))
    for _ in range(frames):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    return path


class Blind:
    """A model that finds nothing."""

    def detect(self, images):
        return [{"masks": np.zeros((*image.shape[:2], 0), bool), "scores": np.zeros(0)} for image in images]


class Reader:
    """cv2.VideoCapture of a container that claims another number of frames than it has."""

    claimed, left = 0, 0

    def __init__(self, path):
        self.left = type(self).left

    def isOpened(self):
        return True

    def get(self, what):
        return {
            cv2.CAP_PROP_FRAME_COUNT: self.claimed,
            cv2.CAP_PROP_FRAME_WIDTH: 64,
            cv2.CAP_PROP_FRAME_HEIGHT: 48,
            cv2.CAP_PROP_FPS: 5,
        }[what]

    def read(self):
        self.left -= 1
        return (True, np.full((48, 64, 3), 90, np.uint8)) if self.left >= 0 else (False, None)

    def release(self):
        pass


def frames_of(path):
    reader, count = cv2.VideoCapture(str(path)), 0
    while reader.read()[0]:
        count += 1
    return count


def test_splash_goes_through_a_video(trained, tmp_path, monkeypatch):
    film(tmp_path / "film.mp4")
    monkeypatch.chdir(tmp_path)
    balloon.main(["splash", "--weights", "last", "--logs", str(trained), "--video", str(tmp_path / "film.mp4")])
    assert frames_of(tmp_path / "film_splash.mp4") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "film_splash.mp4"]


@pytest.mark.parametrize("claimed", [0, -1, 2, 100])
def test_a_video_is_read_to_its_end_whatever_its_container_claims(claimed, tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", type("Claiming", (Reader,), {"claimed": claimed, "left": 4}))
    balloon.splash_video(Blind(), tmp_path / "film.avi", tmp_path / "out.mp4")
    monkeypatch.undo()
    assert frames_of(tmp_path / "out.mp4") == 4


def test_a_video_without_frames_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Reader)
    (tmp_path / "out.mp4").write_bytes(b"older")
    with pytest.raises(ValueError, match="film.avi opened as a video but has no frames"):
        balloon.splash_video(Blind(), tmp_path / "film.avi", tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"older"


def test_a_missing_video_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="gone.mp4 is missing or not a video"):
        balloon.splash_video(Blind(), tmp_path / "gone.mp4", tmp_path / "out.mp4")


@pytest.fixture
def configured(monkeypatch):
    """The configuration and arguments that a command line comes to, without building the model."""
    seen = []

    def stop(mode, config, logs):
        seen.append(config)
        raise InterruptedError

    def run(*arguments):
        with monkeypatch.context() as patch, pytest.raises(InterruptedError):
            patch.setattr(balloon, "MaskRCNN", stop)
            balloon.main(list(arguments))
        return seen[-1]

    return run


@pytest.mark.parametrize("weights", ["last", "path"])
def test_evaluate_takes_the_settings_of_the_run_and_flags_override_them(weights, trained, folder, configured):
    (checkpoint,) = trained.rglob("*.h5")
    command = [
        "evaluate",
        "--dataset",
        str(folder),
        "--logs",
        str(trained),
        "--weights",
        str(checkpoint) if weights == "path" else weights,
    ]
    stored, changed = configured(*command), configured(*command, "--seed", "9", "--head-option", "convolutions=2")
    assert stored.MASK_HEAD == {"name": "fcn", "filters": 8} and stored.BACKBONE_OPTIONS == {"alpha": 0.25}
    assert stored.RPN_CHANNELS == 8 and stored.SEED == 3
    assert changed.MASK_HEAD == {"name": "fcn", "filters": 8, "convolutions": 2} and changed.SEED == 9


def test_train_keeps_the_sample_s_settings(trained, folder, configured):
    (checkpoint,) = trained.rglob("*.h5")
    config = configured("train", "--dataset", str(folder), "--weights", str(checkpoint))
    assert config.MASK_HEAD == balloon.BalloonConfig.MASK_HEAD and config.BACKBONE_OPTIONS == {"alpha": 0.75}


def test_a_checkpoint_without_settings_beside_it_leaves_the_sample_s(tmp_path):
    assert weights.settings_of(str(tmp_path / "x.h5"), tmp_path, "balloon") is None
    assert weights.settings_of("imagenet", tmp_path, "balloon") is None
    with pytest.raises(FileNotFoundError, match="No checkpoint of a run named 'balloon'"):
        weights.settings_of("last", tmp_path, "balloon")


def test_excluded_layers_stay_and_others_must_fit(trained):
    (checkpoint,) = trained.rglob("*.h5")
    config = balloon.BalloonConfig.load(checkpoint.with_name("config.json"))
    config.NUM_CLASSES = 4
    model = balloon.MaskRCNN("inference", config, "unused")
    with pytest.raises(ValueError, match="does not fit the model"):
        weights.load_weights(model, str(checkpoint))
    exclude = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask"]
    parsed = balloon.parse(
        [
            "splash",
            "--image",
            "x",
            "--weights",
            str(checkpoint),
            *(part for name in exclude for part in ("--exclude", name)),
        ]
    )
    layers = model.network.layers()
    before = layers["box_head/mrcnn_class_logits"].get_weights()[0]
    weights.load_weights(model, parsed.weights, parsed.exclude)
    np.testing.assert_array_equal(layers["box_head/mrcnn_class_logits"].get_weights()[0], before)


def test_color_splash_keeps_color_inside_masks_only():
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 0] = 200
    masks = np.zeros((2, 2, 1), bool)
    masks[0, 0] = True
    splashed = balloon.color_splash(image, masks)
    np.testing.assert_array_equal(splashed[0, 0], [200, 0, 0])
    np.testing.assert_array_equal(splashed[1, 1], [42, 42, 42])  # 0.2125 * 200 = 42.5, rounded to even


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--weights", "none"], "train needs --dataset"),
        (["splash", "--weights", "none"], "splash needs one of --image and --video"),
        (["train", "--weights", "none", "--dataset", ".", "--set", "SEED"], "expected NAME=VALUE"),
        (["train", "--weights", "none", "--dataset", ".", "--head", "fnc"], "invalid choice: 'fnc'"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit):
        balloon.parse(arguments)
    assert message in capsys.readouterr().err
