"""Pixels to latents and back: what every autoencoder here does, and CogVideoX's.

    pixels (B, 3, F, H, W) in [-1, 1]  --encode-->  latents (B, T, C, H/8, W/8), scaled for the networks
    latents                            --decode-->  pixels (B, 3, 4 (T - 1) + 1, H, W), not clamped

A causal video autoencoder: the first frame has a latent frame to itself, then every 4 frames share one
(1 -> 1, 17 -> 5, 49 -> 13). 3 frames, Hallo3's image condition, give one latent frame. A window is a clip of
its own with its own first frame, so a long video is encoded and decoded one window at a time.
"""

from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Generator, Tensor

from training.model.digest import digest_of
from training.model.pretrained import load_whole

SPATIAL_STRIDE = 8
TEMPORAL_STRIDE = 4
CONDITION_FRAMES = 3
"""The reference image and two motion frames, encoded together into one latent frame."""
MOST_NOISY_PIXEL = 8.0
"""Motion frames carry Gaussian noise beyond [-1, 1] (scale exp(N(-3, 0.5))); 0 ... 255 is still caught."""
WHOLE_CLIP = 1 << 30
TILE_STEP_PX = 4 * SPATIAL_STRIDE


class Autoencoder(Protocol):
    """Encodes and decodes as this module's docstring says."""

    @property
    def latent_channels(self) -> int: ...

    @property
    def digest(self) -> str:
        """Equal for two autoencoders exactly when their weights and settings are: latents are kept by it."""
        ...

    def encode(self, pixels: Tensor, generator: Generator | None = None) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...


def latent_frames(frames: int) -> int:
    """How many latent frames `frames` video frames make: (F - 1) / 4 + 1, and one for the 3 of the condition.

    Raises:
        ValueError: for counts that do not group.
    """
    if frames == CONDITION_FRAMES:
        return 1
    if frames < 1 or frames % TEMPORAL_STRIDE != 1:
        below = max(frames - 1, 0) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1
        raise ValueError(
            f"frames: expected {TEMPORAL_STRIDE} k + 1 (1, 5, 9, ... 49) or {CONDITION_FRAMES} (the image "
            f"condition), got {frames}; the nearest are {below} and {below + TEMPORAL_STRIDE}"
        )
    return (frames - 1) // TEMPORAL_STRIDE + 1


def pixel_frames(latent_frames: int) -> int:
    """How many video frames a window of `latent_frames` decodes to."""
    return TEMPORAL_STRIDE * (latent_frames - 1) + 1


def check_pixels(pixels: Tensor) -> None:
    """Refuse what is not (B, 3, F, H, W) in [-1, 1], floating, finite, groupable; ValueError."""
    if pixels.ndim != 5 or pixels.shape[1] != 3:
        raise ValueError(f"pixels: expected (B, 3, F, H, W), got {tuple(pixels.shape)}")
    if not pixels.is_floating_point():
        raise ValueError(f"pixels: expected floating numbers in [-1, 1], got {pixels.dtype}; x / 127.5 - 1")
    height, width = pixels.shape[-2:]
    if height % SPATIAL_STRIDE or width % SPATIAL_STRIDE or not pixels.numel():
        raise ValueError(
            f"pixels: expected height and width in multiples of {SPATIAL_STRIDE}, got {height} x {width}"
            if pixels.numel()
            else f"pixels: expected at least one pixel, got {tuple(pixels.shape)}"
        )
    latent_frames(pixels.shape[2])
    lowest, highest = (float(end) for end in torch.aminmax(pixels.detach()))
    if not -MOST_NOISY_PIXEL <= lowest <= highest <= MOST_NOISY_PIXEL:  # NaN is not
        raise ValueError(f"pixels: expected finite numbers in [-1, 1], got {lowest:g} ... {highest:g}")


def check_latents(latents: Tensor, channels: int) -> None:
    """Refuse what is not (B, T, `channels`, h, w), floating and finite; ValueError."""
    if latents.ndim != 5 or latents.shape[2] != channels or not latents.numel():
        raise ValueError(f"latents: expected (B, T, {channels}, h, w), got {tuple(latents.shape)}")
    if not latents.is_floating_point():
        raise ValueError(f"latents: expected floating numbers, got {latents.dtype}")
    if not torch.isfinite(latents).all():
        bad = int((~torch.isfinite(latents)).sum())
        raise ValueError(f"latents: expected finite numbers, got {bad} NaN or infinite of {latents.numel()}")


class CogVideoXAutoencoder:
    """CogVideoX's VAE (diffusers' AutoencoderKLCogVideoX) behind `Autoencoder`.

    Latents are multiplied by the configuration's scaling factor (0.7 for CogVideoX-5B I2V, on which Hallo3
    stands). Results have the dtype of what was given, on the VAE's device; the VAE computes in its own.

    Args:
        sample: draw latents from the posterior, as upstream does in training and sampling; else its mean.
        chunk_frames: frames encoded at a time, a multiple of 8 (the first chunk takes one more). None: the
            whole clip, as upstream. Convolutions see the same frames either way, group norms do not.
        tile_px: (height, width) of tiles, multiples of 32, overlapping by a quarter and blended: bounds
            memory by the tile's size. Group norms see one tile instead of the picture, so the result
            differs from the untiled one everywhere, not at the seams alone.
        slicing: one sample of the batch at a time: the same numbers up to rounding.
    """

    def __init__(
        self,
        vae: Any,
        *,
        sample: bool = True,
        chunk_frames: int | None = None,
        tile_px: tuple[int, int] | None = None,
        slicing: bool = False,
    ) -> None:
        config = vae.config
        strides = (2 ** (len(config.block_out_channels) - 1), int(config.temporal_compression_ratio))
        if strides != (SPATIAL_STRIDE, TEMPORAL_STRIDE):
            raise ValueError(
                f"vae: expected strides of {SPATIAL_STRIDE} px and {TEMPORAL_STRIDE} frames, got {strides}"
            )
        if config.invert_scale_latents:
            raise ValueError("vae: invert_scale_latents (CogVideoX 1.5) is not how Hallo3 scales latents")
        if chunk_frames is not None and (chunk_frames < 8 or chunk_frames % 8):
            raise ValueError(f"chunk_frames: expected None or a multiple of 8, got {chunk_frames}")
        if tile_px is not None and any(side < TILE_STEP_PX or side % TILE_STEP_PX for side in tile_px):
            raise ValueError(f"tile_px: expected multiples of {TILE_STEP_PX}, got {tile_px}")
        self.vae = vae
        self.sample = sample
        self.chunk_frames = chunk_frames
        self.tile_px = tile_px
        vae.num_sample_frames_batch_size = chunk_frames or WHOLE_CLIP
        vae.use_slicing, vae.use_tiling = slicing, False
        if tile_px is not None:
            # A quarter of a multiple of 32 px is a whole number of latents, in floating point too; at other
            # overlaps diffusers cuts its tiles at one place and joins their latents at another.
            vae.enable_tiling(*tile_px, 0.25, 0.25)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        **options: Any,
    ) -> Self:
        """From a folder or a hub's name (pretrained.py); `options` are the constructor's.

        Raises:
            PretrainedError: it is not there, or not whole.
        """
        from diffusers import AutoencoderKLCogVideoX

        load_vae = partial(
            AutoencoderKLCogVideoX.from_pretrained, low_cpu_mem_usage=False
        )  # wants accelerate
        vae = load_whole(load_vae, source, "vae", torch_dtype=dtype)
        return cls(vae.to(device), **options)

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @cached_property
    def digest(self) -> str:
        """Of the weights, their dtype, the scaling factor and what else changes the latents' numbers."""
        scale = self.vae.config.scaling_factor
        how = {"sample": self.sample, "chunk_frames": self.chunk_frames, "tile_px": self.tile_px}
        return digest_of(self.vae.state_dict(), scaling_factor=scale, **how)

    @torch.no_grad()
    def encode(self, pixels: Tensor, generator: Generator | None = None) -> Tensor:
        """(B, 3, F, H, W) in [-1, 1] -> (B, T, C, H/8, W/8), times the scaling factor; see `latent_frames`.

        Raises:
            ValueError: names what is wrong with `pixels`.
        """
        check_pixels(pixels)
        posterior = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist
        latents = posterior.sample(generator) if self.sample else posterior.mode()
        return (latents * self.vae.config.scaling_factor).transpose(1, 2).to(pixels.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, T, C, h, w) -> (B, 3, 4 (T - 1) + 1, 8 h, 8 w), not clamped.

        The VAE takes an even T for a clip without a first frame (4 T frames). Here a window always has one:
        the last latent is given twice and the copy's frames are dropped, which the causal decoder's other
        frames see in nothing but their group norms.

        Raises:
            ValueError: names what is wrong with `latents`.
        """
        check_latents(latents, self.latent_channels)
        wanted = pixel_frames(latents.shape[1])
        if latents.shape[1] % 2 == 0:
            latents = torch.cat([latents, latents[:, -1:]], dim=1)
        scaled = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor
        pixels = self.vae.decode(scaled.transpose(1, 2)).sample
        return pixels[:, :, :wanted].to(latents.dtype)
