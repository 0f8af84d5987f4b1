"""The networks' speed and memory, against the reference's way of working and against diffusers' backbone.

    python -m benchmarks.model [--sizes narrow wide] [--tasks forward training sampling backbone ...]
                               [--pairs 3] [--steps 50] [--threads 1] [--compiled]

as_upstream.py computes the same from the same weights in the reference's way, with the same attention
kernel. What it does more is counted: its FLOPs over ours are the ceiling, the most that leaving it out can be
worth. Its time over ours, both in turns within one run, is what was reached. The `backbone` tasks are our
backbone without face, voice and reference against diffusers' CogVideoX with the same weights: equal work,
ceiling 1. Nothing is timed before both gave the same output (and gradients) to 1e-4 in float32.

On the CPU all is float32, and time is CPU seconds, with wall seconds beside them. On a GPU the weights are
bfloat16, attention is the flash kernel, sizes are larger, time is wall seconds, and the share of the device's
peak FLOP/s that ours reaches is printed (MFU).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.as_upstream import AsUpstream
from tests.filled import drawn, filled
from training.model import AudioConditionConfig, FaceConditionConfig, ModelConfig, PortraitModel
from training.model.backbone import HEAD_NORM_EPS, Backbone
from training.model.denoiser import PreparedConditions
from training.model.weights_map import to_diffusers

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


@dataclass(frozen=True)
class Setting:
    """How the networks are run."""

    dtype: torch.dtype = torch.float32
    kernel: str = "auto"
    compiled: bool = False


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--pairs", type=int, default=3, help="how often both are timed")
    parser.add_argument("--steps", type=int, default=50, help="of a sampling run; a pair times one")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")
    parser.add_argument("--compiled", action="store_true", help="our blocks through torch.compile")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    exact = Setting(compiled=options.compiled)
    timed = exact if DEVICE == "cpu" else Setting(torch.bfloat16, "flash", options.compiled)
    for size in options.sizes:
        width, layers = SIZES[size]
        print(f"{size}: {layers} blocks of {width}", flush=True)
        for name in options.tasks:
            task = TASKS[name](partial(sizes, width, layers), exact, options.steps)
            check(name, task)
            if timed != exact:
                task = TASKS[name](partial(sizes, width, layers), timed, options.steps)
            print(f"  {name:18s} {compared(task, options.pairs)}", flush=True)


# --- what is compared


def sizes(width: int, layers: int, setting: Setting) -> ModelConfig:
    """4 latent frames of 60 x 90: 1,350 reference tokens, 5,400 video tokens, 226 of text."""
    return ModelConfig(
        num_layers=layers,
        num_heads=width // 64,
        time_embed_dim=512,
        text_dim=4096,
        text_length=226,
        latent_frames=4,
        latent_height=60,
        latent_width=90,
        audio=AudioConditionConfig(hidden=256, dim=32),
        face=FaceConditionConfig(dim=256),
        attention_kernel=setting.kernel,
    )


SIZES = (
    {"narrow": (256, 3), "wide": (512, 2)} if DEVICE == "cpu" else {"narrow": (1024, 8), "wide": (3072, 4)}
)
"""Width and number of blocks."""

Sized = Callable[[Setting], ModelConfig]


def forward(sized: Sized, setting: Setting, _: int) -> Task:
    """One sample through both networks."""
    model, given = portrait_model(sized(setting), setting), inputs(sized(setting), setting, batch=1)
    theirs = AsUpstream(model)
    return Task(
        theirs=lambda: without_gradients(lambda: theirs(**given)),
        ours=lambda _: without_gradients(lambda: velocity(model, **given)),
    )


def training(sized: Sized, setting: Setting, _: int) -> Task:
    """A training step of both networks, without the optimizer."""
    model, given = portrait_model(sized(setting), setting), inputs(sized(setting), setting, batch=1)
    theirs = AsUpstream(model)
    return Task(
        theirs=lambda: with_gradients(model, lambda: theirs(**given)),
        ours=lambda _: with_gradients(model, lambda: velocity(model, **given)),
    )


def sampling(sized: Sized, setting: Setting, steps: int) -> Task:
    """A window of video, sampled with guidance: two samples a step, one portrait for both."""
    model, given = portrait_model(sized(setting), setting), inputs(sized(setting), setting, batch=2)
    theirs = AsUpstream(model)

    @torch.no_grad()
    def once() -> PreparedConditions:
        bank = model.reference(given["reference_latent"], given["reference_text"])
        return model.denoiser.prepare(given["text"], reference=bank, face=given["face"], audio=given["audio"])

    step = (given["noisy"], given["timesteps"], given["image_condition"])
    return Task(
        theirs=lambda: without_gradients(lambda: theirs(**given)),
        ours=lambda prepared: without_gradients(lambda: model.denoiser.denoise(*step, prepared)),
        once=once,
        times=steps,
    )


def backbone(sized: Sized, setting: Setting, _: int) -> Task:
    """CogVideoX's transformer, forward."""
    pair = backbones(sized(setting), setting)
    return Task(
        theirs=lambda: without_gradients(pair.call_theirs),
        ours=lambda _: without_gradients(pair.call_ours),
    )


def backbone_training(sized: Sized, setting: Setting, _: int) -> Task:
    """CogVideoX's transformer, forward and backward."""
    pair = backbones(sized(setting), setting)
    return Task(
        theirs=lambda: with_gradients(pair.theirs, pair.call_theirs),
        ours=lambda _: with_gradients(pair.ours, pair.call_ours),
        in_their_names=lambda answer: {"output": answer.pop("output"), **to_diffusers(answer)},
    )


TASKS: dict[str, Callable[[Sized, Setting, int], Task]] = {
    "forward": forward,
    "training": training,
    "sampling": sampling,
    "backbone": backbone,
    "backbone_training": backbone_training,
}


# --- the networks and their inputs


def portrait_model(config: ModelConfig, setting: Setting) -> PortraitModel:
    model = PortraitModel(config)
    fill(model)
    if setting.compiled:
        model.compile_blocks()
    return model.to(DEVICE, setting.dtype)


def fill(network: nn.Module) -> None:
    """Weights that follow from their names: untrained ones have closed gates, and nothing would happen."""
    with torch.no_grad():
        for name, weights in network.named_parameters():
            weights.copy_(filled(name, weights))


def inputs(config: ModelConfig, setting: Setting, batch: int) -> dict[str, Tensor]:
    """The arguments of AsUpstream's call."""
    latent = config.out_channels, config.latent_height, config.latent_width
    audio = config.audio
    assert audio
    shapes = {
        "noisy": (batch, config.latent_frames, *latent),
        "text": (batch, config.text_length, config.text_dim),
        "image_condition": (batch, config.latent_frames, *latent),
        "reference_latent": (1, 1, *latent),
        "reference_text": (1, config.text_length, config.text_dim),
        "face": (1, config.face.embedding_dim),
        "audio": (batch, config.num_frames, audio.window, audio.layers, audio.channels),
    }
    given = {name: drawn(name, shape).to(DEVICE, setting.dtype) for name, shape in shapes.items()}
    return given | {"timesteps": torch.full((batch,), 500.0, device=DEVICE)}


def velocity(
    model: PortraitModel, *, reference_latent: Tensor, reference_text: Tensor, **given: Tensor
) -> Tensor:
    """Our way: the reference network, then the denoiser."""
    return model.denoiser(**given, reference=model.reference(reference_latent, reference_text))


@dataclass(frozen=True)
class Backbones:
    """diffusers' and ours, with the same weights, ready to be called on the same input."""

    theirs: nn.Module
    ours: Backbone
    call_theirs: Callable[[], Tensor]
    call_ours: Callable[[], Tensor]


def backbones(config: ModelConfig, setting: Setting) -> Backbones:
    from diffusers import CogVideoXTransformer3DModel

    ours = Backbone(config)
    fill(ours)
    theirs = CogVideoXTransformer3DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        time_embed_dim=config.time_embed_dim,
        text_embed_dim=config.text_dim,
        num_layers=config.num_layers,
        sample_height=config.latent_height,
        sample_width=config.latent_width,
        sample_frames=config.num_frames,
        max_text_seq_length=config.text_length,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
    )
    theirs.load_state_dict(to_diffusers(ours.state_dict()))
    theirs.norm_out.norm.eps = HEAD_NORM_EPS  # as the published weights were trained; diffusers has 1e-5
    if setting.compiled:
        for block in ours.blocks:
            block.compile(fullgraph=True)
    theirs.to(DEVICE, setting.dtype), ours.to(DEVICE, setting.dtype)
    shape = (1, config.latent_frames, config.in_channels, config.latent_height, config.latent_width)
    latents = drawn("latents", shape).to(DEVICE, setting.dtype)
    text = drawn("text", (1, config.text_length, config.text_dim)).to(DEVICE, setting.dtype)
    timesteps = torch.full((1,), 500.0, device=DEVICE)
    tables = (ours.rotary.cos, ours.rotary.sin)
    return Backbones(
        theirs,
        ours,
        lambda: theirs(latents, text, timesteps, image_rotary_emb=tables, return_dict=False)[0],
        lambda: ours.predict(latents, timesteps, ours.embed_text(text)),
    )


@torch.no_grad()
def without_gradients(call: Callable[[], Tensor]) -> Answer:
    return {"output": call()}


def with_gradients(network: nn.Module, call: Callable[[], Tensor]) -> Answer:
    """The output of the call, and what its mean square gives for every parameter that it depends on."""
    output = call()
    output.float().square().mean().backward()
    answer = {"output": output.detach()}
    for name, weights in network.named_parameters():
        if weights.grad is not None:
            answer[name] = weights.grad
            weights.grad = None
    return answer


# --- how it is measured


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


if __name__ == "__main__":
    main(sys.argv[1:])
