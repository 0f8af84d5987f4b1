"""What the model is shown, and what it goes without."""

import math

import numpy as np
import pytest
import torch

from training.conditions import (
    BLACK,
    Dropped,
    beside_window,
    face_on_black,
    image_condition,
    reference_frames,
)
from training.config import ConditionsConfig
from training.model import PRESETS

CONFIG = ConditionsConfig()


def test_only_the_face_is_left_of_a_reference_image() -> None:
    shown = face_on_black(torch.zeros(3, 40, 20), (0.25, 0.5, 0.75, 1.1))
    assert (shown == 0).nonzero()[:, 1:].amin(0).tolist() == [20, 5]
    assert (shown == 0).nonzero()[:, 1:].amax(0).tolist() == [39, 14]
    assert set(shown.unique().tolist()) == {BLACK, 0.0}


@pytest.mark.parametrize("box", [(math.nan,) * 4, (0.5, 0.5, 0.5, 0.5), (1.1, 0, 1.5, 1)])
def test_a_box_without_a_face_is_refused_in_words(box) -> None:
    with pytest.raises(ValueError, match="box: "):
        face_on_black(torch.zeros(3, 8, 8), box)


def test_a_tenth_of_the_pixels_is_missing_in_both_motion_frames_and_none_in_the_reference() -> None:
    ones = torch.ones(3, 200, 200)
    shown = image_condition(ones, torch.ones(3, 2, 200, 200), CONFIG, seed=1, training=False)
    assert torch.equal(shown[:, 0], ones)
    assert torch.equal(shown[:, 1], shown[:, 2])
    assert torch.equal(shown[0], shown[1])
    assert float((shown[0, 1] == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert set(shown.unique().tolist()) == {0.0, 1.0}


def test_in_training_motion_frames_carry_noise_of_a_scale_drawn_for_each_sample() -> None:
    zeros = torch.zeros(3, 64, 64), torch.zeros(3, 2, 64, 64)
    whole = ConditionsConfig(masked_pixels=0)
    scales = torch.stack(
        [image_condition(*zeros, whole, seed, training=True)[:, 1:].std() for seed in range(300)]
    ).log()
    assert float(scales.mean()) == pytest.approx(-3, abs=0.15)
    assert float(scales.std()) == pytest.approx(0.5, abs=0.1)


def test_the_same_seed_shows_the_same_and_another_one_does_not() -> None:
    given = torch.rand(3, 16, 16), torch.rand(3, 2, 16, 16)
    first, again, other = (image_condition(*given, CONFIG, seed, training=True) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_motion_frames_of_another_size_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="two frames of the reference's size"):
        image_condition(torch.zeros(3, 8, 8), torch.zeros(3, 2, 8, 9), CONFIG, 0, training=True)


def test_conditions_are_left_out_as_often_as_configured_each_for_itself() -> None:
    drawn = [
        Dropped.drawn(CONFIG, seed=0, step=step, place=place) for step in range(500) for place in range(8)
    ]
    shares = [sum(getattr(each, name) for each in drawn) / len(drawn) for name in vars(drawn[0])]
    assert shares == pytest.approx([0.1, 0.05, 0.05, 0.05], abs=0.012)
    both = sum(each.text and each.audio for each in drawn) / len(drawn)
    assert both == pytest.approx(0.005, abs=0.004)


def test_what_is_left_out_follows_from_seed_step_and_place() -> None:
    likely = ConditionsConfig(drop_text=0.5, drop_image=0.5, drop_reference=0.5, drop_audio=0.5)
    drawn = [Dropped.drawn(likely, 0, step, place) for step in range(4) for place in range(4)]
    assert drawn == [Dropped.drawn(likely, 0, step, place) for step in range(4) for place in range(4)]
    assert len(set(drawn)) > 4


def test_a_reference_image_is_taken_from_all_of_the_clip_or_from_near_the_window() -> None:
    seen = np.array([2, 3, 9, 10, 11, 40])
    assert reference_frames(seen, 10, None).tolist() == seen.tolist()
    assert reference_frames(seen, 10, 1).tolist() == [9, 10, 11]
    assert reference_frames(seen, 30, 5).tolist() == [40]  # none is near: the nearest


def test_the_condition_is_beside_the_first_latent_frame_or_beside_all() -> None:
    condition = torch.randn(2, 1, 32, 8, 8)
    as_upstream = PRESETS["tiny"].model_copy(update={"image_condition_in": "first_frame"})
    first = beside_window(condition, 5, as_upstream)
    assert torch.equal(first[:, :1], condition)
    assert first.shape == (2, 5, 32, 8, 8)
    assert not first[:, 1:].any()
    assert torch.equal(beside_window(condition, 5, PRESETS["tiny"]), condition.expand(2, 5, 32, 8, 8))
    assert PRESETS["hallo3_5b"].image_condition_in == PRESETS["small"].image_condition_in == "first_frame"
