"""A model over a video: all frames, in order, each with its own instances."""

import json

import numpy as np
import pytest

from mrcnn.inference.results import Result
from mrcnn.inference.video import annotate as module
from mrcnn.inference.video.annotate import annotate_video, between_results
from mrcnn.inference.video.tracking import LineCounter
from tests.cli.conftest import models, run, run_json  # noqa: F401
from tests.inference.video.clips import number_of, picture, times_of, trim, write_clip

av = pytest.importorskip("av", reason="pip install 'mask-rcnn-keras[video]'")
TIMES = [0, 40, 80, 130, 131, 200, 400, 420, 440, 460, 500]


class Finder:
    """A model that finds the white square of `picture`; keeps the numbers of the frames that it saw."""

    def __init__(self):
        self.seen = []

    def stream(self, images, *, prepare, each):
        for image in images:
            self.seen.append(number_of(image))
            mask = np.zeros(image.shape[:2], bool)
            mask[10:30] = image[10:30, :, 0] > 200
            columns = np.flatnonzero(mask.any(axis=0))
            box = [[10, columns[0], 30, columns[-1] + 1]]
            result = Result(
                np.array(box, np.float32),
                np.array([1]),
                np.array([0.9], np.float32),
                mask[..., None],
                mask.shape,
                ("BG", "cat"),
            )
            result.prepare(prepare)
            yield each(result)


@pytest.fixture
def drawn():
    """Number of the frame, box and tracks of every frame that was drawn."""
    return []


@pytest.fixture
def draw(drawn):
    def call(image, result, numbers, tracks):
        drawn.append((number_of(image), result.rois.round().astype(int).tolist(), list(numbers)))
        return image

    return call


def test_every_frame_is_drawn_and_written_once(tmp_path, draw, drawn):
    source, model = write_clip(tmp_path / "a.mp4", TIMES, sound=True), Finder()
    ticks = []
    summary = annotate_video(
        model, source, tmp_path / "b.mp4", draw=draw, tracks=tmp_path / "t.json", progress=ticks.append
    )
    assert (summary.read, summary.detected, summary.written, summary.tracks) == (11, 11, 11, 1) and sum(ticks) == 11
    assert [number for number, _, _ in drawn] == model.seen == list(range(11))
    assert all(numbers == [1] and abs(box[0][1] - 2 * number) <= 1 for number, box, numbers in drawn)
    times, sound = times_of(tmp_path / "b.mp4")
    np.testing.assert_allclose(times, np.array(TIMES) / 1000)
    assert [data for _, data in sound] == [data for _, data in times_of(source)[1]]
    log = json.loads((tmp_path / "t.json").read_text())
    assert [round(1000 * frame["time"]) for frame in log["frames"]] == TIMES and log["tracks"] == 1
    assert all(frame["instances"][0]["track"] == 1 and frame["detected"] for frame in log["frames"])


@pytest.mark.parametrize("every", [2, 3, 4, 10, 11, 50])
def test_frames_in_between_are_interpolated(tmp_path, draw, drawn, every):
    """The square of 20 pixels moves 2 a frame; key frames too far apart are no longer one track."""
    source, model = write_clip(tmp_path / "a.mp4", [40 * i for i in range(11)]), Finder()
    summary = annotate_video(model, source, tmp_path / "b.mp4", draw=draw, every=every, tracks=tmp_path / "t.json")
    keys = sorted({*range(0, 11, every), 10})
    assert model.seen == keys and (summary.read, summary.detected, summary.written) == (11, len(keys), 11)
    assert [number for number, _, _ in drawn] == list(range(11))
    if every <= 4:
        assert all(abs(box[0][1] - 2 * number) <= 1 for number, box, _ in drawn)
    assert len(times_of(tmp_path / "b.mp4")[0]) == 11
    log = json.loads((tmp_path / "t.json").read_text())
    assert [frame["frame"] for frame in log["frames"] if frame["detected"]] == keys


def test_frames_in_between_can_be_left_out_and_the_others_keep_their_times(tmp_path, draw, drawn):
    source = write_clip(tmp_path / "a.mp4", TIMES)
    summary = annotate_video(Finder(), source, tmp_path / "b.mp4", draw=draw, every=4, between="drop")
    assert (summary.read, summary.written) == (11, 4) and [number for number, _, _ in drawn] == [0, 4, 8, 10]
    np.testing.assert_allclose(times_of(tmp_path / "b.mp4")[0], np.array(TIMES)[[0, 4, 8, 10]] / 1000)


def test_a_line_is_counted_and_a_video_need_not_be_written(tmp_path, draw):
    line = LineCounter((22, 64), (22, 0))
    source = write_clip(tmp_path / "a.mp4", TIMES)
    summary = annotate_video(Finder(), source, None, draw=draw, line=line)
    assert summary.crossed == {"left": 0, "right": 1} and [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    "names", [("a.mp4", "a.mp4", None), ("a.mp4", "b.mp4", "a.mp4"), ("a.mp4", "b.mp4", "./b.mp4")]
)
def test_no_file_replaces_another_one(tmp_path, monkeypatch, draw, names):
    monkeypatch.chdir(tmp_path)
    content = write_clip(tmp_path / "a.mp4", TIMES).read_bytes()
    source, target, tracks = names
    with pytest.raises(ValueError, match=r"[ab].mp4 would replace [ab].mp4; choose another file"):
        annotate_video(Finder(), source, target, draw=draw, tracks=tracks)
    assert (tmp_path / "a.mp4").read_bytes() == content and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("where", ["draw", "model"])
def test_an_error_leaves_no_file(tmp_path, draw, where):
    def failing(*arguments, **options):
        raise KeyError("no")

    model = Finder()
    if where == "model":
        model.stream = failing
    with pytest.raises(KeyError):
        annotate_video(
            model,
            write_clip(tmp_path / "a.mp4", TIMES),
            tmp_path / "b.mp4",
            draw=failing if where == "draw" else draw,
            tracks=tmp_path / "t.json",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with pytest.raises(ValueError, match="every must be 1 or more and between one of"):
        annotate_video(model, "a.mp4", None, draw=draw, every=0)


def test_ctrl_c_ends_a_camera_with_a_whole_video(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "a.mp4", TIMES)
    clip = module.Clip

    def live(given):
        opened = clip(given)
        opened.live = True
        return opened

    def draw(image, result, numbers, tracks):
        if number_of(image) == 6:
            raise KeyboardInterrupt
        return image

    with pytest.raises(KeyboardInterrupt):
        annotate_video(Finder(), source, tmp_path / "b.mp4", draw=draw)
    assert not (tmp_path / "b.mp4").exists(), "of a file, half a video is none"
    monkeypatch.setattr(module, "Clip", live)
    summary = annotate_video(Finder(), source, tmp_path / "b.mp4", draw=draw)
    assert summary.written == 6 and len(times_of(tmp_path / "b.mp4")[0]) == 6


def one(x, numbers=(1,)):
    masks = np.zeros((20, 60, len(numbers)), bool)
    masks[5:15, x : x + 10] = True
    boxes = np.tile(np.array([5, x, 15, x + 10], np.float32), (len(numbers), 1))
    ids, scores = np.ones(len(numbers), np.int32), np.full(len(numbers), 0.9, np.float32)
    return Result(boxes, ids, scores, masks, (20, 60)), list(numbers)


@pytest.mark.parametrize("share, x", [(0, 0), (0.25, 10), (0.5, 20), (0.75, 30), (1, 40)])
def test_between_two_results_by_hand(share, x):
    result, numbers = between_results(*one(0), *one(40), share)
    assert numbers == [1] and result.rois.tolist() == [[5, x, 15, x + 10]]
    assert np.flatnonzero(result["masks"].any(axis=(0, 2))).tolist() == list(range(x, x + 10))


def test_boxes_in_whole_pixels_stay_so_between_two_results():
    first, second = one(0), one(41)
    for result, _ in (first, second):
        result["rois"] = result.rois.astype(np.int32)
    result, _ = between_results(*first, *second, 0.25)
    assert result.rois.dtype == np.int32 and result.rois.tolist() == [[5, 10, 15, 20]]


def test_keypoints_move_between_two_results():
    first, second = one(0), one(40)
    for x, (result, _) in ((2.0, first), (42.0, second)):
        result["keypoints"] = np.array([[[7, x, 0.5]]], np.float32)
    result, _ = between_results(*first, *second, 0.75)
    assert result.keypoints.tolist() == [[[7, 32, 0.5]]] and first[0].keypoints[0, 0, 1] == 2


def test_between_two_results_instances_of_one_are_there_for_half_the_time():
    for share, expected in ((0.4, [1]), (0.6, [1, 2])):
        assert between_results(*one(0), *one(40, (1, 2)), share)[1] == expected
    result, _ = between_results(*one(0), *one(40, (2,)), 0.4)
    assert result.rois.tolist() == [[5, 0, 15, 10]]


def test_the_command_writes_a_video_and_tracks(run_json, run, models, tmp_path):  # noqa: F811
    source = write_clip(tmp_path / "a.mp4", TIMES, sound=True, picture=picture)
    given = ("video", source, "--weights", "w.h5", "--output", tmp_path / "b.mp4", "--tracks", tmp_path / "t.json")
    code, values = run_json(*given, "--trails", "--line", "0,5,96,5", "--classes", "cat,dog")
    assert code == 0 and values["read"] == values["written"] == values["detected"] == 11 and values["tracks"] == 2
    assert len(times_of(tmp_path / "b.mp4")[0]) == 11
    code, _, err = run("video", write_clip(tmp_path / "deep.mp4", [0], pixels="yuv420p10le"), *given[2:])
    assert code == 0 and "deep.mp4: its colors of 10 bits become 8 bits\n1 of 1 frame, 2 objects" in err
    code, _, err = run(*given, "--every", "4")
    assert code == 0 and "those in between are interpolated" in err and "11 of 11 frames" in err
    code, _, err = run(*given, "--every", "4", "--drop")
    assert code == 0 and "those in between are dropped" in err and "4 of 11 frames" in err
    code, _, err = run("video", "nowhere.mp4", "--weights", "w.h5")
    assert code == 1 and err.strip() == "mrcnn video: error: there is no video 'nowhere.mp4'"


def packet_of(clip, number):
    with av.open(str(clip)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size][number]


def test_frames_that_the_command_does_not_write_are_said(run, models, tmp_path):  # noqa: F811
    trimmed = trim(write_clip(tmp_path / "a.mp4", range(0, 1200, 40)), tmp_path / "b.mp4", 0.52)
    code, _, err = run("video", trimmed, "--weights", "w.h5", "--output", tmp_path / "c.mp4")
    assert code == 0 and "b.mp4 shows 17 of the 30 frames in its header; the others are cut out by an edit, or" in err
    assert "could not be decoded" not in err
    whole, damaged = write_clip(tmp_path / "d.mkv", range(0, 1200, 40), codec="mpeg4"), tmp_path / "e.mkv"
    given = ("--weights", "w.h5", "--output", tmp_path / "f.mp4")
    packet = packet_of(whole, 15)
    damaged.write_bytes(whole.read_bytes().replace(packet, b"\xff" * len(packet)))
    code, _, err = run("video", damaged, *given)
    assert code == 0 and f"could not be decoded; {tmp_path / 'f.mp4'} may lack their frames" in err


def test_frames_that_a_demuxer_skips_are_said(run, models, tmp_path):  # noqa: F811
    """Zeros over the borders of packets: Matroska's demuxer goes to the next cluster, of which there is none."""
    whole, damaged = write_clip(tmp_path / "d.mkv", range(0, 1200, 40), codec="mpeg4"), tmp_path / "e.mkv"
    given = ("--weights", "w.h5", "--output", tmp_path / "f.mp4")
    code, _, err = run("video", whole, *given)
    assert code == 0 and "ends after" not in err
    content = whole.read_bytes()
    middle = content.index(packet_of(whole, 15)) - 8  # before the header of its block
    damaged.write_bytes(content[:middle] + bytes(400) + content[middle + 400 :])
    code, _, err = run("video", damaged, *given)
    assert code == 0 and "e.mkv: its picture ends after 0.60 of 1.20 seconds; the rest is damaged, or missing" in err
