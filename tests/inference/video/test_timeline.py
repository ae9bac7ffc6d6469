"""Times that go on where those of a file jump back."""

from fractions import Fraction
from types import SimpleNamespace

import pytest

from mrcnn.inference.video.timeline import packets

BASE = Fraction(1, 100)


def packet(stream, dts, pts=None, duration=10):
    return SimpleNamespace(stream=SimpleNamespace(index=stream), dts=dts, pts=pts, duration=duration, time_base=BASE)


def times(*given):
    container = SimpleNamespace(demux=lambda *streams: iter(given))
    return [(one.stream.index, one.dts, one.pts) for one in packets(container)]


def test_times_without_a_jump_are_kept():
    """Small steps back, gaps, and streams that begin at different times are no jumps."""
    given = [packet(0, 0, 20), packet(1, 300, 300), packet(0, 10, 30), packet(0, 5, 5), packet(0, 90_000, 90_000)]
    assert times(*given) == [(0, 0, 20), (1, 300, 300), (0, 10, 30), (0, 5, 5), (0, 90_000, 90_000)]


@pytest.mark.parametrize("first", [0, 1], ids=["picture first", "sound first"])
def test_a_second_recording_begins_after_everything_before_it_in_all_streams(first):
    one = [packet(0, 100, 110), packet(1, 100, 100), packet(0, 110, 120), packet(1, 115, 115)]
    two = [packet(0, 0, 10), packet(1, 4, 4)]
    found = times(*one, *(two if first == 0 else reversed(two)))
    assert found[:4] == [(0, 100, 110), (1, 100, 100), (0, 110, 120), (1, 115, 115)]
    begin = {stream: dts for stream, dts, _ in found[4:]}
    assert begin[first] == 125 and begin[1] - begin[0] == 4 and found[4 + first][2] == begin[0] + 10


def test_empty_packets_pass():
    assert times(packet(0, 200), packet(0, None), packet(0, 0)) == [(0, 200, None), (0, None, None), (0, 210, None)]
