"""`hallo3 animate`: what cannot be used is named before a model is loaded; how far it is, while it works."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import fleet
from cluster.arguments import from_zero, pixels, positive, rate
from cluster.launch import LaunchError

if TYPE_CHECKING:
    from evaluation.animator import Animator
    from training.generate import Sampling

PROBLEM, WRONG_INPUT = 1, 2
LINE_EVERY_S = 10.0


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`animate` and its options."""
    command = commands.add_parser(
        "animate",
        help="a portrait and a voice -> a video",
        description="Make the person in an image say what is heard, for as long as it is heard.",
    )
    command.add_argument(
        "--checkpoint", required=True, type=Path, metavar="C", help="a run, its export, or Hallo3's weights"
    )
    command.add_argument("--image", type=Path, metavar="I", help="any common format; the largest face speaks")
    command.add_argument("--audio", type=Path, metavar="A", help="any format, also a video with sound")
    command.add_argument("--output", type=Path, metavar="V.mp4", help="H.264 and AAC, as long as the sound")
    command.add_argument("--prompt", default="", metavar="P", help="what the video shows, in words")
    command.add_argument("--seconds", type=float, metavar="S", help="at most; the rest of the sound is cut")
    command.add_argument(
        "--batch", type=Path, metavar="JSONL", help="a list: image, audio, output (prompt, seed) a line"
    )
    command.add_argument("--workers", type=positive, metavar="N", help="of a list; else one a GPU, or one")
    command.add_argument(
        "--workers-a-video", type=positive, default=1, metavar="N", help="share each video, a GPU each"
    )
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
        "--size", type=pixels(8), metavar="HxW", help="px of the model's frame, e.g. 480x720; else its own"
    )
    command.add_argument("--fps", type=rate, default=25, metavar="F", help="frames a second")
    command.add_argument(
        "--tile", type=pixels(32), metavar="HxW", help="px the autoencoder computes at a time, e.g. 256x384"
    )
    command.add_argument(
        "--offload", action="store_true", help="weights in the host's memory, layer by layer on the GPU"
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
    command.add_argument(
        "--credentials",
        nargs=2,
        type=Path,
        metavar=("CERT.pem", "KEY.pem"),
        help="sign content credentials (C2PA); the extra `provenance`",
    )
    command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def run(options: argparse.Namespace) -> int:
    """Make one video, or those of a list; the exit status."""
    for words in _wrong(options):
        return _fail(words, WRONG_INPUT)
    try:
        from evaluation.animator import WRONG_INPUTS, Take, check
        from evaluation.crew import CrewError
        from evaluation.fleet import FleetLost
        from evaluation.items import ItemsError, read_items
        from evaluation.parts import BeingMade
    except ModuleNotFoundError as error:
        return _fail(f"animating needs {error.name}; pip install 'hallo3[train,eval]'", PROBLEM)

    try:
        if options.batch:
            return fleet.run(read_items(options.batch, options.seed), loader(options), options)
        files = options.image, options.audio, options.output
        take = Take(*files, options.prompt, options.seed, options.seconds)
        check(take)
        if options.workers_a_video > 1:
            return fleet.run([take], loader(options), options)
        made = loader(options)(device=device_of(options)).animate(take, _Told())
    except (*WRONG_INPUTS, CrewError, ItemsError) as error:
        return _fail(error, WRONG_INPUT)
    except (BeingMade, FleetLost, LaunchError) as error:
        return _fail(error, PROBLEM)
    except OSError as error:
        name = error.filename or options.output or options.batch
        return _fail(f"{name}: {error.strerror or error}", PROBLEM)
    for warning in made.warnings:
        print(f"hallo3: {warning}", file=sys.stderr)
    skipped = "" if options.skip_steps is None else f", {made.skipped_steps} steps skipped"
    print(f"{take.output}: {made.frames} frames, {made.frames / options.fps:.2f} s{skipped}")
    return 0


def loader(options: argparse.Namespace) -> Callable[..., "Animator"]:
    """Loads the model that --checkpoint and `add_sampling`'s options name on a `device`, here or in a worker.

    Raises WRONG_INPUTS (animator.py), and so does what it gives."""
    from evaluation.animator import Animator
    from evaluation.provenance import Credentials
    from evaluation.setup import Setup

    return partial(
        Animator.load,
        options.checkpoint,
        sampling_of(options),
        options.encoders,
        setup=Setup(options.size, options.fps, options.tile, options.offload),
        credentials=Credentials.read(*options.credentials) if options.credentials else None,
    )


def device_of(options: argparse.Namespace) -> str:
    """Where the networks compute."""
    import torch

    if options.device != "auto":
        return str(options.device)
    return "cuda" if torch.cuda.is_available() else "cpu"


def sampling_of(options: argparse.Namespace) -> "Sampling":
    """What `add_sampling`'s options say of each window."""
    from training.generate import Sampling

    return Sampling(
        options.steps,
        options.guidance if options.guidance != 1 else None,
        compat=options.sampler == "upstream",
        two_passes=options.two_passes,
        skip_steps=options.skip_steps,
    )


def _wrong(options: argparse.Namespace) -> Iterator[str]:
    """What is wrong with the command line by itself, and which files are not there."""
    one = {"--image": options.image, "--audio": options.audio, "--output": options.output}
    if options.batch:
        for name, given in {**one, "--prompt": options.prompt, "--seconds": options.seconds}.items():
            if given:
                yield f"{name} {given}: the lines of --batch say it, each its own; leave it out"
    else:
        for name, given in one.items():
            if given is None:
                yield f"{name} is missing: give --image, --audio and --output, or a list of them with --batch"
        if options.workers:
            yield "--workers is for a list (--batch); of one video it is --workers-a-video that share it"
    for file in (options.checkpoint, options.batch, options.image, options.audio):
        if file is not None and not file.exists():
            yield f"{file}: no such file or folder"


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
