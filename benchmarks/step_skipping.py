"""What skipping steps saves and how far it errs, with the model of `make demo` on held-out faces and voices.

    python -m benchmarks.step_skipping [DEMO] [--thresholds 0.1 0.2 ...] [--steps 50] [--guidance 3.5]
                                       [--sampler upstream] [--windows 2] [--seeds 3]

Every video is made whole and with each threshold in turns, from the same noise, on one thread. Speed-up is
CPU seconds of the whole video over those of the one with skipped steps, autoencoder included: the median of
the turns. Its ceiling is what the blocks' number allows. The error is that against the whole video: of
latents in their root mean squares, of frames in dB; in the last line, that of whole videos of other seeds.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evaluation.animator import Animator
from training.config import load_config
from training.encoders import load_encoders
from training.example import Example, read_example
from training.generate import Generator, Sampling
from training.run_folder import CONFIG
from training.windows import preview_clips

THRESHOLDS = (0.1, 0.15, 0.2, 0.3, 0.5)
MOST_CLIPS = 3


@dataclass
class Made:
    """All videos of one way of sampling, one after the other."""

    generator: Generator
    seconds: list[float] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", nargs="?", type=Path, default=Path("demo"), metavar="DEMO")
    parser.add_argument("--thresholds", nargs="+", type=float, default=THRESHOLDS)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=3.5, help="1: none")
    parser.add_argument("--sampler", choices=["upstream", "clean"], default="upstream")
    parser.add_argument("--windows", type=int, default=2, help="a video")
    parser.add_argument("--seeds", type=int, default=3, help="videos a clip")
    options = parser.parse_args(arguments)
    run = options.demo / "audio"
    if not (run / "export").exists():
        print(f"no trained model at {run}: make demo", file=sys.stderr)
        return
    torch.set_num_threads(1)

    def way(threshold: float | None) -> Made:
        scale, upstream = (options.guidance if options.guidance != 1 else None), options.sampler == "upstream"
        sampling = Sampling(options.steps, scale, upstream, skip_steps=threshold)
        return Made(Animator.load(run, sampling).generator)

    whole, others = way(None), way(None)
    skipping = {threshold: way(threshold) for threshold in options.thresholds}
    n_frames = options.windows * whole.generator.new_frames
    examples = held_out(run, whole.generator, n_frames)
    make(way(None), examples[0], n_frames, 0)  # the first one takes longer
    for seed in range(options.seeds):
        for example in examples:
            for each in [whole, *skipping.values()][:: -1 if seed % 2 else 1]:
                make(each, example, n_frames, seed)
            make(others, example, n_frames, seed + options.seeds)
    steps = options.steps * options.windows * options.seeds * len(examples)
    print(f"{len(examples)} clips, {options.seeds} seeds, {n_frames} frames, {options.steps} steps a window")
    print(f"{'threshold':>10} {'skipped':>8} {'speed-up':>8} {'ceiling':>8} {'latents':>8} {'frames':>8}")
    for threshold, made in skipping.items():
        share = made.generator.skipped_steps / steps
        print(f"{threshold:>10} {saved(made, whole, share)} {errors(made, whole)}")
    print(f"{'other seed':>10} {errors(others, whole):>43}")


def saved(made: Made, whole: Made, skipped: float) -> str:
    """Share of steps, and how many times as fast: measured, and if blocks were all that takes time."""
    blocks = made.generator.model.config.num_layers
    ceiling = blocks / (blocks - skipped * (blocks - 1))
    faster = statistics.median(a / b for a, b in zip(whole.seconds, made.seconds, strict=True))
    return f"{skipped:>8.0%} {faster:>8.2f} {ceiling:>8.2f}"


def errors(made: Made, whole: Made) -> str:
    """Of latents, relative; of frames in dB."""
    latents, exact = torch.cat(made.latents), torch.cat(whole.latents)
    frames = np.concatenate(made.frames).astype(float) - np.concatenate(whole.frames)
    error = np.square(frames).mean()
    decibel = 10 * math.log10(255**2 / error) if error else math.inf
    return f"{float((latents - exact).norm() / exact.norm()):>8.3f} {decibel:>5.1f} dB"


def held_out(run: Path, generator: Generator, n_frames: int) -> list[Example]:
    """Clips that the run did not train on."""
    config = load_config(str(run / CONFIG), [f"output={run}"])
    encoders = load_encoders(config.encoders, config.sizes)
    examples = [
        read_example(dataset, clip_id, generator.framing, encoders, n_frames)
        for dataset, clip_id in preview_clips(config, MOST_CLIPS)
    ]
    return [example for example in examples if len(example.true) == n_frames]


def make(made: Made, example: Example, n_frames: int, seed: int) -> None:
    """One more video; what the autoencoder is given to decode is kept."""
    generator = made.generator
    decode = generator.autoencoder.decode

    def keeping(latents: Tensor) -> Tensor:
        made.latents.append(latents)
        return decode(latents)

    generator.autoencoder.decode = keeping  # type: ignore[method-assign]
    began = time.process_time()
    made.frames += generator.frames(example.portrait, example.speech, n_frames, text=example.text, seed=seed)
    made.seconds.append(time.process_time() - began)
    generator.autoencoder.decode = decode  # type: ignore[method-assign]


if __name__ == "__main__":
    main(sys.argv[1:])
