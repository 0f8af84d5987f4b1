"""ModelConfig: the sizes of Hallo3's two networks, typed, frozen and checked before a tensor exists.

pixels (B, 3, 49, 480, 720) -> latents (B, 13, 16, 60, 90) -> patches of 2 x 2 -> 13 * 1350 video tokens
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Sizes(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AudioConditionConfig(Sizes):
    """How the speech comes in: `window` frames of `layers` speech features become `tokens` a latent frame."""

    window: int = Field(5, ge=1, description="video frames around each frame whose features it sees")
    layers: int = Field(12, ge=1, description="hidden layers of the speech encoder")
    channels: int = Field(768, ge=1, description="size of one layer's feature")
    hidden: int = Field(512, ge=1, description="size between the projector's linear layers")
    tokens: int = Field(32, ge=1, description="audio tokens a latent frame")
    dim: int = Field(768, ge=1, description="size of an audio token")
    halving: Literal["joint", "per_token"] = Field(
        "joint",
        description="joint: upstream's convolution over all tokens at once (1.2 B parameters at full size); "
        "per_token: one small convolution for every token, for training from scratch",
    )


class FaceConditionConfig(Sizes):
    """How the identity comes in: one embedding becomes `tokens` face tokens."""

    embedding_dim: int = Field(512, ge=1, description="size of the face embedding (ArcFace: 512)")
    tokens: int = Field(4, ge=1)
    dim: int = Field(1024, ge=1, description="size of a face token")


class ModelConfig(Sizes):
    """The sizes of the denoiser and of its identity reference network."""

    num_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    head_dim: int = Field(64, ge=16)
    time_embed_dim: int = Field(ge=1)
    text_dim: int = Field(ge=1)
    text_length: int = Field(ge=1, description="text tokens; shorter prompts are padded by the text encoder")
    latent_frames: int = Field(ge=1)
    latent_height: int = Field(ge=1)
    latent_width: int = Field(ge=1)
    in_channels: int = Field(32, ge=2, description="noisy latent and image condition, one after the other")
    out_channels: int = Field(16, ge=1)
    patch_size: int = Field(2, ge=1)
    audio: AudioConditionConfig | None = Field(None, description="None: phase identity, no audio modules")
    face: FaceConditionConfig = FaceConditionConfig()
    grid: Literal["exact", "crop", "interpolate"] = Field(
        "exact",
        description="latents of other sizes than the configured ones: refused, or given the positions of the "
        "leading frames and the middle rows and columns, or positions that span the configured grid",
    )
    image_condition_in: Literal["first_frame", "every_frame"] = Field(
        "first_frame",
        description="which latent frames have the image condition beside them; Hallo3: the first, the others "
        "zeros. In every frame a model that is trained from nothing learns in minutes to keep the picture",
    )
    attention_kernel: Literal["auto", "flash", "cudnn", "efficient", "math"] = "auto"
    check_finite: bool = Field(
        False, description="refuse NaN and infinity at the door (a device sync a call)"
    )

    @model_validator(mode="after")
    def _possible(self) -> "ModelConfig":
        if self.in_channels != 2 * self.out_channels:
            raise ValueError(
                f"in_channels is {self.in_channels}, expected {2 * self.out_channels}: the noisy latent and "
                f"the image condition have out_channels ({self.out_channels}) each"
            )
        if self.head_dim % 16:
            raise ValueError(
                f"head_dim is {self.head_dim}, expected a multiple of 16: a quarter of it turns with time, "
                "three eighths with the row, three eighths with the column, each in pairs"
            )
        for name in ("latent_height", "latent_width"):
            if getattr(self, name) % self.patch_size:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected a multiple of patch_size ({self.patch_size})"
                )
        return self

    @property
    def hidden_size(self) -> int:
        """D, the size of a token inside the networks."""
        return self.num_heads * self.head_dim

    @property
    def patch_grid(self) -> tuple[int, int, int]:
        """Latent frames, rows of patches, columns of patches."""
        return self.latent_frames, self.latent_height // self.patch_size, self.latent_width // self.patch_size

    @property
    def patches_per_frame(self) -> int:
        """n, video tokens of one latent frame; also the number of reference tokens."""
        return self.patch_grid[1] * self.patch_grid[2]

    @property
    def num_frames(self) -> int:
        """Video frames of a window: the first latent frame holds one, every other holds four."""
        return 4 * (self.latent_frames - 1) + 1


PRESETS = {
    "hallo3_5b": ModelConfig(
        num_layers=42,
        num_heads=48,
        time_embed_dim=512,
        text_dim=4096,
        text_length=226,
        latent_frames=13,
        latent_height=60,
        latent_width=90,
        audio=AudioConditionConfig(),
    ),
    "small": ModelConfig(
        num_layers=8,
        num_heads=8,
        time_embed_dim=256,
        text_dim=4096,
        text_length=226,
        latent_frames=13,
        latent_height=32,
        latent_width=32,
        audio=AudioConditionConfig(hidden=256, tokens=8, dim=512, halving="per_token"),
        face=FaceConditionConfig(dim=512),
    ),
    "tiny": ModelConfig(
        num_layers=4,
        num_heads=2,
        time_embed_dim=32,
        text_dim=16,
        text_length=1,
        latent_frames=5,
        latent_height=8,
        latent_width=8,
        in_channels=64,
        out_channels=32,
        patch_size=1,
        audio=AudioConditionConfig(layers=4, channels=80, hidden=128, tokens=4, dim=64, halving="per_token"),
        face=FaceConditionConfig(embedding_dim=128, dim=64),
        image_condition_in="every_frame",
    ),
}
"""hallo3_5b: upstream's sizes. small: 116 M parameters, 256 x 256 pixels. tiny: 2.8 M, 64 x 64 pixels."""
