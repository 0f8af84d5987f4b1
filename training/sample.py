"""One sample: what the networks are given of one window of one clip.

    window's frames                 -> latents (T, C, h, w)
    a frame of the clip, its face   -> reference latent (1, C, h, w): the face on black
    that frame, two motion frames   -> image condition (1, C, h, w)
    sound around the window         -> audio (F, window, layers, channels)
    caption, identity, lips         -> text (L, D), face (E,), mouth (T, 1, h, w)

From stored features where the dataset has those of exactly these encoders, else from the clip's media,
through the encoders. Arrays stay as they are stored, mostly float16: what moves them to the device makes
other numbers of them. Whatever is drawn follows from (seed, step, place).
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from data_pipeline.dataset import Dataset
from data_pipeline.feature_shards import FEATURES, FeatureMissing, StoredFeatures, open_features, window_key
from data_pipeline.shards import read_members
from training.clip_pixels import ClipFrames, Framing, pixels_of, sound_of
from training.conditions import Dropped, face_on_black, image_condition, reference_frames
from training.config import TrainConfig
from training.diffusion.noise import seed_of
from training.encoders import Encoders, SpeechEncoder
from training.features import makers
from training.model.autoencoder import SPATIAL_STRIDE
from training.mouth import mouth_boxes, mouth_map
from training.precompute import default_kinds
from training.recent import Recent
from training.windows import Clip, SamplesError, Window
from training.windows_of_speech import OVERLAP_FRAMES

KEPT_BYTES = 256 << 20
"""Of clips' media, faces, speech and text that are not stored features; a worker."""


@dataclass(frozen=True)
class Draw:
    """What a sample's random numbers follow from."""

    seed: int
    step: int
    place: int
    training: bool = True
    """False: conditions are never left out, and a window begins at its first start."""

    def seed_of(self, purpose: str) -> int:
        return seed_of(purpose, self.seed, self.step, self.place)

    def below(self, purpose: str, end: int) -> int:
        """One of 0 ... end - 1."""
        return self.seed_of(purpose) % end


@dataclass(frozen=True)
class Sample:
    """See the module for the shapes; floating, on the CPU."""

    key: str
    latents: Tensor
    image_condition: Tensor
    reference_latent: Tensor
    text: Tensor
    face: Tensor
    audio: Tensor | None
    mouth: Tensor | None


@dataclass(frozen=True)
class Face:
    """What is known of a clip's face, in fractions of its pictures; NaN where it is not seen."""

    boxes: np.ndarray
    """(N, 4) x0 y0 x1 y1."""
    mouth: np.ndarray | None
    """(N, 4), where the loss asks."""
    identity: np.ndarray
    """(E,)"""

    @property
    def bytes(self) -> int:
        return self.boxes.nbytes + self.identity.nbytes + (0 if self.mouth is None else self.mouth.nbytes)

    @property
    def seen(self) -> np.ndarray:
        """The numbers of the frames that have a box."""
        return np.flatnonzero(np.isfinite(self.boxes).all(axis=1))


class UnfitFace(ValueError):
    """A face's embedding of another size than the model's: another backend made it, and all the others."""


class SampleMaker:
    """Makes samples of one dataset's windows; for several threads.

    Args:
        stored: features by kind, as `stored_features` finds them.
        recent: what the run's makers share.
        n_frames: of all clips that samples are made of. Where all their pictures fit, clips are decoded once.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        encoders: Encoders,
        stored: Mapping[str, StoredFeatures],
        recent: Recent,
        n_frames: int,
    ) -> None:
        self.config = config
        self.sizes = config.sizes
        self.dataset = dataset
        self.encoders = encoders
        self.stored = stored
        self._recent = recent
        self._framing = Framing(
            SPATIAL_STRIDE * self.sizes.latent_height, SPATIAL_STRIDE * self.sizes.latent_width
        )
        picture_bytes = 3 * self._framing.height * self._framing.width
        self._keep_pictures = n_frames * picture_bytes < recent.most_bytes

    def make(self, window: Window, draw: Draw) -> Sample:
        """One sample. Raises whatever is wrong with the clip, its shard or its features."""
        clip = window.clip
        anywhere = draw.training and "latents" not in self.stored
        start = window.start + (draw.below("start", window.starts) if anywhere else 0)
        dropped = Dropped()
        if draw.training:
            dropped = Dropped.drawn(self.config.conditions, draw.seed, draw.step, draw.place)
        video = _Pictures(lambda: self._reader(clip))
        face = self.face(clip)
        latents = self._latents(clip, video, start, draw)  # has the motion frames read with the others
        image, reference = self._conditions(clip, video, face, start, draw, dropped)
        made = Sample(
            key=window_key(clip.clip_id, start),
            latents=latents,
            image_condition=image,
            reference_latent=reference,
            text=self._text(clip, dropped),
            face=torch.from_numpy(face.identity),
            audio=self._audio(clip, start, dropped),
            mouth=self._mouth(clip, face, start),
        )
        check_sizes(made, self.config)
        return made

    def face(self, clip: Clip) -> Face:
        """Of a clip. Raises UnfitFace, and whatever is wrong with the clip."""
        return self._recent.get(
            (self.dataset.root, clip.clip_id, "face"), lambda: self._read_face(clip), lambda face: face.bytes
        )

    def _read_face(self, clip: Clip) -> Face:
        data = self._members(clip, (".npz",))[".npz"]
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            boxes, identity = arrays["boxes"], arrays["identity"].astype(np.float32)
            mouth = mouth_boxes(arrays["landmarks"]) if self.config.loss.mouth_weight != 1 else None
        wanted = self.sizes.face.embedding_dim
        if identity.shape != (wanted,):
            raise UnfitFace(
                f"identity: an embedding of {identity.size} numbers, the model has "
                f"face.embedding_dim={wanted}"
            )
        if len(boxes) != clip.n_frames:
            raise ValueError(f"boxes: of {len(boxes)} frames, the manifest says {clip.n_frames}")
        return Face(boxes, mouth, identity)

    def _members(self, clip: Clip, suffixes: tuple[str, ...]) -> dict[str, bytes]:
        return read_members(self.dataset.root / "shards", clip.place, suffixes)

    def _reader(self, clip: Clip) -> "Reader":
        """Reads a clip's pictures; all of them are decoded now where all clips' are kept."""
        if not self._keep_pictures:
            return self._opened(clip).pictures
        key = (self.dataset.root, clip.clip_id, "pictures")
        whole = self._recent.get(key, lambda: self._opened(clip).pictures(range(clip.n_frames)), _nbytes)
        return lambda numbers: whole[[*numbers]]

    def _opened(self, clip: Clip) -> ClipFrames:
        key = (self.dataset.root, clip.clip_id, ".mp4")
        mp4 = self._recent.get(key, lambda: self._members(clip, (".mp4",))[".mp4"], len)
        return ClipFrames(mp4, self._framing)

    def _latents(self, clip: Clip, video: "_Pictures", start: int, draw: Draw) -> Tensor:
        found = self._read("latents", window_key(clip.clip_id, start))
        if found is not None:
            return found
        return self._encoded(video.at(range(start, start + self.sizes.num_frames)), draw, "latents")

    def _conditions(
        self, clip: Clip, video: "_Pictures", face: Face, start: int, draw: Draw, dropped: Dropped
    ) -> tuple[Tensor, Tensor]:
        """The image condition and the reference latent, (1, C, h, w) each."""
        stored = self._stored_conditions(clip, start, draw)
        image, reference = stored or (None, None)
        nothing = torch.zeros(1, *_sizes(self.config)["latents"][1:])
        if dropped.image:
            image = nothing
        if dropped.reference:
            reference = nothing
        if image is not None and reference is not None:
            return image, reference
        number = self._reference_frame(face, start, draw)
        picture = video.at([number])[:, 0]
        if image is None:
            motion = video.at(range(start, start + OVERLAP_FRAMES))
            seed = draw.seed_of("condition")
            shown = image_condition(picture, motion, self.config.conditions, seed, training=True)
            image = self._encoded(shown, draw, "image condition")
        if reference is None:
            x0, y0, x1, y1 = (float(side) for side in face.boxes[number])
            box = self._framing.box((x0, y0, x1, y1), clip.height, clip.width)
            reference = self._encoded(face_on_black(picture, box)[:, None], draw, "reference")
        return image, reference

    def _reference_frame(self, face: Face, start: int, draw: Draw) -> int:
        if not len(face.seen):
            raise ValueError("no frame of it has a face's box")
        near = reference_frames(face.seen, start, self.config.conditions.reference_within)
        return int(near[draw.below("reference", len(near))])

    def _stored_conditions(self, clip: Clip, start: int, draw: Draw) -> tuple[Tensor, Tensor] | None:
        if "conditions" not in self.stored:
            return None
        variant = draw.below("variant", self.stored["conditions"].features.variants or 1)
        found = self._read("conditions", window_key(clip.clip_id, start), variant, 1)
        return None if found is None else (found[0, 0], found[0, 1])

    def _encoded(self, pixels: Tensor, draw: Draw, purpose: str) -> Tensor:
        """(3, F, H, W) -> (T, C, h, w)"""
        posterior = Generator().manual_seed(draw.seed_of(purpose))
        with self.encoders.lock:
            return self.encoders.autoencoder.encode(pixels[None], posterior)[0].cpu()

    def _text(self, clip: Clip, dropped: Dropped) -> Tensor:
        if dropped.text or self.config.encoders.text == "none":
            return torch.zeros(1, 1).expand(self.sizes.text_length, self.sizes.text_dim)
        found = self._read("text", clip.clip_id)
        if found is not None:
            return found
        caption = self._members(clip, (".txt",))[".txt"].decode()
        return self._recent.get(("text", caption), lambda: self._encoded_text(caption), _nbytes)

    def _encoded_text(self, caption: str) -> Tensor:
        with self.encoders.lock:
            return self.encoders.text.encode([caption])[0].float().cpu()

    def _audio(self, clip: Clip, start: int, dropped: Dropped) -> Tensor | None:
        """(F, window, layers, channels), a view of one row a frame: what is around each frame.

        Beyond the clip's ends the first or last frame's speech is repeated."""
        heard, encoder = self.sizes.audio, self.encoders.speech
        if heard is None or encoder is None:
            return None
        frames = self.sizes.num_frames
        if dropped.audio:
            return torch.zeros(1, 1, 1, 1).expand(frames, heard.window, heard.layers, heard.channels)
        reach = heard.window // 2
        first, end = max(0, start - reach), min(clip.n_frames, start + frames + reach)
        rows = self._read("speech", clip.clip_id, first, end - first)
        if rows is None:
            rows = self._speech(clip, encoder)[first:end]
        before, after = first - (start - reach), start + frames + reach - end
        if before or after:
            rows = torch.cat([rows[:1].expand(before, -1, -1), rows, rows[-1:].expand(after, -1, -1)])
        return rows.unfold(0, heard.window, 1).permute(0, 3, 1, 2)

    def _speech(self, clip: Clip, encoder: SpeechEncoder) -> Tensor:
        """(N, layers, channels) of the whole clip."""
        key = (self.dataset.root, clip.clip_id, "speech")
        return self._recent.get(key, lambda: self._encoded_speech(clip, encoder), _nbytes)

    def _encoded_speech(self, clip: Clip, encoder: SpeechEncoder) -> Tensor:
        sound = sound_of(self._members(clip, (".flac",))[".flac"])
        with self.encoders.lock:
            rows = encoder.encode(sound)
        if len(rows) != clip.n_frames:
            raise ValueError(f"its sound lasts {len(rows)} frames, its video {clip.n_frames}")
        return torch.from_numpy(rows)

    def _mouth(self, clip: Clip, face: Face, start: int) -> Tensor | None:
        if face.mouth is None:
            return None
        boxes = face.mouth[start : start + self.sizes.num_frames]
        shown = np.array([self._framing.box((*box,), clip.height, clip.width) for box in boxes.tolist()])
        return mouth_map(shown, self.sizes.latent_height, self.sizes.latent_width)

    def _read(self, kind: str, key: str, first: int = 0, count: int | None = None) -> Tensor | None:
        """Stored features; None where there are none and the run may make them itself."""
        if kind not in self.stored:
            return None
        try:
            return torch.from_numpy(self.stored[kind].read(key, first, count))
        except FeatureMissing:
            if self.config.samples.features == "stored":
                raise
            return None


Reader = Callable[[Sequence[int]], np.ndarray]
"""Numbers of a clip's pictures -> (N, H, W, 3) uint8, in the model's size."""


class _Pictures:
    """A clip's pictures, each read once for one sample; opened when the first are asked for."""

    def __init__(self, open_clip: Callable[[], Reader]) -> None:
        self._open = open_clip
        self._held: dict[int, np.ndarray] = {}

    @cached_property
    def _read(self) -> Reader:
        return self._open()

    def at(self, numbers: Sequence[int]) -> Tensor:
        """(3, N, H, W) in [-1, 1]. Raises MediaError, and IndexError for a frame that there is not."""
        missing = [number for number in numbers if number not in self._held]
        if missing:
            self._held |= zip(missing, self._read(missing), strict=True)
        return pixels_of(np.stack([self._held[number] for number in numbers]))


def stored_features(dataset: Dataset, config: TrainConfig, encoders: Encoders) -> dict[str, StoredFeatures]:
    """Those features of the dataset, by kind, that these encoders made, as `samples.features` wants them.

    Raises:
        SamplesError: stored ones are insisted on, and some are not there.
    """
    if config.samples.features == "on_the_fly":
        return {}
    wanted = default_kinds(config)
    folders = {path.parent.name for path in (dataset.root / FEATURES).glob("*/*.parquet")}
    there = [kind for kind in wanted if any(name.startswith(f"{kind}-") for name in folders)]
    digests = (
        {kind: maker.features.digest for kind, maker in makers(config, encoders).items()} if there else {}
    )
    opened = {kind: open_features(dataset, kind, digests[kind]) for kind in there}
    found = {kind: features for kind, features in opened.items() if features is not None}
    lacking = [kind for kind in wanted if kind not in found or found[kind].absent]
    if lacking and config.samples.features == "stored":
        raise SamplesError(
            f"samples.features=stored: {dataset.root} lacks {', '.join(lacking)} of these encoders; "
            f"`hallo3 dataset precompute {dataset.root} --for CONFIG`, or samples.features=auto"
        )
    return found


def empty_sample(config: TrainConfig, key: str) -> Sample:
    """What stands in the place of a broken one: zeros of the model's sizes."""
    parts: dict[str, Any] = {name: torch.zeros(()).expand(size) for name, size in _sizes(config).items()}
    return Sample(key, **{"audio": None, "mouth": None} | parts)


def check_sizes(sample: Sample, config: TrainConfig) -> None:
    """Raises ValueError for a part that is not of the model's sizes."""
    for name, size in _sizes(config).items():
        found = getattr(sample, name).shape
        if found != size:
            raise ValueError(f"{name}: of the size {tuple(found)}, the model takes {size}")


def _sizes(config: TrainConfig) -> dict[str, tuple[int, ...]]:
    """Of each part of a sample that the run has."""
    model = config.sizes
    grid = model.latent_height, model.latent_width
    sizes: dict[str, tuple[int, ...]] = {
        "latents": (model.latent_frames, model.out_channels, *grid),
        "image_condition": (1, model.out_channels, *grid),
        "reference_latent": (1, model.out_channels, *grid),
        "text": (model.text_length, model.text_dim),
        "face": (model.face.embedding_dim,),
    }
    if model.audio is not None:
        heard = model.audio
        sizes["audio"] = (model.num_frames, heard.window, heard.layers, heard.channels)
    if config.loss.mouth_weight != 1:
        sizes["mouth"] = (model.latent_frames, 1, *grid)
    return sizes


def _nbytes(array: np.ndarray | Tensor) -> int:
    return array.nbytes
