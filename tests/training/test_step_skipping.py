"""Videos that are made with fewer whole steps."""

from collections import Counter

import numpy as np
import pytest

from tests.training.test_generate import generator, model, noise, speech, video
from training.generate import Begun, Sampling

EVERYTHING = 1e9


def sampling(threshold: float | None, guidance: float | None = 3.5, two_passes: bool = False) -> Sampling:
    return Sampling(5, guidance, two_passes=two_passes, skip_steps=threshold)


def test_nothing_is_skipped_at_zero_and_the_video_is_the_same() -> None:
    made_by = generator(sampling(0.0))
    assert np.array_equal(video(made_by, speech(14)), video(generator(sampling(None)), speech(14)))
    assert made_by.skipped_steps == 0


@pytest.mark.parametrize("two_passes", [False, True])
def test_every_window_computes_its_first_and_its_last_step(two_passes) -> None:
    made_by = generator(sampling(EVERYTHING, two_passes=two_passes))
    ran: Counter[int] = Counter()
    hooks = [
        block.register_forward_hook(lambda *_, number=number: ran.update([number]))
        for number, block in enumerate(model("audio").denoiser.blocks)
    ]
    made = video(made_by, speech(14), text=noise(4, 8))
    for hook in hooks:
        hook.remove()
    passes = 2 if two_passes else 1
    assert ran == {0: 2 * 5 * passes, 1: 2 * 2 * passes}
    assert made_by.skipped_steps == 2 * 3
    assert not np.array_equal(made, video(generator(sampling(None)), speech(14), text=noise(4, 8)))


def test_two_passes_of_guidance_make_the_video_of_one_batch() -> None:
    in_one, in_two = (generator(sampling(0.25, two_passes=two)) for two in (False, True))
    first, second = (video(each, speech(14), text=noise(4, 8)) for each in (in_one, in_two))
    assert 0 < in_one.skipped_steps == in_two.skipped_steps < 6
    assert np.abs(first.astype(int) - second).max() <= 1


def test_a_higher_threshold_skips_more_and_errs_more() -> None:
    whole = video(generator(sampling(None)), speech(7)).astype(int)
    skipped, errors = [], []
    for threshold in (0.0, 0.25, EVERYTHING):
        made_by = generator(sampling(threshold))
        errors.append(np.abs(video(made_by, speech(7)) - whole).mean())
        skipped.append(made_by.skipped_steps)
    assert sorted(set(skipped)) == skipped
    assert sorted(set(errors)) == errors


@pytest.mark.parametrize("guidance", [None, 3.5])
def test_a_video_goes_on_where_it_was_broken_off(guidance) -> None:
    made_by = generator(sampling(0.25, guidance))
    whole = video(made_by, speech(20), seed=2)
    assert made_by.skipped_steps
    rest = video(made_by, speech(20), seed=2, begun=Begun(1, whole[5:7]))
    assert np.array_equal(rest, whole[7:])


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_a_threshold_that_is_none_is_refused_in_words(threshold) -> None:
    with pytest.raises(ValueError, match="skip_steps: expected None, or a number from 0, got"):
        Sampling(skip_steps=threshold)
