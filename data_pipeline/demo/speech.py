"""Speech that the demo's people say: recordings with known words, their phones, and the mouth for each.

    recording + words  ->  forced alignment  ->  phones with times  ->  opening and width of the mouth

The mouth follows the phones rather than the sound's envelope, so that a measure of lip sync that reads
the envelope cannot be right by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from data_pipeline import weights
from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.models.alignment import Aligner, Phone, phones_of

RATE = 48_000  # Hz, of the sound in the demo's videos
SILENCE = "SIL"


@dataclass(frozen=True)
class Excerpt:
    """A stretch of one recording, and the words in it."""

    file: str
    start_s: float
    end_s: float
    words: str
    recordings: str = "demo-speech"
    """Where weights.yaml has the file."""


TWO_CITIES = (
    Excerpt(
        "two_cities.wav",
        0.4,
        8.75,
        "it was the best of times it was the worst of times "
        "it was the age of wisdom it was the age of foolishness",
    ),
    Excerpt(
        "two_cities.wav",
        8.7,
        17.3,
        "it was the epoch of belief it was the epoch of incredulity "
        "it was the season of light it was the season of darkness",
    ),
    Excerpt(
        "two_cities.wav",
        17.3,
        24.4,
        "it was the spring of hope it was the winter of despair "
        "we had everything before us we had nothing before us",
    ),
    Excerpt(
        "two_cities.wav",
        24.4,
        32.5,
        "we were all going direct to heaven we were all going direct the other way "
        "in short the period was so far like the present period",
    ),
    Excerpt(
        "two_cities.wav",
        32.5,
        41.9,
        "that some of its noisiest authorities insisted on its being received for good or for evil "
        "in the superlative degree of comparison only",
    ),
)
"""The opening of A Tale of Two Cities (Dickens, 1859), read aloud: about 8 s each."""
FAIL_BETTER = Excerpt(
    "beckett.wav", 0.0, 9.9, "ever tried ever failed no matter try again fail again fail better"
)


ENDGAME = tuple(
    Excerpt("endgame_nagg_nell.wav", start_s, end_s, words, "decoy-speech")
    for start_s, end_s, words in (
        (0.0, 4.5, "do you hear me yes do you hear me yes"),
        (4.8, 8.3, "we laugh less heartily so we have still that resource"),
        (8.6, 11.6, "laugh less heartily so we have still that resource"),
        (11.9, 14.4, "no not heartily just less heartily"),
        (14.5, 17.2, "that's a good story that's a good story"),
        (17.5, 22.2, "what are you talking about laughing you thought you were in pain"),
        (23.6, 27.7, "do you remember the day i went and fetched you from that ditch"),
    )
)
"""Other voices, which none of the demo's sources has."""


@dataclass(frozen=True)
class Utterance:
    """What one person says in a video."""

    sound: np.ndarray
    """(S,) int16 at RATE."""
    phones: tuple[Phone, ...]
    words: str

    @property
    def duration_s(self) -> float:
        return len(self.sound) / RATE

    def sound_at(self, rate: int) -> np.ndarray:
        """(S,) int16 at `rate` Hz."""
        return _resample(self.sound, Fraction(rate, RATE))

    def mouth(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(opening in 0..1, width in -1..1), each (T,), of the mouth at `times_s`."""
        return mouth(self.phones, times_s)


def say(excerpts: Sequence[Excerpt], voice: Fraction = Fraction(1)) -> Utterance:
    """The excerpts one after the other. `voice` plays them faster and higher (> 1) or slower and lower."""
    parts, phones, offset_s = [], [], 0.0
    for excerpt in excerpts:
        sound = _resample(_cut(excerpt), 1 / voice)
        for phone in _phones(excerpt):
            start_s, end_s = (offset_s + at_s / float(voice) for at_s in (phone.start_s, phone.end_s))
            phones.append(Phone(phone.label, start_s, end_s))
        parts.append(sound)
        offset_s += len(sound) / RATE
    return Utterance(np.concatenate(parts), tuple(phones), " ".join(excerpt.words for excerpt in excerpts))


# (opening, width, dominance) of the mouth for each phone; shapes after the viseme classes of Jeffers and
# Barley, "Speechreading", 1971. Lips that must touch dominate their neighbours.
VISEMES: dict[str, tuple[float, float, float]] = {
    SILENCE: (0.0, 0.0, 1.0),
    **dict.fromkeys(("P", "B", "M"), (0.0, 0.0, 4.0)),
    **dict.fromkeys(("F", "V"), (0.08, 0.1, 3.0)),
    **dict.fromkeys(("TH", "DH"), (0.22, 0.1, 0.7)),
    **dict.fromkeys(("T", "D", "N"), (0.22, 0.15, 0.5)),
    **dict.fromkeys(("S", "Z"), (0.15, 0.3, 0.9)),
    **dict.fromkeys(("SH", "ZH", "CH", "JH"), (0.2, -0.6, 1.0)),
    **dict.fromkeys(("K", "G", "NG", "HH"), (0.32, 0.1, 0.3)),
    "L": (0.35, 0.1, 0.5),
    "R": (0.25, -0.4, 0.6),
    "W": (0.12, -1.0, 2.0),
    "Y": (0.2, 0.5, 0.8),
    "AA": (0.95, 0.0, 1.0),
    "AE": (0.85, 0.35, 1.0),
    "AH": (0.6, 0.0, 0.8),
    "AO": (0.75, -0.5, 1.0),
    "AW": (0.8, -0.4, 1.0),
    "AY": (0.85, 0.25, 1.0),
    "EH": (0.6, 0.35, 1.0),
    "ER": (0.4, -0.3, 1.0),
    "EY": (0.5, 0.5, 1.0),
    "IH": (0.4, 0.35, 0.8),
    "IY": (0.3, 0.75, 1.0),
    "OW": (0.5, -0.7, 1.0),
    "OY": (0.55, -0.5, 1.0),
    "UH": (0.35, -0.6, 1.0),
    "UW": (0.2, -1.0, 1.0),
}
DECAY_S = 0.02  # how fast a phone's hold on the mouth fades outside its own time


def mouth(phones: tuple[Phone, ...], times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(opening, width), each (T,): the phones' shapes, mixed by how much each governs the moment.

    Dominance falls off exponentially on both sides of a phone: coarticulation after Cohen and Massaro,
    "Modeling coarticulation in synthetic visual speech", 1993."""
    shapes = np.array([VISEMES[phone.label] for phone in phones])
    start_s = np.array([phone.start_s for phone in phones])
    end_s = np.array([phone.end_s for phone in phones])
    outside_s = np.maximum(0, np.maximum(start_s - times_s[:, None], times_s[:, None] - end_s))
    dominance = shapes[:, 2] * np.exp(-outside_s / DECAY_S) + 1e-12
    mixed = dominance @ shapes[:, :2] / dominance.sum(1, keepdims=True)
    return mixed[:, 0], mixed[:, 1]


def _cut(excerpt: Excerpt) -> np.ndarray:
    recording = _recording(excerpt.recordings, excerpt.file)
    return recording[round(excerpt.start_s * RATE) : round(excerpt.end_s * RATE)]


@cache
def _recording(recordings: str, file: str) -> np.ndarray:
    """(S,) int16 at RATE."""
    import wave

    with wave.open(str(weights.fetch(recordings) / file)) as stored:
        sound = np.frombuffer(stored.readframes(stored.getnframes()), np.int16)
        return _resample(sound, Fraction(RATE, stored.getframerate()))


def _resample(sound: np.ndarray, ratio: Fraction) -> np.ndarray:
    """`sound` with `ratio` times as many samples."""
    from scipy.signal import resample_poly

    resampled = resample_poly(sound.astype(np.float64), ratio.numerator, ratio.denominator)
    return np.clip(np.round(resampled), -32768, 32767).astype(np.int16)


@cache
def _phones(excerpt: Excerpt) -> tuple[Phone, ...]:
    """The excerpt's phones and silences without a gap; times from its start."""
    heard = _resample(_cut(excerpt), Fraction(ANALYSIS_RATE, RATE))
    end_s = len(heard) / ANALYSIS_RATE
    phones, until_s = [], 0.0
    for phone in [*phones_of(Aligner().align(heard, excerpt.words)), Phone(SILENCE, end_s, end_s)]:
        if phone.start_s > until_s:
            phones.append(Phone(SILENCE, until_s, phone.start_s))
        phones.append(phone)
        until_s = phone.end_s
    return tuple(phones)
