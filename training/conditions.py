"""What the model is shown beside the noisy latents: pixels before they are encoded, and what is left out.

    reference image (3, H, W) and its face's box -> `face_on_black`        -> the reference network
    reference image, two motion frames           -> `image_condition`      -> the first latent frame
    its latent                                   -> `beside_window`        -> beside the window's latents
    seed, step, place                            -> `Dropped`: which conditions this sample goes without

In training the motion frames are noised and have holes, so that the model does not trust the frames that it
made itself when it goes on from them. Pixels are in [-1, 1]; every draw follows from its seed alone.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from training.config import ConditionsConfig
from training.diffusion.noise import seed_of
from training.model.config import ModelConfig

BLACK = -1.0


@dataclass(frozen=True)
class Dropped:
    """Conditions that are zeros for one sample. The face's embedding never is."""

    text: bool = False
    image: bool = False
    reference: bool = False
    audio: bool = False

    @classmethod
    def drawn(cls, config: ConditionsConfig, seed: int, step: int, place: int) -> "Dropped":
        """Each condition for itself, with its configured probability."""
        draws = torch.rand(4, generator=_stream("drop", seed, step, place))
        chances = (config.drop_text, config.drop_image, config.drop_reference, config.drop_audio)
        return cls(*(draw < chance for draw, chance in zip(draws.tolist(), chances, strict=True)))


def face_on_black(image: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    """An image (3, H, W) with everything outside of a box black.

    `box` is x0 y0 x1 y1 in fractions of the image; a pixel that it touches stays.

    Raises:
        ValueError: the box is not finite, empty, or outside of the image.
    """
    height, width = image.shape[-2:]
    if not all(math.isfinite(side) for side in box):
        raise ValueError(f"box: expected the face's place in fractions of the image, got {box}")
    left, top = max(0, math.floor(box[0] * width)), max(0, math.floor(box[1] * height))
    right, bottom = min(width, math.ceil(box[2] * width)), min(height, math.ceil(box[3] * height))
    if left >= right or top >= bottom:
        raise ValueError(f"box: {box} leaves nothing of an image of {width} x {height}")
    shown = torch.full_like(image, BLACK)
    shown[..., top:bottom, left:right] = image[..., top:bottom, left:right]
    return shown


def reference_frames(seen: np.ndarray, start: int, within: int | None) -> np.ndarray:
    """Which of a clip's frames may be the reference image of the window that begins at `start`.

    Args:
        seen: the numbers of the frames in which the face is seen, at least one, rising.
        within: at most so many frames from the start; where there is none, the nearest one. None: all.
    """
    if within is None:
        return seen
    distance = np.abs(seen - start)
    return seen[distance <= max(within, int(distance.min()))]


def image_condition(
    reference: Tensor, motion: Tensor, config: ConditionsConfig, seed: int, training: bool
) -> Tensor:
    """The three frames (3, 3, H, W) that make the denoiser's first latent frame.

    In training the two motion frames get noise of scale exp(N(log_mean, log_std)), then a share of pixel
    positions is set to zero, the same in both; in sampling only the latter. (Hallo3's reference code.)

    Args:
        reference: (3, H, W).
        motion: (3, 2, H, W): the window's first frames in training, the last ones made in sampling.
    """
    if reference.ndim != 3 or motion.shape != (3, 2, *reference.shape[1:]):
        raise ValueError(
            f"motion: expected two frames of the reference's size, (3, 2, *{tuple(reference.shape[1:])}), "
            f"got {tuple(motion.shape)}"
        )
    stream = _stream("motion", seed)
    if training:
        log_scale = torch.randn((), generator=stream) * config.motion_noise_log_std
        scale = (log_scale + config.motion_noise_log_mean).exp()
        motion = motion + scale * torch.randn(motion.shape, generator=stream)
    shown = torch.rand(motion.shape[-2:], generator=stream) >= config.masked_pixels
    return torch.cat([reference[:, None], motion * shown], dim=1)


def beside_window(condition: Tensor, frames: int, config: ModelConfig) -> Tensor:
    """The encoded image condition (B, 1, C, H, W) as the denoiser takes it, (B, `frames`, C, H, W): in the
    first latent frame and zeros in the others, or in every one (`image_condition_in`)."""
    if config.image_condition_in == "every_frame":
        return condition.expand(-1, frames, -1, -1, -1)
    others = condition.new_zeros(len(condition), frames - 1, *condition.shape[2:])
    return torch.cat([condition, others], dim=1)


def _stream(purpose: str, *key: int) -> Generator:
    return torch.Generator().manual_seed(seed_of(purpose, *key))
