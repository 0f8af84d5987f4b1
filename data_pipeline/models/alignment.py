"""Forced alignment: when each word and each phone of a known English text was spoken.

    audio (S,) int16 + text -> words that have a pronunciation -> pass 1: a path through the words, with
    optional silences -> pass 2: through the phones inside them -> AlignedWords with Phones, 10 ms steps

PocketSphinx's US English acoustic model and CMUdict (BSD), which travel in its package.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE

if TYPE_CHECKING:
    import pocketsphinx

STEP_S = 0.01
MIN_S = 0.1

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# One sound a spelling, longest spelling first: near enough to move a mouth for a name that no
# dictionary knows, and no more than that.
SPELLINGS = {
    "tion": "SH AH N", "igh": "AY", "ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "ng": "NG", "ck": "K",
    "qu": "K W", "wh": "W", "ee": "IY", "ea": "IY", "oo": "UW", "ou": "AW", "ow": "OW", "oa": "OW",
    "ai": "EY", "ay": "EY", "oi": "OY", "oy": "OY", "au": "AO", "aw": "AO", "er": "ER", "ar": "AA R",
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH",
    "k": "K", "l": "L", "m": "M", "n": "N", "o": "OW", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T",
    "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "IY", "z": "Z",
}  # fmt: skip
SPELLING = re.compile("|".join(SPELLINGS))


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone, in ARPABET without stress (https://en.wikipedia.org/wiki/ARPABET); seconds."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """One word and its phones; seconds from the sound's start."""

    text: str
    start_s: float
    end_s: float
    phones: tuple[Phone, ...]
    guessed: bool
    """Its pronunciation was made from its spelling, for want of a dictionary's."""


class Aligner:
    """`align` a sound with the text that is spoken in it."""

    def __init__(self) -> None:
        self._decoder = _decoder()
        self._guessed: set[str] = set()

    def align(self, audio: np.ndarray, text: str) -> list[AlignedWord]:
        """(S,) int16 mono at 16 kHz -> the text's words in order; what lies between them is silence.

        Numbers are read digit by digit. Raises ValueError for a text without words, a sound under
        0.1 s, or a text that does not fit the sound.
        """
        words = spoken_words(text)
        if not words:
            raise ValueError(f"no words to align in {text!r}")
        if len(audio) < MIN_S * ANALYSIS_RATE:
            raise ValueError(f"cannot align {len(audio)} samples: at least {MIN_S} s are needed")
        for word in words:
            self._ensure_pronunciation(word)
        self._decoder.reinit_feat()  # or what it heard before would shift what it hears now
        try:
            self._decoder.set_align_text(" ".join(words))
            self._listen(audio)
            self._decoder.set_alignment()
            self._listen(audio)
        except RuntimeError as error:
            self._decoder = _decoder()  # the old one may be left in the middle of an utterance
            raise ValueError(f"the text does not fit the sound ({error}): {text[:80]!r}") from error
        return [self._word(entry) for entry in self._decoder.get_alignment() if entry.name[0] not in "<["]

    def _ensure_pronunciation(self, word: str) -> None:
        if self._decoder.lookup_word(word) is None:
            self._decoder.add_word(word, guess_pronunciation(word))
            self._guessed.add(word)

    def _listen(self, audio: np.ndarray) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(np.ascontiguousarray(audio, np.int16).tobytes(), full_utt=True)
        self._decoder.end_utt()

    def _word(self, entry: "pocketsphinx.AlignmentEntry") -> AlignedWord:
        text = entry.name.split("(")[0]  # "was(2)" is the second pronunciation of "was"
        phones = tuple(Phone(phone.name, *_span(phone)) for phone in entry)
        return AlignedWord(text, *_span(entry), phones, text in self._guessed)


def phones_of(words: list[AlignedWord]) -> list[Phone]:
    """The phones of all words, in order."""
    return [phone for word in words for phone in word.phones]


def spoken_words(text: str) -> list[str]:
    """The text as a dictionary spells it: lower case, no accents, no marks, digits as words."""
    plain = unicodedata.normalize("NFKD", text.replace("’", "'")).encode("ascii", "ignore").decode().lower()
    tokens = re.findall(r"[a-z]+(?:'[a-z]+)*|[0-9]", plain)
    return [DIGITS[int(token)] if token.isdigit() else token for token in tokens]


def guess_pronunciation(word: str) -> str:
    """ARPABET phones for a word in a-z and apostrophes, letter by letter."""
    return " ".join(SPELLINGS[spelling] for spelling in SPELLING.findall(word))


def _decoder() -> "pocketsphinx.Decoder":
    import pocketsphinx

    # Without `bestpath=False` the first pass may give a phone fewer frames than it has states, and the
    # second fails: https://github.com/cmusphinx/pocketsphinx/pull/500
    return pocketsphinx.Decoder(lm=None, bestpath=False, loglevel="FATAL")


def _span(entry: "pocketsphinx.AlignmentEntry") -> tuple[float, float]:
    return round(entry.start * STEP_S, 3), round((entry.start + entry.duration) * STEP_S, 3)
