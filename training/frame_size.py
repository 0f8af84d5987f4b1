"""The size of frames in pixels: that of a model's training, or another.

A model makes frames of another size with its positions spread over them (model/positions.py): the middle of
its trained frame stays the middle, an edge an edge.
"""

from training.model.autoencoder import SPATIAL_STRIDE
from training.model.config import ModelConfig

Size = tuple[int, int]
"""Height and width in px."""


def trained_size(sizes: ModelConfig) -> Size:
    return SPATIAL_STRIDE * sizes.latent_height, SPATIAL_STRIDE * sizes.latent_width


def for_frames(sizes: ModelConfig, size: Size | None) -> ModelConfig:
    """What a model's configuration must be to make frames of this size; None: those of its training.

    Raises ValueError for sides that its patches do not divide."""
    if size is None or size == trained_size(sizes):
        return sizes
    step = SPATIAL_STRIDE * sizes.patch_size
    if any(side < step or side % step for side in size):
        nearest = "x".join(str(max(step, step * round(side / step))) for side in size)
        raise ValueError(
            f"frames of {size[0]}x{size[1]}: the model makes those of multiples of {step} px; the nearest is "
            f"{nearest}"
        )
    return sizes.model_copy(update={"grid": "interpolate"})
