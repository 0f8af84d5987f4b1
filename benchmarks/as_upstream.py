"""The networks a second time: the same weights and numbers, in the public reference's way of working.

    reference latent -> reference network, to its end -> a feature a block
    text, video, feature -> one sequence through query, key, value, attention, output; its last rows dropped

What it does that training/model does not: it computes queries for the reference tokens and sends what they
attend to through the output layer, and it starts from nothing in every call, so that the reference network,
its features' keys and values, and the projections of text, audio and face are all computed in every sampling
step. Gradients reach the weights of the PortraitModel that it was made from.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model import PortraitModel
from training.model.attention import CrossAttention, JointAttention, attend
from training.model.backbone import Backbone
from training.model.block import Block


class AsUpstream(nn.Module):
    """`PortraitModel`'s denoiser and reference network, called as one."""

    def __init__(self, model: PortraitModel):
        super().__init__()
        self.model = model

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        *,
        image_condition: Tensor,
        reference_latent: Tensor,
        reference_text: Tensor,
        face: Tensor,
        audio: Tensor,
    ) -> Tensor:
        """Arguments and result as `Denoiser.forward`'s and `ReferenceNetwork.forward`'s."""
        bank: list[Tensor] = []
        twice = torch.cat([reference_latent, reference_latent], dim=2)
        through(self.model.reference, twice, twice.new_zeros(1), reference_text, features=bank)
        denoiser = self.model.denoiser
        given = [Given(one, denoiser.face_projector(face), denoiser.audio_projector(audio)) for one in bank]
        return through(denoiser, torch.cat([noisy, image_condition], dim=2), timesteps, text, given)


@dataclass(frozen=True)
class Given:
    """What a block of the denoiser looks at: (B, n, D), (B, 1, tokens, dim), (B, T, tokens, dim)."""

    reference: Tensor
    face: Tensor
    audio: Tensor


@dataclass(frozen=True)
class Layout:
    """The sequence: `text` tokens, then `frames` of `patches` tokens, with the tables of the latter."""

    text: int
    frames: int
    patches: int
    cos: Tensor
    sin: Tensor


def through(
    network: Backbone,
    latents: Tensor,
    timesteps: Tensor,
    text: Tensor,
    given: list[Given] | None = None,
    features: list[Tensor] | None = None,
) -> Tensor:
    """A network from latents to velocity; each block's modulated video tokens are added to `features`."""
    frames, (height, width) = latents.shape[1], latents.shape[-2:]
    size = network.config.patch_size
    grid = (frames, height // size, width // size)
    hidden = torch.cat([network.embed_text(text), network.embed_video(latents, grid).flatten(1, 2)], dim=1)
    time = network.embed_time(timesteps)
    patches = grid[1] * grid[2]
    tables = (table[: frames * patches] for table in (network.rotary.cos, network.rotary.sin))
    layout = Layout(text.shape[1], frames, patches, *tables)
    for index, block in enumerate(network.blocks):
        hidden = through_block(block, hidden, time, layout, given[index] if given else None, features)
    video = network.final_norm(hidden)[:, layout.text :].unflatten(1, (frames, patches))
    return network.unpatchify(network.head(video, time), grid)


def through_block(
    block: Block,
    hidden: Tensor,
    time: Tensor,
    layout: Layout,
    given: Given | None,
    features: list[Tensor] | None,
) -> Tensor:
    """Hidden states (B, L + T * n, D) after a block."""
    pieces = [piece[:, None] for piece in block.modulation(F.silu(time)).chunk(12, dim=1)]
    text, video = hidden[:, : layout.text], hidden[:, layout.text :]

    video_in = modulated(block.attention_norm(video), *pieces[0:2])
    text_in = modulated(block.attention_norm(text), *pieces[6:8])
    if features is not None:
        features.append(video_in)
    sequence = [text_in, video_in]
    if given is not None:
        sequence.append(given.reference.expand(len(hidden), -1, -1))
    attended = self_attention(block.attention, torch.cat(sequence, dim=1), layout)
    text = text + pieces[8] * attended[:, : layout.text]
    video = video + pieces[2] * attended[:, layout.text : hidden.shape[1]]

    if given is not None:
        face, audio = block.face_attention, block.audio_attention
        video = video + cross_attention(face, block.face_norm(video), given.face, block.attention, layout)
        video = video + cross_attention(audio, block.audio_norm(video), given.audio, block.attention, layout)

    video_in = modulated(block.feed_forward_norm(video), *pieces[3:5])
    text_in = modulated(block.feed_forward_norm(text), *pieces[9:11])
    fed = block.feed_forward(torch.cat([text_in, video_in], dim=1))
    text = text + pieces[11] * fed[:, : layout.text]
    video = video + pieces[5] * fed[:, layout.text :]
    return torch.cat([text, video], dim=1)


def self_attention(attention: JointAttention, tokens: Tensor, layout: Layout) -> Tensor:
    """Every token asks, is asked, and goes through the output layer."""
    parts = F.linear(tokens, attention.qkv.weight, attention.qkv.bias).chunk(3, dim=-1)
    query, key, value = (heads(part, attention.num_heads) for part in parts)
    video = slice(layout.text, layout.text + layout.frames * layout.patches)
    query = rotated(attention.query_norm(query), video, layout.cos, layout.sin)
    key = rotated(attention.key_norm(key), video, layout.cos, layout.sin)
    return attention.out(attend(query, key, value, attention.kernel).transpose(1, 2).flatten(2))


def cross_attention(
    attention: CrossAttention, video: Tensor, tokens: Tensor, norms: JointAttention, layout: Layout
) -> Tensor:
    """Each frame's patches look at their tokens: frames are a batch, face tokens repeat for each."""
    batch = len(video)
    each = video.reshape(batch * layout.frames, layout.patches, -1)
    tokens = tokens.expand(batch, layout.frames, -1, -1).flatten(0, 1)
    query = norms.query_norm(heads(attention.query(each), attention.num_heads))
    query = rotated(query, slice(None), layout.cos[: layout.patches], layout.sin[: layout.patches])
    key, value = (heads(part, attention.num_heads) for part in attention.key_value(tokens).chunk(2, dim=-1))
    attended = attend(query, norms.key_norm(key), value, attention.kernel)
    return attention.out(attended.transpose(1, 2).flatten(2)).view_as(video)


def heads(tokens: Tensor, count: int) -> Tensor:
    """(B, S, D) -> (B, heads, S, head_dim)."""
    return tokens.unflatten(-1, (count, -1)).transpose(1, 2)


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return tokens * (1 + scale) + shift


def rotated(tokens: Tensor, where: slice, cos: Tensor, sin: Tensor) -> Tensor:
    """Tokens (B, heads, S, head_dim), those at `where` turned in place; neighbouring channels are a pair."""
    some = tokens[:, :, where]
    even, odd = some.unflatten(-1, (-1, 2)).unbind(-1)
    tokens[:, :, where] = (some * cos + torch.stack([-odd, even], dim=-1).flatten(-2) * sin).to(tokens.dtype)
    return tokens
