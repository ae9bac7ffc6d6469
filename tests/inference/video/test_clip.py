"""Frames in = frames out, at their own times, with the sound; on constant and variable rates, odd sizes, damage."""

from fractions import Fraction

import numpy as np
import pytest

from mrcnn.inference.extras import require
from mrcnn.inference.video.clip import Clip, ClipWriter
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
