"""One person saying something: a portrait, an utterance, and how head and lids move meanwhile."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from data_pipeline import weights
from data_pipeline.demo.puppet import Pose, Puppet
from data_pipeline.demo.speech import Utterance

ASTRONAUT = ("demo-portrait-astronaut", "astronaut.png")
GROUP = ("demo-portraits-group", "t1.jpg")
TURNS_DEG = (3.0, 1.7, 1.3)
"""How far a head turns while it speaks (yaw, pitch, roll): as somebody's who reads aloud. Sound does not tell
where a head goes, and one that moves more hides the mouth from a model that has only minutes to learn."""
SHIFT_FACE_HEIGHTS = 0.013


@dataclass(frozen=True)
class Portrait:
    """A part of a photograph with the person who speaks in it."""

    photograph: tuple[str, str]
    """(name in weights.yaml, file)."""
    crop: tuple[int, int, int, int]
    """x0 y0 x1 y1 in the photograph's pixels."""
    height: int = 320
    """Of the video, in pixels; its width follows."""
    rest: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Yaw, pitch and roll, in degrees, by which the head is turned from how it was photographed."""


PORTRAITS = {
    "astronaut": Portrait(ASTRONAUT, (96, 0, 356, 260)),
    "astronaut_far": Portrait(ASTRONAUT, (0, 0, 512, 512), height=144),
    "guest_1": Portrait(GROUP, (0, 170, 290, 460), rest=(0, 0, 10)),
    "guest_3": Portrait(GROUP, (376, 180, 676, 480), rest=(0, -6, 0)),
    "guest_3_tall": Portrait(GROUP, (400, 166, 640, 486), height=384, rest=(0, -6, 0)),
    "guest_4": Portrait(GROUP, (646, 255, 946, 555), rest=(0, -6, 0)),
    "guest_5_turned": Portrait(GROUP, (806, 0, 1106, 300), rest=(28, 0, 0)),
    "guest_6": Portrait(GROUP, (1006, 186, 1280, 460)),
    "guests_3_and_4": Portrait(GROUP, (430, 160, 890, 620), height=384),
}


@dataclass
class Performance:
    """What happens in each frame of one shot; `frames()` shows it."""

    puppet: Puppet
    poses: list[Pose]
    utterance: Utterance
    fps: int

    def frames(self) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB."""
        return (self.puppet.render(pose) for pose in self.poses)

    def apertures(self) -> np.ndarray:
        """(F,) the gap between the lips in face heights."""
        return np.array([self.puppet.aperture(pose) for pose in self.poses], np.float32)


def perform(
    portrait: str,
    utterance: Utterance,
    rng: np.random.Generator,
    *,
    fps: int = 25,
    liveliness: float = 1.0,
    max_s: float | None = None,
) -> Performance:
    """`portrait` says `utterance`, or what fits into `max_s`; `liveliness` scales the head's motion."""
    duration_s = min(utterance.duration_s, max_s or utterance.duration_s)
    times_s = np.arange(int(duration_s * fps)) / fps
    opening, width = utterance.mouth(times_s)
    blink = _blinks(times_s, rng)
    turns = zip(PORTRAITS[portrait].rest, TURNS_DEG, strict=True)
    yaw, pitch, roll = (rest + liveliness * most * _drift(times_s, rng) for rest, most in turns)
    right, down = (SHIFT_FACE_HEIGHTS * liveliness * _drift(times_s, rng) for _ in range(2))
    columns = zip(opening, width, blink, yaw, pitch, roll, right, down, strict=True)
    poses = [Pose(*map(float, column)) for column in columns]
    return Performance(puppet(portrait), poses, utterance, fps)


@cache
def puppet(name: str) -> Puppet:
    """The named portrait's puppet; its leftmost face is the one that speaks."""
    import cv2

    from data_pipeline.models.centerface import CenterFace
    from data_pipeline.models.face_mesh import FaceMesh

    portrait = PORTRAITS[name]
    x0, y0, x1, y1 = portrait.crop
    photograph = _photograph(*portrait.photograph)[y0:y1, x0:x1]
    faces = CenterFace(longer_side_px=320).detect(photograph)
    if not len(faces):
        raise ValueError(f"no face was found in portrait {name!r}")
    speaker = int(np.argmin(faces.boxes[:, 0]))
    mesh = FaceMesh().fit(photograph, faces.boxes[speaker], faces.points[speaker, :2])
    scale = portrait.height / (y1 - y0)
    size = (round((x1 - x0) * scale / 2) * 2, portrait.height)
    resampling = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return Puppet(cv2.resize(photograph, size, interpolation=resampling), mesh.points * scale)


def _photograph(name: str, file: str) -> np.ndarray:
    import cv2

    path = weights.fetch(name) / file
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise ValueError(f"{path} is not a picture; `hallo3 weights verify` says whether it is intact")
    return picture


def _drift(times_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,) a smooth wander, mostly within -1..1: a few slow waves without a common period."""
    hertz = rng.uniform([0.08, 0.2, 0.45], [0.18, 0.4, 0.8])
    phases = rng.uniform(0, 2 * np.pi, 3)
    return np.sin(2 * np.pi * times_s[:, None] * hertz + phases) @ [0.55, 0.3, 0.15]


def _blinks(times_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,) how far the lids are closed: a blink of a quarter of a second every few seconds."""
    closed = np.zeros_like(times_s)
    at_s = rng.uniform(0.5, 2.0)
    while times_s.size and at_s < times_s[-1]:
        closed = np.maximum(closed, np.cos(np.clip((times_s - at_s) / 0.125, -1, 1) * np.pi / 2))
        at_s += rng.uniform(2.0, 4.5)
    return closed
