"""`hallo3 plan`: what a run would take, as a table or for programs."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data_pipeline.config_file import ConfigError, read_values
from training.config import PRESETS, TrainConfig, load_config

if TYPE_CHECKING:
    from training.plan import Gpu, Plan

PROBLEM, WRONG_INPUT = 1, 2
NOWHERE = "-"
"""The dataset and the output where none are given: a plan reads and writes neither."""
LABEL = 18


def run(
    name: str, overrides: Sequence[str], gpu: str, gpu_gb: float | None, utilization: float, as_json: bool
) -> int:
    """Print the plan of the configuration `name`; 1 where it does not fit."""
    try:
        config, kind = config_of(name, overrides), gpu_of(gpu, gpu_gb)
    except ConfigError as error:
        return fail(error, WRONG_INPUT)
    except ModuleNotFoundError as error:
        return fail(f"needs {error.name}; pip install 'hallo3[train]'", PROBLEM)
    from training.plan import plan

    made = plan(config, kind, utilization)
    if as_json:
        print(json.dumps(values(made), indent=2))
    else:
        print("\n".join(lines(made, name, gpu)))
    return 0 if made.fits else PROBLEM


def lines(plan: "Plan", name: str, gpu: str) -> Iterator[str]:
    """The plan for a person."""
    config, memory = plan.config, plan.memory
    zero = config.deepspeed
    yield f"{name}: phase {config.phase}, {config.num_workers} x {gpu} of {plan.gpu.gb:g} GB"
    yield ""
    yield f"  {'parameters':<{LABEL}}{'total':>9}{'trained':>12}"
    for part, weights in {**plan.networks, "together": plan.weights}.items():
        yield f"    {part:<{LABEL - 2}}{_count(weights.total):>9}{_count(weights.trained):>12}"
    yield ""
    how = f"ZeRO-{zero.zero_stage}, recompute {config.recompute}, micro-batch {config.micro_batch}"
    how += f", {config.sequence_parallel} GPUs a sample" if config.sequence_parallel > 1 else ""
    yield f"  memory of a GPU    {how}"
    for part, size in memory.gpu.items():
        bar = "#" * min(40, round(40 * size / (plan.gpu.gb * 1e9)))
        yield f"    {part:<{LABEL - 2}}{gigabytes(size)}  {bar}".rstrip()
    left = plan.gpu.gb * 1e9 - memory.gpu_bytes
    verdict = f"fits, {left / 1e9:.1f} GB are left" if left >= 0 else f"{-left / 1e9:.1f} GB too much"
    yield f"    {'together':<{LABEL - 2}}{gigabytes(memory.gpu_bytes)}  of {plan.gpu.gb:g} GB: {verdict}"
    if memory.host:
        yield ""
        yield "  memory of the host, a worker"
        for part, size in memory.host.items():
            yield f"    {part:<{LABEL - 2}}{gigabytes(size)}"
    yield ""
    yield from _verdict(plan)
    tflop = {
        "forward": plan.flops.forward,
        "backward": plan.flops.backward,
        "computed again": plan.flops.recomputed,
    }
    told = ", ".join(f"{part} {size / 1e12:.3g}" for part, size in tflop.items())
    yield f"  {'a sample':<{LABEL}}{plan.flops.total / 1e12:.4g} TFLOP ({told})"
    how = f"{config.batch} samples at {plan.utilization:.0%} of the peak"
    yield f"  {'a step':<{LABEL}}{_time(plan.step_s)}, {how}"
    yield f"  {f'{config.max_steps} steps':<{LABEL}}{_time(plan.days * 86_400)}"


def values(plan: "Plan") -> dict[str, Any]:
    """The plan for a program; bytes, operations and seconds."""
    return {
        "fits": plan.fits,
        "change": None if plan.change is None else list(plan.change),
        "parameters": {"total": plan.weights.total, "trained": plan.weights.trained},
        "networks": {
            name: {"total": part.total, "trained": part.trained} for name, part in plan.networks.items()
        },
        "gpu_bytes": {part: round(size) for part, size in plan.memory.gpu.items()},
        "gpu_bytes_together": round(plan.memory.gpu_bytes),
        "host_bytes": {part: round(size) for part, size in plan.memory.host.items()},
        "gpu_gb": plan.gpu.gb,
        "sample_flops": {
            "forward": plan.flops.forward,
            "backward": plan.flops.backward,
            "recomputed": plan.flops.recomputed,
        },
        "utilization": plan.utilization,
        "step_s": plan.step_s,
        "days": plan.days,
    }


def _verdict(plan: "Plan") -> Iterator[str]:
    if plan.fits:
        return
    if plan.change is None:
        yield f"  it does not fit on {plan.config.num_workers} such GPUs, whatever is shared or offloaded;"
        yield "  take more or larger GPUs, or fewer model.latent_frames"
    else:
        yield f"  it would fit with  {' '.join(plan.change)}"
    yield ""


def gpu_of(name: str, gb: float | None) -> "Gpu":
    """A known GPU, or one like it with other memory. Raises ConfigError."""
    from training.plan import GPUS

    if name not in GPUS:
        raise ConfigError(f"--gpu {name}: known are {', '.join(GPUS)}")
    return GPUS[name] if gb is None else replace(GPUS[name], gb=gb)


def config_of(name: str, overrides: Sequence[str]) -> TrainConfig:
    """The configuration, with a dataset and an output where none are given. Raises ConfigError."""
    given = list(overrides)
    there = read_values(PRESETS, name)
    for key in ("dataset", "output"):
        if key not in there and not any(override.startswith(f"{key}=") for override in given):
            given.append(f"{key}={json.dumps(NOWHERE)}")
    return load_config(name, given)


def _count(number: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def gigabytes(size: float) -> str:
    return f"{size / 1e9:>9.2f} GB"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def fail(error: Exception | str, status: int) -> int:
    print(f"hallo3: {error}", file=sys.stderr)
    return status
