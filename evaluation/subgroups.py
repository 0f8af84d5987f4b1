"""Which subgroups a clip is in: how far its head is turned, its language, its background, its size.

facts of the item, else what metrics found in the real video, else in the generated one -> bins
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One way to divide a benchmark."""

    name: str
    sources: tuple[str, ...]
    """Columns of a clip's row, the first that has a value counts."""
    edges: tuple[float, ...] = ()
    """Between the bins; none: every value is a bin of its own."""
    bins: tuple[str, ...] = ()

    def bin_of(self, row: Mapping[str, Any]) -> str | None:
        """The bin of a clip; None: it is not known."""
        value = next((row[name] for name in self.sources if row.get(name) is not None), None)
        if value is None or not self.edges:
            return None if value is None else str(value)
        return self.bins[sum(float(value) >= edge for edge in self.edges)]


KINDS = (
    Kind(
        "head pose",
        ("fact.yaw_deg_p95", "real.yaw_deg", "generated.yaw_deg"),
        (15.0, 30.0),
        ("frontal (below 15°)", "turned (15° to 30°)", "far turned (30° and more)"),
    ),
    Kind("language", ("fact.language",)),
    Kind(
        "background",
        ("fact.background_motion", "real.background_dynamics", "generated.background_dynamics"),
        (0.02,),
        ("still (below 0.02 frame heights a second)", "moving"),
    ),
    Kind(
        "subject size",
        ("fact.face_fraction", "real.face_fraction", "generated.face_fraction"),
        (0.25, 0.45),
        ("small (face below 25 % of the height)", "medium (25 % to 45 %)", "large (45 % and more)"),
    ),
)


def divided(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """The names of clips by kind and bin; without kinds of which nothing is known, bins in their order."""
    found: dict[str, dict[str, list[str]]] = {}
    for kind in KINDS:
        bins: dict[str, list[str]] = {}
        for row in rows:
            where = kind.bin_of(row)
            if where is not None:
                bins.setdefault(where, []).append(str(row["name"]))
        order = kind.bins or tuple(sorted(bins))
        if bins:
            found[kind.name] = {name: bins[name] for name in order if name in bins}
    return found
