"""`hallo3 animate`: what cannot be used is named before a model is loaded; how far it is, while it works."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from cluster.arguments import from_zero, positive

PROBLEM, WRONG_INPUT = 1, 2
LINE_EVERY_S = 10.0


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`animate` and its options."""
    command = commands.add_parser(
        "animate",
        help="a portrait and a voice -> a video",
        description="Make the person in an image say what is heard, for as long as it is heard.",
    )
    given: dict[str, Any] = {"required": True, "type": Path}
    command.add_argument("--checkpoint", metavar="C", help="a run, its export, or Hallo3's weights", **given)
    command.add_argument("--image", metavar="I", help="any common format; the largest face speaks", **given)
    command.add_argument("--audio", metavar="A", help="any format, also a video with sound", **given)
    command.add_argument("--output", metavar="V.mp4", help="H.264 and AAC, as long as the sound", **given)
    command.add_argument("--prompt", default="", metavar="P", help="what the video shows, in words")
    add_sampling(command)
    command.set_defaults(run=run)


def add_sampling(command: argparse.ArgumentParser) -> None:
    """How videos are made, with upstream's values: what `animate` and `app` have in common."""
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the same one, the same video")
    command.add_argument("--steps", type=positive, default=50, metavar="N", help="of the sampler, a window")
    command.add_argument(
        "--guidance", type=float, default=3.5, metavar="G", help="scale; 1: none, in half of the time"
    )
    command.add_argument(
        "--two-passes", action="store_true", help="guidance in half of the memory, in a little more time"
    )
    command.add_argument(
        "--skip-steps",
        type=from_zero,
        metavar="T",
        help="leave out most of a step in which little changes: 0.2 saves a third, see docs/animate.md",
    )
    command.add_argument(
        "--sampler", choices=["upstream", "clean"], default="upstream", help="clean: without its quirks"
    )
    command.add_argument(
        "--encoders", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. autoencoder=CogVideoX-5b-I2V"
    )
    command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def run(options: argparse.Namespace) -> int:
    """Make one video; the exit status."""
    for given in (options.checkpoint, options.image, options.audio):
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

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    sampling = Sampling(
        options.steps,
        options.guidance if options.guidance != 1 else None,
        compat=options.sampler == "upstream",
        two_passes=options.two_passes,
        skip_steps=options.skip_steps,
    )
    take = Take(options.image, options.audio, options.output, options.prompt, options.seed)
    try:
        check(take)
        animator = Animator.load(options.checkpoint, sampling, options.encoders, device)
        made = animator.animate(take, _Told())
    except (
        *(AnimateError, ConfigError, EncodersError, MediaError, PictureError),
        *(WeightsError, WeightsUnavailable),
    ) as error:
        return _fail(error, WRONG_INPUT)
    except BeingMade as error:
        return _fail(error, PROBLEM)
    except OSError as error:
        return _fail(f"{error.filename or take.output}: {error.strerror or error}", PROBLEM)
    for warning in made.warnings:
        print(f"hallo3: {warning}", file=sys.stderr)
    skipped = "" if options.skip_steps is None else f", {made.skipped_steps} steps skipped"
    print(f"{take.output}: {made.frames} frames, {made.frames / 25:.2f} s{skipped}")
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
