"""A checkpoint -> an image file and a sound file become a video file.

    checkpoint -> networks, autoencoder, speech encoder, the face models that its identities are of
      image -> portrait (picture.py)        sound -> 16 kHz -> features, a row a frame
        -> windows of frames (generate.py), of them the picture's own part -> H.264, with the sound as AAC

Windows are written as they are made (parts.py), the video is there when it is whole. Its container says that
it is generated, by which weights, from which files.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch

from data_pipeline import config_file
from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.config import FacesConfig
from data_pipeline.config_file import Section
from data_pipeline.media import read_audio
from data_pipeline.models.face_models import FaceModels, face_models
from evaluation.parts import Parts
from evaluation.picture import PictureError, Shown, read_picture, show
from training.config import ConditionsConfig, EncodersConfig
from training.encoders import FITTED, SpeechEncoder, load_autoencoder, load_speech, load_text
from training.export import EXPORT
from training.features import FPS
from training.generate import Generator, Sampling
from training.model.config import ModelConfig
from training.model.loading import load_model
from training.model.text import NoText, TextEncoder
from training.windows_of_speech import OVERLAP_FRAMES

SOUND_RATE = 48_000
"""Of the sound in the video."""
A_MOMENT_S = 0.1
FACE_BACKENDS: dict[int, Literal["embedded", "insightface"]] = {128: "embedded", 512: "insightface"}
"""By the size of their embeddings."""
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin")


class AnimateError(ValueError):
    """Something that was given cannot be used; the message names it."""


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


def check(take: Take) -> None:
    """Whether its files can be used, as far as that is known without a model, which takes minutes to load.

    Raises AnimateError, PictureError, MediaError, by the name of what is wrong."""
    if take.output.suffix != ".mp4":
        raise AnimateError(f"{take.output}: the video is an MP4; name it {take.output.stem}.mp4")
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
        text: Callable[[], TextEncoder],
        faces: FaceModels,
        about: dict[str, Any],
    ) -> None:
        self.generator = generator
        self._speech = speech
        self._load_text = text
        self._faces = faces
        self._about = about

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        sampling: Sampling | None = None,
        encoders: Sequence[str] = (),
        device: str = "cpu",
    ) -> Self:
        """A model and the frozen ones around it.

        Args:
            checkpoint: RUN, RUN/export, or weights of Hallo3's form (weight_files.py).
            encoders: KEY=VALUE in place of what the checkpoint's config.json says (`EncodersConfig`).

        Raises:
            AnimateError: there is no checkpoint, or one that hears nothing.
            ConfigError, WeightsError, EncodersError, WeightsUnavailable: in words.
        """
        folder = checkpoint / EXPORT if (checkpoint / EXPORT).is_dir() else checkpoint
        if not folder.exists():
            raise AnimateError(f"{checkpoint}: no such checkpoint; give a run, its export, or weights")
        given, sampling = model_of(folder, encoders), sampling or Sampling()
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model, _ = load_model(folder, dtype, device)
        sizes = model.config
        if sizes.audio is None:
            raise AnimateError(f"{checkpoint}: has no audio part (phase identity); give one of phase audio")
        autoencoder = load_autoencoder(given.encoders, sizes, device)
        generator = Generator(model.eval(), autoencoder, sampling, given.conditions)
        speech = load_speech(given.encoders, sizes, device)
        about = {
            "checkpoint": digest_of_files(folder),
            "autoencoder": generator.autoencoder.digest,
            "speech": speech.digest,
            **vars(sampling),
        }

        def text() -> TextEncoder:
            return load_text(given.encoders, sizes, device)

        return cls(generator, speech, text, _faces_of(sizes), about)

    def animate(self, take: Take, told: Told = lambda made, of: None) -> Made:
        """Make one video, as long as its sound to within a frame.

        Raises:
            AnimateError, PictureError, MediaError: what is wrong with the take, by its name.
            BeingMade: another process makes this video.
            OSError: the video cannot be written. What was there before is as it was, and windows that were
                made are kept (parts.py): the same take goes on.
        """
        check(take)
        shown = self._shown(take.image)
        speech = self._heard(take.audio)
        sound = _sound(take.audio, SOUND_RATE)
        text = self._embedded(take.prompt)
        about = self._told_of(take)
        with Parts(take.output, about, FPS) as parts:
            begun = parts.begun
            windows = self.generator.frames(shown.portrait, speech, text=text, seed=take.seed, begun=begun)
            made = begun.windows * self.generator.new_frames if begun else 0
            made = min(made, len(speech))
            told(made, len(speech))
            skipped = self.generator.skipped_steps
            for window in windows:
                parts.add(shown.of(window), window[-OVERLAP_FRAMES:])
                made += len(window)
                told(made, len(speech))
            metadata = {"title": "generated video", "comment": json.dumps(about)}
            n_frames = parts.finish(sound, SOUND_RATE, metadata)
        skipped = self.generator.skipped_steps - skipped
        return Made(n_frames, tuple(_warnings(take, shown)), skipped)

    def _shown(self, image: Path) -> Shown:
        framing = self.generator.framing
        try:
            return show(read_picture(image), framing.height, framing.width, self._faces)
        except PictureError as error:
            words = str(error)
            raise PictureError(words if words.startswith(str(image)) else f"{image}: {words}") from None

    def _heard(self, audio: Path) -> torch.Tensor:
        sound = _sound(audio, ANALYSIS_RATE).astype(np.float32)
        sound /= 32768
        try:
            return torch.from_numpy(self._speech.encode(sound))
        except ValueError as error:
            raise AnimateError(f"{audio}: {error}") from None

    def _embedded(self, prompt: str) -> torch.Tensor | None:
        """(L, text_dim); the text encoder, T5 of 9.5 GB, is loaded for a prompt alone."""
        if not prompt:
            return None
        encoder = self._load_text()
        if isinstance(encoder, NoText):
            raise AnimateError("prompt: the model was trained without a text encoder; give none")
        return encoder.encode([prompt])[0].float().cpu()

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
        }


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


def _sound(audio: Path, rate: int) -> np.ndarray:
    """(S,) int16, mono. Raises AnimateError, MediaError."""
    try:
        sound = read_audio(audio, rate=rate)
    except FileNotFoundError:
        raise AnimateError(f"{audio}: no such file") from None
    if not len(sound):
        raise AnimateError(f"{audio}: there is no sound in it")
    return sound


def _warnings(take: Take, shown: Shown) -> Iterator[str]:
    if shown.other_faces:
        yield f"{take.image}: {shown.other_faces + 1} faces; the largest one speaks"
