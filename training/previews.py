"""Sample clips while a model is trained: what it makes of held-out portraits and voices, with sound.

    validation.clips held-out clips -> portrait, speech, prompt (example.py) -> frames (generate.py)
      -> RUN/samples/step-N/CLIP.mp4, and CLIP.jpg: frames that were made, above the true ones

Workers share the clips. Where each has only a part of the weights or of a sample (ZeRO 3, sequence
parallelism), all make every clip together, in step, and the first writes it: what one of them cannot read,
all leave out. A clip that fails is told, and costs the run nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from data_pipeline.dataset import DatasetError
from data_pipeline.storage import replacing
from training.clip_file import write_clip
from training.config import TrainConfig
from training.encoders import Encoders
from training.example import Example, read_example
from training.features import FPS
from training.generate import Generator, Sampling
from training.model.portrait import PortraitModel
from training.samples import BROKEN, SamplesError, preview_clips

SAMPLES = "samples"
SHEET_FRAMES = 8
UNREADABLE = (DatasetError, SamplesError, *BROKEN)
MET_BY_ALL = (ValueError, OSError)
"""Where all workers make a clip together: the model gives no numbers, or the first cannot write them."""
ALL = "sample clips"
"""Stands for a clip's name where no clip could be chosen."""


@dataclass
class Previews:
    """What became of a step's sample clips; the same on all workers."""

    files: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """By clip_id, in words."""


def sample_clips(model: PortraitModel, encoders: Encoders, config: TrainConfig, step: int) -> Previews:
    """Make the run's sample clips with the model as it is. Collective.

    The model may be in training mode and is so afterwards; no random stream but its own is touched.
    """
    given = config.validation
    generator = Generator(
        model, encoders.autoencoder, Sampling(given.sampling_steps, given.guidance), config.conditions
    )
    n_frames = given.clip_windows * generator.new_frames
    together = config.deepspeed.zero_stage == 3 or config.sequence_parallel > 1
    found = Previews()
    examples = _read(config, generator, encoders, n_frames, together, found.failed)
    if together:
        examples = _that_all_have(examples)
    folder = Path(config.output) / SAMPLES / f"step-{step:08d}"
    with _evaluating(model, config):
        for example in examples:
            try:
                made = np.concatenate([*_frames(generator, example, n_frames)])
                if not together or dist.get_rank() == 0:
                    found.files += _written(folder, example, made)
            except UNREADABLE as error:
                if together and not isinstance(error, MET_BY_ALL):
                    raise  # the others wait for this worker in the middle of a network
                found.failed[example.clip_id] = _words(error)
    return _of_all(found)


def _read(
    config: TrainConfig,
    generator: Generator,
    encoders: Encoders,
    n_frames: int,
    together: bool,
    failed: dict[str, str],
) -> list[Example]:
    """This worker's clips, or all; those that cannot be read go into `failed`."""
    first, of = (0, 1) if together else (dist.get_rank(), dist.get_world_size())
    try:
        clips = preview_clips(config, config.validation.clips)[first::of]
    except UNREADABLE as error:
        failed[ALL] = _words(error)
        return []
    examples = []
    for dataset, clip_id in clips:
        try:
            examples.append(read_example(dataset, clip_id, generator.framing, encoders, n_frames))
        except UNREADABLE as error:
            failed[clip_id] = _words(error)
    return examples


def _frames(generator: Generator, example: Example, n_frames: int) -> Iterator[np.ndarray]:
    return generator.frames(
        example.portrait, example.speech, min(n_frames, len(example.true)), text=example.text
    )


def _that_all_have(examples: list[Example]) -> list[Example]:
    """Those that every worker could read."""
    everywhere = _gathered({example.clip_id for example in examples})
    return [example for example in examples if all(example.clip_id in there for there in everywhere)]


def _of_all(own: Previews) -> Previews:
    """What all workers made, and what none could."""
    whole = Previews()
    for each in _gathered(own):
        whole.files += each.files
        whole.failed |= each.failed
    return whole


def _gathered(own: Any) -> list[Any]:
    """Every worker's, in their order. Collective."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


def _written(folder: Path, example: Example, made: np.ndarray) -> list[Path]:
    clip, sheet = folder / f"{example.clip_id}.mp4", folder / f"{example.clip_id}.jpg"
    write_clip(clip, [made], FPS, example.sound)
    write_sheet(sheet, made, example.true)
    return [clip, sheet]


def write_sheet(path: Path, made: np.ndarray, true: np.ndarray) -> None:
    """Frames (N, H, W, 3) uint8 that were made, evenly chosen, above the true ones, as one picture.

    Raises OSError where it cannot be written."""
    import cv2

    chosen = np.linspace(0, len(made) - 1, min(SHEET_FRAMES, len(made))).round().astype(int)
    rows = [np.concatenate([*frames[chosen]], axis=1) for frames in (made, true)]
    _, jpeg = cv2.imencode(".jpg", np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    with replacing(path) as temporary:
        temporary.write_bytes(jpeg.tobytes())


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _evaluating(model: PortraitModel, config: TrainConfig) -> Iterator[None]:
    """The model in evaluation mode, and whole where it must be: with ZeRO 3 modules gather their weights as
    they are called; the one that is looked at outside of its module is gathered here."""
    training = model.training
    model.eval()
    try:
        if config.deepspeed.zero_stage == 3:
            import deepspeed

            with deepspeed.zero.GatheredParameters([model.denoiser.positions]):
                yield
        else:
            yield
    finally:
        model.train(training)
