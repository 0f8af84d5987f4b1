"""Faces found in single frames -> one track a person -> the face that a clip is about.

A detection joins the track whose last box it overlaps, or lies near at about the same size, if that was
seen less than `MAX_GAP_S` ago. A track shorter than `SUSTAINED_S` is taken for an error of the detector
and counts for nothing.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from data_pipeline.models.detections import Detections, iou

MAX_GAP_S = 2.0
SUSTAINED_S = 0.5
MIN_IOU = 0.2
MAX_SHIFT = 0.75  # between centres, in mean widths
MAX_GROWTH = 2.0  # between widths


@dataclass(slots=True)
class Track:
    """One face over time; entry k was found in frame `frames[k]`. Pixels of the analysis frames."""

    frames: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, frame: int, detections: Detections, index: int) -> None:
        self.frames.append(frame)
        self.boxes.append(detections.boxes[index])
        self.scores.append(float(detections.scores[index]))
        self.points.append(detections.points[index])

    @property
    def widths(self) -> np.ndarray:
        return np.array([box[2] - box[0] for box in self.boxes])

    @property
    def heights(self) -> np.ndarray:
        return np.array([box[3] - box[1] for box in self.boxes])

    @property
    def weight(self) -> float:
        """Area summed over the frames that show it: large and always there wins."""
        return float((self.widths * self.heights).sum())


def link(found: list[Detections], times_s: np.ndarray) -> list[Track]:
    """Tracks that last, the clip's main face first. `found[i]` was detected at `times_s[i]`."""
    tracks: list[Track] = []
    for frame, detections in enumerate(found):
        alive = [track for track in tracks if times_s[frame] - times_s[track.frames[-1]] <= MAX_GAP_S]
        taken = _match(alive, detections)
        for index in range(len(detections)):
            if index not in taken:
                tracks.append(Track())
            taken.get(index, tracks[-1]).add(frame, detections, index)
    needed = min(len(found), math.ceil(SUSTAINED_S / period_s(times_s)))
    return sorted((track for track in tracks if len(track) >= needed), key=lambda track: -track.weight)


def period_s(times_s: np.ndarray) -> float:
    """Seconds from one frame to the next; SUSTAINED_S for a single frame, which is all there is."""
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else SUSTAINED_S


def faces_at_once(tracks: list[Track], n_frames: int) -> int:
    """The greatest number of tracks that one frame shows."""
    counts = np.zeros(n_frames, int)
    for track in tracks:
        counts[track.frames] += 1
    return int(counts.max(initial=0))


def widest_other(tracks: list[Track]) -> float:
    """Median width of the widest other track in widths of the first; 0 where there is none."""
    main = tracks[0]
    ratios = [
        float(np.median(other.widths / np.interp(other.frames, main.frames, main.widths)))
        for other in tracks[1:]
    ]
    return max(ratios, default=0.0)


def longest_gap_s(track: Track, times_s: np.ndarray) -> float:
    """The longest stretch, at either end or between, in which frame after frame lacks the face."""
    edges = np.concatenate([[-1], track.frames, [len(times_s)]])
    return float((np.diff(edges).max() - 1) * period_s(times_s))


def _match(tracks: list[Track], detections: Detections) -> dict[int, Track]:
    """Which detection continues which track; the nearest pairs first."""
    pairs = [
        (-likeness, index, place)
        for place, track in enumerate(tracks)
        for index, box in enumerate(detections.boxes)
        if (likeness := _likeness(track.boxes[-1], box)) > 0
    ]
    matches: dict[int, Track] = {}
    used: set[int] = set()
    for _, index, place in sorted(pairs):
        if index not in matches and place not in used:
            matches[index] = tracks[place]
            used.add(place)
    return matches


def _likeness(last: np.ndarray, box: np.ndarray) -> float:
    """Above 1 where the boxes overlap, below 1 where they are near; 0 where they cannot be one face."""
    overlap = iou(last, box)
    if overlap >= MIN_IOU:
        return 1 + overlap
    widths = float(last[2] - last[0]), float(box[2] - box[0])
    if min(widths) <= 0 or max(widths) > MAX_GROWTH * min(widths):
        return 0.0
    shift = float(np.linalg.norm((last[:2] + last[2:] - box[:2] - box[2:]) / 2)) / (sum(widths) / 2)
    return max(0.0, 1 - shift / MAX_SHIFT)
