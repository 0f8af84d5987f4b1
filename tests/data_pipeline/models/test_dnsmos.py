import numpy as np
import pytest

from data_pipeline import weights
from data_pipeline.models.dnsmos import WEIGHTS, WINDOW, Dnsmos
from tests.data_pipeline.sounds import noise, over, read_aloud, silence


@pytest.fixture(scope="module")
def dnsmos() -> Dnsmos:
    return Dnsmos(weights.fetch(WEIGHTS))


def test_noise_lowers_the_score_step_by_step(dnsmos: Dnsmos) -> None:
    speech = read_aloud(1, 9)
    sounds = (speech, over(speech, noise(8), 20), over(speech, noise(8), 3))
    clean, light, heavy = (dnsmos.score(sound) for sound in sounds)
    assert clean.overall > light.overall + 0.2 > heavy.overall + 0.4
    assert clean.background > light.background > heavy.background
    assert clean.overall > 2.5
    assert heavy.overall < 2.0


@pytest.mark.parametrize(
    "sound", [noise(1), silence(2), silence(1)[:1]], ids=["noise", "silence", "a sample"]
)
def test_whatever_the_sound_the_scores_are_on_the_scale(dnsmos: Dnsmos, sound: np.ndarray) -> None:
    quality = dnsmos.score(sound)
    assert all(0.5 <= score <= 5 for score in (quality.signal, quality.background, quality.overall))


def test_a_short_sound_scores_as_its_own_repetition(dnsmos: Dnsmos) -> None:
    speech = read_aloud(1, 5)
    assert dnsmos.score(speech) == dnsmos.score(np.resize(speech, WINDOW))


def test_a_long_sound_is_judged_to_its_end(dnsmos: Dnsmos) -> None:
    speech = np.resize(read_aloud(1, 9), WINDOW)
    spoiled = np.concatenate([speech, noise(9)])
    assert dnsmos.score(spoiled).overall < dnsmos.score(speech).overall - 0.3


def test_an_empty_sound_is_refused_in_words(dnsmos: Dnsmos) -> None:
    with pytest.raises(ValueError, match="empty sound"):
        dnsmos.score(silence(0))
