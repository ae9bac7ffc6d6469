"""Frames in = frames out, at their own times, with the sound; on constant and variable rates, odd sizes, damage."""

import itertools
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from mrcnn.inference.extras import require
from mrcnn.inference.video.clip import Clip, ClipWriter, Look
from tests.inference.video.clips import noisy_picture, number_of, times_of, write_clip

pytest.importorskip("av", reason="pip install 'mask-rcnn-keras[video]'")
CONSTANT = list(range(0, 40 * 30, 40))
VARIABLE = [0, 10, 50, 51, 90, 400, 401, 410, 1000, 1500, 1520, 1521, 1600, 2500]


def copied(source, target, **options):
    """Reads every frame and writes it again; returns the frames."""
    with Clip(source) as clip:
        frames = []
        with ClipWriter(target, clip.size, clip.time_base, clip.rate, **options) as writer:
            for frame in clip:
                writer.write(frame.image, frame.pts)
                frames.append(frame)
        assert writer.frames == len(frames)
    return frames


@pytest.mark.slow
@pytest.mark.parametrize("times", [CONSTANT, VARIABLE, [0]], ids=["constant", "variable", "one frame"])
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (64, 97), (65, 96)], ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_every_frame_once_at_its_own_time(tmp_path, times, size, suffix):
    source, target = write_clip(tmp_path / "a.mp4", times, size=size), tmp_path / f"b{suffix}"
    frames = copied(source, target)
    assert [number_of(frame.image) for frame in frames] == list(range(len(times)))
    found, _ = times_of(target)
    np.testing.assert_allclose(found, np.array(times) / 1000, atol=1e-3 if suffix == ".mkv" else 1e-9)
    with Clip(target) as clip:
        again = [number_of(frame.image) for frame in clip]
        assert again == list(range(len(times))) and clip.size == size and clip.damaged == 0


@pytest.mark.parametrize("base", [Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 25)])
def test_time_bases_are_kept(tmp_path, base):
    source = write_clip(tmp_path / "a.mp4", [0, 1, 3, 7, 8], base=base)
    copied(source, tmp_path / "b.mp4")
    np.testing.assert_allclose(times_of(tmp_path / "b.mp4")[0], times_of(source)[0], atol=1e-9)


def test_sound_is_copied_bit_by_bit(tmp_path):
    source = write_clip(tmp_path / "a.mp4", CONSTANT, sound=True)
    copied(source, tmp_path / "b.mp4", sound_of=source)
    (_, before), (times, after) = times_of(source), times_of(tmp_path / "b.mp4")
    assert len(times) == 30 and len(before) > 5 and [data for _, data in after] == [data for _, data in before]
    np.testing.assert_allclose([time for time, _ in after], [time for time, _ in before], atol=1e-3)
    copied(source, tmp_path / "c.mp4")
    assert times_of(tmp_path / "c.mp4")[1] == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_joined_recordings_play_one_after_the_other(tmp_path, suffix):
    """Times begin again in the middle of the file, in its picture and in its sound."""
    part = write_clip(tmp_path / "part.ts", CONSTANT, sound=True)
    source, target = tmp_path / "joined.ts", tmp_path / f"b{suffix}"
    source.write_bytes(2 * part.read_bytes())
    frames = copied(source, target, sound_of=source)
    assert [number_of(frame.image) for frame in frames] == 2 * list(range(30))
    times, packets = times_of(target)
    steps = np.diff(times)
    assert len(times) == 60 and np.median(steps) == pytest.approx(0.04, abs=1e-3) and 0.03 < steps.min()
    assert steps.max() < 0.3 and len(packets) == len(times_of(source)[1])
    assert packets[len(packets) // 2][0] == pytest.approx(times[30], abs=0.2), "the sound stays with the picture"


@pytest.mark.parametrize("share", [0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
def test_a_recording_that_was_cut_off_is_followed_without_a_gap(tmp_path, share):
    """Sound of the first one can come after the first picture of the second one."""
    whole = write_clip(tmp_path / "whole.ts", range(0, 4000, 40), sound=True).read_bytes()
    source, target = tmp_path / "joined.ts", tmp_path / "b.mkv"
    source.write_bytes(whole[: int(share * len(whole)) // 188 * 188] + whole)
    copied(source, target, sound_of=source)
    times, packets = times_of(target)
    assert np.diff(times).max() < 0.25 and np.diff([time for time, _ in packets]).max() < 0.3
    assert times[-1] < 4 * (1 + share) + 0.2


@pytest.mark.parametrize("ahead", [0, 2], ids=["in order", "B-frames"])
@pytest.mark.parametrize("start", [b"\0\0\1\xc0", b"\0\0\1\xe0"], ids=["sound", "picture"])
def test_one_wrong_time_moves_nothing_else(tmp_path, start, ahead):
    """A flipped bit in a time of presentation is 2**30 / 90,000 = 11,930 s."""
    content = bytearray(write_clip(tmp_path / "a.ts", CONSTANT, sound=True, max_b_frames=ahead).read_bytes())
    place = content.index(start, content.index(start, len(content) // 2) + 1)
    content[place + 9] ^= 0x02
    source, target = tmp_path / "b.ts", tmp_path / "b.mkv"
    source.write_bytes(content)
    with Clip(source) as clip, ClipWriter(target, clip.size, clip.time_base, clip.rate, source) as writer:
        for frame in clip:
            writer.write(frame.image, frame.pts)
    times, packets = times_of(target)
    assert len(times) == 30 and np.diff(times).max() < 0.1 and np.diff([time for time, _ in packets]).max() < 0.3
    assert writer.damaged == (start[3] == 0xC0), "it is counted"


def test_frames_before_zero_are_not_lost(tmp_path):
    """Players drop what an MP4 file has before 0, so everything moves to begin there."""
    source = write_clip(tmp_path / "a.mp4", CONSTANT, sound=True)
    with Clip(source) as clip, ClipWriter(tmp_path / "b.mp4", clip.size, clip.time_base, clip.rate, source) as writer:
        second = round(1 / clip.time_base)
        for frame in clip:
            writer.write(frame.image, frame.pts - second)
    (times, packets), before = times_of(tmp_path / "b.mp4"), times_of(source)
    np.testing.assert_allclose(times, before[0], atol=1e-3)
    assert packets[0][0] == pytest.approx(before[1][0][0] + 1, abs=1e-3), "by the same time"


def test_sound_that_cannot_be_written_is_counted_and_the_rest_goes_on(tmp_path):
    source = write_clip(tmp_path / "a.mp4", CONSTANT, sound=True)
    with Clip(source) as clip, ClipWriter(tmp_path / "b.mp4", clip.size, clip.time_base, clip.rate, source) as writer:
        first = writer._packet
        writer._sound = itertools.chain([(0, repeated(first[1]))], writer._sound)  # its time is that of the first
        for frame in clip:
            writer.write(frame.image, frame.pts)
    assert writer.lost() == ["1 packet of its sound left out: damaged, or at a wrong time"]
    assert [len(found) for found in times_of(tmp_path / "b.mp4")] == [30, len(times_of(source)[1])]


def repeated(packet):
    import av

    again = av.Packet(bytes(packet))
    again.stream, again.time_base, again.pts, again.dts = packet.stream, packet.time_base, packet.pts, packet.dts - 1
    return again


def test_pixels_that_are_not_square_stay_so(tmp_path):
    source = write_clip(tmp_path / "a.mp4", [0, 40], sample_aspect_ratio=Fraction(2, 1))
    with (
        Clip(source) as clip,
        ClipWriter(tmp_path / "b.mp4", clip.size, clip.time_base, clip.rate, look=clip.look) as b,
    ):
        for frame in clip:
            b.write(frame.image, frame.pts)
    with Clip(tmp_path / "b.mp4") as clip:
        assert clip.look.aspect == 2


def test_colors_are_written_by_the_matrix_of_the_source(tmp_path):
    """Players go by the matrix that the file names."""
    color = np.array((200, 40, 30))
    source = write_clip(tmp_path / "a.mp4", [0, 40], picture=lambda *_: np.full((64, 96, 3), color, np.uint8))
    look = Look(None, 1, 1, 1)
    with (
        Clip(source) as clip,
        ClipWriter(tmp_path / "b.mp4", clip.size, clip.time_base, clip.rate, look=look) as writer,
    ):
        for frame in clip:
            writer.write(frame.image, frame.pts)
    with Clip(tmp_path / "b.mp4") as clip:
        assert clip.look == look and abs(next(iter(clip)).image[20, 20] - color).max() <= 3


def test_what_is_not_kept_is_said(tmp_path):
    with Clip(write_clip(tmp_path / "a.mp4", [0, 40], pixels="yuv420p10le")) as clip:
        assert clip.left_out() == ["its colors of 10 bits become 8 bits"]
    with Clip(write_clip(tmp_path / "b.mp4", [0, 40], sound=True)) as clip:
        assert clip.left_out() == [], "sound is copied"
        more = [SimpleNamespace(type="subtitle"), SimpleNamespace(type="video"), SimpleNamespace(type="subtitle")]
        clip._container = SimpleNamespace(streams=[*clip._container.streams, *more])
        assert clip.left_out() == ["its other streams (2 subtitle, 1 video) are not copied"]


def test_sound_that_the_container_cannot_hold_is_said(tmp_path):
    source = write_clip(tmp_path / "a.mp4", CONSTANT, sound=True)
    with pytest.raises(ValueError, match=r"\.webm cannot store the sound of .*a.mp4' \(aac\).*to a .mkv file"):
        copied(source, tmp_path / "b.webm", sound_of=source)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_is_cut_off_gives_what_can_be_decoded(tmp_path, share):
    """Matroska can be read from the start. Frames between the last two that arrived may lack what they refer to."""
    content = write_clip(tmp_path / "a.mkv", CONSTANT, picture=noisy_picture).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: int(share * len(content))])
    frames = copied(tmp_path / "cut.mkv", tmp_path / "b.mp4")
    numbers = [number_of(frame.image) for frame in frames]
    assert numbers == sorted(set(numbers)) and share * 20 < len(numbers) < 30
    assert [frame.pts for frame in frames] == [40 * number for number in numbers]
    assert numbers[:-1] == list(range(len(numbers) - 1)), "only the last frame may come before a gap"
    assert len(times_of(tmp_path / "cut.mkv")[0]) == len(numbers), "all that the decoder gives"
    assert len(times_of(tmp_path / "b.mp4")[0]) == len(numbers)


def test_damaged_packets_are_counted_and_the_rest_goes_on(tmp_path):
    content = bytearray(write_clip(tmp_path / "a.mkv", CONSTANT, codec="mpeg4", picture=noisy_picture).read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content) // 3, len(content), 40).tolist():
        content[place] ^= 0xFF
    (tmp_path / "b.mkv").write_bytes(content)
    with Clip(tmp_path / "b.mkv") as clip:
        frames = list(clip)
    assert len(frames) + clip.damaged >= 20 and all(a.pts < b.pts for a, b in zip(frames, frames[1:], strict=False))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is not a video, or it is damaged or truncated"),
        (b"no video" * 100, "is not a video, or it is damaged or truncated"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n",
            "is not a video|is a list of other",
        ),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "is not a video|is a list of other"),
    ],
)
def test_what_is_no_video_is_one_error(tmp_path, content, message):
    """A list of other files is not followed."""
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Clip(tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError, match="there is no video 'nowhere.mp4'"):
        Clip("nowhere.mp4")


def test_a_playlist_does_not_open_another_video(tmp_path):
    secret = write_clip(tmp_path / "secret.ts", CONSTANT)
    for name, text in (
        ("a.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.2,\n{secret}\n#EXT-X-ENDLIST\n"),
        ("b.mp4", f"ffconcat version 1.0\nfile '{secret}'\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError):
            Clip(tmp_path / name)


def test_an_error_leaves_no_file(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        ClipWriter(tmp_path / "a.mp4", (64, 96), Fraction(1, 1000), Fraction(25)) as out,
    ):
        out.write(np.zeros((64, 96, 3), np.uint8), 0)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"the extension must be one of .mp4, .*, got '.txt'"):
        ClipWriter(tmp_path / "a.txt", (64, 96), Fraction(1, 1000), Fraction(25))


def test_a_missing_library_names_its_extra():
    with pytest.raises(ImportError, match=r"pip install 'mask-rcnn-keras\[video\]'"):
        require("no_such_module_of_video", "video")
