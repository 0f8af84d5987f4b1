"""Two ways of doing the same work, held against each other: answers, FLOPs, seconds, memory.

check      both give the same, or nothing is timed
compared   FLOPs (the ceiling), seconds of both in turns within one run (what was reached), peak memory
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

TOLERANCE = 1e-4
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PEAK_TFLOPS = {"A100": 312, "H100": 989, "H200": 989, "B200": 2250}
"""Dense bfloat16, from the makers' data sheets."""

Answer = dict[str, Tensor]
"""The output, and where it was asked for the gradient of every parameter."""


@dataclass(frozen=True)
class Task:
    """The same work done in two ways, whose answers must agree."""

    theirs: Callable[[], Answer]
    ours: Callable[[Any], Answer]
    """Gets what `once` gave."""
    once: Callable[[], Any] = lambda: None
    times: int = 1
    """How often both are done, ours after `once`, in what is reported: a sampling run's steps."""
    in_their_names: Callable[[Answer], Answer] = dict


def check(name: str, task: Task) -> None:
    """Refuse to go on where both do not give the same, relative to each tensor's norm."""
    theirs, ours = task.theirs(), task.in_their_names(task.ours(task.once()))
    for part, wanted in theirs.items():
        deviation = float((ours[part] - wanted).norm() / wanted.norm())
        if not deviation <= TOLERANCE:
            raise SystemExit(
                f"{name}: {part} deviates by {deviation:.1e}, allowed {TOLERANCE}: nothing is timed"
            )


def compared(task: Task, pairs: int) -> str:
    """A line of what was counted and measured."""
    prepared = task.once()
    work = flops(task.once) + task.times * flops(partial(task.ours, prepared))
    prepared = None
    ceiling = task.times * flops(task.theirs) / work
    peak_theirs, peak_ours = peak_bytes(task.theirs), peak_bytes(lambda: task.ours(task.once()))
    spent = [in_turns(task, ours_first=bool(pair % 2)) for pair in range(pairs)]
    line = f"ceiling {ceiling:.3f}"
    for clock in spent[0][0]:
        reached = sorted(theirs[clock] / ours[clock] for theirs, ours in spent)
        middle = statistics.median(reached)
        share = f" = {(middle - 1) / (ceiling - 1):.0%} of the gain" if ceiling > 1.001 else ""
        seconds = statistics.median(ours[clock] for _, ours in spent)
        line += (
            f" | {clock} {middle:.3f} ({reached[0]:.3f} .. {reached[-1]:.3f}){share}, ours {seconds:.1f} s"
        )
        if clock == "wall" and (peak := device_flops()):
            line += f", MFU {work / seconds / peak:.1%}"
    return f"{line} | peak {peak_theirs / 2**20:.0f} MB, ours {peak_ours / 2**20:.0f} MB"


def in_turns(task: Task, ours_first: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds by clock of both, for all that is reported."""

    def spend_ours() -> dict[str, float]:
        prepared: list[Any] = []
        once = seconds(lambda: prepared.append(task.once()))
        each = seconds(lambda: task.ours(prepared[0]))
        return {clock: once[clock] + task.times * each[clock] for clock in once}

    ours = spend_ours() if ours_first else None
    theirs = {clock: task.times * spent for clock, spent in seconds(task.theirs).items()}
    return theirs, ours or spend_ours()


def seconds(work: Callable[[], object]) -> dict[str, float]:
    """How long it takes; on the CPU also the CPU seconds of all threads."""
    synchronise()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    synchronise()
    spent = {"wall": time.perf_counter() - wall}
    return spent if DEVICE == "cuda" else {"CPU": time.process_time() - cpu} | spent


def synchronise() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def flops(work: Callable[[], object]) -> int:
    """Of matrix products, convolutions and attention; a multiplication and an addition count two."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        work()
    return counter.get_total_flops()


# torch's counter knows the attention kernels of GPUs only.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(gradient, query, key, value)
    ),
}


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that torch held at once, above what it held before (weights, inputs)."""
    if DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate(change for _, change in changes))


def device_flops() -> float | None:
    """Peak bfloat16 FLOP/s of the GPU, where it is known."""
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else ""
    return next((1e12 * peak for known, peak in PEAK_TFLOPS.items() if known in name), None)
