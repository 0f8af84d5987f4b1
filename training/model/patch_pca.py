"""A linear autoencoder for laptops: lapped 8 x 8 x 4 patches, their principal components, unit variance.

It stands in for CogVideoX's VAE in the demo and the tiny presets, with the same surface and strides, so that
the whole system runs without a hub and without a GPU. It is fitted in closed form on a dataset's own frames
and reconstructs at 26-35 dB; nobody should train a full model on it.

    pixels (B, 3, F, H, W)
      -> frames in groups of 4; what a group lacks is filled at its front with copies of its first frame:
         frame 0 -> (0, 0, 0, 0), then (1, 2, 3, 4), ...; the image condition's 3 -> (0, 0, 1, 2)
      -> lapped: an orthogonal mix of the 8 pixels around every border between patches, along rows and columns
      -> patches of 3 x 4 x 8 x 8 = 768 numbers
      -> latents (B, T, C, H/8, W/8) = (patch - mean) . components / std
and the transposes back; frame 0 is the mean of its group's four.

One basis serves single frames and groups: on talking faces a second one for single frames gains nothing
(0.01 dB), and this way a still's latent means the same in the reference, the image condition and the
video. Filling at the front is how a causal convolution pads, and weighs the
condition's frames 1/2, 1/4, 1/4 as the VAE's two halvings do. Overlapping by a fixed mix instead of cutting
blocks is worth 0.5 to 1.0 dB, on faces that the fit never saw as well; at 16 channels, where cut blocks show,
the error's steps at borders fall to those elsewhere. A decoder regressed on 3 x 3 latents gains more on the
fitted faces and loses up to 2 dB on another, so there is none.
"""

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from training.model.autoencoder import (
    SPATIAL_STRIDE,
    TEMPORAL_STRIDE,
    check_latents,
    check_pixels,
    latent_frames,
)
from training.model.digest import digest_of

SCHEMA_VERSION = 1
PATCH_SIZE = 3 * TEMPORAL_STRIDE * SPATIAL_STRIDE**2
LEAST_STD = 1e-3
"""In pixels of [-1, 1]: a channel with less than an eighth of a grey level would be noise, blown up."""
PATCHES_AT_A_TIME = 1 << 14


class PatchPcaAutoencoder(nn.Module):
    """See the module. Made by `fit` or `load`; computes in float32, wherever it was moved to.

    Args:
        mean: (768,) the mean patch.
        components: (768, C), orthonormal columns.
        std: (C,) the patches' standard deviation along each, falling.
    """

    mean: Tensor
    components: Tensor
    std: Tensor
    lapping: Tensor

    def __init__(self, mean: Tensor, components: Tensor, std: Tensor) -> None:
        super().__init__()
        channels = std.numel()
        given = {"mean": mean, "components": components, "std": std}
        wanted = {"mean": (PATCH_SIZE,), "components": (PATCH_SIZE, channels), "std": (channels,)}
        for name, tensor in given.items():
            if tensor.shape != wanted[name] or not torch.isfinite(tensor).all():
                raise ValueError(
                    f"{name}: expected finite {wanted[name]}, got {tuple(tensor.shape)} {tensor.dtype}"
                )
            self.register_buffer(name, tensor.float())
        self.register_buffer("lapping", lapping_matrix(), persistent=False)

    @classmethod
    def fit(cls, clips: Iterable[Tensor], channels: int = 16) -> Self:
        """The `channels` directions in which the patches of `clips` vary most.

        Exact and deterministic: sums in float64, one pass, one clip in memory at a time.

        Args:
            clips: each (B, 3, F, H, W) in [-1, 1], as `encode` takes them; sizes may differ.
            channels: 1 ... 768. 32 is good for lips at 64 and 128 px, below 24 the mouth suffers.

        Raises:
            ValueError: no clip, a clip that `encode` would refuse, or clips that vary in fewer directions.
        """
        if not 1 <= channels <= PATCH_SIZE:
            raise ValueError(f"channels: expected 1 ... {PATCH_SIZE}, got {channels}")
        lapping = lapping_matrix()
        count, total = 0, torch.zeros(PATCH_SIZE, dtype=torch.float64)
        products = torch.zeros(PATCH_SIZE, PATCH_SIZE, dtype=torch.float64)
        for clip in clips:
            check_pixels(clip)
            patches = to_patches(clip.cpu().float(), lapping).reshape(-1, PATCH_SIZE)
            for part in patches.split(PATCHES_AT_A_TIME):
                exact = part.double()
                count += len(exact)
                total += exact.sum(0)
                products.addmm_(exact.T, exact)
        if not count:
            raise ValueError("clips: expected at least one clip to fit on, got none")
        mean = total / count
        variances, directions = torch.linalg.eigh(products / count - torch.outer(mean, mean))
        std = variances.flip(0)[:channels].clamp_min(0).sqrt()
        if std[-1] < LEAST_STD:
            raise ValueError(
                f"channels: {channels} were asked for, but the {count} patches of the clips vary in "
                f"{int((std >= LEAST_STD).sum())} directions only; fit on more, or less uniform, frames"
            )
        components = directions.flip(1)[:, :channels]
        largest = components.abs().argmax(0, keepdim=True)
        return cls(mean, components * components.gather(0, largest).sign(), std)  # signs are a convention

    @property
    def latent_channels(self) -> int:
        return self.std.numel()

    @property
    def channel_weights(self) -> Tensor:
        """(C,) std^0.5, of mean 1: weights for a loss that heeds what a channel is worth in pixels."""
        roots = self.std.sqrt()
        return roots / roots.mean()

    @cached_property
    def digest(self) -> str:
        return digest_of(self.state_dict(), schema_version=SCHEMA_VERSION)

    @torch.no_grad()
    def encode(self, pixels: Tensor, generator: Generator | None = None) -> Tensor:
        """(B, 3, F, H, W) in [-1, 1] -> (B, T, C, H/8, W/8) of unit variance over the fitted clips.

        Nothing is drawn: `generator` is taken because `Autoencoder.encode` has one.

        Raises:
            ValueError: names what is wrong with `pixels`.
        """
        check_pixels(pixels)
        patches = to_patches(pixels.to(self.mean.device, torch.float32), self.lapping)
        latents = (patches - self.mean) @ (self.components / self.std)
        return latents.permute(0, 1, 4, 2, 3).to(pixels.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, T, C, h, w) -> (B, 3, 4 (T - 1) + 1, 8 h, 8 w), not clamped.

        Raises:
            ValueError: names what is wrong with `latents`.
        """
        check_latents(latents, self.latent_channels)
        per_patch = latents.to(self.mean.device, torch.float32).permute(0, 1, 3, 4, 2)
        return from_patches(per_patch @ (self.components * self.std).T + self.mean, self.lapping).to(
            latents.dtype
        )

    def save(self, folder: Path) -> None:
        """`codec.safetensors` and `codec.json` in `folder`, which is made."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, _weights(folder))
        about = {"schema_version": SCHEMA_VERSION, "channels": self.latent_channels, "digest": self.digest}
        _about(folder).write_text(json.dumps(about, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote.

        Raises:
            FileNotFoundError: there is no codec in `folder`.
            ValueError: it is of another schema version, or not what was saved.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for path in (_about(folder), _weights(folder)):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing; PatchPcaAutoencoder.fit(clips).save(folder) writes it"
                )
        try:
            about: dict[str, Any] = json.loads(_about(folder).read_text())
            version, digest = about["schema_version"], about["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{_about(folder)} is damaged ({error!r}); fit and save the codec again"
            ) from error
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{_about(folder)}: schema version {version}, this hallo3 reads {SCHEMA_VERSION}"
            )
        try:
            codec = cls(**load_file(_weights(folder)))
        except (SafetensorError, TypeError, ValueError) as error:
            raise ValueError(
                f"{_weights(folder)} is damaged ({error}); fit and save the codec again"
            ) from error
        if codec.digest != digest:
            raise ValueError(
                f"{_weights(folder)}: digest {codec.digest}, codec.json says {digest}; one was replaced"
            )
        return codec


def to_patches(pixels: Tensor, lapping: Tensor) -> Tensor:
    """(B, 3, F, H, W) -> (B, T, H/8, W/8, 768)."""
    filling = latent_frames(pixels.shape[2]) * TEMPORAL_STRIDE - pixels.shape[2]
    first = pixels[:, :, :1].expand(-1, -1, filling, -1, -1)
    frames = _lap(torch.cat([first, pixels], dim=2), lapping)
    blocks = frames.unflatten(4, (-1, SPATIAL_STRIDE)).unflatten(3, (-1, SPATIAL_STRIDE))
    blocks = blocks.unflatten(2, (-1, TEMPORAL_STRIDE))  # B, 3, T, 4, h, 8, w, 8
    return blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def from_patches(patches: Tensor, lapping: Tensor) -> Tensor:
    """The reverse of `to_patches` for a window; of its first group the mean frame is kept."""
    blocks = patches.unflatten(4, (3, TEMPORAL_STRIDE, SPATIAL_STRIDE, SPATIAL_STRIDE))
    blocks = blocks.permute(0, 4, 1, 5, 2, 6, 3, 7)
    frames = _lap(blocks.flatten(6, 7).flatten(4, 5).flatten(2, 3), lapping.T)
    first, rest = frames[:, :, :TEMPORAL_STRIDE], frames[:, :, TEMPORAL_STRIDE:]
    return torch.cat([first.mean(dim=2, keepdim=True), rest], dim=2)


def lapping_matrix() -> Tensor:
    """(8, 8) the orthogonal mix at a border: Tran, Liang and Tu's time-domain lapped transform (2003).

    Before blocks are cut, P = 1/2 [I J; J -I] diag(I, V) [I J; J -I] with V = J C_II^T C_IV J mixes the
    4 pixels on either side of their border (J reverses; C_II, C_IV are 4-point cosine transforms of
    types II and IV); after they are joined, P^T undoes it, and turns steps between blocks into slopes."""
    half = SPATIAL_STRIDE // 2
    eye = torch.eye(half, dtype=torch.float64)
    mirror = eye.flip(0)
    butterfly = torch.cat([torch.cat([eye, mirror], 1), torch.cat([mirror, -eye], 1)]) / 2**0.5
    k = torch.arange(half, dtype=torch.float64)
    cosine_2 = torch.cos(torch.pi / half * torch.outer(k, k + 0.5)) * (2 / half) ** 0.5
    cosine_2[0] /= 2**0.5
    cosine_4 = torch.cos(torch.pi / half * torch.outer(k + 0.5, k + 0.5)) * (2 / half) ** 0.5
    turn = mirror @ cosine_2.T @ cosine_4 @ mirror
    return (butterfly @ torch.block_diag(eye, turn) @ butterfly).float()


def _lap(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Mix the 8 pixels around every inner border of 8 x 8 blocks, along columns, then along rows."""
    half = SPATIAL_STRIDE // 2
    for dim in (-2, -1):
        lines = pixels.movedim(dim, -1)
        borders = lines.shape[-1] // SPATIAL_STRIDE - 1
        around = lines[..., half : lines.shape[-1] - half].unflatten(-1, (borders, SPATIAL_STRIDE))
        mixed = (around @ matrix.T).flatten(-2)
        pixels = torch.cat([lines[..., :half], mixed, lines[..., -half:]], dim=-1).movedim(-1, dim)
    return pixels


def _weights(folder: Path) -> Path:
    return folder / "codec.safetensors"


def _about(folder: Path) -> Path:
    return folder / "codec.json"
