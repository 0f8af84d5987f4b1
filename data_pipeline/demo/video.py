"""Writing the demo's video files: several codecs, and the same bytes every time."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

ENCODER_OPTIONS = {
    "libx264": {"preset": "superfast", "crf": "20", "x264-params": "lookahead-threads=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "32", "b": "0"},
    "mpeg4": {"qscale": "4"},
}


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: int,
    sound: np.ndarray | None,
    rate: int,
    *,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    rotation_deg: int = 0,
) -> None:
    """Write (H, W, 3) uint8 RGB `frames` and, where given, (S,) int16 mono `sound` at `rate` Hz.

    The container follows from the path's suffix. With a `rotation_deg` the frames are stored as they
    are, and a player turns them counter-clockwise by that much. One thread and no clock, so that the
    same input gives the same file."""
    import av

    frames = iter(frames)
    first = next(frames)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        video: Any = container.add_stream(video_codec, rate=fps)
        video.height, video.width = first.shape[:2]
        video.pix_fmt = "yuv420p"
        video.options = ENCODER_OPTIONS[video_codec] | {"flags": "+bitexact"}
        video.codec_context.thread_count = 1
        if rotation_deg:
            video.set_display_rotation(rotation_deg)
        audio: Any = None
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate, layout="mono")
            audio.options = {"flags": "+bitexact"}

        for index, frame in enumerate(chain([first], frames)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            container.mux(video.encode(picture))
            if sound is not None:  # beside its picture, or the muxer would hold all pictures back
                start, stop = (round(position * rate / fps) for position in (index, index + 1))
                block = av.AudioFrame.from_ndarray(sound[None, start:stop], format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = rate, start, Fraction(1, rate)
                container.mux(audio.encode(block))
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(audio.encode(None))


def transcode(source: Path, target: Path, rate: int, max_px: int) -> None:
    """Write what `source` shows and sounds like again: smaller, coarser, and in other codecs."""
    from data_pipeline import media

    video = media.probe(source).video
    if video is None:
        raise ValueError(f"{source} shows nothing to write again")
    frames = (frame.rgb(max_px) for frame in media.read_frames(source))
    sound = media.read_audio(source, rate=rate)
    write_video(target, frames, round(video.fps), sound, rate, video_codec="mpeg4", audio_codec="libmp3lame")
