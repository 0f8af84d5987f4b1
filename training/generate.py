"""From one portrait and a voice to a video of any length.

    portrait -> the model's size -> its face on black -> reference network -> keys and values  (once a video)
    speech   -> windows of frames, each begins with the last two of the one before
      a window: portrait and two motion frames -> autoencoder -> image condition
                noise -> sampler (networks, guidance) -> latents -> autoencoder -> frames
                its last two frames -> the next window's motion frames

As upstream samples: the first window's motion frames are the portrait, twice, and it hears silence at them; a
share of the motion frames' pixels is hidden; the reference network reads no prompt.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.clip_pixels import Box, Framing, pixels_of
from training.conditions import beside_window, face_on_black, image_condition
from training.config import ConditionsConfig
from training.diffusion import (
    ConstantGuidance,
    Denoise,
    DpmSolverSde,
    SeededNoise,
    ZeroSnrSchedule,
    in_two_passes,
    seed_of,
)
from training.frame_size import Size, trained_size
from training.model.autoencoder import Autoencoder
from training.model.config import AudioConditionConfig
from training.model.denoiser import PreparedConditions
from training.model.portrait import PortraitModel
from training.model.step_cache import StepCache
from training.windows_of_speech import OVERLAP_FRAMES, segment_of, segments


@dataclass(frozen=True)
class Portrait:
    """Whom the video shows."""

    image: np.ndarray
    """(H, W, 3) uint8, of any size: the most of its middle in the model's proportions is used."""
    box: Box
    """The face's x0 y0 x1 y1, in fractions of the image."""
    identity: np.ndarray
    """(E,) float32, the face's embedding."""


@dataclass(frozen=True)
class Sampling:
    """How each window is sampled."""

    steps: int = 50
    guidance: float | None = 3.5
    """Scale (guidance.py); None: the conditional prediction alone, in half of the time."""
    compat: bool = True
    """Upstream's sampler, draw for draw (sampler.py), which its published weights are shown with."""
    two_passes: bool = False
    """Guidance's halves one after the other instead of in one batch: half of the activations."""
    skip_steps: float | None = None
    """Threshold below which a step takes over what all blocks but the first added (step_cache.py)."""

    def __post_init__(self) -> None:
        if self.skip_steps is not None and not 0 <= self.skip_steps < math.inf:
            raise ValueError(f"skip_steps: expected None, or a number from 0, got {self.skip_steps}")


@dataclass(frozen=True)
class Begun:
    """How much there is of a video already."""

    windows: int
    """At least one."""
    last_frames: np.ndarray
    """(2, height, width, 3) uint8: with which the last of them ends."""


@dataclass(frozen=True)
class _Given:
    """What a video is made of, checked, on the CPU."""

    picture: Tensor
    """(3, height, width) in [-1, 1]."""
    face: Tensor
    """(3, height, width), black around the face."""
    identity: Tensor
    """(E,)"""
    text: Tensor
    """(L, text_dim)"""
    heard: Tensor | None
    """(F, layers, channels)"""
    n_frames: int
    seed: int
    begun: Begun | None


class Generator:
    """Makes videos with a model in evaluation mode, on the model's device and in its precision.

    Args:
        conditions: `masked_pixels` of the model's training; None: upstream's.
        size: (height, width) of frames in px; None: those of the model's training (frame_size.py).
    """

    def __init__(
        self,
        model: PortraitModel,
        autoencoder: Autoencoder,
        sampling: Sampling = Sampling(),
        conditions: ConditionsConfig | None = None,
        size: Size | None = None,
    ) -> None:
        self.model = model
        self.autoencoder = autoencoder
        self._conditions = conditions or ConditionsConfig()
        self._two_passes = sampling.two_passes
        self._skip_steps = sampling.skip_steps
        self.skipped_steps = 0
        """In all windows that were made so far."""
        self._sampler = DpmSolverSde(ZeroSnrSchedule(), sampling.steps, compat=sampling.compat)
        self._guidance = None if sampling.guidance is None else ConstantGuidance(sampling.guidance)
        self.framing = Framing(*(size or trained_size(model.config)))

    def sampled(self, sampling: Sampling) -> "Generator":
        """The same networks, sampled in another way."""
        size = self.framing.height, self.framing.width
        return Generator(self.model, self.autoencoder, sampling, self._conditions, size)

    @property
    def new_frames(self) -> int:
        """That a window brings: all but its motion frames."""
        return self.model.config.num_frames - OVERLAP_FRAMES

    def frames(
        self,
        portrait: Portrait,
        speech: Tensor | None,
        n_frames: int | None = None,
        *,
        text: Tensor | None = None,
        seed: int = 0,
        begun: Begun | None = None,
    ) -> Iterator[np.ndarray]:
        """The video's frames, window after window as they are made: (n, height, width, 3) uint8.

        Args:
            speech: (F, layers, channels), a row a frame; None for a model without an audio part.
            n_frames: of the video; None: as long as the speech. Beyond it frames hear its last one's.
            text: (L, text_dim), the prompt's embedding; None: zeros, the unconditional one.
            seed: the same one gives the same video.
            begun: make the rest only, of a video of the same arguments; the same frames as in one go.

        Raises:
            ValueError: at once, for an argument that does not fit the model, by its name; while frames are
                made, for a model that predicts something else than numbers.
        """
        sizes = self.model.config
        heard = _heard(speech, sizes.audio)
        picture, face = self._seen(portrait)
        text_size = (sizes.text_length, sizes.text_dim)
        given = _Given(
            picture=picture,
            face=face,
            identity=_numbers("identity", torch.as_tensor(portrait.identity), (sizes.face.embedding_dim,)),
            text=torch.zeros(text_size) if text is None else _numbers("text", text, text_size),
            heard=heard,
            n_frames=_length(heard, n_frames),
            seed=seed,
            begun=self._fitting(begun),
        )
        return self._windows(given)

    @torch.no_grad()
    def _windows(self, given: _Given) -> Iterator[np.ndarray]:
        guidance = self._guidance
        if given.heard is None and not given.text.any():
            guidance = None  # both of its halves would be the same
        prepared: PreparedConditions | None = None
        motion = given.picture[:, None].expand(-1, OVERLAP_FRAMES, -1, -1)
        first = 0
        if given.begun is not None:
            motion, first = pixels_of(given.begun.last_frames), given.begun.windows
        for number, indices in enumerate(segments(given.n_frames, self.model.config.num_frames)):
            if number < first:
                continue
            audio = self._audio(given.heard, indices, guidance)
            if prepared is None:
                prepared = self._prepared(given, self._bank(given.face, given.seed), audio, guidance)
            elif audio is not None:
                prepared = self.model.denoiser.hearing(prepared, audio)
            seed = seed_of("window", given.seed, number)
            window = self._window(prepared, given.picture, motion, guidance, seed)
            pictures = _pictures(window[:, OVERLAP_FRAMES:])
            motion = pixels_of(pictures[-OVERLAP_FRAMES:])  # as they are seen: so a video can go on from them
            yield pictures[: given.n_frames - number * self.new_frames]

    def _fitting(self, begun: Begun | None) -> Begun | None:
        size = (OVERLAP_FRAMES, self.framing.height, self.framing.width, 3)
        if begun is not None and (begun.last_frames.shape != size or begun.windows < 1):
            raise ValueError(
                f"begun: expected at least one window and {size}, got {begun.windows} and "
                f"{begun.last_frames.shape}"
            )
        return begun

    def _seen(self, portrait: Portrait) -> tuple[Tensor, Tensor]:
        """The portrait in the model's size, and its face on black. Raises ValueError."""
        image = portrait.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
        picture = pixels_of(self.framing.picture(image)[None])[:, 0]
        return picture, face_on_black(picture, self.framing.box(portrait.box, *image.shape[:2]))

    def _bank(self, face: Tensor, seed: int) -> list[Tensor]:
        """What the reference network sees of the face."""
        sizes, like = self.model.config, self.model.denoiser.positions
        latent = self._encoded(face[:, None], seed_of("reference", seed))
        return self.model.reference(
            latent.to(like), torch.zeros(1, sizes.text_length, sizes.text_dim).to(like)
        )

    def _audio(
        self, heard: Tensor | None, indices: list[int], guidance: ConstantGuidance | None
    ) -> Tensor | None:
        """What a window hears, behind silence for the unconditional half of guidance."""
        sizes = self.model.config.audio
        if heard is None or sizes is None:
            return None
        rows = segment_of(heard, [min(index, len(heard) - 1) for index in indices], sizes.window)[None]
        return self._halves(torch.zeros_like(rows), rows, guidance)

    def _prepared(
        self, given: _Given, bank: list[Tensor], audio: Tensor | None, guidance: ConstantGuidance | None
    ) -> PreparedConditions:
        """All conditions of the first window; the next ones hear something else."""
        text = self._halves(torch.zeros_like(given.text[None]), given.text[None], guidance)
        face = given.identity[None].to(self.model.denoiser.positions)
        return self.model.denoiser.prepare(text, reference=bank, face=face, audio=audio)

    def _halves(
        self, unconditional: Tensor, conditional: Tensor, guidance: ConstantGuidance | None
    ) -> Tensor:
        """Both halves of guidance's batch, as the network takes them; without it the conditional one."""
        parts = [conditional] if guidance is None else [unconditional, conditional]
        return torch.cat(parts).to(self.model.denoiser.positions)

    def _window(
        self,
        prepared: PreparedConditions,
        picture: Tensor,
        motion: Tensor,
        guidance: ConstantGuidance | None,
        seed: int,
    ) -> Tensor:
        """A window's frames (3, F, height, width) in [-1, 1], motion frames first."""
        denoiser = self.model.denoiser
        like = denoiser.positions
        in_two = guidance is not None and self._two_passes
        cache = self._cache(passes=2 if in_two else 1)
        shown = image_condition(picture, motion, self._conditions, seed, training=False)
        condition = beside_window(
            self._encoded(shown, seed).to(like), self.model.config.latent_frames, self.model.config
        )

        def given(conditions: PreparedConditions) -> Denoise:
            return lambda x, timesteps: denoiser.denoise(
                x.to(like), timesteps, condition.expand_as(x), conditions, cache
            )

        denoise = given(prepared)
        if in_two:
            denoise = in_two_passes(*map(given, prepared.halves()))
        start = SeededNoise([seed_of("start", seed)])(condition.shape).to(like.device)
        steps = SeededNoise([seed_of("steps", seed)])
        latents = self._sampler.sample(denoise, start, guidance=guidance, noise=steps)
        self.skipped_steps += cache.skipped if cache else 0
        return self.autoencoder.decode(latents)[0].float().cpu().clamp(-1, 1)

    def _cache(self, passes: int) -> StepCache | None:
        """A window's own: what it sees differs from what the window before saw."""
        if self._skip_steps is None:
            return None
        return StepCache(self._skip_steps, self._sampler.steps, passes)

    def _encoded(self, pixels: Tensor, seed: int) -> Tensor:
        """(3, F, height, width) -> (1, T, C, h, w)"""
        return self.autoencoder.encode(pixels[None], torch.Generator().manual_seed(seed))


def _heard(speech: Tensor | None, sizes: AudioConditionConfig | None) -> Tensor | None:
    """The speech, if the model hears. Raises ValueError."""
    if sizes is None:
        if speech is not None:
            raise ValueError("speech: the model has no audio part (phase identity); give None")
        return None
    if speech is None or speech.ndim != 3 or not len(speech):
        given = None if speech is None else tuple(speech.shape)
        raise ValueError(
            f"speech: expected (F, {sizes.layers}, {sizes.channels}) of at least one frame, got {given}"
        )
    return _numbers("speech", speech, (len(speech), sizes.layers, sizes.channels))


def _numbers(name: str, given: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An argument as float32 on the CPU. Raises ValueError for another shape, and NaN or infinity."""
    if given.shape != shape:
        raise ValueError(f"{name}: expected {shape} as the model has it, got {tuple(given.shape)}")
    if not torch.isfinite(given).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinite ones")
    return given.detach().cpu().float()


def _length(heard: Tensor | None, n_frames: int | None) -> int:
    """Of the video. Raises ValueError."""
    if n_frames is None:
        if heard is None:
            raise ValueError("n_frames: a video without speech needs its length, got None")
        return len(heard)
    if n_frames < 1:
        raise ValueError(f"n_frames: expected at least 1, got {n_frames}")
    return n_frames


def _pictures(pixels: Tensor) -> np.ndarray:
    """(3, N, H, W) in [-1, 1] -> (N, H, W, 3) uint8"""
    return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()
