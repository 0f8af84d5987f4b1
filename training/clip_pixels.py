"""A clip's media as a model of some size sees them: pixels in [-1, 1], boxes in the picture, sound.

    .mp4  -> frames by number -> the middle of the picture, in the model's proportions -> (3, N, H, W)
    box, in fractions of the clip's picture -> in fractions of what is left of it
    .flac -> (S,) float32 of -1..1 at 16 kHz

Whoever looks at clips, in advance or while training, looks through this, so both see the same.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_pipeline.clip import Reason
from data_pipeline.media import MediaError, decord_pictures, read_audio

Box = tuple[float, float, float, float]
"""x0 y0 x1 y1."""


@dataclass(frozen=True)
class Framing:
    """How a picture becomes `height` x `width`: the most of its middle in these proportions, scaled."""

    height: int
    width: int

    def crop_of(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the part of a picture that is used."""
        used_height = min(height, round(width * self.height / self.width))
        used_width = min(width, round(height * self.width / self.height))
        return (height - used_height) // 2, (width - used_width) // 2, used_height, used_width

    def picture(self, picture: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 -> (height, width, 3) uint8."""
        import cv2

        top, left, height, width = self.crop_of(*picture.shape[:2])
        used = picture[top : top + height, left : left + width]
        how = cv2.INTER_AREA if self.height < height else cv2.INTER_CUBIC
        return cv2.resize(used, (self.width, self.height), interpolation=how)

    def box(self, box: Box, height: int, width: int) -> Box:
        """A box in fractions of a picture of this size -> in fractions of what is left of it.

        May reach beyond 0 and 1."""
        top, left, used_height, used_width = self.crop_of(height, width)
        x0, x1 = ((side * width - left) / used_width for side in box[::2])
        y0, y1 = ((side * height - top) / used_height for side in box[1::2])
        return x0, y0, x1, y1


class ClipFrames:
    """The pictures of one clip's .mp4, by number, for a model of some size; for one thread.

    Raises MediaError for what is no video or breaks off."""

    def __init__(self, mp4: bytes, framing: Framing) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self.framing = framing
        # By a name: of a damaged video in memory decord prints the bytes.
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file, _told():
            file.write(mp4)
            file.flush()
            self._reader = decord.VideoReader(file.name, ctx=decord.cpu(0), num_threads=1)
            self.size: tuple[int, int] = decord_pictures(self._reader, [0]).shape[1:3]
            """Height and width of the clip's own pictures."""

    def __len__(self) -> int:
        return len(self._reader)

    def at(self, numbers: Sequence[int]) -> Tensor:
        """(3, N, height, width) float32 in [-1, 1]. Raises IndexError for a number that there is not."""
        return pixels_of(self.pictures(numbers))

    def pictures(self, numbers: Sequence[int]) -> np.ndarray:
        """(N, height, width, 3) uint8. Raises IndexError for a number that there is not."""
        if not all(0 <= number < len(self) for number in numbers):
            raise IndexError(f"frames {min(numbers)} to {max(numbers)} of a video of {len(self)}")
        with _told():
            pictures = decord_pictures(self._reader, numbers)
        return np.stack([self.framing.picture(picture) for picture in pictures])


def pixels_of(pictures: np.ndarray) -> Tensor:
    """(N, height, width, 3) uint8 -> (3, N, height, width) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(3, 0, 1, 2).float() / 127.5 - 1


@contextmanager
def _told() -> Iterator[None]:
    """What decord says of a video, as a MediaError."""
    import decord

    try:
        yield
    except (decord.DECORDError, RuntimeError) as error:
        raise MediaError(Reason.CORRUPT, "its video cannot be decoded") from error


def sound_of(flac: bytes) -> np.ndarray:
    """(S,) float32 of -1..1, mono at 16 kHz. Raises MediaError."""
    with tempfile.NamedTemporaryFile(suffix=".flac") as file:
        file.write(flac)
        file.flush()
        return read_audio(Path(file.name)).astype(np.float32) / 32768
