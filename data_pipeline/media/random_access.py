"""Random access: pictures at any times, in any order.

decord keeps an index of the file and is quick where that index is right. On numbered frames it was right
for the containers and codecs of DECORD_READS; in HEVC, AVI and MPEG streams it gave other frames than
those asked for (it counts frames after a seek, and decoders drop some there). Those are read by seeking.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.clip import Reason
from data_pipeline.media.container import TOLERANCE_S
from data_pipeline.media.info import MAX_PIXELS, MediaError
from data_pipeline.media.probe import probe
from data_pipeline.media.video import fitted, frames_around
from data_pipeline.storage import Location

if TYPE_CHECKING:
    import decord

DECORD_READS = {
    "mov,mp4,m4a,3gp,3g2,mj2": ("h264", "mpeg4", "vp9"),
    "matroska,webm": ("h264", "vp8", "vp9"),
}


def frames_at(path: Location, times_s: Sequence[float], max_px: int | None = None) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB: the pictures on screen at `times_s`, in that order; longer side <= `max_px`.

    Raises MediaError like `read_frames`.
    """
    import cv2

    info = probe(path)
    if info.video is None:
        raise MediaError(Reason.NO_VIDEO, f"{path}: has no video stream")
    size = fitted(info.video.width, info.video.height, max_px)
    indexed = info.video.codec in DECORD_READS.get(info.container, ())
    picture_at = _by_index(path) if indexed and isinstance(path, Path) else _by_seeking(path)
    frames = np.empty((len(times_s), size[1], size[0], 3), np.uint8)
    for n in np.argsort(times_s):  # rising times seldom need a seek
        frames[n] = cv2.resize(picture_at(times_s[n]), size, interpolation=cv2.INTER_AREA)
    return frames


PictureAt = Callable[[float], np.ndarray]


def _by_index(path: Path) -> PictureAt:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    by_seeking = _by_seeking(path)
    try:
        reader = decord.VideoReader(os.path.abspath(path), ctx=decord.cpu(0), num_threads=1)
        shown_at_s = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    except decord.DECORDError:  # it gives up sooner than libavcodec
        return by_seeking

    def picture_at(time_s: float) -> np.ndarray:
        index = np.searchsorted(shown_at_s - shown_at_s[0], time_s + TOLERANCE_S, side="right") - 1
        try:
            return decord_pictures(reader, [max(int(index), 0)])[0]
        except decord.DECORDError:
            return by_seeking(time_s)

    return picture_at


def decord_pictures(reader: "decord.VideoReader", numbers: Sequence[int]) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB: a reader's pictures by number. Raises decord.DECORDError.

    decord takes the number of channels from the length of a row in memory: where a narrow video's rows are
    padded by a third (96 and 144 px wide on CPUs with AVX-512, 48 on others) it sees a fourth channel, and
    refuses a batch. The pixels are there, at the beginning of each row."""
    height, width, channels = reader[numbers[0]].shape
    if channels == 3:
        return reader.get_batch(list(numbers)).asnumpy()
    rows = np.stack([reader[number].asnumpy() for number in numbers]).reshape(len(numbers), height, -1)
    return rows[:, :, : 3 * width].reshape(len(numbers), height, width, 3)


def _by_seeking(path: Location) -> PictureAt:
    def picture_at(time_s: float) -> np.ndarray:
        until_s = time_s + 2 * TOLERANCE_S
        last = deque(frames_around(path, time_s, until_s, threads=1, max_pixels=MAX_PIXELS), maxlen=1)
        if not last:
            raise MediaError(Reason.CORRUPT, f"{path}: no picture could be decoded at {time_s} s")
        return last[0].rgb()

    return picture_at
