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
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.as_upstream import AsUpstream
from benchmarks.turns import DEVICE, Answer, Task, check, compared
from tests.filled import drawn, filled
from training.model import AudioConditionConfig, FaceConditionConfig, ModelConfig, PortraitModel
from training.model.backbone import HEAD_NORM_EPS, Backbone
from training.model.denoiser import PreparedConditions
from training.model.weights_map import to_diffusers


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


if __name__ == "__main__":
    main(sys.argv[1:])
