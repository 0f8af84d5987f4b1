"""Probe: what a file holds, found out by decoding one picture."""

import math

from data_pipeline.clip import Reason
from data_pipeline.media.container import audio_stream, duration_s, open_container, video_stream
from data_pipeline.media.info import MAX_PIXELS, AudioStream, MediaError, MediaInfo, VideoStream
from data_pipeline.media.video import decode_video
from data_pipeline.storage import Location


def probe(path: Location, *, max_pixels: int = MAX_PIXELS) -> MediaInfo:
    """What `path` holds. A cover picture is not a video.

    Raises MediaError: MISSING, STORAGE, CORRUPT, UNSUPPORTED (a codec, or frames above `max_pixels`), and
    NO_VIDEO where there is no sound either.
    """
    with open_container(path, max_pixels) as container:
        video, audio = video_stream(container), audio_stream(container)
        if video is None and audio is None:
            raise MediaError(Reason.NO_VIDEO, f"{path}: {container.format.name} without picture or sound")
        name = container.format.name
        sound = None
        if audio is not None:
            context = audio.codec_context
            sound = AudioStream(context.name, context.sample_rate, context.channels) if context else None
        if video is None:
            return MediaInfo(name, duration_s(path, container, audio), None, sound)
        frames = decode_video(path, container, video, 0.0, math.inf, threads=1, max_pixels=max_pixels)
        first = next(frames, None)
        if first is None:
            raise MediaError(Reason.CORRUPT, f"{path}: not one picture of its video could be decoded")
        fps = float(video.average_rate or video.guessed_rate or 0)
        picture = VideoStream(
            video.codec_context.name, first.width, first.height, fps, first.rotation_deg, video.frames or None
        )
        return MediaInfo(name, duration_s(path, container, video), picture, sound)
