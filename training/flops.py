"""How much a training step computes: floating-point operations of one sample, by what is trained.

A product of (tokens, in) and (in, out) is 2 * tokens * in * out; softmax(q k') v is 4 * queries * keys * D.
Backward, a product costs the same again for its weight where that is trained, and for its input where
anything before it is; attention 2.5 times its forward, as the fused kernels compute the scores again (Dao
2023). What is elementwise is not counted: memory decides its time.

The walk follows `model/block.py` from the first layer to the last and keeps in mind whether a gradient has
to come back: in phase "audio" none reaches the reference network, nor the denoiser's first self-attention.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from training.model.config import ModelConfig

FUSED_ATTENTION_BACKWARD = 2.5
"""Of its forward; 2 where the scores are held."""


@dataclass(frozen=True)
class Trained:
    """What asks for gradients: names of parameters, or of the layers beside which low-rank updates lie."""

    names: Collection[str]
    rank: int = 0
    """0: the weights themselves; else the rank of updates of the layers `names`."""

    def weight(self, layer: str) -> bool:
        return not self.rank and f"{layer}.weight" in self.names

    def update(self, layer: str) -> bool:
        return bool(self.rank) and layer in self.names


@dataclass
class Flops:
    """Of one sample; `forward + backward + recomputed` is what a GPU does for it."""

    forward: float = 0.0
    backward: float = 0.0
    recomputed: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recomputed


@dataclass
class _Walk:
    trained: Trained
    attention_backward: float
    flops: Flops = field(default_factory=Flops)
    attention_forward: float = 0.0

    def linear(self, layer: str, tokens: int, inside: int, outside: int, gradient: bool) -> bool:
        """`gradient`: of the input. Returns whether the output's gradient is asked for."""
        cost = 2.0 * tokens * inside * outside
        self.flops.forward += cost
        self.flops.backward += cost * (gradient + self.trained.weight(layer))
        if self.trained.update(layer):
            down, up = 2.0 * tokens * inside * self.trained.rank, 2.0 * tokens * self.trained.rank * outside
            self.flops.forward += down + up
            self.flops.backward += down * (1 + gradient) + 2 * up
        return gradient or self.trained.weight(layer) or self.trained.update(layer)

    def attend(self, queries: int, keys: int, size: int, gradient: bool) -> None:
        cost = 4.0 * queries * keys * size
        self.flops.forward += cost
        self.attention_forward += cost
        self.flops.backward += self.attention_backward * cost * gradient


def sample_flops(
    config: ModelConfig,
    trained: Trained,
    recompute: str = "nothing",
    attention_backward: float = FUSED_ATTENTION_BACKWARD,
) -> Flops:
    """Both networks and the conditioning, for one window of `config.num_frames` frames.

    Args:
        recompute: as `TrainConfig.recompute`.
    """
    walk = _Walk(trained, attention_backward)
    bank = _reference(walk, config, recompute)
    _denoiser(walk, config, recompute, bank)
    return walk.flops


def _reference(walk: _Walk, config: ModelConfig, recompute: str) -> list[bool]:
    """Whether each feature that it hands over asks for a gradient."""
    patches = config.patches_per_frame
    video, time = _embed(walk, "reference", config, 1)
    bank = []
    for index in range(config.num_layers):
        name = f"reference.blocks.{index}"
        time_here = walk.linear(f"{name}.modulation", 1, config.time_embed_dim, 12 * config.hidden_size, time)
        bank.append(video or time_here or f"{name}.attention_norm.weight" in walk.trained.names)
        if index < config.num_layers - 1:
            walk.flops.forward += 2.0 * config.time_embed_dim * 12 * config.hidden_size  # once more inside
            video = _again(walk, recompute, _block, walk, name, config, patches, video or time_here, None)
    return bank


def _denoiser(walk: _Walk, config: ModelConfig, recompute: str, bank: list[bool]) -> None:
    frames, patches, size = config.latent_frames, config.patches_per_frame, config.hidden_size
    video, time = _embed(walk, "denoiser", config, frames)
    face = config.face
    walk.linear("denoiser.face_projector.proj", 1, face.embedding_dim, face.tokens * face.dim, False)
    _audio_projector(walk, config)
    for index in range(config.num_layers):
        name = f"denoiser.blocks.{index}"
        modulated = walk.linear(f"{name}.modulation", 1, config.time_embed_dim, 12 * size, time)
        video = _again(
            walk, recompute, _block, walk, name, config, frames * patches, video or modulated, bank[index]
        )
    walk.linear("denoiser.head.modulation", 1, config.time_embed_dim, 2 * size, time)
    walk.linear(
        "denoiser.head.linear", frames * patches, size, config.out_channels * config.patch_size**2, video
    )


def _embed(walk: _Walk, network: str, config: ModelConfig, frames: int) -> tuple[bool, bool]:
    """Whether video and time ask for gradients."""
    size, tokens = config.hidden_size, frames * config.patches_per_frame
    inside = config.in_channels * config.patch_size**2
    video = walk.linear(f"{network}.patch_embed", tokens, inside, size, False)
    text = walk.linear(f"{network}.text_embed", config.text_length, config.text_dim, size, False)
    time = walk.linear(f"{network}.time_embed.0", 1, size, config.time_embed_dim, False)
    time = walk.linear(f"{network}.time_embed.2", 1, config.time_embed_dim, config.time_embed_dim, time)
    return video or text, time


def _again(walk: _Walk, recompute: str, part, *given) -> bool:  # type: ignore[no-untyped-def]
    """A block; what of it is computed a second time is added where a gradient comes back through it."""
    forward, attention = walk.flops.forward, walk.attention_forward
    gradient = part(*given)
    if gradient and recompute != "nothing":
        walk.flops.recomputed += walk.flops.forward - forward
        if recompute == "all_but_attention":
            walk.flops.recomputed -= walk.attention_forward - attention
    return gradient


def _block(
    walk: _Walk, name: str, config: ModelConfig, video_tokens: int, gradient: bool, reference: bool | None
) -> bool:
    """`reference`: whether the reference network's feature asks for a gradient; None: there is none."""
    size, patches = config.hidden_size, config.patches_per_frame
    tokens = config.text_length + video_tokens
    shown = 0
    if reference is not None:
        shown = patches
        kv = walk.linear(f"{name}.attention.qkv", patches, size, 2 * size, reference)
    looked = walk.linear(f"{name}.attention.qkv", tokens, size, 3 * size, gradient)
    looked = looked or (reference is not None and kv)
    walk.attend(tokens, tokens + shown, size, looked)
    gradient = walk.linear(f"{name}.attention.out", tokens, size, size, looked) or gradient
    if reference is not None:
        frames, face = config.latent_frames, config.face
        gradient = _cross(
            walk, f"{name}.face_attention", size, video_tokens, 1, face.tokens, face.dim, gradient
        )
        if audio := config.audio:
            of_audio = (frames, audio.tokens, audio.dim)
            gradient = _cross(walk, f"{name}.audio_attention", size, video_tokens, *of_audio, gradient)
    inner = walk.linear(f"{name}.feed_forward.0", tokens, size, 4 * size, gradient)
    return walk.linear(f"{name}.feed_forward.2", tokens, 4 * size, size, inner) or gradient


def _cross(
    walk: _Walk, name: str, size: int, video: int, groups: int, tokens: int, dim: int, gradient: bool
) -> bool:
    """`groups` of `tokens` of the condition, whose projector may be trained."""
    projector = "face_projector.proj" if "face" in name else "audio_projector.proj1"
    asked = walk.trained.weight(f"denoiser.{projector}")
    norm = f"{name.removesuffix('attention')}norm"
    query = walk.linear(f"{name}.query", video, size, size, gradient or walk.trained.weight(norm))
    keys = walk.linear(f"{name}.key_value", groups * tokens, dim, 2 * size, asked)
    walk.attend(video, tokens, size, query or keys)
    return walk.linear(f"{name}.out", video, size, size, query or keys) or gradient


def _audio_projector(walk: _Walk, config: ModelConfig) -> None:
    if not (audio := config.audio):
        return
    name, width = "denoiser.audio_projector", audio.tokens * audio.dim
    window = audio.window * audio.layers * audio.channels
    gradient = walk.linear(f"{name}.proj1", config.num_frames, window, audio.hidden, False)
    gradient = walk.linear(f"{name}.proj2", config.num_frames, audio.hidden, audio.hidden, gradient)
    gradient = walk.linear(f"{name}.proj3", config.num_frames, audio.hidden, width, gradient)
    frames = config.num_frames
    for _ in range(2):
        frames = frames // 2 + frames % 2
        channels = width if audio.halving == "joint" else audio.dim
        pairs = (frames - 1) * width // channels
        gradient = walk.linear(f"{name}.halving", pairs, 2 * channels, channels, gradient)
