"""What is minimised: the velocity's error with all conditions, weighed as configured."""

from dataclasses import replace

import pytest
import torch

from tests.training.small_networks import SIZES, filled_model, inputs, run
from training.batch import Batch
from training.diffusion import ZeroSnrSchedule, velocity_loss
from training.objective import TrainingObjective

INDEX = torch.tensor([20, 700])
SCHEDULE = ZeroSnrSchedule()


def batch_of_two() -> tuple[Batch, torch.Tensor]:
    """A batch, and noise for it."""
    given = inputs()
    mouth = torch.zeros(2, SIZES.latent_frames, 1, 8, 8)
    mouth[..., 4:6, 2:6] = 1
    batch = Batch(
        positions=torch.arange(2),
        weight=torch.ones(2),
        latents=given["noisy"],
        image_condition=given["image_condition"][:, :1],
        reference_latent=given["portrait"],
        text=given["text"],
        face=given["face"],
        audio=given["audio"],
        mouth=mouth,
        keys=("a/0", "b/25"),
    )
    return batch, torch.randn(given["noisy"].shape, generator=torch.Generator().manual_seed(7))


def test_it_is_the_velocitys_error_of_both_networks_given_the_condition_in_the_first_frame() -> None:
    model, (batch, noise) = filled_model(), batch_of_two()
    given = inputs()
    given["noisy"] = SCHEDULE.add_noise(batch.latents, noise, INDEX)
    given["image_condition"][:, 1:] = 0
    expected = velocity_loss(run(model, given), batch.latents, noise, INDEX, SCHEDULE)
    torch.testing.assert_close(TrainingObjective(model, SCHEDULE)(batch, INDEX, noise), expected)


def test_a_mouth_weight_changes_the_loss_and_needs_to_know_where_the_mouth_is() -> None:
    model, (batch, noise) = filled_model(), batch_of_two()
    plain = TrainingObjective(model, SCHEDULE)(batch, INDEX, noise)
    heeds_mouth = TrainingObjective(model, SCHEDULE, mouth_weight=5.0)
    everywhere = replace(batch, mouth=torch.ones_like(batch.mouth))
    assert not torch.allclose(heeds_mouth(batch, INDEX, noise), plain)
    torch.testing.assert_close(heeds_mouth(everywhere, INDEX, noise), plain)
    with pytest.raises(ValueError, match="does not say where it is"):
        heeds_mouth(replace(batch, mouth=None), INDEX, noise)


def test_channel_weights_weigh_channels() -> None:
    model, (batch, noise) = filled_model(), batch_of_two()
    first_only = torch.eye(16)[0]
    given = inputs()
    given["noisy"] = SCHEDULE.add_noise(batch.latents, noise, INDEX)
    given["image_condition"][:, 1:] = 0
    error = (run(model, given) - SCHEDULE.velocity(batch.latents, noise, INDEX)).square()
    loss = TrainingObjective(model, SCHEDULE, channel_weights=first_only)(batch, INDEX, noise)
    torch.testing.assert_close(loss, error[:, :, 0].flatten(1).mean(1))


def test_gradients_reach_the_reference_network_through_the_bank() -> None:
    model, (batch, noise) = filled_model(), batch_of_two()
    TrainingObjective(model, SCHEDULE)(batch, INDEX, noise).mean().backward()
    assert model.reference.blocks[0].attention.qkv.weight.grad.abs().sum() > 0


def test_a_batch_in_bfloat16_keeps_what_the_loss_is_computed_of() -> None:
    batch, _ = batch_of_two()
    moved = batch.to("cpu", torch.bfloat16)
    assert moved.text.dtype == moved.audio.dtype == moved.reference_latent.dtype == torch.bfloat16
    assert moved.latents.dtype == moved.weight.dtype == torch.float32
    assert moved.positions.dtype == torch.int64
    assert moved.keys == batch.keys
