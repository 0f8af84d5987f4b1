"""What is known of a media file, and what went wrong with it."""

from dataclasses import dataclass

from data_pipeline.clip import Reason

MAX_PIXELS = 8192 * 4608
"""Of one frame; a file with larger ones is `unsupported`."""


class MediaError(Exception):
    """An input that could not be read; `reason` is the pipeline's word for why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


@dataclass(frozen=True, slots=True)
class VideoStream:
    """The file's moving pictures."""

    codec: str
    width: int
    """In pixels, as displayed: after rotation, with square pixels."""
    height: int
    fps: float
    """Average."""
    rotation_deg: int
    """Clockwise turn that a player applies: 0, 90, 180 or 270."""
    n_frames: int | None
    """As the container announces; None where it does not say."""


@dataclass(frozen=True, slots=True)
class AudioStream:
    """The file's sound."""

    codec: str
    rate: int
    """Hz"""
    channels: int


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """One media file. At least one of `video` and `audio` is there."""

    container: str
    duration_s: float
    """Of the pictures where there are any, else of the sound."""
    video: VideoStream | None
    audio: AudioStream | None
