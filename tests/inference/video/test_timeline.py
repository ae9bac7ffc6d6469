"""Times that go on where those of a file jump back."""

from fractions import Fraction
from types import SimpleNamespace

import pytest

from mrcnn.inference.video.timeline import Timeline

BASE = Fraction(1, 100)


def packet(stream, dts, pts=None, duration=10):
    return SimpleNamespace(
        stream=SimpleNamespace(index=stream), dts=dts, pts=pts, duration=duration, time_base=BASE, size=1
    )


def timeline(*given):
    container = SimpleNamespace(demux=lambda *streams: iter(given))
    return Timeline(container, SimpleNamespace(index=0), SimpleNamespace(index=1))


def times(*given):
    """dts and pts of the pictures, and of the sound."""
    found = list(timeline(*given))
    return [[(one.dts, one.pts) for one in found if one.stream.index == stream] for stream in (0, 1)]


def test_times_without_a_jump_are_kept():
    """Small steps back, gaps, and streams that begin at different times are no jumps."""
    given = [packet(0, 0, 20), packet(1, 300, 300), packet(0, 10, 30), packet(0, 5, 5), packet(0, 90_000, 90_000)]
    assert times(*given, packet(1, 90_300)) == [
        [(0, 20), (10, 30), (5, 5), (90_000, 90_000)],
        [(300, 300), (90_300, None)],
    ]


@pytest.mark.parametrize("first", [0, 1], ids=["picture first", "sound first"])
def test_a_second_recording_begins_after_the_pictures_before_it_in_all_streams(first):
    one = [packet(0, 100, 110), packet(1, 100, 100), packet(0, 110, 120), packet(1, 115, 115)]
    two = [packet(0, 0, 10), packet(1, 4, 4)]
    pictures, sound = times(*one, *(two if first == 0 else reversed(two)))
    assert pictures == [(100, 110), (110, 120), (120, 130)] and sound == [(100, 100), (115, 115), (124, 124)]


def test_a_picture_of_unknown_duration_lasts_as_long_as_the_one_before_it():
    given = [packet(0, dts, duration=None) for dts in (100, 104, 108, 0, 4)]
    assert times(*given)[0] == [(dts, None) for dts in (100, 104, 108, 112, 116)]


def test_late_sound_of_the_first_recording_stays_in_it():
    """It comes after the first pictures of the second one; 0.2 s of the second one's sound overlap it."""
    one = [packet(number % 2, 10 * (number // 2)) for number in range(38)]  # pictures and sound until 1.9 s
    late, two = [packet(1, 190), packet(1, 200)], [packet(stream, 10 * i) for i in range(30) for stream in (0, 1)]
    pictures, sound = times(*one, two[0], late[0], two[2], late[1], *two[4::2][:2], *two[1::2], *two[8::2])
    assert [dts for dts, _ in pictures] == list(range(0, 490, 10))
    assert [dts for dts, _ in sound] == [*range(0, 210, 10), 201, *range(210, 490, 10)]


@pytest.mark.parametrize("wrong", [1_193_000, 450, 150], ids=["far ahead", "ahead", "little ahead"])
def test_sound_does_not_move_the_picture(wrong):
    """One packet of sound is ahead, as by a flipped bit, and one is behind: they are left out and counted."""
    given = [packet(stream, 10 * i) for i in range(30) for stream in (0, 1)]
    given[11], given[41] = packet(1, wrong), packet(1, -wrong)
    found = timeline(*given)
    dts = [(one.stream.index, one.dts) for one in found]
    assert [time for stream, time in dts if stream == 0] == list(range(0, 300, 10)) and found.dropped == 2
    assert [time for stream, time in dts if stream == 1] == [10 * i for i in range(30) if i not in (5, 20)]


def test_sound_of_two_recordings_that_overlaps_is_left_out():
    """It ends 0.2 s after the picture; what overlaps by less than a packet only moves."""
    one, two = [[packet(stream, 10 * i) for i in range(10) for stream in (0, 1)] for _ in range(2)]
    found = timeline(*one, packet(1, 100), packet(1, 110), *two)
    dts = [(one.stream.index, one.dts) for one in found]
    assert [time for stream, time in dts if stream == 0] == list(range(0, 200, 10))
    assert [time for stream, time in dts if stream == 1] == [*range(0, 120, 10), 111, *range(120, 200, 10)]
    assert found.dropped == 1


@pytest.mark.parametrize("wrong", [1_193_000, -1_193_000, 2_000])
@pytest.mark.parametrize("place", [1, 5, 8])
def test_one_wrong_time_of_a_picture_moves_no_other(place, wrong):
    given = [packet(0, 10 * i, 10 * i) for i in range(10)]
    given[place] = packet(0, wrong, wrong)
    expected = [(10 * i, None if i == place else 10 * i) for i in range(10)]
    assert times(*given)[0] == expected


def test_a_picture_shown_long_after_it_is_decoded_has_no_time_of_its_own():
    assert times(packet(0, 0, 20), packet(0, 10, 1_193_000), packet(0, 20, 30))[0] == [(0, 20), (10, None), (20, 30)]


def test_sound_waits_for_a_limited_number_of_packets(monkeypatch):
    monkeypatch.setattr("mrcnn.inference.video.timeline.WAITING", 5)
    order = [one.stream.index for one in timeline(packet(0, 0), *(packet(1, i) for i in range(100)), packet(0, 1000))]
    assert order.index(0) == 95, "all but the last five came before the second picture"


def test_empty_packets_of_the_picture_pass():
    assert times(packet(0, 200), packet(0, None), packet(0, 0), packet(1, None)) == [
        [(200, None), (None, None), (210, None)],
        [],
    ]
