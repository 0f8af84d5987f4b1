"""What metrics found in clips, on the disk as soon as it is known: a killed worker loses the clip in hand.

    FOLDER/{clip}.npz    arrays, by metric
    FOLDER/{clip}.json   values and words by metric, and of which video; written last

Arrays are read only when a state takes them in.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from data_pipeline.storage import replacing
from evaluation.metrics.metric import Found


@dataclass(frozen=True)
class Scored:
    """What is known of one video."""

    video_sha256: str
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By metric: of those that could score the clip."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """By metric: why it could not."""
    error: str | None = None
    """Why no metric could."""

    @property
    def words(self) -> str | None:
        """All that went wrong."""
        if self.error is not None:
            return self.error
        return "; ".join(f"{metric}: {words}" for metric, words in self.errors.items()) or None


class FoundStore:
    """The clips of one folder. Several processes may write, each its own clips."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, clip: str, scored: Scored, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Keep what was found in a clip; arrays by metric. Raises OSError."""
        flat = {f"{metric}/{name}": array for metric, one in arrays.items() for name, array in one.items()}
        with replacing(self.folder / f"{clip}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **flat)  # type: ignore[arg-type]
        with replacing(self.folder / f"{clip}.json") as temporary:
            temporary.write_text(json.dumps(asdict(scored), sort_keys=True, indent=1), "utf-8")

    def scored(self, clip: str) -> Scored | None:
        """What is known of a clip; None: nothing."""
        try:
            return Scored(**json.loads((self.folder / f"{clip}.json").read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def has(self, clip: str, metric: str) -> bool:
        """Whether a metric could score a clip."""
        scored = self.scored(clip)
        return scored is not None and metric in scored.values

    def found(self, clip: str, metric: str) -> Found | None:
        """What one metric found in a clip; None: it could not score it."""
        scored = self.scored(clip)
        if scored is None or metric not in scored.values:
            return None
        with np.load(self.folder / f"{clip}.npz") as arrays:
            own = {
                key.removeprefix(f"{metric}/"): arrays[key]
                for key in arrays.files
                if key.startswith(f"{metric}/")
            }
        return Found(scored.values[metric], own)
