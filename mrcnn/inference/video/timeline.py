"""Times that go on where those of a file jump back, as in joined recordings."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

JUMP = Fraction(1, 2)  # seconds; a packet this much earlier than the end of the previous one begins a new recording


def packets(container: Any, *streams: Any) -> Iterator[Any]:
    """The packets of some streams in the order of the file, with continuous times.

    Where times jump back, all later packets are moved behind everything before them, by the same time in all streams,
    so that picture and sound stay together. Times that jump forward are kept.

    Args:
        container: opened with PyAV. Two readers that pass the same streams of a file get the same times.
    """
    offset, ends = Fraction(0), dict[int, Fraction]()
    for packet in container.demux(*streams):
        if packet.dts is not None:  # else it is empty, and ends its stream
            index = packet.stream.index
            time = packet.dts * packet.time_base + offset
            if time < ends.get(index, time) - JUMP:
                last = max(ends.values())
                offset, time = offset + last - time, last
            ends[index] = time + (packet.duration or 0) * packet.time_base
            shift(packet, offset)
        yield packet


def shift(packet: Any, seconds: Fraction) -> None:
    """Moves the times of a packet."""
    if seconds:
        ticks = round(seconds / packet.time_base)
        packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks
