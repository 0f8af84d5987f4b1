"""What is computed of a clip before training, one class a kind: its key's array from its media.

    text        .txt        -> (L, text_dim)             a clip
    speech      .flac       -> (F, layers, channels)     a clip, one row a video frame
    latents     .mp4        -> (T, C, h, w)              a window, at starts `window_stride` apart
    conditions  .mp4, .npz  -> (K, 2, 1, C, h, w)        a window: K draws of a reference frame; the image
                                                         condition with it, and its face on black

A causal autoencoder's latents cannot be cut at any frame, so latents are stored by windows. What is drawn
(a latent of its posterior, a reference frame, noise) follows from clip, window and variant alone.
How they lie in a dataset is in data_pipeline/feature_shards.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

import numpy as np
import torch

from data_pipeline.feature_shards import FeatureMissing, FeatureSet, StoredFeatures, open_features, window_key
from training.clip_pixels import ClipFrames, Framing, sound_of
from training.conditions import face_on_black, image_condition, reference_frames
from training.config import ConditionsConfig, TrainConfig
from training.diffusion.noise import seed_of
from training.encoders import Encoders, SpeechEncoder, load_autoencoder, load_speech, load_text
from training.model.autoencoder import SPATIAL_STRIDE, Autoencoder
from training.model.digest import digest_of
from training.model.text import TextEncoder

__all__ = [
    "KINDS",
    "ClipMedia",
    "Conditions",
    "FeatureMissing",
    "Latents",
    "Maker",
    "Speech",
    "StoredFeatures",
    "Text",
    "load_maker",
    "makers",
    "open_features",
    "window_key",
]

KINDS = ("text", "speech", "latents", "conditions")
FPS = 25
"""Of the clips that models are trained on: speech features are one row a frame of it."""
PIXELS_VERSION = 1
"""Raised when clip_pixels gives other numbers for the same clip: stored latents are then made again."""


@dataclass(frozen=True)
class ClipMedia:
    """One clip as its shard has it."""

    clip_id: str
    n_frames: int
    members: Mapping[str, bytes]
    """By suffix: `.mp4 .flac .npz .json .txt`."""


class Maker(Protocol):
    """Makes one kind of features."""

    @property
    def features(self) -> FeatureSet: ...

    def arrays(self, clip: ClipMedia) -> Iterator[np.ndarray]:
        """Finite floats, one for each of `features.keys(clip)`. Raises whatever is wrong with the clip."""
        ...


def makers(config: TrainConfig, encoders: Encoders) -> dict[str, Maker]:
    """Of every kind that the model sees, with these encoders; `speech` only where it hears anything."""
    found: dict[str, Maker] = {"text": Text(encoders.text)}
    if encoders.speech is not None:
        found["speech"] = Speech(encoders.speech)
    for kind in ("latents", "conditions"):
        found[kind] = _of_windows(kind, config, encoders.autoencoder)
    return found


def load_maker(kind: str, config: TrainConfig, device: str = "cpu") -> Maker:
    """Of one kind, with no more loaded than it needs. Raises EncodersError."""
    if kind == "text":
        return Text(load_text(config.encoders, config.sizes, device))
    if kind == "speech":
        return Speech(load_speech(config.encoders, config.sizes, device))
    return _of_windows(kind, config, load_autoencoder(config.encoders, config.sizes, device))


def _of_windows(kind: str, config: TrainConfig, autoencoder: Autoencoder) -> Maker:
    sizes = config.sizes
    framing = Framing(SPATIAL_STRIDE * sizes.latent_height, SPATIAL_STRIDE * sizes.latent_width)
    windows = sizes.num_frames, config.samples.window_stride
    if kind == "latents":
        return Latents(autoencoder, framing, *windows)
    return Conditions(autoencoder, framing, *windows, config.conditions)


class Text:
    """The caption's embedding."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self.features = FeatureSet("text", encoder.digest)
        self._last: tuple[str, np.ndarray] | None = None

    def arrays(self, clip: ClipMedia) -> Iterator[np.ndarray]:
        caption = clip.members[".txt"].decode()
        if self._last is None or self._last[0] != caption:  # many clips in a row have the same one
            self._last = caption, self.encoder.encode([caption])[0].float().cpu().numpy()
        yield self._last[1]


class Speech:
    """What is heard in each of the clip's frames."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        self.encoder = encoder
        self.features = FeatureSet("speech", encoder.digest)

    def arrays(self, clip: ClipMedia) -> Iterator[np.ndarray]:
        heard = self.encoder.encode(sound_of(clip.members[".flac"]))
        if len(heard) != clip.n_frames:
            raise ValueError(f"its sound lasts {len(heard)} frames, its video {clip.n_frames}")
        yield heard


class Latents:
    """Each window's latents; `frames` video frames a window, one every `stride` frames."""

    def __init__(self, autoencoder: Autoencoder, framing: Framing, frames: int, stride: int) -> None:
        self.autoencoder = autoencoder
        self.framing = framing
        digest = _digest(autoencoder, framing, frames, stride)
        self.features = FeatureSet("latents", digest, window_frames=frames, window_stride=stride)

    def arrays(self, clip: ClipMedia) -> Iterator[np.ndarray]:
        video = _video(clip, self.framing)
        for start in self.features.starts(clip.n_frames):
            pixels = video.at(range(start, start + int(self.features.window_frames or 0)))
            draw = torch.Generator().manual_seed(latent_seed(clip.clip_id, start))
            yield self.autoencoder.encode(pixels[None], draw)[0].cpu().numpy()


class Conditions:
    """`config.stored_variants` draws (else 1) of what is shown beside each window; see the module."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        framing: Framing,
        frames: int,
        stride: int,
        config: ConditionsConfig,
    ) -> None:
        self.autoencoder = autoencoder
        self.framing = framing
        self.config = config
        variants = config.stored_variants or 1
        noise = {"log_mean": config.motion_noise_log_mean, "log_std": config.motion_noise_log_std}
        noise |= {"masked": config.masked_pixels, "variants": variants}
        if config.reference_within is not None:
            noise["reference_within"] = config.reference_within
        digest = _digest(autoencoder, framing, frames, stride, **noise)
        self.features = FeatureSet("conditions", digest, frames, stride, variants)

    def arrays(self, clip: ClipMedia) -> Iterator[np.ndarray]:
        video = _video(clip, self.framing)
        with np.load(BytesIO(clip.members[".npz"]), allow_pickle=False) as arrays:
            boxes = arrays["boxes"]
        seen = np.flatnonzero(np.isfinite(boxes).all(axis=1))
        if not len(seen):
            raise ValueError("no frame of it has a face's box")
        for start in self.features.starts(clip.n_frames):
            variants = range(int(self.features.variants or 1))
            yield np.stack([self._variant(clip, video, boxes, seen, start, variant) for variant in variants])

    def _variant(
        self,
        clip: ClipMedia,
        video: ClipFrames,
        boxes: np.ndarray,
        seen: np.ndarray,
        start: int,
        variant: int,
    ) -> np.ndarray:
        """(2, 1, C, h, w): the image condition's latent, the reference's."""
        seed = seed_of("condition", int(clip.clip_id, 16), start, variant)
        draw = torch.Generator().manual_seed(seed)
        near = reference_frames(seen, start, self.config.reference_within)
        frame = int(near[int(torch.randint(len(near), (), generator=draw))])
        pixels = video.at([frame, start, start + 1])
        reference, motion = pixels[:, 0], pixels[:, 1:]
        shown = image_condition(reference, motion, self.config, seed, training=True)
        box = self.framing.box(tuple(boxes[frame].tolist()), *video.size)
        face = face_on_black(reference, box)[:, None]
        both = [self.autoencoder.encode(each[None], draw)[0] for each in (shown, face)]
        return torch.stack(both).cpu().numpy()


def latent_seed(clip_id: str, start: int) -> int:
    """Of the draw from a window's posterior, where the autoencoder draws."""
    return seed_of("latents", int(clip_id, 16), start)


def _digest(autoencoder: Autoencoder, framing: Framing, frames: int, stride: int, **more: object) -> str:
    size = {"height": framing.height, "width": framing.width, "frames": frames, "stride": stride}
    return digest_of({}, autoencoder=autoencoder.digest, pixels=PIXELS_VERSION, **size, **more)


def _video(clip: ClipMedia, framing: Framing) -> ClipFrames:
    video = ClipFrames(clip.members[".mp4"], framing)
    if len(video) != clip.n_frames:
        raise ValueError(f"its video has {len(video)} frames, the manifest says {clip.n_frames}")
    return video
