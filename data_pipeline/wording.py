"""Numbers and names as a person reads them."""

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class TimeUnit:
    """One unit for a whole page, so that its numbers can be compared at a glance."""

    unit: str
    seconds: float
    digits: int

    @classmethod
    def for_total(cls, total_s: float) -> "TimeUnit":
        unit, seconds = ("h", 3600.0) if total_s >= 3600 else ("min", 60.0) if total_s >= 120 else ("s", 1.0)
        amount = total_s / seconds
        return cls(unit, seconds, digits=2 if amount < 10 else 1 if amount < 1000 else 0)

    def text(self, seconds: float) -> str:
        amount, least = seconds / self.seconds, 10**-self.digits
        if 0 < amount < least:
            return f"<{least:.{self.digits}f} {self.unit}"
        return f"{amount:,.{self.digits}f} {self.unit}"


def number_text(value: float) -> str:
    """Three significant digits, and no exponent where a person expects none."""
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 1e-9 else "0"


def percent_text(part: float, whole: float) -> str:
    if not whole:
        return "\N{EN DASH}"
    percent = 100 * part / whole
    return f"{percent:.0f}%" if percent >= 1 or percent == 0 else "<1%"


def visible_text(text: str) -> str:
    """Control and direction characters as signs: a name cannot hide what it is or reorder its line."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if ord(character) < 32:
        return chr(0x2400 + ord(character))
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in ("Cc", "Cf") else character
