"""The model as a run begins with it, the same on every worker, and the weights that it will train.

    start_from: a checkpoint (ours, Hallo3's, CogVideoX's) -> weights, what it lacks as before training
    none                                                   -> all weights as before training
      -> the phase's weights, all, or LoRA's are let to learn

Frozen weights are kept in the precision that is computed in; DeepSpeed keeps trained ones in float32 beside.
A run's checkpoints hold what it trains: this gives the rest, when a run goes on or is exported.
"""

from dataclasses import dataclass

import torch

from training.config import TrainConfig
from training.model.loading import LoadReport, empty_model, load_checkpoint
from training.model.portrait import PortraitModel
from training.phases import choose_trained

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class StartedModel:
    model: PortraitModel
    trained: list[str]
    """Names of the model's parameters that gradients reach."""
    loaded: LoadReport | None
    """None: from scratch."""


def start_model(config: TrainConfig) -> StartedModel:
    """On the CPU, in the run's precision. Raises WeightsError: `start_from` is not of this model."""
    dtype = DTYPES[config.precision]
    loaded = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.start_from is None:
            model = PortraitModel(config.sizes).to(dtype)
        else:
            model = empty_model(config.sizes)
            loaded = load_checkpoint(model, config.start_from, dtype)
        if config.trainable == "lora":
            from training.lora import add_lora

            trained = add_lora(model, config)
        else:
            trained = choose_trained(model, config)
    model.recompute_in_backward(config.recompute)
    return StartedModel(model, trained, loaded)
