"""FID's features: Inception here against torch-fidelity's, as a ratio within one run.

    python -m benchmarks.fid_features [--images 16] [--size 256] [--repeats 5] [--threads 1] [--device cpu]

Both load the same filled weights and see the same bytes, in one process, on one torch. torch-fidelity is
unpacked into hallo3's cache on first use, without what it asks for, and only its feature extractor is
imported: that needs torch alone; the package as a whole, a torchvision that goes with the torch here.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import torch
from torch import Tensor

from data_pipeline import weights
from evaluation.networks import Extractor, FidInception
from tests.filled import fill

PACKAGE, MODULE = "torch-fidelity==0.4.0", "torch_fidelity"


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16, help="in a batch")
    parser.add_argument("--size", type=int, default=256, help="of an image, in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    images = torch.randint(0, 256, (options.images, 3, options.size, options.size), dtype=torch.uint8)
    ours = fill(FidInception("torch-fidelity"), gain=2**0.5)
    with TemporaryDirectory() as folder:
        torch.save(ours.state_dict(), Path(folder) / "inception.pth")
        extractor = feature_extractor()(
            "", ["2048"], feature_extractor_weights_path=f"{folder}/inception.pth"
        )
    theirs = Extractor(extractor, options.device, lambda batch: extractor(batch)[0])
    here = Extractor(ours, options.device)
    compare({MODULE: theirs, "hallo3": here}, images, options.repeats)


def feature_extractor() -> Callable[..., torch.nn.Module]:
    """torch-fidelity's class, without running the package's `__init__`."""
    folder = weights.cache_dir() / "bench" / PACKAGE.replace("==", "-")
    if not (folder / MODULE).is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, PACKAGE], check=True)
    package = ModuleType(MODULE)
    package.__path__ = [str(folder / MODULE)]
    sys.modules[MODULE] = package
    return importlib.import_module(f"{MODULE}.feature_extractor_inceptionv3").FeatureExtractorInceptionV3


def compare(extractors: dict[str, Extractor], images: Tensor, repeats: int) -> None:
    """Take turns, after one each to warm up; print medians of wall and CPU time, and the ratios."""
    found = {name: extract(images) for name, extract in extractors.items()}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in extractors}
    for _ in range(repeats):
        for name, extract in extractors.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            extract(images)
            spent[name].append((time.perf_counter() - started, time.process_time() - cpu_started))
    medians = {}
    for name, times in spent.items():
        wall, cpu = (statistics.median(column) / len(images) * 1e3 for column in zip(*times, strict=True))
        medians[name] = (wall, cpu)
        print(f"    {name:14s} {wall:8.1f} ms an image, {cpu:8.1f} ms of CPU")
    first, second = extractors
    wall, cpu = (medians[first][k] / medians[second][k] for k in (0, 1))
    apart = abs(found[first] - found[second]).max()
    print(
        f"    ratio          {wall:8.2f} x           {cpu:8.2f} x    features {apart:.1e} apart", flush=True
    )


if __name__ == "__main__":
    main(sys.argv[1:])
