"""Times that go on where those of a file jump back, as in joined recordings."""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

JUMP = Fraction(1, 2)  # seconds; a picture this much earlier than the end of the previous one begins a new recording
# Seconds. A time further ahead of everything before it is wrong, and so is that of a picture to be shown so long before
# or after it is decoded.
AHEAD = 10
LATER = 25  # pictures to read before sound is placed, as sound of a new recording may come before its first picture
WAITING = 1000  # packets of sound that wait for them
NEAR = 2  # recordings before and after the current one to which sound can belong
LEAST = Fraction(1, 1000)  # seconds between packets of sound, in any file


class Waiting(NamedTuple):
    """Sound to be placed when there are so many pictures. recording, end: of the pictures before it."""

    pictures: int
    packet: Any
    recording: int
    end: Fraction | None


class Timeline:
    """The packets of some streams, with continuous times.

    Where times of the picture jump back, a new recording begins, and moves behind the pictures before it. Sound moves
    by the time of its own recording, so that picture and sound stay together; it never moves the picture. Times that
    jump forward are kept, except that of a single picture.

    Args:
        container: opened with PyAV. lead: the stream of pictures; its packets keep their order, and their times are the
            same whatever the other streams are.
        others: streams of sound. Packets without a time are left out, and those whose time is wrong, which is far ahead
            or before that of an earlier packet.

    Attributes:
        dropped: number of packets of the other streams left out so far.
    """

    def __init__(self, container: Any, lead: Any, *others: Any) -> None:
        self.dropped = 0
        self._lead, self._packets = lead.index, container.demux(lead, *others)
        self._offsets = [Fraction(0)]  # of each recording
        self._times: dict[int, Fraction] = {}  # of the last packet of each stream
        self._ends: dict[int, Fraction] = {}  # of each stream so far
        self._waiting: deque[Waiting] = deque()

    def __iter__(self) -> Iterator[Any]:
        waiting, held, pictures = self._waiting, None, 0
        for packet in self._packets:
            if packet.stream.index == self._lead:
                pictures += 1
                if held is not None:
                    self._follow(held, packet)
                    yield held
                held = packet
            else:
                waiting.append(Waiting(pictures + LATER, packet, len(self._offsets) - 1, self._ends.get(self._lead)))
            while waiting and (waiting[0].pictures <= pictures or len(waiting) > WAITING):
                yield from self._placed(waiting.popleft())
        if held is not None:
            self._follow(held, held)
            yield held
        while waiting:
            yield from self._placed(waiting.popleft())

    def _follow(self, packet: Any, later: Any) -> None:
        """Moves a picture, which may begin a new recording; `later` is the next one, which shows a wrong time."""
        if packet.dts is None:  # it is empty and ends the stream, or the stream has no times
            return
        raw, offset, pts = packet.dts * packet.time_base, self._offsets[-1], packet.pts
        after = raw if later.dts is None else later.dts * later.time_base
        end = self._ends.get(self._lead, raw + offset)
        back = raw + offset < end - JUMP
        wrong = (back or raw + offset > end + AHEAD) and end <= after + offset <= end + AHEAD  # the next one goes on
        if wrong:
            raw = end - offset
            packet.dts = round(raw / packet.time_base)
        elif back:
            self._offsets.append(end - raw)
        if wrong or (pts is not None and abs(pts - packet.dts) * packet.time_base > AHEAD):
            packet.pts = None if self._lead in self._ends else packet.dts  # without it, the decoder keeps the order
        self._move(packet, self._offsets[-1])

    def _placed(self, sound: Waiting) -> Iterator[Any]:
        """The packet of sound with the time that fits best to the picture, and to the sound before it."""
        packet = sound.packet
        if packet.dts is None:
            self.dropped += packet.size > 0  # else it only ends its stream
            return
        stream, raw = packet.stream.index, packet.dts * packet.time_base
        near = [end for end in (self._ends.get(stream), sound.end) if end is not None]

        def distance(offset: Fraction) -> tuple[Fraction, ...]:
            distances = [abs(raw + offset - end) for end in near]
            return sum(distances, Fraction(0)), *distances  # of equal sums, the one nearer to the sound before it

        offset = min(self._offsets[max(sound.recording - NEAR, 0) : sound.recording + NEAR + 1], key=distance)
        time = raw + offset
        last = self._times.get(stream, time - 1)
        if time <= last < time + (packet.duration or 0) * packet.time_base:  # two recordings overlap by less than that
            time = last + max(LEAST, packet.time_base)
        if time <= last or self._is_ahead(stream, time, offset):
            self.dropped += 1
            return
        self._move(packet, time - raw)
        yield packet

    def _is_ahead(self, stream: int, time: Fraction, offset: Fraction) -> bool:
        """Whether sound is far ahead of everything before it, or sound that comes later fits in before it."""
        if time > max(self._ends.values(), default=time) + AHEAD:
            return True
        if time <= self._ends.get(stream, time) + JUMP:
            return False
        packets = (one.packet for one in self._waiting if one.packet.stream.index == stream)
        later = (one.dts * one.time_base for one in packets if one.dts is not None)
        return any(self._times[stream] < one + offset < time - JUMP for one in later)

    def _move(self, packet: Any, offset: Fraction) -> None:
        stream, time = packet.stream.index, packet.dts * packet.time_base + offset
        step = min(JUMP, max(Fraction(0), time - self._times.get(stream, time)))  # for packets of unknown duration
        end = time + (packet.duration * packet.time_base if packet.duration else step)
        self._times[stream], self._ends[stream] = time, max(end, self._ends.get(stream, end))
        shift(packet, offset)


def shift(packet: Any, seconds: Fraction) -> None:
    """Moves the times of a packet."""
    if seconds:
        ticks = round(seconds / packet.time_base)
        packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks
