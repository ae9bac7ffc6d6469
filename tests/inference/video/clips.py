"""Generated videos: a white square that moves over gray, with frames that tell their number."""

from fractions import Fraction

import numpy as np

WIDTH, HEIGHT = 96, 64


def picture(number, size=(HEIGHT, WIDTH)):
    """Gray, a white square at (10, 2 * number), and the number in binary along the bottom, in blocks of 8 pixels."""
    image = np.full((*size, 3), 90, np.uint8)
    image[10:30, 2 * number : 2 * number + 20] = 255
    for bit in range(6):
        image[-8:, 8 * bit : 8 * bit + 8] = 255 if number >> bit & 1 else 0
    return image


def noisy_picture(number, size=(HEIGHT, WIDTH)):
    """A `picture` over noise, so that every frame takes much the same room in a file."""
    image = picture(number, size)
    image[30:-8] = np.random.default_rng(number).integers(0, 255, (size[0] - 38, size[1], 3))
    return image


def number_of(image):
    """The number in a `picture`, whatever a codec did to it."""
    return sum(int(image[-6:-2, 8 * bit + 2 : 8 * bit + 6].mean() > 128) << bit for bit in range(6))


def write_clip(
    path,
    times,
    *,
    size=(HEIGHT, WIDTH),
    base=Fraction(1, 1000),
    sound=False,
    codec="libx264",
    picture=picture,
    pixels=None,
    **context,
):
    """A video with a frame at each of `times`, in units of `base`; with a second of sound per second.

    pixels: their format. context: attributes of the codec.
    """
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = pixels or ("yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p")
        stream.codec_context.time_base = stream.time_base = base
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        tone = container.add_stream("aac", rate=8000) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            for block in range(int(times[-1] * base * 8000) // 1024 + 1):
                wave = (np.sin(np.arange(1024) / 5 + block) * 8000).astype(np.int16)[None]
                frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 8000, 1024 * block
                container.mux(tone.encode(frame))
            container.mux(tone.encode(None))
    return path


def trim(source, target, seconds):
    """Hides the start of a video by an edit list, as trimming without encoding does; returns `target`."""
    import av

    with av.open(str(source)) as given, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                ticks = round(seconds / packet.time_base)
                packet.dts, packet.pts, packet.stream = packet.dts - ticks, packet.pts - ticks, stream
                out.mux(packet)
    return target


def times_of(path):
    """Presentation times of all frames, in seconds, and the content of the sound's packets."""
    import av

    with av.open(str(path)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        audio = container.streams.audio
        packets = [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(*audio) if p.size] if audio else []
    return times, packets
