"""The denoiser: the backbone, a face and a voice, and what the reference network saw."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.model.attention import KeyValue
from training.model.backbone import Backbone
from training.model.block import BlockConditions
from training.model.checks import check_tensor, check_timesteps
from training.model.conditioning import AudioProjector, FaceProjector
from training.model.config import ModelConfig
from training.model.positions import checked_grid
from training.model.step_cache import StepCache


@dataclass(frozen=True)
class PreparedConditions:
    """All that does not change from step to step while a window is sampled; see `Denoiser.prepare`."""

    text_tokens: Tensor
    """(B, L, D)"""
    blocks: list[BlockConditions]
    """Keys and values, a block."""
    frames: int | None
    """Latent frames that the audio is for; None: no audio, any number."""
    patches: int
    """Reference tokens: those of one latent frame."""

    def halves(self) -> "tuple[PreparedConditions, PreparedConditions]":
        """Each half's, of a batch whose samples share reference and face; nothing is copied."""
        texts = self.text_tokens.chunk(2)
        first, second = (
            replace(self, text_tokens=text, blocks=[_half_heard(block, half) for block in self.blocks])
            for half, text in enumerate(texts)
        )
        return first, second


def _half_heard(conditions: BlockConditions, half: int) -> BlockConditions:
    if not isinstance(conditions.audio, KeyValue):
        return conditions
    return conditions._replace(audio=KeyValue(*(part.chunk(2)[half] for part in conditions.audio)))


class Denoiser(Backbone):
    """Predicts the velocity of noisy latents, given everything that Hallo3 conditions on."""

    def __init__(self, config: ModelConfig):
        super().__init__(config, face=True, audio=config.audio is not None)
        self.face_projector = FaceProjector(config.face)
        if config.audio:
            self.audio_projector = AudioProjector(config.audio)

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        *,
        image_condition: Tensor,
        reference: Sequence[Tensor],
        face: Tensor,
        audio: Tensor | None = None,
    ) -> Tensor:
        """The velocity v of noisy latents, (B, T, out_channels, H, W) as they are.

        Args:
            noisy: (B, T, out_channels, H, W).
            timesteps: (B,), 0 ... 999.
            text: (B, L, text_dim) text embeddings; zeros are the unconditional ones.
            image_condition: as `noisy`; its first frame holds portrait and motion frames, the rest is zero.
            reference: the reference network's bank: num_layers features (B or 1, n, D).
            face: (B or 1, embedding_dim) identity embedding.
            audio: (B or 1, F, window, layers, channels) windows of speech features, one a video frame,
                F = 4 (T - 1) + 1; None if and only if the model has no audio part.

        Raises:
            ValueError: an argument of another shape, dtype or device than the model's.
        """
        self._check_latents(noisy, timesteps, image_condition)
        patches = self._own_patches(noisy)
        self._check_conditions(text, reference, face, audio, len(noisy), noisy.shape[1], patches)
        blocks = self._conditions(reference, face, audio)
        latents = torch.cat([noisy, image_condition], dim=2)
        return self.predict(latents, timesteps, self.embed_text(text), blocks)

    def prepare(
        self, text: Tensor, *, reference: Sequence[Tensor], face: Tensor, audio: Tensor | None = None
    ) -> PreparedConditions:
        """What the conditions come to in every block, once for all steps; arguments as `forward`'s."""
        frames = audio.shape[1] // 4 + 1 if isinstance(audio, Tensor) and audio.ndim > 1 else None
        self._check_conditions(text, reference, face, audio, len(text), frames or 1, "patches")
        conditions = self._conditions(reference, face, audio)
        blocks = [block.prepared(given) for block, given in zip(self.blocks, conditions, strict=True)]
        return PreparedConditions(self.embed_text(text), blocks, frames, reference[0].shape[1])

    def hearing(self, prepared: PreparedConditions, audio: Tensor) -> PreparedConditions:
        """Prepared conditions with this window's audio (B, F, window, layers, channels) instead of theirs."""
        tokens = self.audio_projector(audio)
        blocks = [
            block.prepared(given._replace(audio=tokens))
            for block, given in zip(self.blocks, prepared.blocks, strict=True)
        ]
        return replace(prepared, blocks=blocks, frames=audio.shape[1] // 4 + 1)

    def denoise(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        image_condition: Tensor,
        prepared: PreparedConditions,
        cache: StepCache | None = None,
    ) -> Tensor:
        """`forward` with prepared conditions; the same numbers, the same errors. A cache skips blocks."""
        self._check_latents(noisy, timesteps, image_condition)
        self._check_prepared(noisy, prepared)
        latents = torch.cat([noisy, image_condition], dim=2)
        return self.predict(latents, timesteps, prepared.text_tokens, prepared.blocks, cache)

    def _conditions(
        self, reference: Sequence[Tensor], face: Tensor, audio: Tensor | None
    ) -> list[BlockConditions]:
        face_tokens = self.face_projector(face)
        audio_tokens = None if audio is None else self.audio_projector(audio)
        return [BlockConditions(feature, face_tokens, audio_tokens) for feature in reference]

    def _check_latents(self, noisy: Tensor, timesteps: Tensor, image_condition: Tensor) -> None:
        config, like = self.config, self.positions
        check_tensor(
            "noisy",
            noisy,
            ("batch", "frames", config.out_channels, "height", "width"),
            like,
            config.check_finite,
        )
        check_tensor("image_condition", image_condition, noisy.shape, like, config.check_finite)
        check_timesteps(timesteps, len(noisy), like)

    def _own_patches(self, noisy: Tensor) -> int:
        """Reference tokens that go with these latents: one frame's patches, or this rank's share of them."""
        _, rows, columns = checked_grid(self.config, noisy)
        return self.parallel.own_size(rows * columns) if self.parallel else rows * columns

    def _check_prepared(self, noisy: Tensor, prepared: PreparedConditions) -> None:
        expected = {
            "samples": (len(noisy), len(prepared.text_tokens)),
            "latent frames": (noisy.shape[1], prepared.frames or noisy.shape[1]),
            "reference tokens": (self._own_patches(noisy), prepared.patches),
        }
        for what, (wanted, given) in expected.items():
            if wanted != given:
                raise ValueError(
                    f"prepared: expected conditions for {wanted} {what} as noisy has, got {given}"
                )

    def _check_conditions(
        self,
        text: Tensor,
        reference: Sequence[Tensor],
        face: Tensor,
        audio: Tensor | None,
        batch: int,
        frames: int,
        patches: int | str,
    ) -> None:
        config = self.config
        if len(reference) != config.num_layers:
            raise ValueError(
                f"reference: expected {config.num_layers} features, one a block, got {len(reference)}"
            )
        expected: dict[str, tuple[Tensor, tuple[int | str, ...]]] = {
            "text": (text, (batch, config.text_length, config.text_dim)),
            "face": (face, (_shared(face, batch), config.face.embedding_dim)),
        }
        for index, feature in enumerate(reference):
            expected[f"reference[{index}]"] = (
                feature,
                (_shared(feature, batch), patches, config.hidden_size),
            )
        if (audio is None) != (config.audio is None):
            given = "none was given" if audio is None else "some was given"
            needs = "needs audio" if config.audio else "has no audio part (phase identity)"
            raise ValueError(f"audio: this model {needs}, but {given}")
        if config.audio and audio is not None:
            feature_sizes = (config.audio.window, config.audio.layers, config.audio.channels)
            expected["audio"] = (audio, (_shared(audio, batch), 4 * (frames - 1) + 1, *feature_sizes))
        for name, (tensor, shape) in expected.items():
            check_tensor(name, tensor, shape, self.positions, config.check_finite)


def _shared(tensor: object, batch: int) -> int:
    """Conditions that are the same for the whole batch may come once."""
    return 1 if isinstance(tensor, Tensor) and tensor.ndim and len(tensor) == 1 else batch
