"""Sync-C and Sync-D of a video file: the evaluation's metric against the package syncnet-python, in one run.

    python -m benchmarks.sync_end_to_end [--seconds 8] [--repeats 2] [--threads 1]

    package  converts the file, writes every frame, looks for faces in each (S3FD at its quarter scale),
             cuts, tracks, crops, writes, reads and scores
    hallo3   reads the file once, with the face's boxes and meshes for all metrics, crops and scores

Both load one filled SyncNet; clip and the package's environment are those of benchmarks/syncnet.py, which
compares the curation's stages. Its S3FD finds one box all along, ours follow the face: what the same box
gives is told too. The package needs ffmpeg on the PATH.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.s3fd_weights import s3fd_weights
from benchmarks.syncnet import SIZE, Answer, Package, compare, write_clip
from data_pipeline.config import SyncConfig, SyncNetConfig
from data_pipeline.models.syncnet import SyncNet
from evaluation.metrics.metric import SeenClip
from evaluation.metrics.sync import Sync
from evaluation.seeing import ClipReader
from tests.data_pipeline.face_media import astronaut
from tests.filled import fill

Face = tuple[float, float, float, float]


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the clip")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both")
    options = parser.parse_args(arguments)
    if shutil.which("ffmpeg") is None:
        sys.exit("ffmpeg is not on the PATH, and the package starts it: install it to compare")
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as name:
        folder = Path(name)
        video, _ = write_clip(folder, options.seconds)
        torch.save(fill(SyncNet(), gain=2**0.5).state_dict(), folder / "syncnet.pth")
        ours = Ours(folder / "syncnet.pth")
        face = face_of(ours.seen(video))
        torch.save(s3fd_weights(face), folder / "s3fd.pth")
        with Package(folder, options.threads) as package:
            compare(
                "from a video file to Sync-C and Sync-D",
                lambda: package.ask({"video": str(video)}),
                lambda: ours.score(video),
                options.repeats,
            )
        figures = ", ".join(f"{name} {value:.5g}" for name, value in ours.score_at(video, face).items())
        print(f"    with the package's box: {figures}", flush=True)


class Ours:
    """What a worker of an evaluation does with one clip for this metric."""

    def __init__(self, network: Path) -> None:
        self._reader = ClipReader()
        self._sync = Sync(SyncConfig(backend="syncnet", syncnet=SyncNetConfig(weights=str(network))))
        self._sync.setup()

    def seen(self, video: Path) -> SeenClip:
        return self._reader.read(video, "clip", astronaut())

    def score(self, video: Path) -> Answer:
        return self._score(self.seen(video))

    def score_at(self, video: Path, face: Face) -> Answer:
        """As `score`, with the face in one place all along."""
        clip = self.seen(video)
        box = np.array(face, np.float32) * np.array([*SIZE, *SIZE], np.float32)
        return self._score(replace(clip, boxes=np.tile(box, (len(clip.frames), 1))))

    def _score(self, clip: SeenClip) -> Answer:
        values = self._sync.measure(clip).values
        confidence, distance, offset, _ = (values.get(name, float("nan")) for name in self._sync.names)
        return {"offset": offset, "confidence": confidence, "distance": distance}


def face_of(clip: SeenClip) -> Face:
    """The face's mean box, as parts of the picture's width and height."""
    x0, y0, x1, y1 = np.nanmean(clip.boxes, axis=0) / [*SIZE, *SIZE]
    return float(x0), float(y0), float(x1), float(y1)


if __name__ == "__main__":
    main(sys.argv[1:])
