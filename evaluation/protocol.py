"""What a figure depends on besides the model, and the hash of it: figures of one hash may be compared.

benchmark's hash, frame range, crop, size, rate, metrics' networks, seed -> seen: of real clips, too
seen, sampling settings                                                 -> the whole protocol
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.benchmarks import Benchmark, canonical
from evaluation.config import EvaluationConfig
from evaluation.metrics.metric import Metric

REVISION = 1
"""Raised when the code sees or measures something else under the same settings."""
GIVEN = "videos were given"


class ProtocolsDiffer(ValueError):
    """Two evaluations that may not be compared; the message says which fields differ."""


@dataclass(frozen=True)
class Protocol:
    """Of one benchmark."""

    seen: dict[str, Any]
    """What real clips' figures depend on: JSON."""
    sampling: dict[str, Any]
    """How the videos are made: JSON."""

    @property
    def fields(self) -> dict[str, Any]:
        """All of it."""
        return {**self.seen, "sampling": self.sampling}

    @property
    def sha256(self) -> str:
        """Of all of it."""
        return _sha256(self.fields)

    @property
    def seen_sha256(self) -> str:
        """Of what real clips depend on."""
        return _sha256(self.seen)


def protocol_of(
    config: EvaluationConfig, benchmark: Benchmark, metrics: Mapping[str, Metric], seeing: Mapping[str, Any]
) -> Protocol:
    """The protocol of a benchmark's figures.

    Args:
        seeing: what all metrics depend on (ClipReader.protocol).
    """
    clip = config.clip
    published = benchmark.about["format"] not in ("dataset", "list")
    seen = {
        "revision": REVISION,
        "benchmark": {
            "name": benchmark.name,
            "sha256": benchmark.sha256,
            "split": benchmark.about.get("split"),
            "items": len(benchmark.entries),
        },
        "frames": {"range": [0, round(clip.max_s * clip.fps)], "fps": clip.fps},
        "crop": "the list's box, widened to the clip's shape" if published else "none",
        "resize": {
            "within": [clip.height, clip.width],
            "shape": "the reference picture's",
            "how": "area, cubic",
        },
        "seeing": dict(seeing),
        "decoys": config.decoys,
        "seed": config.seed,
        "metrics": {name: dict(metric.protocol) for name, metric in sorted(metrics.items())},
    }
    sampling = {"of": GIVEN} if config.videos is not None else config.sampling.model_dump(mode="json")
    return Protocol(seen, sampling)


def check_same(one: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str]) -> None:
    """Whether figures of two protocols (their fields) may be compared.

    Args:
        names: what the two are called in words.

    Raises:
        ProtocolsDiffer
    """
    mine, theirs = _flat(one), _flat(other)
    lines = [
        f"  {key}: {mine.get(key, 'nothing')} ({names[0]}), {theirs.get(key, 'nothing')} ({names[1]})"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]
    if lines:
        raise ProtocolsDiffer("the protocols differ, so figures cannot be compared:\n" + "\n".join(lines))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else str(key))
    return found


def _sha256(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(fields).encode()).hexdigest()
