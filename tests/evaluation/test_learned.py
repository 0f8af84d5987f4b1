"""What is concluded of mouths that are made up: that follow, that do not, that are not there."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.learned import HeldOut, Learned, figures, judge
from evaluation.metrics.lip_correlation import Mouth
from tests.evaluation.metrics.test_lip_correlation import mouth, opening

NOWHERE = Path("/nowhere")


def takes(count: int = 14) -> list[HeldOut]:
    """Two by two with the same words."""
    return [
        HeldOut(f"take {place}", f"words {place // 2}", NOWHERE, NOWHERE, opening(place // 2))
        for place in range(count)
    ]


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(9000 + seed).normal(0, 0.5, 100)


def found(trained: list[Mouth], untrained: list[Mouth]) -> Learned:
    real = [mouth(take.opening) for take in takes()]
    return figures(takes(), {"real": real, "trained": trained, "untrained": untrained})


def test_a_model_that_follows_gains_over_one_that_shows_no_face() -> None:
    follows = [mouth(take.opening + noise(place)) for place, take in enumerate(takes())]
    blind = [Mouth(noise(place), np.zeros(100, bool)) for place in range(14)]
    learned = found(follows, blind)
    assert learned.lag == 0
    assert learned.values["untrained"].value == 0
    assert learned.gain.low > 0.4
    assert learned.gain.value == pytest.approx(learned.values["trained"].value)
    assert 0.5 < learned.share < 1
    assert abs(learned.decoys["trained"].value) < 0.2


def test_a_model_that_opens_its_mouth_at_random_gains_nothing() -> None:
    anyhow = [mouth(opening(700 + place)) for place in range(14)]
    others = [mouth(opening(800 + place)) for place in range(14)]
    learned = found(anyhow, others)
    assert not learned.gain.excludes_zero
    assert abs(learned.share) < 0.3


def test_too_few_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 12, got 10"):
        judge(takes(10), {"trained": NOWHERE, "untrained": NOWHERE})
