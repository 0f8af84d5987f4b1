"""What is in each of the demo's files: good talking heads first, then one file for each defect."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipeline.clip import Reason
from data_pipeline.demo import music
from data_pipeline.demo.performance import Performance, perform
from data_pipeline.demo.puppet import Pose
from data_pipeline.demo.speech import FAIL_BETTER, RATE, TWO_CITIES, Excerpt, say
from data_pipeline.demo.video import transcode

HIGH, LOW = Fraction(9, 8), Fraction(8, 9)  # voices: the recording, played faster or slower
DEFECT_S = 4.0  # length of a file that is to be rejected
OFF_SYNC_S = 6.0  # of one whose lips and sound disagree, which takes longer to see
LATE_S, SLIGHTLY_LATE_S = 0.6, 0.12  # beyond, and within, what a curation may correct


@dataclass(frozen=True)
class DemoSource:
    """One file, and what curation should make of it."""

    name: str
    """The file's name."""
    expected: Literal["keep", "reject"]
    reason: Reason | None
    """Why it is rejected."""
    description: str
    speaker: str = ""
    n_shots: int = 1
    """Stretches without a cut."""
    sound_late_s: float = 0.0
    """How much later than the lips the sound comes."""
    words: str = ""
    """What a kept source says, all of it."""


@dataclass
class Scene:
    """What goes into one file."""

    shots: list[Performance]
    sound: np.ndarray | None
    """(S,) int16 at RATE, as long as the picture."""
    alter: Callable[[np.ndarray], np.ndarray] | None = None
    """Applied to each frame."""
    encoding: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `write_video`."""

    @property
    def fps(self) -> int:
        return self.shots[0].fps

    @property
    def n_samples(self) -> int:
        return round(sum(len(shot.poses) for shot in self.shots) * RATE / self.fps)

    def frames(self) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB."""
        shown = chain.from_iterable(shot.frames() for shot in self.shots)
        return map(self.alter, shown) if self.alter else shown


MakeScene = Callable[[np.random.Generator], Scene]
Derive = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Recipe:
    """A source and how to make it: as a scene, or (folder, new file) from another source."""

    source: DemoSource
    scene: MakeScene | None = None
    derive: Derive | None = None


def recipes() -> dict[str, Recipe]:
    """Every recipe, by the file's name."""
    every = [*_good(), *_defects(), *_derived()]
    return {recipe.source.name: recipe for recipe in every}


def _good() -> Iterator[Recipe]:
    first, second, third, fourth, fifth = TWO_CITIES

    def keep(
        name: str, speaker: str, said: list[Excerpt], description: str, make: MakeScene, **facts: Any
    ) -> Recipe:
        words = " ".join(excerpt.words for excerpt in said)
        source = DemoSource(name, "keep", None, description, speaker=speaker, words=words, **facts)
        return Recipe(source, make)

    yield keep("astronaut.mp4", "astronaut", [first], "plain", _talk("astronaut", [first], HIGH))
    yield keep(
        "prêt à parler.mp4",
        "guest_1",
        [second],
        "30 fps; a name with spaces and accents",
        _talk("guest_1", [second], HIGH, fps=30),
    )
    yield keep(
        "upright.mov",
        "guest_3",
        [third],
        "an upright picture, stored lying, that players turn",
        _upright([third]),
    )
    yield keep(
        "guest_4.webm",
        "guest_4",
        [fourth],
        "VP9 and Opus",
        _talk("guest_4", [fourth], encoding={"video_codec": "libvpx-vp9", "audio_codec": "libopus"}),
    )
    whole = [first, second, third, fourth]
    yield keep(
        "long.mp4", "guest_6", whole, "longer than a clip may be: to be split", _talk("guest_6", whole, HIGH)
    )
    yield Recipe(
        DemoSource(
            "three_shots.mp4", "keep", None, "three people, one after the other: three clips", n_shots=3
        ),
        _cuts(["astronaut", "guest_4", "guest_6"], [fifth, FAIL_BETTER, second], 3.6),
    )
    yield keep(
        "slightly_late.mp4",
        "guest_3",
        [fifth],
        "the sound is three frames late: to be corrected",
        _late("guest_3", [fifth], SLIGHTLY_LATE_S),
        sound_late_s=SLIGHTLY_LATE_S,
    )


def _defects() -> Iterator[Recipe]:
    first, second, third, fourth, fifth = TWO_CITIES

    def reject(name: str, reason: Reason, description: str, make: MakeScene, **facts: Any) -> Recipe:
        return Recipe(DemoSource(name, "reject", reason, description, **facts), make)

    yield reject(
        "two_faces.mp4",
        Reason.MULTI_FACE,
        "a second face as large as the speaker's",
        _talk("guests_3_and_4", [fourth], max_s=DEFECT_S),
    )
    yield reject(
        "strong_yaw.mp4",
        Reason.PROFILE,
        "the head is turned far to the side",
        _talk("guest_5_turned", [fourth], liveliness=0.5, max_s=DEFECT_S),
    )
    yield reject(
        "wrong_audio.mp4",
        Reason.OFF_SYNC,
        "the lips say something else than is heard",
        _with_sound("guest_1", third, _other_words(fifth), OFF_SYNC_S),
    )
    yield reject(
        "late_audio.mp4",
        Reason.OFF_SYNC,
        "the sound is late by more than may be corrected",
        _late("guest_4", [third], LATE_S, max_s=OFF_SYNC_S),
        sound_late_s=LATE_S,
    )
    yield reject(
        "no_audio.mp4",
        Reason.NO_AUDIO,
        "a video stream only",
        _with_sound("astronaut", third, lambda scene, rng: None),
    )
    yield reject(
        "silence.mp4",
        Reason.SILENT,
        "a sound stream with next to nothing in it",
        _with_sound("guest_6", third, lambda scene, rng: _hum(scene.n_samples, rng)),
    )
    yield reject(
        "music.mp4",
        Reason.NO_SPEECH,
        "a tune with drums, and no voice",
        _with_sound("guest_3", first, lambda scene, rng: music.play(scene.n_samples / RATE, RATE, rng)),
    )
    yield reject(
        "quick_cuts.mp4",
        Reason.SCENE_CUT,
        "a cut every 1.2 s: no shot is long enough",
        _cuts(
            ["guest_1", "guest_4", "astronaut", "guest_3", "guest_6"],
            [first, second, third, fourth, fifth],
            1.2,
        ),
        n_shots=5,
    )
    yield reject(
        "tiny_face.mp4",
        Reason.FACE_TOO_SMALL,
        "a person far away",
        _far_away(_talk("astronaut_far", [second], HIGH, max_s=DEFECT_S)),
    )
    yield reject(
        "dark.mp4",
        Reason.DARK,
        "hardly any light",
        _altered(_talk("guest_4", [first], max_s=DEFECT_S), lambda frame: (frame * 0.04).astype(np.uint8)),
    )
    yield reject(
        "still.mp4", Reason.LOW_MOTION, "a photograph with a voice over it", _still("guest_1", [second])
    )


def _derived() -> Iterator[Recipe]:
    def derived(name: str, reason: Reason, description: str, derive: Derive, **facts: Any) -> Recipe:
        return Recipe(DemoSource(name, "reject", reason, description, **facts), derive=derive)

    yield derived(
        "reencoded.mkv",
        Reason.DUPLICATE,
        "astronaut.mp4, smaller and coarser",
        lambda folder, path: transcode(folder / "astronaut.mp4", path, RATE, max_px=288),
        speaker="astronaut",
    )
    yield derived(
        "truncated.mp4",
        Reason.CORRUPT,
        "the first half of a file's bytes",
        lambda folder, path: _halve(folder / "astronaut.mp4", path),
    )
    yield derived(
        "text.mp4",
        Reason.CORRUPT,
        "a text file by another name",
        lambda folder, path: _write_text(path),
    )


def _talk(
    portrait: str,
    excerpts: list[Excerpt],
    voice: Fraction = Fraction(1),
    *,
    encoding: dict[str, Any] | None = None,
    **how: Any,
) -> MakeScene:
    """One person, one shot; `how` goes to `perform`."""

    def make(rng: np.random.Generator) -> Scene:
        shot = perform(portrait, say(excerpts, voice), rng, **how)
        scene = Scene([shot], None, encoding=encoding or {})
        scene.sound = shot.utterance.sound[: scene.n_samples]
        return scene

    return make


def _upright(excerpts: list[Excerpt]) -> MakeScene:
    """As phones store it: the picture lies on its side, and the file says how to turn it."""
    lying = _talk("guest_3_tall", excerpts, LOW, encoding={"rotation_deg": 90})
    return _altered(lying, lambda frame: np.ascontiguousarray(np.rot90(frame, -1)))


def _altered(make: MakeScene, alter: Callable[[np.ndarray], np.ndarray]) -> MakeScene:
    def altered(rng: np.random.Generator) -> Scene:
        scene = make(rng)
        scene.alter = alter
        return scene

    return altered


def _late(portrait: str, excerpts: list[Excerpt], late_s: float, **how: Any) -> MakeScene:
    def make(rng: np.random.Generator) -> Scene:
        scene = _talk(portrait, excerpts, LOW, **how)(rng)
        delay = np.zeros(round(late_s * RATE), np.int16)
        scene.sound = np.concatenate([delay, scene.shots[0].utterance.sound])[: scene.n_samples]
        return scene

    return make


def _with_sound(
    portrait: str,
    said: Excerpt,
    sound: Callable[[Scene, np.random.Generator], np.ndarray | None],
    max_s: float = DEFECT_S,
) -> MakeScene:
    """Somebody who says `said` while something else is heard."""

    def make(rng: np.random.Generator) -> Scene:
        scene = _talk(portrait, [said], max_s=max_s)(rng)
        scene.sound = sound(scene, rng)
        return scene

    return make


def _cuts(portraits: list[str], said: list[Excerpt], shot_s: float) -> MakeScene:
    def make(rng: np.random.Generator) -> Scene:
        shots = [
            perform(portrait, say([excerpt]), rng, max_s=shot_s)
            for portrait, excerpt in zip(portraits, said, strict=True)
        ]
        sound = [shot.utterance.sound[: round(len(shot.poses) * RATE / shot.fps)] for shot in shots]
        return Scene(shots, np.concatenate(sound))

    return make


def _still(portrait: str, excerpts: list[Excerpt]) -> MakeScene:
    def make(rng: np.random.Generator) -> Scene:
        scene = _talk(portrait, excerpts, HIGH, max_s=DEFECT_S)(rng)
        shot = scene.shots[0]
        shot.poses = [Pose()] * len(shot.poses)
        return scene

    return make


def _far_away(make: MakeScene) -> MakeScene:
    """The person before a wide bare wall, with the grain of a camera in poor light."""

    def far(rng: np.random.Generator) -> Scene:
        scene = make(rng)
        scene.alter = lambda frame: _grainy(_before_a_wall(frame), rng)
        return scene

    return far


def _before_a_wall(frame: np.ndarray) -> np.ndarray:
    """(3 H, 3 W, 3) float, the frame (H, W, 3) low in the middle."""
    height, width = frame.shape[:2]
    across = np.minimum(np.arange(width), np.arange(width)[::-1])
    down = np.arange(height)[:, None]
    solid = np.clip(np.minimum(across, down) / 16, 0, 1)[:, :, None]  # the photograph's edges fade away
    wall = np.full((3 * height, 3 * width, 3), frame[:8].mean((0, 1)))
    wall *= np.linspace(1.0, 0.8, 3 * height)[:, None, None]
    place = wall[2 * height :, width : 2 * width]
    place[:] = solid * frame + (1 - solid) * place
    return wall


def _grainy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grain = rng.normal(0, 3, picture.shape[:2])[:, :, None]
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def _other_words(excerpt: Excerpt) -> Callable[[Scene, np.random.Generator], np.ndarray]:
    return lambda scene, rng: say([excerpt], HIGH).sound[: scene.n_samples]


def _hum(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    return np.round(rng.normal(0, 3, n_samples)).astype(np.int16)  # about -80 dBFS


def _halve(whole: Path, path: Path) -> None:
    content = whole.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _write_text(path: Path) -> None:
    path.write_text("This is a text file. It only has the name of a video.\n" * 20, encoding="utf-8")
