"""`hallo3 animate`: what cannot be used is named before a model is loaded; how far it is, while it works."""

import sys
import time
from pathlib import Path

PROBLEM, WRONG_INPUT = 1, 2
LINE_EVERY_S = 10.0


def run(
    checkpoint: Path,
    image: Path,
    audio: Path,
    output: Path,
    *,
    prompt: str,
    seed: int,
    steps: int,
    guidance: float,
    two_passes: bool,
    sampler: str,
    encoders: list[str],
    device: str,
) -> int:
    """Make one video; the exit status."""
    for given in (checkpoint, image, audio):
        if not given.exists():
            return _fail(f"{given}: no such file or folder", WRONG_INPUT)
    try:
        import torch

        from data_pipeline.config_file import ConfigError
        from data_pipeline.media import MediaError
        from data_pipeline.weights import WeightsUnavailable
        from evaluation.animator import AnimateError, Animator, Take, check
        from evaluation.parts import BeingMade
        from evaluation.picture import PictureError
        from training.encoders import EncodersError
        from training.generate import Sampling
        from training.model.weights_map import WeightsError
    except ModuleNotFoundError as error:
        return _fail(f"animating needs {error.name}; pip install 'hallo3[train,eval]'", PROBLEM)

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    scale = guidance if guidance != 1 else None
    sampling = Sampling(steps, scale, compat=sampler == "upstream", two_passes=two_passes)
    take = Take(image, audio, output, prompt, seed)
    try:
        check(take)
        animator = Animator.load(checkpoint, sampling, encoders, device)
        made = animator.animate(take, _Told())
    except (
        *(AnimateError, ConfigError, EncodersError, MediaError, PictureError),
        *(WeightsError, WeightsUnavailable),
    ) as error:
        return _fail(error, WRONG_INPUT)
    except BeingMade as error:
        return _fail(error, PROBLEM)
    except OSError as error:
        return _fail(f"{error.filename or output}: {error.strerror or error}", PROBLEM)
    for warning in made.warnings:
        print(f"hallo3: {warning}", file=sys.stderr)
    print(f"{output}: {made.frames} frames, {made.frames / 25:.2f} s")
    return 0


class _Told:
    """Says on stderr how far a video is: at its beginning, then every ten seconds."""

    def __init__(self) -> None:
        self._began = self._said = 0.0
        self._there = 0

    def __call__(self, made: int, of: int) -> None:
        now = time.monotonic()
        if not self._began:
            self._began, self._there = now, made
            goes_on = ", going on" if made else ""
            print(f"animate: {made}/{of} frames{goes_on}", file=sys.stderr, flush=True)
        elif made == of or now - self._said > LINE_EVERY_S:
            left = (now - self._began) / (made - self._there) * (of - made)
            print(f"animate: {made}/{of} frames, about {left:.0f} s left", file=sys.stderr, flush=True)
            self._said = now


def _fail(error: Exception | str, status: int) -> int:
    print(f"hallo3: {error}", file=sys.stderr)
    return status
