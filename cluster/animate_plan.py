"""`hallo3 plan CONFIG --animate`: what making videos takes on a GPU, as a table or for programs."""

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cluster.plan import LABEL, PROBLEM, WRONG_INPUT, config_of, fail, gigabytes, gpu_of
from data_pipeline.config_file import ConfigError

if TYPE_CHECKING:
    from training.sampling_memory import Ways
    from training.sampling_plan import SamplingPlan


def run(options: argparse.Namespace) -> int:
    """Print the plan; 1 where it does not fit."""
    try:
        config = config_of(options.config, options.overrides)
        gpu = gpu_of(options.gpu, options.gpu_gb)
    except ConfigError as error:
        return fail(error, WRONG_INPUT)
    except ModuleNotFoundError as error:
        return fail(f"needs {error.name}; pip install 'hallo3[train]'", PROBLEM)
    from training.sampling_memory import Ways
    from training.sampling_plan import sampling_plan

    ways = Ways(options.two_passes, options.tile, options.offload)
    try:
        made = sampling_plan(config.sizes, config.encoders, gpu, ways, options.size)
    except ValueError as error:
        return fail(f"{options.config}: {error}", WRONG_INPUT)
    if options.json:
        print(json.dumps(values(made), indent=2))
    else:
        print("\n".join(lines(made, options.config, options.gpu)))
    return 0 if made.fits else PROBLEM


def lines(plan: "SamplingPlan", name: str, gpu: str) -> Iterator[str]:
    """The plan for a person."""
    height, width = plan.size
    how = " ".join(flags(plan.ways)) or "no flags"
    yield f"{name}: frames of {height}x{width}, {gpu} of {plan.gpu.gb:g} GB, {how}"
    yield ""
    yield "  memory of a GPU, by moment"
    for moment, parts in plan.moments.items():
        yield _line(moment, sum(parts.values()), plan)
    yield ""
    yield f"  the most: {plan.largest}"
    for part, size in plan.moments[plan.largest].items():
        yield _line(part, size, plan)
    left = plan.gpu.gb * 1e9 - plan.gpu_bytes
    verdict = f"fits, {left / 1e9:.1f} GB are left" if left >= 0 else f"{-left / 1e9:.1f} GB too much"
    yield f"    {'together':<{LABEL - 2}}{gigabytes(plan.gpu_bytes)}  of {plan.gpu.gb:g} GB: {verdict}"
    if plan.host_bytes:
        yield ""
        yield f"  {'host':<{LABEL}}{gigabytes(plan.host_bytes)}"
    if not plan.fits:
        yield ""
        if plan.change is None:
            yield "  it does not fit, whatever is offloaded; take a larger GPU, or a smaller --size"
        else:
            yield f"  it would fit with  {' '.join(flags(plan.change))}"


def values(plan: "SamplingPlan") -> dict[str, Any]:
    """The plan for a program; bytes."""
    moments = {
        moment: {part: round(size) for part, size in parts.items()} for moment, parts in plan.moments.items()
    }
    return {
        "fits": plan.fits,
        "change": None if plan.change is None or plan.fits else flags(plan.change),
        "size": list(plan.size),
        "gpu_bytes": moments,
        "largest": plan.largest,
        "gpu_bytes_together": round(plan.gpu_bytes),
        "host_bytes": plan.host_bytes,
        "gpu_gb": plan.gpu.gb,
    }


def flags(ways: "Ways") -> list[str]:
    """As `hallo3 animate` takes them."""
    tile = [] if ways.tile is None else [f"--tile {ways.tile[0]}x{ways.tile[1]}"]
    return [*(["--two-passes"] if ways.two_passes else []), *tile, *(["--offload"] if ways.offload else [])]


def _line(name: str, size: float, plan: "SamplingPlan") -> str:
    bar = "#" * min(40, round(40 * size / (plan.gpu.gb * 1e9)))
    return f"    {name:<{LABEL - 2}}{gigabytes(size)}  {bar}".rstrip()
