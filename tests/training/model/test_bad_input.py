"""What does not fit is refused at the door: the argument, what was expected, what was given."""

import re
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.training.small_networks import SIZES, filled_model, inputs, run
from training.model import ModelConfig

NAN = float("nan")


def given(**changed: Any) -> dict[str, Any]:
    return inputs() | changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"noisy": torch.zeros(2, 3, 8, 8, 8)},
            "noisy: expected (batch, frames, 16, height, width), got (2, 3, 8, 8, 8)",
        ),
        (
            {"noisy": torch.zeros(2, 3, 16, 8)},
            "noisy: expected (batch, frames, 16, height, width), got (2, 3, 16, 8)",
        ),
        (
            {"image_condition": torch.zeros(2, 1, 16, 8, 8)},
            "image_condition: expected (2, 3, 16, 8, 8), got (2, 1, 16, 8, 8)",
        ),
        (
            {"portrait": torch.zeros(2, 2, 16, 8, 8)},
            "reference_latent: expected (batch, 1, 16, height, width), got (2, 2, 16",
        ),
        ({"text": torch.zeros(2, 5, 8)}, "text: expected (2, 4, 8), got (2, 5, 8)"),
        ({"face": torch.zeros(2, 512)}, "face: expected (2, 16), got (2, 512)"),
        ({"face": torch.zeros(3, 16)}, "face: expected (2, 16), got (3, 16)"),
        ({"audio": torch.zeros(2, 3, 3, 2, 8)}, "audio: expected (2, 9, 3, 2, 8), got (2, 3, 3, 2, 8)"),
        ({"audio": None}, "audio: this model needs audio, but none was given"),
        (
            {"noisy": inputs()["noisy"].half()},
            "noisy: expected dtype torch.float32 as the weights, got torch.float16",
        ),
        (
            {"face": inputs()["face"].long()},
            "face: expected dtype torch.float32 as the weights, got torch.int64",
        ),
        ({"text": inputs()["text"].to("meta")}, "text: expected on cpu as the weights, got meta"),
        ({"face": [0.0] * 16}, "face: expected a tensor of (2, 16), got list"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        run(filled_model(), given(**changed))


def denoise(**changed: Any) -> Any:
    model, arguments = filled_model(), inputs()
    bank = model.reference(arguments.pop("portrait"), arguments["text"])
    arguments |= {"timesteps": torch.tensor([1, 2]), "reference": bank} | changed
    return model.denoiser(**arguments)


@pytest.mark.parametrize(
    ("timesteps", "said"),
    [
        (torch.tensor([1]), "timesteps: expected one a sample, (2,), got (1)"),
        (500, "timesteps: expected one a sample, (2,), got int"),
        (torch.tensor([True, False]), "timesteps: expected numbers of 0 ... 999, got torch.bool"),
    ],
)
def test_timesteps_are_one_number_a_sample(timesteps: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        denoise(timesteps=timesteps)


def test_a_bank_of_another_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="reference: expected 2 features, one a block, got 3"):
        denoise(reference=[torch.zeros(2, 16, 128)] * 3)


def test_a_bank_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("reference[0]: expected (2, 16, 128), got (2, 16, 64)")):
        denoise(reference=[torch.zeros(2, 16, 64)] * 2)


def test_a_bank_of_a_portrait_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("reference[0]: expected (2, 16, 128), got (2, 12, 128)")):
        denoise(reference=[torch.zeros(2, 12, 128)] * 2)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"text": inputs(batch=1)["text"]}, "expected conditions for 2 samples as noisy has, got 1"),
        (
            {"audio": torch.zeros(1, 5, 3, 2, 8)},
            "expected conditions for 3 latent frames as noisy has, got 2",
        ),
        ({"reference": [torch.zeros(1, 12, 128)] * 2}, "for 16 reference tokens as noisy has, got 12"),
    ],
)
def test_conditions_prepared_for_other_latents_are_refused(changed: dict[str, Any], said: str) -> None:
    model, arguments = filled_model(), inputs()
    noisy, image_condition = arguments.pop("noisy"), arguments.pop("image_condition")
    for name in ("portrait", "face", "audio"):
        arguments[name] = arguments[name][:1]
    bank = model.reference(arguments.pop("portrait"), arguments["text"][:1])
    prepared = model.denoiser.prepare(**(arguments | {"reference": bank} | changed))
    with pytest.raises(ValueError, match=said):
        model.denoiser.denoise(noisy, torch.tensor([1, 2]), image_condition, prepared)


def test_audio_for_a_model_without_it_is_refused() -> None:
    model = filled_model(SIZES.model_copy(update={"audio": None}))
    with pytest.raises(
        ValueError, match="this model has no audio part \\(phase identity\\), but some was given"
    ):
        run(model, inputs())


@pytest.mark.parametrize("name", ["noisy", "image_condition", "portrait", "text", "face", "audio"])
@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_numbers_that_are_not_finite_are_refused_when_asked(name: str, value: float) -> None:
    model = filled_model(SIZES.model_copy(update={"check_finite": True}))
    arguments = inputs()
    run(model, arguments)
    arguments[name].view(-1)[3] = value
    called = "reference_latent" if name == "portrait" else name
    with pytest.raises(ValueError, match=f"{called}: expected finite numbers, got 1 NaN or infinite of"):
        run(model, arguments)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"in_channels": 16}, "in_channels is 16, expected 32: the noisy latent and the image condition"),
        ({"head_dim": 24}, "head_dim is 24, expected a multiple of 16"),
        ({"latent_width": 9}, "latent_width is 9, expected a multiple of patch_size \\(2\\)"),
        ({"num_layers": 0}, "num_layers\n  Input should be greater than or equal to 1"),
        ({"num_layer": 2}, "num_layer\n  Extra inputs are not permitted"),
        ({"audio": {"halving": "mean"}}, "audio.halving\n  Input should be 'joint' or 'per_token'"),
        ({"grid": "stretch"}, "grid\n  Input should be 'exact', 'crop' or 'interpolate'"),
    ],
)
def test_impossible_sizes_are_refused_before_a_tensor_exists(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelConfig(**(SIZES.model_dump() | changed))
