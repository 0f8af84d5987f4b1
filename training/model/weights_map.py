"""Three vocabularies of the same weights: ours, upstream's checkpoints', diffusers' CogVideoX transformer.

    names of one vocabulary -> a plan (entry of the other vocabulary <- rows of given entries) -> tensors

Upstream to ours is a pure renaming. diffusers keeps apart what is one matrix here and upstream: query, key
and value, and the 12 pieces of a block's modulation, which it splits over `norm1` and `norm2`. `loading.py`
and `hallo3 weights convert` carry the same plans out tensor by tensor; `remap_*` and `to_*` do it in memory.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from torch import Tensor

log = logging.getLogger(__name__)

# {i} is the number of a block, {w} is weight or bias. Left: upstream, right: ours.
BACKBONE = [
    ("mixins.pos_embed.pos_embedding", "positions"),
    ("mixins.pos_embed.freqs_sin", "rotary.sin"),
    ("mixins.pos_embed.freqs_cos", "rotary.cos"),
    ("mixins.patch_embed.proj.{w}", "patch_embed.{w}"),
    ("mixins.patch_embed.text_proj.{w}", "text_embed.{w}"),
    ("mixins.adaln_layer.adaLN_modulations.{i}.1.{w}", "blocks.{i}.modulation.{w}"),
    ("mixins.adaln_layer.query_layernorm_list.{i}.{w}", "blocks.{i}.attention.query_norm.{w}"),
    ("mixins.adaln_layer.key_layernorm_list.{i}.{w}", "blocks.{i}.attention.key_norm.{w}"),
    ("mixins.final_layer.norm_final.{w}", "head.norm.{w}"),
    ("mixins.final_layer.linear.{w}", "head.linear.{w}"),
    ("mixins.final_layer.adaLN_modulation.1.{w}", "head.modulation.{w}"),
    ("transformer.position_embeddings.weight", "unused_position_embeddings"),
    ("transformer.layers.{i}.input_layernorm.{w}", "blocks.{i}.attention_norm.{w}"),
    ("transformer.layers.{i}.attention.query_key_value.{w}", "blocks.{i}.attention.qkv.{w}"),
    ("transformer.layers.{i}.attention.dense.{w}", "blocks.{i}.attention.out.{w}"),
    ("transformer.layers.{i}.post_attention_layernorm.{w}", "blocks.{i}.feed_forward_norm.{w}"),
    ("transformer.layers.{i}.mlp.dense_h_to_4h.{w}", "blocks.{i}.feed_forward.0.{w}"),
    ("transformer.layers.{i}.mlp.dense_4h_to_h.{w}", "blocks.{i}.feed_forward.2.{w}"),
    ("transformer.final_layernorm.{w}", "final_norm.{w}"),
    ("time_embed.0.{w}", "time_embed.0.{w}"),
    ("time_embed.2.{w}", "time_embed.2.{w}"),
]
CONDITIONING = [
    ("transformer.layers.{i}.face_input_layernorm.{w}", "blocks.{i}.face_norm.{w}"),
    ("transformer.layers.{i}.face_attn.query.{w}", "blocks.{i}.face_attention.query.{w}"),
    ("transformer.layers.{i}.face_attn.key_value.{w}", "blocks.{i}.face_attention.key_value.{w}"),
    ("transformer.layers.{i}.face_attn.dense.{w}", "blocks.{i}.face_attention.out.{w}"),
    ("transformer.layers.{i}.audio_input_layernorm.{w}", "blocks.{i}.audio_norm.{w}"),
    ("transformer.layers.{i}.audio_attn.query.{w}", "blocks.{i}.audio_attention.query.{w}"),
    ("transformer.layers.{i}.audio_attn.key_value.{w}", "blocks.{i}.audio_attention.key_value.{w}"),
    ("transformer.layers.{i}.audio_attn.dense.{w}", "blocks.{i}.audio_attention.out.{w}"),
    ("transformer.face_proj.proj.{w}", "face_projector.proj.{w}"),
    ("transformer.face_proj.norm.{w}", "face_projector.norm.{w}"),
    ("transformer.audio_proj.proj1.{w}", "audio_projector.proj1.{w}"),
    ("transformer.audio_proj.proj2.{w}", "audio_projector.proj2.{w}"),
    ("transformer.audio_proj.proj3.{w}", "audio_projector.proj3.{w}"),
    ("transformer.audio_proj.conv1.{w}", "audio_projector.halving.{w}"),
    ("transformer.audio_proj.norm.{w}", "audio_projector.norm.{w}"),
]
UPSTREAM_NETWORKS = {
    "denoiser.": ("model.diffusion_model.", BACKBONE + CONDITIONING),
    "reference.": ("ref_model.diffusion_model.", BACKBONE),
}
UPSTREAM_OTHERS = ("conditioner.", "first_stage_model.")
"""The frozen text encoder and autoencoder, which some checkpoints of upstream carry along."""

# Left: diffusers, right: ours; where ours is several of diffusers', the equal row blocks that this one holds.
DIFFUSERS: list[tuple[str, str, tuple[int, tuple[int, ...]] | None]] = [
    ("patch_embed.pos_embedding", "positions", None),
    ("patch_embed.proj.{w}", "patch_embed.{w}", None),
    ("patch_embed.text_proj.{w}", "text_embed.{w}", None),
    ("time_embedding.linear_1.{w}", "time_embed.0.{w}", None),
    ("time_embedding.linear_2.{w}", "time_embed.2.{w}", None),
    ("transformer_blocks.{i}.norm1.linear.{w}", "blocks.{i}.modulation.{w}", (12, (0, 1, 2, 6, 7, 8))),
    ("transformer_blocks.{i}.norm2.linear.{w}", "blocks.{i}.modulation.{w}", (12, (3, 4, 5, 9, 10, 11))),
    ("transformer_blocks.{i}.norm1.norm.{w}", "blocks.{i}.attention_norm.{w}", None),
    ("transformer_blocks.{i}.norm2.norm.{w}", "blocks.{i}.feed_forward_norm.{w}", None),
    ("transformer_blocks.{i}.attn1.norm_q.{w}", "blocks.{i}.attention.query_norm.{w}", None),
    ("transformer_blocks.{i}.attn1.norm_k.{w}", "blocks.{i}.attention.key_norm.{w}", None),
    ("transformer_blocks.{i}.attn1.to_q.{w}", "blocks.{i}.attention.qkv.{w}", (3, (0,))),
    ("transformer_blocks.{i}.attn1.to_k.{w}", "blocks.{i}.attention.qkv.{w}", (3, (1,))),
    ("transformer_blocks.{i}.attn1.to_v.{w}", "blocks.{i}.attention.qkv.{w}", (3, (2,))),
    ("transformer_blocks.{i}.attn1.to_out.0.{w}", "blocks.{i}.attention.out.{w}", None),
    ("transformer_blocks.{i}.ff.net.0.proj.{w}", "blocks.{i}.feed_forward.0.{w}", None),
    ("transformer_blocks.{i}.ff.net.2.{w}", "blocks.{i}.feed_forward.2.{w}", None),
    ("norm_final.{w}", "final_norm.{w}", None),
    ("norm_out.linear.{w}", "head.modulation.{w}", None),
    ("norm_out.norm.{w}", "head.norm.{w}", None),
    ("proj_out.{w}", "head.linear.{w}", None),
]


class WeightsError(ValueError):
    """A checkpoint cannot be used; the message says what it is about, what was found and what to do."""


class Rows(NamedTuple):
    """One row block of a given entry, and where it goes in the wanted one."""

    source: str
    take: tuple[int, int] = (0, 1)
    """Block i of n equal blocks along the first dimension."""
    put: tuple[int, int] = (0, 1)
    """Becomes block j of m."""


@dataclass(frozen=True)
class Plan:
    """How to make the entries of one vocabulary from those of another."""

    entries: dict[str, list[Rows]]
    left_over: list[str] = field(default_factory=list)
    """Given entries that the other vocabulary has no place for."""

    def carry_out(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The wanted tensors; those that are copied whole share memory with the given ones."""
        return {name: _made(parts, state) for name, parts in self.entries.items()}


def remap_upstream(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An upstream checkpoint (its `module`) in our names: what `PortraitModel.load_state_dict` wants.

    Its text encoder and autoencoder, if they are in it, are left out (logged).

    Raises:
        WeightsError: names that upstream's networks do not have.
    """
    return _remapped(plan_from_upstream(state), state)


def to_upstream(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`PortraitModel.state_dict()` in upstream's names.

    Raises:
        WeightsError: names that PortraitModel does not have.
    """
    return plan_to_upstream(state).carry_out(state)


def remap_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' CogVideoX transformer as one backbone in our names; `in_both_networks` puts it to use.

    What it does not have stays out: rotary tables, `unused_position_embeddings`, face and audio.

    Raises:
        WeightsError: unknown names, or a part of a joined matrix is missing.
    """
    return plan_from_diffusers(state).carry_out(state)


def to_diffusers(backbone: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`reference.state_dict()` or `denoiser.state_dict()` as diffusers' CogVideoXTransformer3DModel.

    What that has no place for is left out (logged): face, audio, rotary tables.

    Raises:
        WeightsError: names that a backbone does not have.
    """
    return _remapped(plan_to_diffusers(backbone), backbone)


def in_both_networks(backbone: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone under the names of both networks: where Hallo3's training starts (no copy is made)."""
    return {prefix + name: value for prefix in UPSTREAM_NETWORKS for name, value in backbone.items()}


def plan_from_upstream(names: Iterable[str]) -> Plan:
    """Upstream's names -> ours. Raises WeightsError for unknown ones."""
    return _renamed(names, _upstream_to_ours, "upstream's checkpoint", UPSTREAM_OTHERS)


def plan_to_upstream(names: Iterable[str]) -> Plan:
    """Our names -> upstream's. Raises WeightsError for unknown ones."""
    return _renamed(names, _ours_to_upstream, "PortraitModel")


def plan_from_diffusers(names: Iterable[str]) -> Plan:
    """diffusers' names -> a backbone's. Raises WeightsError for unknown ones and for missing parts."""
    entries: dict[str, list[Rows]] = defaultdict(list)
    unknown = []
    for name in names:
        for theirs, ours, blocks in DIFFUSERS:
            if target := _renamed_by(theirs, ours, name):
                count, which = blocks or (1, (0,))
                entries[target] += [
                    Rows(name, (i, len(which)), (block, count)) for i, block in enumerate(which)
                ]
                break
        else:
            unknown.append(name)
    _refuse(unknown, "diffusers' CogVideoX transformer")
    parts_missing = [name for name, parts in entries.items() if len(parts) != parts[0].put[1]]
    if parts_missing:
        raise WeightsError(
            f"{listed(parts_missing)}: only a part of it is there; diffusers keeps it as "
            f"{', '.join(theirs for theirs, ours, _ in DIFFUSERS if _matches(ours, parts_missing[0]))}"
        )
    return Plan(dict(entries))


def plan_to_diffusers(names: Iterable[str]) -> Plan:
    """A backbone's names -> diffusers'. Raises WeightsError for unknown ones."""
    entries: dict[str, list[Rows]] = {}
    left_over: list[str] = []
    unknown: list[str] = []
    for name in names:
        rows = [row for row in DIFFUSERS if _matches(row[1], name)]
        for theirs, ours, blocks in rows:
            count, which = blocks or (1, (0,))
            entries[_renamed_by(ours, theirs, name) or ""] = [
                Rows(name, (block, count), (i, len(which))) for i, block in enumerate(which)
            ]
        if not rows:
            known = any(_matches(ours, name) for _, ours in BACKBONE + CONDITIONING)
            (left_over if known else unknown).append(name)
    _refuse(unknown, "a backbone")
    return Plan(entries, left_over)


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few names and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def _renamed(
    names: Iterable[str], rename: Callable[[str], str | None], whose: str, others: tuple[str, ...] = ()
) -> Plan:
    entries, left_over, unknown = {}, [], []
    for name in names:
        if target := rename(name):
            entries[target] = [Rows(name)]
        elif name.startswith(others):
            left_over.append(name)
        else:
            unknown.append(name)
    _refuse(unknown, whose)
    return Plan(entries, left_over)


def _refuse(unknown: list[str], whose: str) -> None:
    if unknown:
        raise WeightsError(f"{len(unknown)} names are not of {whose}: {listed(unknown)}")


def _upstream_to_ours(name: str) -> str | None:
    for ours, (theirs, table) in UPSTREAM_NETWORKS.items():
        if name.startswith(theirs):
            rest = name.removeprefix(theirs)
            return next((ours + new for old, to in table if (new := _renamed_by(old, to, rest))), None)
    return None


def _ours_to_upstream(name: str) -> str | None:
    for ours, (theirs, table) in UPSTREAM_NETWORKS.items():
        if name.startswith(ours):
            rest = name.removeprefix(ours)
            return next((theirs + new for to, old in table if (new := _renamed_by(old, to, rest))), None)
    return None


def _renamed_by(pattern: str, other: str, name: str) -> str | None:
    """`name` in the form of `other` where it is of the form `pattern`, else None."""
    found = _matches(pattern, name)
    return other.format(**found.groupdict()) if found else None


def _matches(pattern: str, name: str) -> re.Match[str] | None:
    return _expression(pattern).fullmatch(name)


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    escaped = re.escape(pattern)
    return re.compile(
        escaped.replace(r"\{i\}", r"(?P<i>0|[1-9][0-9]*)").replace(r"\{w\}", "(?P<w>weight|bias)")
    )


def _remapped(plan: Plan, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if plan.left_over:
        log.info("%d entries have no place and are left out: %s", len(plan.left_over), listed(plan.left_over))
    return plan.carry_out(state)


def _made(parts: list[Rows], state: Mapping[str, Tensor]) -> Tensor:
    import torch

    if parts == [Rows(parts[0].source)]:
        return state[parts[0].source]
    ordered = sorted(parts, key=lambda part: part.put)
    return torch.cat([_block(state[part.source], part) for part in ordered])


def _block(tensor: Tensor, part: Rows) -> Tensor:
    index, count = part.take
    if not tensor.ndim or tensor.shape[0] % count:
        raise WeightsError(
            f"{part.source}: {tuple(tensor.shape)} cannot be cut into {count} equal blocks of rows"
        )
    return tensor.chunk(count)[index]
