"""How well the laptop's autoencoder gives faces back, by size and channels: on a dataset of `make demo`."""

import sys
import time
from pathlib import Path

from data_pipeline.dataset import Dataset
from training.fit_autoencoder import fit_autoencoder

DATASET = Path("demo/dataset")


def main(root: Path = DATASET) -> None:
    """Print PSNR on the clips that were fitted on and on those held out, and the seconds of fit and both."""
    if not (root / "dataset.json").exists():
        print(f"no dataset at {root}: make demo", file=sys.stderr)
        return
    dataset = Dataset.open(root)
    print(f"{'pixels':>6} {'channels':>8} {'fitted':>10} {'held out':>10} {'seconds':>8}")
    for size_px in (64, 128):
        for channels in (16, 24, 32):
            started = time.perf_counter()
            fit = fit_autoencoder(dataset, size_px, channels)
            seconds = time.perf_counter() - started
            print(
                f"{size_px:>6} {channels:>8} {fit.fitted_psnr_db:>7.1f} dB {fit.held_out_psnr_db:>7.1f} dB "
                f"{seconds:>8.1f}"
            )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
