"""What a generated second costs on the CPU, part by part: the demo's tiny model, and `small` with stand-ins.

    python -m benchmarks.animate [DEMO] [--models tiny small] [--threads 1]

CPU seconds of a video's second window as `generate.py` makes it, guidance's halves in one batch, scaled to
50 steps; and what is done once a video. Weights do not change the cost, so `small` is untrained, and its
encoders are drawn: wav2vec 2.0 base and CogVideoX's autoencoder, in the published sizes. That autoencoder is
timed at 64 x 64 px and 1 and 3 latent frames: it is made of convolutions, so its cost grows as pixels and
frames do.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.models import wav2vec2
from evaluation.animator import Animator
from tests.filled import drawn
from training.encoders import LogMel
from training.features import FPS
from training.generate import Generator, Portrait, Sampling
from training.model.autoencoder import SPATIAL_STRIDE, CogVideoXAutoencoder
from training.model.config import PRESETS, ModelConfig
from training.model.patch_pca import PatchPcaAutoencoder
from training.model.portrait import PortraitModel

STEPS = 50
SOUND_S = 5.0
TILE = 8
"""Latent rows and columns at which CogVideoX's autoencoder is timed."""


@dataclass
class Cost:
    """CPU seconds by part."""

    window: Counter[str]
    """Of each window, of `window_s` seconds."""
    once: Counter[str]
    """Of each video."""
    window_s: float
    speech: float
    """Of each second of sound."""

    def tell(self, name: str) -> None:
        parts = {"speech encoder": self.speech}
        parts |= {part: spent / self.window_s for part, spent in self.window.items()}
        whole = sum(parts.values())
        print(
            f"{name}: CPU seconds a generated second, {STEPS} steps (a window brings {self.window_s:.2f} s)"
        )
        for part, spent in sorted(parts.items(), key=lambda item: -item[1]):
            print(f"  {part:<26} {spent:>10.3f} {spent / whole:>7.1%}")
        print(f"  {'whole':<26} {whole:>10.3f}")
        once = ", ".join(f"{part} {spent:.3f}" for part, spent in self.once.items())
        print(f"  once a video: {once} s")


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", nargs="?", type=Path, default=Path("demo"), metavar="DEMO")
    parser.add_argument("--models", nargs="+", choices=["tiny", "small"], default=["tiny", "small"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if "tiny" in options.models:
        if (options.demo / "audio" / "export").exists():
            tiny(options.demo / "audio").tell("tiny")
        else:
            print(f"tiny: no trained model at {options.demo / 'audio'}: make demo", file=sys.stderr)
    if "small" in options.models:
        small().tell("small")


def tiny(run: Path) -> Cost:
    """The demo's own model, autoencoder and speech features."""
    generator = Animator.load(run, Sampling(STEPS)).generator
    return cost_of(generator, STEPS, LogMel().encode)


def small() -> Cost:
    """One step of the networks, times 50, and the autoencoder by itself."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes = PRESETS["small"]
    torch.manual_seed(0)
    model = PortraitModel(sizes).eval()
    noise = drawn("clip", (1, 3, 5, 64, 64)).clamp(-1, 1)
    quick = PatchPcaAutoencoder.fit([noise], sizes.out_channels)
    ear = Wav2Vec2Model(Wav2Vec2Config()).eval()
    cost = cost_of(Generator(model, quick, Sampling(1)), 1, lambda wav: wav2vec2.speech_features(ear, wav))
    window, once = cogvideox(sizes)
    cost.window |= window  # in the place of the quick one's
    cost.once |= once
    return cost


def cost_of(generator: Generator, steps: int, hear: Callable[[np.ndarray], np.ndarray]) -> Cost:
    """Of a video of two windows, the second of which is that of every other window."""
    sizes = generator.model.config
    sound = 0.1 * drawn("sound", (round(SOUND_S * ANALYSIS_RATE),)).numpy()
    hear(sound[:ANALYSIS_RATE])
    began = time.process_time()
    hear(sound)
    speech_s = (time.process_time() - began) / SOUND_S
    spent = timed_parts(generator)
    windows = generator.frames(portrait(sizes), heard(sizes), 2 * generator.new_frames)
    next(windows)
    once = Counter({part: spent[part] for part in ("reference network", "face encoder")})
    spent.clear()
    began = time.process_time()
    next(windows)
    whole = time.process_time() - began
    window = Counter({part: spent[part] for part in ("condition encoder", "conditions", "decoder")})
    once_a_window = sum(window.values())
    window["denoiser"] = spent["denoiser"] * STEPS / steps
    window["sampler and the rest"] = (whole - once_a_window - spent["denoiser"]) * STEPS / steps
    return Cost(window, once, generator.new_frames / FPS, speech_s)


def timed_parts(generator: Generator) -> Counter[str]:
    """The CPU seconds that its parts have taken so far; they are counted from now on."""
    spent: Counter[str] = Counter()

    def timed(owner: Any, method: str, name: Callable[..., str]) -> None:
        call = getattr(owner, method)

        def run(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            result = call(*given, **named)
            spent[name(*given)] += time.process_time() - began
            return result

        setattr(owner, method, run)

    denoiser, autoencoder = generator.model.denoiser, generator.autoencoder
    timed(generator.model.reference, "forward", lambda *_: "reference network")
    timed(denoiser, "hearing", lambda *_: "conditions")
    timed(denoiser, "denoise", lambda *_: "denoiser")
    timed(
        autoencoder, "encode", lambda pixels, *_: f"{'face' if pixels.shape[2] == 1 else 'condition'} encoder"
    )
    timed(autoencoder, "decode", lambda *_: "decoder")
    return spent


def portrait(sizes: ModelConfig) -> Portrait:
    size = (SPATIAL_STRIDE * sizes.latent_height, SPATIAL_STRIDE * sizes.latent_width, 3)
    image = (127 + 40 * drawn("image", size)).clamp(0, 255).byte().numpy()
    identity = drawn("identity", (sizes.face.embedding_dim,)).numpy()
    return Portrait(image, (0.25, 0.2, 0.75, 0.85), identity)


def heard(sizes: ModelConfig) -> torch.Tensor:
    assert sizes.audio
    return drawn("speech", (2 * sizes.num_frames, sizes.audio.layers, sizes.audio.channels))


def cogvideox(sizes: ModelConfig) -> tuple[Counter[str], Counter[str]]:
    """CPU seconds a window and once a video, from a tile's."""
    from diffusers import AutoencoderKLCogVideoX

    levels = (128, 256, 256, 512)
    vae = AutoencoderKLCogVideoX(
        block_out_channels=levels,
        down_block_types=("CogVideoXDownBlock3D",) * len(levels),
        up_block_types=("CogVideoXUpBlock3D",) * len(levels),
        latent_channels=sizes.out_channels,
    )
    autoencoder = CogVideoXAutoencoder(vae.eval())
    tiles = sizes.latent_height * sizes.latent_width / TILE**2

    def spent(call: Callable[[torch.Tensor], object], *shape: int) -> float:
        given = drawn("given", shape)
        began = time.process_time()
        call(given)
        return tiles * (time.process_time() - began)

    side = SPATIAL_STRIDE * TILE
    latents = (sizes.out_channels, TILE, TILE)
    autoencoder.decode(drawn("first", (1, 1, *latents)))
    one, three = (spent(autoencoder.decode, 1, frames, *latents) for frames in (1, 3))
    decoder = one + (sizes.latent_frames - 1) / 2 * (three - one)
    encoders = [spent(autoencoder.encode, 1, 3, frames, side, side) for frames in (1, 3)]
    return Counter({"decoder": decoder, "condition encoder": encoders[1]}), Counter(
        {"face encoder": encoders[0]}
    )


if __name__ == "__main__":
    main(sys.argv[1:])
