"""Silero VAD: where in a sound somebody speaks.

    audio (S,) int16 -> frames of 32 ms, each with the 4 ms before it -> one pass of the recurrent model
    -> probability of speech per frame -> stretches of speech in seconds

Model: https://github.com/snakers4/silero-vad (MIT), version 6, exported for a whole sequence at once.
"""

from pathlib import Path

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.models import onnx

WEIGHTS = "silero-vad"
FILE = "silero_vad_16k_sequence.onnx"
FRAME = 512  # samples that the model judges at a time
CONTEXT = 64  # samples before them that it sees as well; without these it hears nothing
FRAME_S = FRAME / ANALYSIS_RATE
BLOCK = 2048  # frames in one pass (65 s): bounds the memory that a long sound needs

# The model's published defaults.
ENTER = 0.5  # speech begins at this probability
LEAVE = 0.35  # and lasts until it falls below this one
MIN_SILENCE_S = 0.1  # a shorter pause is part of the speech
MIN_SPEECH_S = 0.25  # a shorter sound is not speech
PAD_S = 0.03  # soft onsets and ends

# Ours: what is surely not speech tells the level of the noise, and a syllable in it would raise that.
QUIET = 0.15  # a pause stays below this probability
GUARD_S = 0.1  # and begins and ends this far from what does not


class SileroVad:
    """`probabilities` per frame of 32 ms; from them `segments_of` speech and `pauses_of` it."""

    def __init__(self, folder: Path) -> None:
        self._session = onnx.load(folder / FILE)

    def probabilities(self, audio: np.ndarray) -> np.ndarray:
        """(S,) int16 mono at 16 kHz -> (ceil(S / 512),) float32 in [0, 1]; the last frame is padded."""
        n_frames = -(-len(audio) // FRAME)
        if n_frames == 0:
            return np.zeros(0, np.float32)
        windows = _windows(audio, n_frames)
        hidden = cell = np.zeros((1, 1, 128), np.float32)
        blocks = []
        for first in range(0, n_frames, BLOCK):
            block, hidden, cell = self._session.run(
                ["speech_probs", "hn", "cn"],
                {"input": windows[first : first + BLOCK], "h": hidden, "c": cell},
            )
            blocks.append(block.reshape(-1))
        return np.concatenate(blocks)


def segments_of(probabilities: np.ndarray, duration_s: float) -> list[tuple[float, float]]:
    """(N,) probabilities per frame -> [(start_s, end_s)], ordered, apart, within [0, duration_s]."""
    merged: list[tuple[float, float]] = []
    for start, end in _runs(probabilities, ENTER, LEAVE):
        start_s, end_s = start * FRAME_S, min(end * FRAME_S, duration_s)
        if merged and start_s - merged[-1][1] < MIN_SILENCE_S:
            merged[-1] = (merged[-1][0], end_s)
        else:
            merged.append((start_s, end_s))
    # MIN_SILENCE_S > 2 * PAD_S: padding joins nothing.
    return [
        (max(0.0, start_s - PAD_S), min(duration_s, end_s + PAD_S))
        for start_s, end_s in merged
        if end_s - start_s >= MIN_SPEECH_S
    ]


def pauses_of(probabilities: np.ndarray, duration_s: float) -> list[tuple[float, float]]:
    """Like `segments_of`, but where surely nobody speaks; between the two lies what may be speech."""
    quiet = _runs(1 - probabilities, 1 - QUIET, 1 - QUIET)
    spans = [(start * FRAME_S + GUARD_S, min(end * FRAME_S, duration_s) - GUARD_S) for start, end in quiet]
    return [(start_s, end_s) for start_s, end_s in spans if end_s > start_s]


def _runs(values: np.ndarray, enter: float, leave: float) -> list[tuple[int, int]]:
    """Frames [start, end) that begin at `enter` or above and go on down to `leave`."""
    runs = []
    start: int | None = None
    for index, value in enumerate(values):
        if start is None and value >= enter:
            start = index
        elif start is not None and value < leave:
            runs.append((start, index))
            start = None
    if start is not None:
        runs.append((start, len(values)))
    return runs


def _windows(audio: np.ndarray, n_frames: int) -> np.ndarray:
    """(S,) int16 -> (n_frames, CONTEXT + FRAME) float32 in [-1, 1): silence before and after."""
    padded = np.zeros(CONTEXT + n_frames * FRAME, np.float32)
    padded[CONTEXT : CONTEXT + len(audio)] = audio
    padded /= 32768
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]
