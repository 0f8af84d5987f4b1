"""Audio: sound as 16-bit mono, cut by time stamps on the picture's clock."""

import math
from collections.abc import Iterator
from itertools import chain, takewhile
from typing import Any

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE, Reason
from data_pipeline.media.container import audio_stream, decoded, open_container, seek, zero_s
from data_pipeline.media.damage import Damage
from data_pipeline.media.info import MediaError
from data_pipeline.storage import Location

_PREROLLS_S = (0.5, math.inf)  # codecs with overlapping windows need some packets before they are right
_GAP_S = 0.02  # time stamps that leave the count of samples by more than this mark a gap

Piece = tuple[float, np.ndarray]
"""The time of the first sample in seconds, and (S,) int16."""


def read_audio(
    path: Location, start_s: float = 0.0, end_s: float = math.inf, rate: int = ANALYSIS_RATE
) -> np.ndarray:
    """(S,) int16 mono at `rate` Hz from any layout, rate and sample format; encoder delay is removed.

    Where `end_s` is finite, exactly round((end_s - start_s) * rate) samples: silence fills what the
    file does not have. Raises MediaError like `probe`, and NO_AUDIO.
    """
    placed = []
    for time_s, samples in _pieces_around(path, start_s, end_s, rate):
        position = round((time_s - start_s) * rate)
        if position + len(samples) > 0:
            placed.append((max(position, 0), samples[max(-position, 0) :]))
    n_samples = max((position + len(samples) for position, samples in placed), default=0)
    if math.isfinite(end_s):
        n_samples = round((end_s - start_s) * rate)
    sound = np.zeros(n_samples, np.int16)
    for position, samples in placed:
        room = sound[position : position + len(samples)]
        room[:] = samples[: len(room)]
    return sound


def _pieces_around(path: Location, start_s: float, end_s: float, rate: int) -> Iterator[Piece]:
    """What the file has of [start_s, end_s), and some before and after it."""
    for preroll_s in _PREROLLS_S:
        with open_container(path) as container:
            audio = audio_stream(container)
            if audio is None:
                raise MediaError(Reason.NO_AUDIO, f"{path}: has no audio stream")
            if audio.codec_context is None:
                raise MediaError(Reason.UNSUPPORTED, f"{path}: no decoder for its audio codec")
            sought = seek(container, audio, start_s - preroll_s)
            damage = Damage(path, start_s)
            pieces = _resampled(path, container, audio, damage, rate)
            first = next(pieces, None)
            if sought and (first is None or first[0] > start_s):
                continue
            if first is not None:
                yield from takewhile(lambda piece: piece[0] < end_s, chain([first], pieces))
            damage.check()
            return


def _resampled(path: Location, container: Any, audio: Any, damage: Damage, rate: int) -> Iterator[Piece]:
    """Samples are counted from a time stamp on, so that its jitter does no harm. Where stamps and count
    part by more than _GAP_S, or the format changes, counting begins anew."""
    from av import AudioResampler

    zero = zero_s(container)
    resampler, kind = None, None
    counted_s = piece_s = 0.0  # where the next sample of the source, and of the output, belongs
    for frame in decoded(path, container, audio, damage):
        time_s = counted_s if frame.time is None else frame.time - zero
        damage.decoded(time_s, frame)
        kind_now = (frame.sample_rate, frame.format.name, frame.layout.name)
        if resampler is None or kind_now != kind or abs(time_s - counted_s) > _GAP_S:
            if resampler is not None:
                yield from _pieces(resampler.resample(None), piece_s, rate)
            resampler, kind = AudioResampler(format="s16", layout="mono", rate=rate), kind_now
            counted_s = piece_s = time_s
        for piece in _pieces(resampler.resample(frame), piece_s, rate):
            yield piece
            piece_s = piece[0] + len(piece[1]) / rate
        counted_s += frame.samples / frame.sample_rate
    if resampler is not None:
        yield from _pieces(resampler.resample(None), piece_s, rate)


def _pieces(blocks: list[Any], start_s: float, rate: int) -> Iterator[Piece]:
    for block in blocks:
        samples = block.to_ndarray().ravel()
        yield start_s, samples
        start_s += len(samples) / rate
