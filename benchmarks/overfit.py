"""Whether the model learns at all: one window of one clip, until it is known by heart, then made from noise.

python -m benchmarks.overfit DEMO [--steps 500]      DEMO: what `hallo3 demo` made

DEMO/dataset, one clip -> latents of its first window (precompute) -> hallo3 train -> export
  portrait, speech -> generate.py -> the window's frames but its two motion frames
  -> PSNR against the true ones, and of the autoencoder alone, which is the most that can be had
"""

import argparse
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cluster import features, training
from data_pipeline.dataset import Dataset
from training.clip_pixels import pixels_of
from training.config import TrainConfig, load_config
from training.encoders import load_encoders
from training.example import read_example
from training.generate import Generator, Sampling
from training.metrics import read_metrics
from training.model.loading import load_model
from training.run_folder import METRICS
from training.windows_of_speech import OVERLAP_FRAMES

ONE_WINDOW = 10_000
"""A stride that leaves one window in any clip of the demo."""
SAMPLING_STEPS = 50
PRESET = "demo_identity"


def overrides(root: Path, codec: Path, clip_id: str, steps: int) -> list[str]:
    """Of the demo's preset: that window, and nothing that keeps it from being learned by heart."""
    return [
        *("phase=audio", f"dataset={root / 'dataset'}", f"output={root / 'run'}", f"max_steps={steps}"),
        *(f"encoders.autoencoder={codec}", f"samples.clips=['{clip_id}']"),
        *(f"samples.window_stride={ONE_WINDOW}", "samples.features=stored", "conditions.drop_text=0"),
        *("conditions.drop_image=0", "conditions.drop_reference=0", "conditions.drop_audio=0"),
        *("conditions.masked_pixels=0", "loss.mouth_weight=1", "loss.channel_weights=false"),
        *("validation.every_steps=null", "tracking.enabled=false", "optimizer.ema_decay=null"),
    ]


def main() -> int:
    """Prints the losses on the way, the PSNRs and the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("demo", type=Path, metavar="DEMO")
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(options.demo / "dataset", root / "dataset")
        rows = Dataset.open(root / "dataset").manifest(["clip_id", "split", "shard"]).to_pylist()
        clip_id = min(row["clip_id"] for row in rows if row["shard"] and row["split"] == "train")
        given = overrides(root, options.demo.absolute() / "codec", clip_id, options.steps)
        config = load_config(PRESET, given)
        status = features.precompute(str(root / "dataset"), None, PRESET, given, None, None, None)
        begun = time.monotonic()
        status = status or training.run(config, allowed=[])
        if status:
            return status
        told = {row["step"]: row["loss"] for row in read_metrics(root / "run" / METRICS) if "loss" in row}
        for step in range(options.steps // 10, options.steps + 1, options.steps // 10):
            near = [loss for at, loss in told.items() if step - 10 < at <= step]
            print(f"step {step}: loss {np.mean(near):.4f}")
        print(f"trained in {time.monotonic() - begun:.0f} s")
        made, rebuilt = psnrs(config, clip_id)
        print(f"from noise, {SAMPLING_STEPS} steps: {made:.1f} dB; the autoencoder alone: {rebuilt:.1f} dB")
    return 0


def psnrs(config: TrainConfig, clip_id: str) -> tuple[float, float]:
    """Of the frames that the trained model makes, and of those that the autoencoder gives back; dB."""
    model, _ = load_model(Path(config.output) / "export")
    encoders = load_encoders(config.encoders, config.sizes)
    generator = Generator(
        model.eval(), encoders.autoencoder, Sampling(SAMPLING_STEPS, None), config.conditions
    )
    frames = config.sizes.num_frames
    example = read_example(Dataset.open(config.datasets[0].uri), clip_id, generator.framing, encoders, frames)
    true = pixels_of(example.true)
    new = frames - OVERLAP_FRAMES
    made = np.concatenate([*generator.frames(example.portrait, example.speech, new, seed=0)])
    latents = encoders.autoencoder.encode(true[None], torch.Generator().manual_seed(0))
    rebuilt = encoders.autoencoder.decode(latents)[0]
    shown = true[:, OVERLAP_FRAMES:]
    return psnr(pixels_of(made), shown), psnr(rebuilt[:, OVERLAP_FRAMES:], shown)


def psnr(made: torch.Tensor, true: torch.Tensor) -> float:
    """Of pixels in [-1, 1], in dB."""
    return 10 * math.log10(4 / float((made.clamp(-1, 1) - true).square().mean()))


if __name__ == "__main__":
    sys.exit(main())
