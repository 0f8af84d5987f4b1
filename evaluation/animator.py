"""A checkpoint -> an image file and a sound file become a video file.

    checkpoint -> networks, autoencoder, speech encoder, the face models that its identities are of
      image -> portrait (picture.py)        sound -> 16 kHz -> features, a row a frame
        -> windows of frames (generate.py), of them the picture's own part -> H.264, with the sound as AAC

Windows are written as they are made (parts.py), the video is there when it is whole. Its container says that
it is generated, by which weights, from which files; with credentials it is signed (provenance.py).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch

from data_pipeline import config_file
from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.config import FacesConfig
from data_pipeline.config_file import ConfigError, Section
from data_pipeline.media import MediaError, read_audio
from data_pipeline.models.face_models import FaceModels, face_models
from data_pipeline.weights import WeightsUnavailable
from evaluation.parts import Parts
from evaluation.picture import PictureError, Shown, read_picture, show
from evaluation.provenance import Credentials, CredentialsError
from evaluation.setup import Setup
from training.config import ConditionsConfig, EncodersConfig
from training.encoders import FITTED, EncodersError, SpeechEncoder, load_text
from training.export import EXPORT
from training.features import FPS
from training.frame_size import for_frames
from training.generate import Generator, Sampling
from training.model.config import ModelConfig
from training.model.sizes import config_of
from training.model.text import TextEncoder
from training.model.weight_files import open_checkpoint
from training.model.weights_map import WeightsError
from training.windows_of_speech import OVERLAP_FRAMES

SOUND_RATE = 48_000
"""Of the sound in the video."""
A_MOMENT_S = 0.1
FACE_BACKENDS: dict[int, Literal["embedded", "insightface"]] = {128: "embedded", 512: "insightface"}
"""By the size of their embeddings."""
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin")


class AnimateError(ValueError):
    """Something that was given cannot be used; the message names it."""


WRONG_INPUTS = (
    *(AnimateError, ConfigError, CredentialsError, EncodersError, MediaError, PictureError),
    *(WeightsError, WeightsUnavailable),
)
"""What says in words that something that was given cannot be used."""


class Model(Section):
    """What a checkpoint was trained with, beside its weights."""

    encoders: EncodersConfig = EncodersConfig()
    conditions: ConditionsConfig = ConditionsConfig()


@dataclass(frozen=True)
class Take:
    """One video to be made."""

    image: Path
    audio: Path
    """Or a video with sound."""
    output: Path
    """An .mp4."""
    prompt: str = ""
    seed: int = 0
    seconds: float | None = None
    """The video is no longer, the rest of the sound is not heard; None: as long as the sound."""


def check(take: Take) -> None:
    """Whether its files can be used, as far as that is known without a model, which takes minutes to load.

    Raises AnimateError, PictureError, MediaError, by the name of what is wrong."""
    if take.output.suffix != ".mp4":
        raise AnimateError(f"{take.output}: the video is an MP4; name it {take.output.stem}.mp4")
    if take.seconds is not None and not take.seconds >= 1 / FPS:
        raise AnimateError(f"seconds: expected at least one frame, {1 / FPS} s, got {take.seconds}")
    read_picture(take.image)
    read_audio(take.audio, 0, A_MOMENT_S)


@dataclass(frozen=True)
class Made:
    """What came of a take."""

    frames: int
    warnings: tuple[str, ...]
    skipped_steps: int = 0
    """With `Sampling.skip_steps`, of the windows that were made now."""


Told = Callable[[int, int], None]
"""Is told how many frames there are, and how many there will be."""


class Animator:
    """Makes videos with one model; one at a time."""

    def __init__(
        self,
        generator: Generator,
        speech: SpeechEncoder,
        text: Callable[[], TextEncoder] | None,
        faces: FaceModels,
        about: dict[str, Any],
        fps: int = FPS,
        credentials: Credentials | None = None,
    ) -> None:
        self.generator = generator
        self.frames: Callable[..., Iterator[np.ndarray]] = generator.frames
        """What makes a video's windows; workers that share one put together.py's in its place."""
        self._speech = speech
        self._load_text = text
        self._faces = faces
        self._about = about
        self.fps = fps
        """Of the videos."""
        self.credentials = credentials

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        sampling: Sampling | None = None,
        encoders: Sequence[str] = (),
        device: str = "cpu",
        setup: Setup | None = None,
        credentials: Credentials | None = None,
    ) -> Self:
        """A model and the frozen ones around it.

        Args:
            checkpoint: RUN, RUN/export, or weights of Hallo3's form (weight_files.py).
            encoders: KEY=VALUE in place of what the checkpoint's config.json says (`EncodersConfig`).
            setup: size and rate of the frames, and what makes the model fit a small GPU.
            credentials: with which videos are signed; None: they are not.

        Raises:
            AnimateError: there is no checkpoint, or one that hears nothing or makes no frames of this size.
            ConfigError, WeightsError, EncodersError, WeightsUnavailable: in words.
        """
        folder = weights_of(checkpoint)
        given, sampling, setup = model_of(folder, encoders), sampling or Sampling(), setup or Setup()
        opened = open_checkpoint(folder)
        sizes = config_of(opened)
        if sizes.audio is None:
            raise AnimateError(f"{checkpoint}: has no audio part (phase identity); give one of phase audio")
        try:
            sizes = for_frames(sizes, setup.size)
        except ValueError as error:
            raise AnimateError(f"{checkpoint}: {error}") from None
        speech = setup.speech(given.encoders, sizes, device)
        autoencoder = setup.autoencoder(given.encoders, sizes, device)
        model = setup.networks(opened, sizes, device)
        generator = Generator(model, autoencoder, sampling, given.conditions, setup.size)
        about = {
            "checkpoint": digest_of_files(folder),
            "autoencoder": generator.autoencoder.digest,
            "speech": speech.digest,
            **vars(sampling),
            **setup.about(sizes),
        }

        text = None if given.encoders.text == "none" else partial(load_text, given.encoders, sizes, device)
        return cls(generator, speech, text, _faces_of(sizes), about, setup.fps, credentials)

    @property
    def reads_prompts(self) -> bool:
        """Whether the model was trained with a text encoder."""
        return self._load_text is not None

    def sampled(self, sampling: Sampling) -> "Animator":
        """The same networks, sampled in another way."""
        other = copy(self)
        other.generator = self.generator.sampled(sampling)
        other.frames = other.generator.frames
        other._about = self._about | vars(sampling)
        return other

    def animate(self, take: Take, told: Told = lambda made, of: None) -> Made:
        """Make one video, as long as its sound to within a frame.

        Raises:
            AnimateError, PictureError, MediaError: what is wrong with the take, by its name.
            BeingMade: another process makes this video.
            CredentialsError: it cannot be signed.
            OSError: the video cannot be written. What was there before is as it was, and windows that were
                made are kept (parts.py): the same take goes on.
        """
        check(take)
        shown = self._shown(take.image)
        speech = self._heard(take)
        sound = _sound(take, SOUND_RATE)
        text = self._embedded(take.prompt)
        about = self._told_of(take)
        with Parts(take.output, about, self.fps) as parts:
            begun = parts.begun
            windows = self.frames(shown.portrait, speech, text=text, seed=take.seed, begun=begun)
            made = begun.windows * self.generator.new_frames if begun else 0
            made = min(made, len(speech))
            told(made, len(speech))
            skipped = self.generator.skipped_steps
            for window in windows:
                parts.add(shown.of(window), window[-OVERLAP_FRAMES:])
                made += len(window)
                told(made, len(speech))
            metadata = {"title": "generated video", "comment": json.dumps(about)}
            n_frames = parts.finish(sound, SOUND_RATE, metadata, self._signing(take, about))
        skipped = self.generator.skipped_steps - skipped
        return Made(n_frames, tuple(_warnings(take, shown)), skipped)

    def has_made(self, take: Take) -> bool:
        """Whether the take's video is there already: whole, and made of the same by the same.

        Raises OSError for a file of the take that cannot be read."""
        about = json.loads(json.dumps(self._told_of(take)))
        return take.output.is_file() and _comment(take.output) == about

    def _shown(self, image: Path) -> Shown:
        framing = self.generator.framing
        try:
            return show(read_picture(image), framing.height, framing.width, self._faces)
        except PictureError as error:
            words = str(error)
            raise PictureError(words if words.startswith(str(image)) else f"{image}: {words}") from None

    def _signing(self, take: Take, about: dict[str, Any]) -> Callable[[Path, Path], None] | None:
        """How a finished video is signed."""
        credentials, inputs = self.credentials, {"image": take.image, "audio": take.audio}
        if credentials is None:
            return None
        return lambda video, signed: credentials.sign(video, signed, take.output.name, about, inputs)

    def _heard(self, take: Take) -> torch.Tensor:
        sound = _sound(take, ANALYSIS_RATE).astype(np.float32)
        sound /= 32768
        try:
            return torch.from_numpy(self._speech.encode(sound, self.fps))
        except ValueError as error:
            raise AnimateError(f"{take.audio}: {error}") from None

    def _embedded(self, prompt: str) -> torch.Tensor | None:
        """(L, text_dim); the text encoder, T5 of 9.5 GB, is loaded for a prompt alone."""
        if not prompt:
            return None
        if self._load_text is None:
            raise AnimateError("prompt: the model was trained without a text encoder; give none")
        return self._load_text().encode([prompt])[0].float().cpu()

    def _told_of(self, take: Take) -> dict[str, Any]:
        """Where a video comes from."""
        files = {"image": digest_of_files(take.image), "audio": digest_of_files(take.audio)}
        return {
            "generated": True,
            "by": f"hallo3 {version('hallo3')}",
            **self._about,
            **files,
            "prompt": take.prompt,
            "seed": take.seed,
            "seconds": take.seconds,
        }


def weights_of(checkpoint: Path) -> Path:
    """Where a checkpoint's weights lie: a run's in its export. Raises AnimateError."""
    if (checkpoint / EXPORT).is_dir():
        return checkpoint / EXPORT
    if not checkpoint.exists():
        raise AnimateError(f"{checkpoint}: no such checkpoint; give a run, its export, or weights")
    return checkpoint


def model_of(checkpoint: Path, encoders: Sequence[str]) -> Model:
    """What an export's config.json says of the models around the networks, with KEY=VALUE on top.

    Raises ConfigError."""
    values: dict[str, Any] = {}
    if (checkpoint / "config.json").is_file():
        described = json.loads((checkpoint / "config.json").read_text("utf-8"))
        trained = described.get("training", {}).get("config", {})
        values = {key: trained[key] for key in ("encoders", "conditions") if key in trained}
    if (checkpoint / FITTED).is_dir():
        values.setdefault("encoders", {})["autoencoder"] = str(checkpoint / FITTED)
    overrides = [f"encoders.{each}" for each in encoders]
    return config_file.checked(Model, values, overrides, str(checkpoint))


def digest_of_files(path: Path) -> str:
    """sha256 of a file; of a folder's weights that of `sha256sum`'s lines about them, sorted by name."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.suffix in WEIGHT_FILES)
    lines = [f"{digest_of_files(file)}  {file.relative_to(path)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _faces_of(sizes: ModelConfig) -> FaceModels:
    """The face models whose embeddings the model was trained on."""
    size = sizes.face.embedding_dim
    if size not in FACE_BACKENDS:
        known = ", ".join(f"{each} ({name})" for each, name in FACE_BACKENDS.items())
        raise AnimateError(f"the model's identities have {size} numbers; known are {known}")
    return face_models(FacesConfig(backend=FACE_BACKENDS[size]))


def _sound(take: Take, rate: int) -> np.ndarray:
    """(S,) int16, mono: as much as the video lasts. Raises AnimateError, MediaError."""
    try:
        sound = read_audio(take.audio, rate=rate)
    except FileNotFoundError:
        raise AnimateError(f"{take.audio}: no such file") from None
    if not len(sound):
        raise AnimateError(f"{take.audio}: there is no sound in it")
    return sound if take.seconds is None else sound[: round(take.seconds * rate)]


def _warnings(take: Take, shown: Shown) -> Iterator[str]:
    if shown.other_faces:
        yield f"{take.image}: {shown.other_faces + 1} faces; the largest one speaks"


def _comment(video: Path) -> Any:
    """The JSON that a video's container has as its comment; None where there is none."""
    import av

    try:
        with av.open(str(video)) as file:
            return json.loads(file.metadata.get("comment", "null"))
    except (av.FFmpegError, ValueError):
        return None
