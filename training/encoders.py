"""The frozen models that turn pixels, words and sound into what the networks see, by what a run names.

    encoders.autoencoder  a folder: a fitted patch_pca codec, or CogVideoX's `vae`   -> .autoencoder
    encoders.text         T5, or none: zeros of the model's size                     -> .text
    encoders.speech       log_mel, whisper, wav2vec2; none in phase identity         -> .speech

Each says its `digest`: of its weights and of all else that changes its numbers. Stored features are kept by
it. What does not fit the model's sizes is refused here, before anything is computed.
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from data_pipeline import weights
from data_pipeline.dataset import Dataset
from data_pipeline.models import speech_features, wav2vec2, whisper
from training.config import EncodersConfig, TrainConfig
from training.fit_autoencoder import fit_autoencoder
from training.model.autoencoder import SPATIAL_STRIDE, Autoencoder, CogVideoXAutoencoder
from training.model.config import ModelConfig
from training.model.digest import digest_of
from training.model.patch_pca import PatchPcaAutoencoder
from training.model.pretrained import PretrainedError
from training.model.text import NoText, T5TextEncoder, TextEncoder

MEL_BANDS = 80
WHISPER_CHANNELS = 384
FITTED = "autoencoder"
"""Where in a run's folder lies the autoencoder that was fitted for it."""


class EncodersError(RuntimeError):
    """An encoder that is not there or does not fit the model; the message names the key and the way out."""


class SpeechEncoder(Protocol):
    """Hears a sound as one row of features a video frame."""

    @property
    def layers(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def digest(self) -> str:
        """Equal for two encoders exactly when their weights and settings are."""
        ...

    def encode(self, wav: np.ndarray, fps: float = 25) -> np.ndarray:
        """(S,) float32 of -1..1, mono at 16 kHz, a whole clip -> (F, layers, channels) float32.

        F is the frames that the sound lasts at `fps`, the last may be begun only. Levels are those of the
        whole sound, so a part of it must be cut out of the features, not encoded by itself.

        Raises:
            ValueError: it has another shape, is too short, or holds more than numbers.
        """
        ...


@dataclass(frozen=True)
class Encoders:
    """What a run looks at pixels, words and sound through."""

    autoencoder: Autoencoder
    text: TextEncoder
    speech: SpeechEncoder | None
    """None where the model has no audio part."""
    lock: Lock = field(default_factory=Lock, repr=False, compare=False)
    """Held by threads that compute with them: two at a time take twice the memory and no less time."""


def load_encoders(config: EncodersConfig, sizes: ModelConfig, device: str = "cpu") -> Encoders:
    """All of them. Raises EncodersError for the first that is not there or does not fit `sizes`."""
    return Encoders(
        load_autoencoder(config, sizes, device),
        load_text(config, sizes, device),
        None if sizes.audio is None else load_speech(config, sizes, device),
    )


def load_autoencoder(
    config: EncodersConfig,
    sizes: ModelConfig,
    device: str = "cpu",
    tile_px: tuple[int, int] | None = None,
) -> Autoencoder:
    """By what lies in its folder; `tile_px` as CogVideoXAutoencoder has it, no other computes in tiles.

    Raises EncodersError."""
    key = "encoders.autoencoder"
    if not config.autoencoder:
        raise EncodersError(
            f"{key} is empty: a run fits one on its dataset before it begins (RUN/{FITTED}); elsewhere name "
            "a folder: CogVideoX's `vae`, or a fitted codec"
        )
    folder = Path(config.autoencoder).expanduser()
    try:
        found: Autoencoder
        if (folder / "codec.json").is_file():
            if tile_px is not None:
                raise EncodersError(
                    f"{key}={config.autoencoder} is a fitted codec, which takes little memory and knows no "
                    "tiles; give none (--tile)"
                )
            found = PatchPcaAutoencoder.load(folder).to(device)
        else:
            found = CogVideoXAutoencoder.load(
                config.autoencoder, device=device, tile_px=tile_px, slicing=True
            )
    except (PretrainedError, OSError, ValueError) as error:
        raise EncodersError(f"{key}: {error}") from error
    if found.latent_channels != sizes.out_channels:
        raise EncodersError(
            f"{key}={config.autoencoder} makes latents of {found.latent_channels} channels, the model has "
            f"out_channels={sizes.out_channels}; name another autoencoder or change model.out_channels"
        )
    return found


def load_text(config: EncodersConfig, sizes: ModelConfig, device: str = "cpu") -> TextEncoder:
    """T5, or zeros. Raises EncodersError."""
    if config.text == "none":
        return NoText(sizes.text_length, sizes.text_dim)
    try:
        found = T5TextEncoder.load(config.text, text_length=sizes.text_length, device=device)
    except PretrainedError as error:
        raise EncodersError(f"encoders.text: {error}") from error
    if found.text_dim != sizes.text_dim:
        raise EncodersError(
            f"encoders.text={config.text} makes embeddings of {found.text_dim}, the model has "
            f"text_dim={sizes.text_dim}; name another encoder or change model.text_dim"
        )
    return found


def load_speech(config: EncodersConfig, sizes: ModelConfig, device: str = "cpu") -> SpeechEncoder:
    """Of a model that has an audio part. Raises EncodersError."""
    if sizes.audio is None:
        raise EncodersError("encoders.speech: the model has no audio part (phase identity hears nothing)")
    found = _speech(config, device)
    makes, wants = (found.layers, found.channels), (sizes.audio.layers, sizes.audio.channels)
    if makes != wants:
        raise EncodersError(
            f"encoders.speech={config.speech} makes {makes[0]} layers of {makes[1]} channels, the model has "
            f"audio.layers={wants[0]} and audio.channels={wants[1]}; name another one or change model.audio"
        )
    return found


def _speech(config: EncodersConfig, device: str) -> SpeechEncoder:
    if config.speech_weights is not None and config.speech != "wav2vec2":
        raise EncodersError(f"encoders.speech_weights are wav2vec2's; encoders.speech is {config.speech}")
    if config.speech == "log_mel":
        return LogMel()
    name = whisper.WEIGHTS if config.speech == "whisper" else wav2vec2.WEIGHTS
    try:
        if config.speech == "whisper":
            return WhisperStates(weights.fetch(name))
        return Wav2Vec2Layers(config.speech_weights or weights.fetch(name), device)
    except weights.WeightsUnavailable as error:
        raise EncodersError(f"encoders.speech={config.speech}: {error}") from error
    except (OSError, ValueError) as error:
        raise EncodersError(f"encoders.speech_weights: {error}") from error


class LogMel:
    """80 log-mel bands at four moments of each frame: nothing to download."""

    layers = speech_features.MELS_PER_FRAME
    channels = MEL_BANDS

    def __init__(self) -> None:
        rates = {"mel_rate": speech_features.MEL_RATE, "window_s": speech_features.WINDOW_S}
        self.digest = digest_of({}, speech="log_mel", layers=self.layers, channels=self.channels, **rates)

    def encode(self, wav: np.ndarray, fps: float = 25) -> np.ndarray:
        return speech_features.log_mel_features(wav, fps)


class WhisperStates:
    """The last states of Whisper tiny.en's encoder, on the CPU. `folder`: its files."""

    layers = 1
    channels = WHISPER_CHANNELS

    def __init__(self, folder: Path) -> None:
        self._model = speech_features.WhisperEncoder(folder)
        files = {file.name: file.sha256 for file in weights.registry()[whisper.WEIGHTS].files}
        windows = {"window_s": speech_features.WINDOW_S, "context_s": speech_features.CONTEXT_S}
        self.digest = digest_of({}, speech="whisper", files=files, **windows)

    def encode(self, wav: np.ndarray, fps: float = 25) -> np.ndarray:
        return speech_features.speech_features(self._model, wav, fps)


class Wav2Vec2Layers:
    """The outputs of all of wav2vec 2.0's layers, which Hallo3's published weights were trained on."""

    def __init__(self, source: str | Path, device: str = "cpu") -> None:
        self.model = wav2vec2.load(Path(source).expanduser()).to(device)  # type: ignore[arg-type]
        self.layers = int(self.model.config.num_hidden_layers)
        self.channels = int(self.model.config.hidden_size)
        about = self.model.config  # what changes the numbers and is not told by the weights' shapes
        self.digest = digest_of(
            self.model.state_dict(),
            speech="wav2vec2",
            strides=list(about.conv_stride),
            heads=about.num_attention_heads,
            stable_layer_norm=about.do_stable_layer_norm,
        )

    def encode(self, wav: np.ndarray, fps: float = 25) -> np.ndarray:
        return wav2vec2.speech_features(self.model, wav, fps)


def fit_for_run(config: TrainConfig, dataset: Dataset) -> Path:
    """The folder of the run's own autoencoder, fitted on the dataset for the model's sizes; once a run.

    Beside the codec lies `fit.json`: clips and dB, fitted and held out. The same dataset gives the same one.

    Raises:
        EncodersError: the dataset keeps too few clips, or what is there has other channels.
    """
    folder = Path(config.output) / FITTED
    sizes = config.sizes
    if not folder.exists():
        size_px = SPATIAL_STRIDE * min(sizes.latent_height, sizes.latent_width)
        try:
            fit = fit_autoencoder(dataset, size_px, sizes.out_channels)
        except ValueError as error:
            raise EncodersError(
                f"encoders.autoencoder is empty, and none could be fitted on the dataset: {error}"
            ) from error
        facts = {part.name: getattr(fit, part.name) for part in fields(fit) if part.name != "autoencoder"}
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{FITTED}.", dir=folder.parent))
        try:
            fit.autoencoder.save(made)
            (made / "fit.json").write_text(json.dumps(facts, indent=2) + "\n")
            made.chmod(0o755)
            os.replace(made, folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    load_autoencoder(config.encoders.model_copy(update={"autoencoder": str(folder)}), sizes)
    return folder
