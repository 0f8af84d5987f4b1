"""DeepSpeed around the objective: its JSON from the run's configuration, and the engine.

The engine shards optimizer state (ZeRO 1), gradients (2) and weights (3) over all workers, adds gradients up
over micro-batches and workers, clips them, and leaves out a step whose gradient is not finite. The
optimizer, its learning rate and all else are ours, so that a run is the same in every stage.
"""

import logging
from typing import Any

import torch

from training.config import TrainConfig
from training.objective import TrainingObjective
from training.optimizer import AveragingAdamW

BYTES_OF_GRADIENT = 4


def deepspeed_config(config: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's own configuration, as it is stored with the run."""
    zero = config.deepspeed
    bucket = int(zero.bucket_mb * 1e6 / BYTES_OF_GRADIENT)
    sharing: dict[str, Any] = {"stage": zero.zero_stage}
    if zero.zero_stage:
        sharing |= {"reduce_bucket_size": bucket, "contiguous_gradients": True}
        sharing |= {"allgather_bucket_size": bucket} if zero.zero_stage < 3 else {}
    if zero.offload_optimizer:
        sharing["offload_optimizer"] = {"device": "cpu", "pin_memory": config.device == "cuda"}
    if zero.offload_parameters:
        sharing["offload_param"] = {"device": "cpu", "pin_memory": config.device == "cuda"}
    return {
        "train_micro_batch_size_per_gpu": config.micro_batch,
        "gradient_accumulation_steps": config.accumulation,
        "gradient_clipping": config.optimizer.clip_norm if zero.zero_stage else 0,
        "zero_optimization": sharing,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bf16", "check_grad_overflow": True},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def start_engine(objective: TrainingObjective, config: TrainConfig, device: torch.device) -> Any:
    """The engine (deepspeed.DeepSpeedEngine) of an objective whose trained weights ask for gradients.

    The process group is there already. Weights are on every worker before ZeRO-3 shares them: a worker's
    host needs room for the model once.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed

    # On CPUs DeepSpeed would compile, for most of a minute, an all-reduce that its inference alone calls.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trained = [weight for weight in objective.parameters() if weight.requires_grad]
    given = config.optimizer
    optimizer = AveragingAdamW(
        trained,
        lr=given.learning_rate,
        betas=given.betas,
        eps=given.epsilon,
        weight_decay=given.weight_decay,
        ema_decay=given.ema_decay,
        clip_norm=given.clip_norm if config.deepspeed.zero_stage == 0 else None,
        fused=(device.type == "cuda" and not config.deepspeed.offload_optimizer) or None,
    )
    engine, *_ = deepspeed.initialize(
        model=objective.to(device),
        optimizer=optimizer,
        config=deepspeed_config(config),
        dist_init_required=False,
    )
    return engine


def set_learning_rate(engine: Any, rate: float) -> None:
    """Of the next step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate


def step_was_left_out(engine: Any) -> bool:
    """Whether the last step's gradient was not finite, on any worker, and no weight moved."""
    return bool(engine.optimizer.overflow)


def gradient_norm(engine: Any) -> float:
    """The L2 norm of the last step's whole gradient, before it was clipped; the same on all workers."""
    norm = (
        engine.basic_optimizer.norm
        if engine.zero_optimization_stage() == 0
        else engine.get_global_grad_norm()
    )
    return float(norm) if norm is not None else float("nan")
