"""Sample clips of a small model that has its encoders, on one worker or several; see engine_run.py."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.training.engine_run import small_config
from tests.training.small_networks import filled_model, sized
from training.config import TrainConfig
from training.diffusion import ZeroSnrSchedule
from training.encoders import Encoders, LogMel
from training.engine import set_learning_rate, start_engine
from training.model import AudioConditionConfig, FaceConditionConfig
from training.model.patch_pca import PatchPcaAutoencoder
from training.model.text import NoText
from training.objective import TrainingObjective
from training.phases import choose_trained
from training.previews import Previews, sample_clips
from training.samples import Samples

SIZES = sized(
    audio=AudioConditionConfig(window=3, layers=4, channels=80, hidden=16, tokens=4, dim=16),
    face=FaceConditionConfig(embedding_dim=128, dim=16),
)
NEW_FRAMES = SIZES.num_frames - 2


def preview_config(dataset: Path, output: Path, *overrides: str) -> TrainConfig:
    """Two clips of one window each, in two steps with guidance."""
    given = [
        *("validation.clips=2", "validation.sampling_steps=2", "validation.guidance=2"),
        *("samples.features=on_the_fly", "samples.window_stride=8", "encoders.speech=log_mel"),
    ]
    return small_config(output, *given, *overrides, dataset=str(dataset), model=SIZES.model_dump())


@cache
def encoders() -> Encoders:
    generator = torch.Generator().manual_seed(0)
    codec = PatchPcaAutoencoder.fit([torch.rand(1, 3, 9, 64, 64, generator=generator) * 2 - 1], 16)
    return Encoders(codec, NoText(SIZES.text_length, SIZES.text_dim), LogMel())


def previews_of_workers(config: TrainConfig, without: dict[int, str]) -> Previews:
    """On every worker: a model's sample clips, sharded as the configuration says.

    Args:
        without: datasets that some ranks have instead, on which a clip cannot be read.
    """
    engine = _engine(config)
    own = config.model_copy(update={"dataset": without.get(dist.get_rank(), config.dataset)})
    return sample_clips(engine.module.model, encoders(), own, 1)


def losses_around_previews(config: TrainConfig, previews: bool) -> list[str]:
    """Of four steps, with sample clips after the second, or without; bit for bit."""
    engine = _engine(config)
    losses = []
    with Samples(config, encoders(), dist.get_rank()) as samples:
        for step, batches in zip(range(4), samples, strict=False):
            set_learning_rate(engine, 1e-3)
            for batch in batches:
                noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(step))
                index = torch.full_like(batch.positions, 300)
                loss = engine(batch.to("cpu", torch.float32), index, noise).mean()
                engine.backward(loss)
                engine.step()
            total = loss.detach().clone()
            dist.all_reduce(total)
            losses.append(float(total).hex())
            if previews and step == 1:
                assert not sample_clips(engine.module.model, encoders(), config, step).failed
                assert engine.module.model.training
    return losses


def _engine(config: TrainConfig) -> Any:
    model = filled_model(config.sizes)
    choose_trained(model, config)
    if config.sequence_parallel > 1:
        model.share_samples()
    return start_engine(TrainingObjective(model, ZeroSnrSchedule()), config, torch.device("cpu"))
