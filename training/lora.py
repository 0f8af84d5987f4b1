"""Low-rank updates instead of weights (Hu et al. 2021), by peft: W x becomes W x + alpha / rank * B (A x).

A model -> A (rank, in) and B (out, rank) beside the linear layers of the phase's attention, all else frozen;
B is zero, so the model computes what it did -> trained -> folded into the weights, a plain model again.

Names are `LAYER.lora_A.default.weight` and `LAYER.lora_B.default.weight`, in every run the same. peft takes
seconds to import, so it is imported where it is needed.
"""

import math
import re

import torch
from torch import Tensor, nn

from training.config import Phase, TrainConfig
from training.diffusion import seed_of
from training.model.attention import QueryKeyValue
from training.model.portrait import PortraitModel

IDENTITY = re.compile(r"(denoiser|reference)\.blocks\.\d+\.(attention|face_attention)\.\w+")
AUDIO = re.compile(r"denoiser\.blocks\.\d+\.audio_attention\.\w+")
RULES: dict[Phase, tuple[re.Pattern[str], ...]] = {
    "identity": (IDENTITY,),
    "audio": (AUDIO,),
    "joint": (IDENTITY, AUDIO),
}


def adapted_layers(model: PortraitModel, phase: Phase) -> dict[str, nn.Linear]:
    """The linear layers of the attention that upstream trains in a phase, by name.

    Not those of the reference network's last block: its feature is taken before it attends.
    """
    unused = f"reference.blocks.{model.config.num_layers - 1}."
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and any(rule.fullmatch(name) for rule in RULES[phase])
        and not name.startswith(unused)
    }


def add_lora(model: PortraitModel, config: TrainConfig) -> list[str]:
    """Put updates beside the layers of the run's phase; they alone ask for gradients. Returns their names.

    Every worker draws the same A from the run's seed. On the meta device nothing is allocated.
    """
    from peft import LoraConfig, inject_adapter_in_model

    from training.lora_layer import QueryKeyValueUpdate

    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=config.lora.dropout,
        target_modules=list(adapted_layers(model, config.phase)),
    )
    lora._register_custom_module({QueryKeyValue: QueryKeyValueUpdate})
    inject_adapter_in_model(lora, model, low_cpu_mem_usage=True)
    trained = [name for name, _ in model.named_parameters() if ".lora_" in name]
    chosen = set(trained)
    for name, weight in list(model.named_parameters()):
        weight.requires_grad_(name in chosen)
    for name in trained:
        _begin(model, name, config.seed)
    return trained


def merge_lora(model: PortraitModel) -> PortraitModel:
    """Fold the updates into the weights and take their layers out: a plain model, which is also returned."""
    from peft.tuners.lora import Linear

    for name, layer in list(model.named_modules()):
        if isinstance(layer, Linear):
            layer.merge()
            _put(model, name, layer.get_base_layer())
    return model


def _begin(model: nn.Module, name: str, seed: int) -> None:
    """A weight of an update before training: A as torch's linear layers start, B zero; as its layer lies."""
    layer_name, _, of_update = name.partition(".lora_")
    base = model.get_submodule(layer_name).base_layer.weight  # type: ignore[union-attr]
    matrix = model.get_submodule(name.removesuffix(".weight"))
    if base.is_meta:
        matrix.to(base.dtype)  # type: ignore[arg-type]
        return
    value = torch.zeros(matrix.weight.shape)  # type: ignore[arg-type]
    if of_update.startswith("A"):
        generator = torch.Generator().manual_seed(seed_of(f"lora {name}", seed))
        bound = 1 / math.sqrt(value.shape[1])
        value.uniform_(-bound, bound, generator=generator)
    matrix.weight = nn.Parameter(value.to(base.device, base.dtype))  # type: ignore[arg-type]


def _put(model: nn.Module, name: str, layer: nn.Module | Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
