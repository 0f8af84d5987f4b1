"""Lip sync of a clip of 10 s: SyncNet here against the package syncnet-python, as ratios within one run.

    python -m benchmarks.syncnet [--seconds 10] [--repeats 2] [--threads 1]

    from crops  the same JPEG crops and WAV, to the same numbers: MFCC, features, scores
    from video  the same file. The package converts it, writes every frame, looks for faces in each (S3FD at
                its quarter scale), cuts, tracks, crops, writes, reads and scores. hallo3 runs its stages:
                decoding, cuts, sound, faces with landmarks and identity, crops, score
    and decoys  the same, and hallo3 scores five stretches of other speech as well, as a curation does

Both load the same filled SyncNet. S3FD's weights are made to find the one face (s3fd_weights.py), at the
cost of the published ones. The package gets an environment of its own in hallo3's cache, on first use (some
GB), since its torchvision wants a torch that we do not pin; it needs ffmpeg on the PATH.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import torch

from benchmarks.s3fd_weights import s3fd_weights
from data_pipeline import media, weights
from data_pipeline.clip import ANALYSIS_RATE, Clip
from data_pipeline.config import FacesConfig, SegmentConfig
from data_pipeline.models.syncnet import SyncNet
from data_pipeline.models.syncnet_scorer import SyncNetScorer
from data_pipeline.stages.face_crops import face_crops
from data_pipeline.stages.faces import Faces
from data_pipeline.stages.segment import probe_source, segment
from data_pipeline.stages.sync import DECOY_FILE, DECOY_SPEECH, read_speech
from tests.data_pipeline.face_media import astronaut
from tests.data_pipeline.makers import write_video
from tests.data_pipeline.sounds import read_aloud
from tests.filled import fill

PACKAGE = "syncnet-python==0.2.3"
SIZE = (640, 360)
DECOYS = (0, 140, 280, 420, 560)  # frames
Answer = dict[str, float]


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as name:
        folder = Path(name)
        video, sound = write_clip(folder, options.seconds)
        ours = Ours(folder, options.threads)
        clip = ours.tracked(video)
        crops = write_crops(folder / "crops", ours.crops(clip, video), sound)
        torch.save(s3fd_weights(face_of(clip)), folder / "s3fd.pth")
        with Package(folder, options.threads) as package:

            def theirs(**what: Path) -> Callable[[], Answer]:
                return lambda: package.ask({key: str(path) for key, path in what.items()})

            of_video = theirs(video=video)
            compare("from crops", theirs(crops=crops), lambda: ours.score_crops(crops), options.repeats)
            compare("from video", of_video, lambda: ours.score_video(video), options.repeats)
            started = time.perf_counter()
            ours.score_crops(crops, DECOYS)
            print(f"the first clip with decoys: {time.perf_counter() - started:.1f} s from crops", flush=True)
            compare("and decoys", of_video, lambda: ours.score_video(video, DECOYS), options.repeats)


class Ours:
    """What the stages do, without Ray."""

    def __init__(self, folder: Path, threads: int) -> None:
        torch.save(fill(SyncNet(), gain=2**0.5).state_dict(), folder / "syncnet.pth")
        speech = read_speech(weights.fetch(DECOY_SPEECH) / DECOY_FILE)
        self._scorer = SyncNetScorer(SyncNet.load(folder / "syncnet.pth"), speech, threads)
        self._faces = Faces(FacesConfig())
        self._faces.setup()

    def score_crops(self, crops: Path, decoys: Sequence[int] = ()) -> Answer:
        import cv2
        from scipy.io import wavfile

        faces = np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted(crops.glob("*.jpg"))])
        return self._score(faces, wavfile.read(crops / "audio.wav")[1], decoys)

    def score_video(self, video: Path, decoys: Sequence[int] = ()) -> Answer:
        clip = self.tracked(video)
        assert clip.audio is not None
        return self._score(self.crops(clip, video), clip.audio, decoys)

    def tracked(self, video: Path) -> Clip:
        """The video's only clip, with sound and face."""
        found = probe_source(video, Clip(str(video), source_sha256="0" * 64))
        (clip,) = segment(video, found, SegmentConfig(), media.MAX_PIXELS)
        return self._faces(clip)

    def crops(self, clip: Clip, video: Path) -> np.ndarray:
        return np.concatenate(list(face_crops(clip, video, media.MAX_PIXELS)))

    def _score(self, faces: np.ndarray, audio: np.ndarray, decoys: Sequence[int]) -> Answer:
        found = self._scorer.score(faces, audio, decoys)
        assert found.distance is not None
        return {"offset": found.offset_frames, "confidence": found.confidence, "distance": found.distance}


class Package:
    """The package in a process of its own, asked line by line."""

    def __init__(self, folder: Path, threads: int) -> None:
        files = {name: str(folder / f"{name}.pth") for name in ("syncnet", "s3fd")}
        setup = json.dumps(files | {"threads": threads})
        self._process = subprocess.Popen(
            [str(package_python()), "-m", "benchmarks.syncnet_package", setup],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> "Package":
        return self

    def __exit__(self, *_: object) -> None:
        pipe(self._process.stdin).close()
        self._process.wait()

    def ask(self, what: dict[str, Any]) -> Answer:
        pipe(self._process.stdin).write(json.dumps(what) + "\n")
        pipe(self._process.stdin).flush()
        answer = pipe(self._process.stdout).readline()
        assert answer, f"{PACKAGE} gave up: run `python -m benchmarks.syncnet_package` in its environment"
        return json.loads(answer)


def cpu_seconds() -> float:
    """Of this process, and of programs that it has run and waited for."""
    of_either = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in of_either)


def pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def package_python() -> Path:
    """The Python of the package's environment, which is made where it is not there yet (some GB)."""
    folder = weights.cache_dir() / "bench" / PACKAGE.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        print(f"making an environment with {PACKAGE} in {folder}, once", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
        (folder / "complete").touch()
    return python


def write_clip(folder: Path, seconds: float) -> tuple[Path, np.ndarray]:
    """A portrait that drifts, and read English; also as a WAV beside it."""
    import cv2
    from scipy.io import wavfile

    portrait = cv2.resize(astronaut()[:256, 96:352], (360, 360))
    sound = read_aloud(0, seconds)
    wavfile.write(folder / "sound.wav", ANALYSIS_RATE, sound)

    def drifting(k: int, width: int, height: int) -> np.ndarray:
        picture = np.full((height, width, 3), 90, np.uint8)
        left = 100 + round(40 * np.sin(k / 20))
        picture[:, left : left + 360] = portrait
        return picture

    video = write_video(
        folder / "clip.mp4",
        n_frames=round(seconds * 25),
        size=SIZE,
        pixels=drifting,
        sound=sound[:, None],
        rate=ANALYSIS_RATE,
        audio_codec="flac",
    )
    return video, sound


def write_crops(folder: Path, faces: np.ndarray, sound: np.ndarray) -> Path:
    """As the package keeps them between cropping and scoring."""
    import cv2
    from scipy.io import wavfile

    folder.mkdir()
    for number, face in enumerate(faces, start=1):
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), face[..., ::-1])
    wavfile.write(folder / "audio.wav", ANALYSIS_RATE, sound)
    return folder


def face_of(clip: Clip) -> tuple[float, float, float, float]:
    """The face's mean box, as parts of the picture's width and height."""
    assert clip.track is not None
    x0, y0, x1, y1 = clip.track.boxes.mean(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def compare(title: str, theirs: Callable[[], Answer], ours: Callable[[], Answer], repeats: int) -> None:
    """Take turns, and print medians of wall and CPU time, what was found, and the ratios."""
    spent: dict[str, list[tuple[float, float]]] = {"package": [], "hallo3": []}
    for _ in range(repeats):
        their_answer = theirs()
        spent["package"].append((their_answer["seconds"], their_answer["cpu_seconds"]))
        started, cpu_started = time.perf_counter(), cpu_seconds()
        our_answer = ours()
        spent["hallo3"].append((time.perf_counter() - started, cpu_seconds() - cpu_started))
    print(title, flush=True)
    medians = {}
    for name, answer in (("package", their_answer), ("hallo3", our_answer)):
        wall, cpu = (statistics.median(column) for column in zip(*spent[name], strict=True))
        medians[name] = (wall, cpu)
        figures = ", ".join(f"{key} {answer[key]:.5g}" for key in ("offset", "confidence", "distance"))
        print(f"    {name:8s} {wall:7.1f} s, {cpu:7.1f} s of CPU    {figures}")
    wall, cpu = (medians["package"][k] / medians["hallo3"][k] for k in (0, 1))
    print(f"    ratio    {wall:7.2f} x  {cpu:7.2f} x", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
