"""Which steps are computed by their first block alone, and what they give: by blocks that add a number."""

import torch

from training.model.step_cache import RunBlock, StepCache

TEXT, VIDEO = torch.zeros(2, 3, 4), torch.zeros(2, 5, 6, 4)


def adding(amount: torch.Tensor | float) -> RunBlock:
    return lambda text, video: (text, video + amount)


def step(cache: StepCache, first: torch.Tensor | float, others: float) -> list[float]:
    """What a pass gives for each of two samples; the blocks add `first`, then twice half of `others`."""
    blocks = [adding(first), adding(others / 2), adding(others / 2)]
    ended = cache.run(blocks, TEXT, VIDEO, parallel=None)
    assert ended.shape == VIDEO.shape
    return [round(float(sample.mean()), 4) for sample in ended]


def test_a_step_of_little_change_adds_what_the_last_whole_one_added() -> None:
    cache = StepCache(0.1, steps=6)
    assert step(cache, 1.0, 10) == [11.0, 11.0]
    assert step(cache, 1.06, 99) == [11.06, 11.06]
    assert step(cache, 1.12, 20) == [21.12, 21.12], "against the last whole step, not the last one"
    assert step(cache, 1.02, 99) == [21.02, 21.02]
    assert step(cache, 1.12, 99) == [21.12, 21.12]
    assert step(cache, 1.12, 30) == [31.12, 31.12], "the last step is always computed"
    assert cache.skipped == 3


def test_a_threshold_of_zero_skips_nothing() -> None:
    cache = StepCache(0.0, steps=5)
    assert [step(cache, 1.0, others)[0] for others in (1, 2, 3, 4, 5)] == [2, 3, 4, 5, 6]
    assert cache.skipped == 0


def test_blocks_that_add_nothing_are_no_reason_to_skip() -> None:
    cache = StepCache(0.5, steps=3)
    assert [step(cache, 0.0, others)[0] for others in (1, 2, 3)] == [1, 2, 3]


def test_the_first_sample_decides_for_both() -> None:
    cache = StepCache(0.1, steps=4)
    step(cache, 1.0, 10)
    assert step(cache, torch.tensor([1.0, 5.0])[:, None, None, None], 99) == [11.0, 15.0]
    assert step(cache, torch.tensor([5.0, 1.0])[:, None, None, None], 20) == [25.0, 21.0]


def test_two_passes_keep_what_is_theirs_and_the_first_decides_for_both() -> None:
    cache = StepCache(0.1, steps=3, passes=2)
    assert (step(cache, 1.0, 10)[0], step(cache, 2.0, 20)[0]) == (11, 22)
    assert (step(cache, 1.0, 99)[0], step(cache, 5.0, 99)[0]) == (11, 25)
    assert (step(cache, 1.0, 30)[0], step(cache, 2.0, 40)[0]) == (31, 42)
    assert cache.skipped == 1
