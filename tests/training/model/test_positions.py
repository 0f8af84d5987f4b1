"""Other sizes than the configured ones: refused, cropped or interpolated, never silently something else."""

import pytest
import torch
from torch import Tensor

from tests.training.small_networks import SIZES, filled_model
from training.model import ModelConfig, PortraitModel
from training.model.rotary import rotary_tables, rotate


def sized(grid: str) -> PortraitModel:
    return filled_model(SIZES.model_copy(update={"grid": grid}))


def predict(model: PortraitModel, frames: int, height: int, width: int) -> Tensor:
    network = model.reference
    latents = torch.randn(1, frames, 32, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.predict(latents, torch.tensor([500]), network.embed_text(torch.zeros(1, 4, 8)))


@pytest.mark.parametrize(("frames", "height", "width"), [(2, 8, 8), (3, 6, 8), (3, 8, 12), (5, 8, 8)])
def test_another_size_is_refused_in_words(frames: int, height: int, width: int) -> None:
    with pytest.raises(
        ValueError, match="expected 3 frames \\(or 1\\) of 8 x 8; grid=crop or grid=interpolate"
    ):
        predict(sized("exact"), frames, height, width)


def test_more_than_the_grid_cannot_be_cropped_from_it() -> None:
    with pytest.raises(ValueError, match="5 frames of 8 x 8, expected at most 3 frames"):
        predict(sized("crop"), 5, 8, 8)


def test_latents_that_do_not_divide_into_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="latents of 7 x 8: expected multiples of the patch size, 2"):
        predict(sized("interpolate"), 3, 7, 8)


@pytest.mark.parametrize(("frames", "height", "width"), [(2, 8, 8), (3, 4, 6), (1, 6, 8)])
def test_a_crop_has_the_positions_of_the_middle_of_the_picture(frames: int, height: int, width: int) -> None:
    model = sized("crop")
    assert predict(model, frames, height, width).shape == (1, frames, 16, height, width)
    small = ModelConfig(
        **{
            **model.config.model_dump(),
            "latent_frames": frames,
            "latent_height": height,
            "latent_width": width,
        }
    )
    same = PortraitModel(small)
    state = model.state_dict()
    text, rows = small.text_length, small.patch_grid
    top, left = (4 - rows[1]) // 2, (4 - rows[2]) // 2
    for network in ("denoiser", "reference"):
        table = state[f"{network}.positions"]
        grid = table[:, text:].unflatten(1, (3, 4, 4))
        middle = grid[:, :frames, top : top + rows[1], left : left + rows[2]]
        state[f"{network}.positions"] = torch.cat([table[:, :text], middle.flatten(1, 3)], dim=1)
        for part in ("cos", "sin"):
            state[f"{network}.rotary.{part}"] = same.state_dict()[f"{network}.rotary.{part}"]
    same.load_state_dict(state)
    torch.testing.assert_close(
        predict(model, frames, height, width), predict(same, frames, height, width), rtol=0, atol=1e-5
    )


def test_the_configured_size_and_one_frame_of_it_are_never_interpolated() -> None:
    for frames in (1, 3):
        torch.testing.assert_close(
            predict(sized("interpolate"), frames, 8, 8), predict(sized("exact"), frames, 8, 8), rtol=0, atol=0
        )


def test_interpolated_positions_span_the_configured_grid() -> None:
    model = sized("interpolate")
    assert predict(model, 5, 12, 16).shape == (1, 5, 16, 12, 16)
    from training.model import positions

    layout = positions.layout(model.config, model.reference.rotary, (5, 6, 8))
    text, known = model.config.text_length, model.reference.rotary
    torch.testing.assert_close(layout.cos[text], known.cos[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(layout.cos[-1], known.cos[-1], rtol=0, atol=1e-5)
    _, rows = positions.learned_rows(model.config, model.reference.positions, (5, 6, 8))
    learned = model.reference.positions[0, text:]
    torch.testing.assert_close(rows[0, 0, 0], learned[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(rows[0, -1, -1], learned[-1], rtol=0, atol=1e-6)


def test_attention_between_rotated_tokens_depends_on_their_distance_alone() -> None:
    axes = [torch.arange(6), torch.arange(5), torch.arange(4)]
    cos, sin = (table.view(6, 5, 4, 64) for table in rotary_tables(axes, 64))
    query, key = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))

    def score(at: tuple[int, int, int], other: tuple[int, int, int]) -> float:
        return float(rotate(query, cos[at], sin[at]) @ rotate(key, cos[other], sin[other]))

    assert score((0, 1, 2), (2, 0, 1)) == pytest.approx(score((3, 4, 3), (5, 3, 2)), abs=1e-4)
    assert score((0, 0, 0), (2, 0, 0)) != pytest.approx(score((0, 0, 0), (0, 2, 0)), abs=1e-2)
