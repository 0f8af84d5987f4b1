"""Before a run: does it fit, what would make it fit, and how long will it take?

    configuration -> the model without memory -> parameters, trained parameters
      -> memory of one GPU by part (memory_plan.py) against the GPU's
      -> the smallest change that fits, where it does not
      -> operations of a step (flops.py) over what the GPUs do in a second -> step time, days

No GPU and no weights are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pydantic import ValidationError

from training.config import TrainConfig
from training.flops import Flops, Trained, sample_flops
from training.lora import adapted_layers
from training.memory_plan import Memory, Weights, memory
from training.model.loading import empty_model
from training.model.portrait import PortraitModel
from training.phases import trained_names


@dataclass(frozen=True)
class Gpu:
    """A model of GPU, by its maker's datasheet."""

    gb: float
    bf16_tflops: float
    """Dense, of the tensor cores."""
    fp32_tflops: float


GPUS = {
    "h100": Gpu(80, 989, 67),
    "h200": Gpu(141, 989, 67),
    "a100": Gpu(80, 312, 19.5),
    "a100-40": Gpu(40, 312, 19.5),
    "l40s": Gpu(48, 362, 91.6),
    "a6000": Gpu(48, 154.8, 38.7),
    "rtx4090": Gpu(24, 165.2, 82.6),
}

CHANGES: tuple[tuple[str, Any], ...] = (
    ("micro_batch", 1),
    ("recompute", "blocks"),
    ("deepspeed.zero_stage", 3),
    ("deepspeed.offload_optimizer", True),
    ("deepspeed.offload_parameters", True),
    ("sequence_parallel", 2),
    ("sequence_parallel", 4),
    ("sequence_parallel", 8),
    ("trainable", "lora"),
)
"""What may make a run fit, from what costs the least to what changes the most."""


@dataclass(frozen=True)
class Plan:
    config: TrainConfig
    gpu: Gpu
    utilization: float
    networks: dict[str, Weights]
    weights: Weights
    memory: Memory
    flops: Flops
    """Of one sample."""
    change: tuple[str, ...] | None
    """Overrides that make it fit; () where it fits, None where nothing does."""

    @property
    def fits(self) -> bool:
        return self.change == ()

    @property
    def step_s(self) -> float:
        tflops = self.gpu.bf16_tflops if self.config.precision == "bf16" else self.gpu.fp32_tflops
        work = self.flops.total * self.config.batch
        return work / (self.config.num_workers * tflops * 1e12 * self.utilization)

    @property
    def days(self) -> float:
        return self.step_s * self.config.max_steps / 86_400


def plan(config: TrainConfig, gpu: Gpu, utilization: float = 0.35) -> Plan:
    """What the run takes on so many of these GPUs as it has workers.

    Args:
        utilization: share of the GPU's peak that is reached; an assumption until a run has said its own.
    """
    model = empty_model(config.sizes)
    networks = {name: count(model, config, f"{name}.") for name in ("denoiser", "reference")}
    weights, trained = count(model, config), trained_of(model, config)
    needed = memory(config, weights, trained)
    change: tuple[str, ...] | None = ()
    if needed.gpu_bytes > gpu.gb * 1e9:
        change = smallest_change(config, model, gpu)
    flops = sample_flops(config.sizes, trained, config.recompute)
    return Plan(config, gpu, utilization, networks, weights, needed, flops, change)


def count(model: PortraitModel, config: TrainConfig, prefix: str = "") -> Weights:
    """The parameters whose names begin with `prefix`, with the updates that LoRA would add."""
    sizes = {name: weight.numel() for name, weight in model.named_parameters() if name.startswith(prefix)}
    total, largest = sum(sizes.values()), max(sizes.values())
    if config.trainable == "lora":
        layers = adapted_layers(model, config.phase)
        added = sum(
            config.lora.rank * (layer.in_features + layer.out_features)
            for name, layer in layers.items()
            if name.startswith(prefix)
        )
        return Weights(total + added, added, largest)
    chosen = trained_of(model, config).names
    return Weights(total, sum(size for name, size in sizes.items() if name in chosen), largest)


def trained_of(model: PortraitModel, config: TrainConfig) -> Trained:
    """What the run trains, by name."""
    if config.trainable == "lora":
        return Trained(set(adapted_layers(model, config.phase)), config.lora.rank)
    names = [name for name, _ in model.named_parameters()]
    return Trained(set(names if config.trainable == "all" else trained_names(names, config.phase)))


def smallest_change(config: TrainConfig, model: PortraitModel, gpu: Gpu) -> tuple[str, ...] | None:
    """The first single override of CHANGES that makes it fit; else as few of them as it takes, in their
    order; None: not even all of them do."""

    def fits(changes: Sequence[tuple[str, Any]]) -> bool:
        changed = with_changes(config, changes)
        if changed is None:
            return False
        needed = memory(changed, count(model, changed), trained_of(model, changed))
        return needed.gpu_bytes <= gpu.gb * 1e9

    possible = [change for change in CHANGES if with_changes(config, [change]) != config]
    alone = [[change] for change in possible]
    found = next((changes for changes in [*alone, *accumulate(alone)] if fits(changes)), None)
    if found is None:
        return None
    for change in list(found):  # what a later one made needless
        fewer = [other for other in found if other != change]
        if fewer and fits(fewer):
            found = fewer
    return tuple(f"{key}={str(value).lower()}" for key, value in dict(found).items())


def with_changes(config: TrainConfig, changes: Sequence[tuple[str, Any]]) -> TrainConfig | None:
    """The configuration with other values; None where that is no possible one."""
    values = config.model_dump()
    for key, value in changes:
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place[section]
        place[last] = value
    try:
        changed = TrainConfig.model_validate(values)
    except ValidationError:
        return None
    return changed if changed.sizes.num_heads % changed.sequence_parallel == 0 else None
