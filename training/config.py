"""TrainConfig: everything that a training run depends on, typed, frozen and checked at the door.

Nothing heavy is imported here: a wrong key is told before torch is loaded.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data_pipeline import config_file
from data_pipeline.config_file import Section
from training.model.config import PRESETS as MODELS
from training.model.config import ModelConfig

PRESETS = Path(__file__).with_name("presets")

Phase = Literal["identity", "audio", "joint"]


class DatasetShare(Section):
    """One of several datasets, and how much of the batches is its."""

    uri: str
    weight: float = Field(1.0, gt=0)
    version: int | None = Field(None, ge=1, description="None: the current one when the run begins")


class EncodersConfig(Section):
    """What turns pixels, words and sound into what the networks see. All of it is frozen."""

    autoencoder: str = Field(
        "",
        description="a folder: CogVideoX's `vae`, or a fitted patch_pca one; empty: fit one on the dataset",
    )
    text: str = Field("none", description="T5's folder or its name on a hub; none: zeros")
    speech: Literal["log_mel", "whisper", "wav2vec2"] = "wav2vec2"
    speech_weights: str | None = Field(None, description="wav2vec2's file or folder; None: the published one")


class SamplesConfig(Section):
    """How samples are chosen and read."""

    split: str = "train"
    clips: list[str] = Field([], description="clip_ids to train on and no others; empty: all of the split")
    features: Literal["auto", "stored", "on_the_fly"] = Field(
        "auto", description="auto: stored ones of exactly these encoders where `precompute` made them"
    )
    order: Literal["full", "shards"] = Field(
        "full", description="shards: shard after shard with a bounded buffer, for stores far away"
    )
    buffer: int = Field(1024, ge=1, description="samples that `order: shards` mixes")
    window_stride: int = Field(25, ge=1, description="frames between the starts of a clip's windows")
    threads: int = Field(2, ge=1, description="that read and decode, a worker")
    ahead: int = Field(4, ge=1, description="batches that are prepared before they are needed")
    max_bad_fraction: float = Field(0.01, ge=0, le=1, description="of all samples so far, from the 100th on")


class ConditionsConfig(Section):
    """How often conditions are left out, and what is done to the motion frames; upstream's values."""

    drop_text: float = Field(0.1, ge=0, le=1)
    drop_image: float = Field(0.05, ge=0, le=1)
    drop_reference: float = Field(0.05, ge=0, le=1)
    drop_audio: float = Field(0.05, ge=0, le=1)
    motion_noise_log_mean: float = Field(-3.0, description="noise on motion frames: scale exp(N(mean, std))")
    motion_noise_log_std: float = Field(0.5, ge=0)
    masked_pixels: float = Field(0.1, ge=0, lt=1, description="share of pixel positions set to zero")
    reference_within: int | None = Field(
        None,
        ge=0,
        description="frames from a window's start from which its reference image is taken; None: from all of "
        "the clip, as upstream. Near ones spare a tiny model learning to turn heads",
    )
    stored_variants: int | None = Field(
        None,
        ge=1,
        description="so many draws of reference and motion frames a window, made by `precompute "
        "--condition-variants`; None: drawn anew for every sample",
    )


class LossConfig(Section):
    """What the velocity's error weighs. Upstream: the same everywhere."""

    mouth_weight: float = Field(
        1.0, ge=1, description="of latents where the mouth is; 5 is good for tiny models"
    )
    channel_weights: bool = Field(
        False, description="with the patch_pca autoencoder: channels by the square root of their spread"
    )


class LoraConfig(Section):
    """Low-rank updates (Hu et al. 2021) of the linear layers in attention, instead of the weights."""

    rank: int = Field(128, ge=1)
    alpha: float = Field(128.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)


class OptimizerConfig(Section):
    """AdamW (Loshchilov & Hutter 2019); upstream's values."""

    learning_rate: float = Field(1e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    clip_norm: float = Field(0.1, ge=0, description="of the whole gradient; 0: none")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    final_fraction: float = Field(0.0, ge=0, le=1, description="of the learning rate at max_steps")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="average of trained weights; None: none")


class DeepSpeedConfig(Section):
    """What the ranks share of the optimizer (ZeRO, Rajbhandari et al. 2020)."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    offload_optimizer: bool = Field(False, description="optimizer state and step in the host's memory")
    offload_parameters: bool = Field(False, description="with zero_stage 3: weights in the host's memory")
    bucket_mb: float = Field(500.0, gt=0, description="of gradients reduced at a time")

    @model_validator(mode="after")
    def _possible(self) -> "DeepSpeedConfig":
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(f"offload_parameters needs zero_stage=3, given {self.zero_stage}")
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs zero_stage=1, 2 or 3, given 0")
        return self


class CheckpointsConfig(Section):
    """When the state is saved, and what is kept."""

    every_steps: int = Field(500, ge=1)
    keep_last: int = Field(2, ge=1)
    keep_every_steps: int | None = Field(None, ge=1, description="multiples of it are kept for good")
    grace_s: float = Field(120.0, gt=0, description="after SIGTERM, for the checkpoint")


class ValidationConfig(Section):
    """The held-out loss, at fixed noise and timesteps, and sample clips."""

    every_steps: int | None = Field(1000, ge=1, description="None: never")
    split: str = Field("val", description="where it holds no clip, the last clips of the training split")
    windows: int = Field(16, ge=1)
    clips: int = Field(2, ge=0, description="that are generated, with sound, at these steps")
    clip_windows: int = Field(1, ge=1, description="windows a generated clip")
    sampling_steps: int = Field(50, ge=1)
    guidance: float | None = Field(3.5, description="None: none")


class TrackingConfig(Section):
    """MLflow. Metrics are in the run's metrics.jsonl either way."""

    uri: str | None = Field(
        None, description="None: MLFLOW_TRACKING_URI, else sqlite in mlflow.db beside the run"
    )
    experiment: str = "hallo3"
    run_name: str | None = None
    enabled: bool = True


class TrainRayConfig(Section):
    """What one worker asks of Ray, and what happens when one dies."""

    cpus: float = Field(1.0, gt=0)
    gpus: float | None = Field(None, ge=0, description="None: one where the device is a GPU")
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    max_failures: int = Field(3, ge=0, description="starts after a worker's or node's loss")
    start_timeout_s: float = Field(120.0, gt=0, description="for all workers to be placed")
    object_store_gb: float = Field(0.3, gt=0, description="of a cluster that this command starts itself")


class TrainConfig(Section):
    """dataset -> checkpoint. `dataset` and `output` are the user's; the rest has defaults."""

    dataset: str | list[DatasetShare]
    output: str
    phase: Phase
    max_steps: int = Field(30_000, ge=1)
    seed: int = Field(0, ge=0)
    num_workers: int = Field(1, ge=1, description="processes; one a GPU")
    model: ModelConfig = Field(description="a preset's name (hallo3_5b, small, tiny), or sizes")
    start_from: str | None = Field(
        None,
        description="weights to begin with: an export of ours, Hallo3's, CogVideoX's; None: from scratch",
    )
    trainable: Literal["phase", "all", "lora"] = Field(
        "phase", description="upstream's choice for the phase; all weights, for training from scratch; LoRA"
    )
    lora: LoraConfig = LoraConfig()
    batch: int = Field(8, ge=1, description="samples a step, over all workers")
    micro_batch: int = Field(1, ge=1, description="samples a worker computes at a time")
    precision: Literal["bf16", "fp32"] = "bf16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    recompute: Literal["nothing", "all_but_attention", "blocks"] = "blocks"
    compile_blocks: bool = False
    sequence_parallel: int = Field(1, ge=1, description="workers that compute each sample together")
    encoders: EncodersConfig = EncodersConfig()
    samples: SamplesConfig = SamplesConfig()
    conditions: ConditionsConfig = ConditionsConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    validation: ValidationConfig = ValidationConfig()
    tracking: TrackingConfig = TrackingConfig()
    ray: TrainRayConfig = TrainRayConfig()

    @field_validator("model", mode="before")
    @classmethod
    def _named(cls, model: Any) -> Any:
        """A preset's name, or {preset: name} with other sizes on top."""
        values = {"preset": model} if isinstance(model, str) else model
        if not isinstance(values, dict) or "preset" not in values:
            return values
        name = values["preset"]
        if name not in MODELS:
            raise ValueError(f"no model is called {name!r}; there are {', '.join(MODELS)}, or give sizes")
        return MODELS[name].model_dump() | {key: value for key, value in values.items() if key != "preset"}

    @model_validator(mode="after")
    def _possible(self) -> "TrainConfig":
        if self.num_workers % self.sequence_parallel:
            raise ValueError(
                f"sequence_parallel ({self.sequence_parallel}) must divide num_workers ({self.num_workers})"
            )
        at_once = self.micro_batch * self.num_workers // self.sequence_parallel
        if self.batch % at_once:
            raise ValueError(
                f"batch ({self.batch}) must be a multiple of micro_batch x num_workers / sequence_parallel "
                f"({at_once}); the rest is accumulated"
            )
        if self.sequence_parallel > 1 and self.compile_blocks:
            raise ValueError("compile_blocks does not go with sequence_parallel > 1")
        if self.precision == "bf16" and self.deepspeed.zero_stage == 0:
            raise ValueError(
                "deepspeed.zero_stage=0 with precision=bf16 takes a wrong first step; use 1 or 2"
            )
        if self.phase == "audio" and self.model.audio is None:
            raise ValueError("phase audio trains the model's audio part, and model.audio is null")
        return self

    @property
    def sizes(self) -> ModelConfig:
        """The model of this phase: "identity" has no audio part."""
        return self.model.model_copy(update={"audio": None}) if self.phase == "identity" else self.model

    @property
    def data_parallel(self) -> int:
        """Groups of workers that compute different samples."""
        return self.num_workers // self.sequence_parallel

    @property
    def accumulation(self) -> int:
        """Micro-batches a step."""
        return self.batch // (self.micro_batch * self.data_parallel)

    @property
    def datasets(self) -> list[DatasetShare]:
        return [DatasetShare(uri=self.dataset)] if isinstance(self.dataset, str) else self.dataset


def load_config(config: str, overrides: list[str]) -> TrainConfig:
    """The configuration of a preset or a YAML file, with `key=value` on top. Raises ConfigError."""
    return config_file.load(TrainConfig, PRESETS, config, overrides)
