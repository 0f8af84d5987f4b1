"""What a worker has of the trained weights and of the optimizer's state, whatever the ZeRO stage.

    stage 0     every worker has every parameter whole
    stage 1, 2  parameters lie one behind the other in a flat tensor, which is cut into as many parts as there
                are workers: a worker has some whole and its first and last in part
    stage 3     every parameter is cut by itself, and a worker has a part of each, many in a flat tensor

A fragment is a run of one parameter's elements inside such a flat tensor. The optimizer's moments and average
are tensors of the flat one's shape, so the same fragment shows where they are. How a stage lays its tensors
out is known here and nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.optimizer import AVERAGE

MOMENTS = ("exp_avg", "exp_avg_sq")
STATE = (*MOMENTS, AVERAGE)


@dataclass(frozen=True)
class Fragment:
    """Elements `start` ... `start + numel` of a trained parameter, on this worker."""

    name: str
    """PortraitModel's name of the parameter."""
    start: int
    numel: int
    flat: Tensor
    """float32, what the optimizer moves: holds the elements from `offset` on."""
    offset: int

    def of(self, tensor: Tensor) -> Tensor:
        """The fragment (numel,) of `flat`, or of a tensor of its shape; a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.numel)


def fragments(engine: Any) -> list[Fragment]:
    """Of all trained parameters that this worker has a part of, in the model's order."""
    names = {id(weight): name for name, weight in _trained(engine)}
    layout = {0: _whole, 1: _in_one_row, 2: _in_one_row, 3: _each_by_itself}[engine.zero_optimization_stage()]
    order = {name: place for place, name in enumerate(names.values())}
    return sorted(layout(engine, names), key=lambda fragment: order[fragment.name])


def shapes(engine: Any) -> dict[str, tuple[int, ...]]:
    """Of the trained parameters, whole."""
    return {name: tuple(getattr(weight, "ds_shape", weight.shape)) for name, weight in _trained(engine)}


def optimizer_state(engine: Any, flat: Tensor) -> dict[str, Tensor]:
    """What the optimizer keeps of a flat tensor; empty before its first step."""
    return engine.basic_optimizer.state.get(flat, {})


def adam_steps(engine: Any) -> int:
    """Steps that the optimizer took, without those that were left out."""
    return max((int(state["step"]) for state in engine.basic_optimizer.state.values() if state), default=0)


def empty_state(engine: Any, flats: list[Tensor], kinds: tuple[str, ...], steps: int) -> None:
    """Give the optimizer zeros for `kinds`, and its count of steps, as if it had made them itself."""
    optimizer = engine.basic_optimizer
    for flat in flats:
        count_on = flat.device if optimizer.defaults["fused"] else "cpu"
        optimizer.state[flat] = {
            "step": torch.tensor(float(steps), dtype=torch.float32, device=count_on),
            **{kind: torch.zeros_like(flat, requires_grad=False) for kind in kinds},
        }


def spread(engine: Any) -> None:
    """Bring float32 weights that were written into fragments into the model, on all workers. Collective."""
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        optimizer.checkpoint_event_prologue()  # parameters that are whole are given up,
        for part in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(part)
        optimizer.checkpoint_event_epilogue()  # and gathered anew


def _trained(engine: Any) -> Iterator[tuple[str, Tensor]]:
    for name, weight in engine.module.named_parameters():
        if weight.requires_grad:
            yield name.removeprefix("model."), weight


def _whole(engine: Any, names: dict[int, str]) -> Iterator[Fragment]:
    for name, weight in _trained(engine):
        yield Fragment(name, 0, weight.numel(), weight, 0)


def _in_one_row(engine: Any, names: dict[int, str]) -> Iterator[Fragment]:
    optimizer = engine.optimizer
    for group, flat in zip(optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True):
        for weight in group:
            if (part := weight._hp_mapping) is not None:
                place, inside = part.lp_fragment_address, part.hp_fragment_address
                yield Fragment(names[id(weight)], place.start, place.numel, flat, inside.start)


def _each_by_itself(engine: Any, names: dict[int, str]) -> Iterator[Fragment]:
    optimizer = engine.optimizer
    for group, flat in zip(optimizer.fp16_groups, optimizer.fp32_partitioned_groups_flat, strict=True):
        offset = 0
        for weight in group:
            share = weight.partition_numel()
            start = share * torch.distributed.get_rank(weight.ds_process_group)
            if (numel := min(share, weight.ds_numel - start)) > 0:  # the last shares may be padding
                yield Fragment(names[id(weight)], start, numel, flat, offset)
            offset += share
