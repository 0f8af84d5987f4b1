"""Prompts to text embeddings (B, L, D): T5 as CogVideoX uses it, or none.

    prompts -> token ids (B, 226), padded -> T5's encoder, without a mask -> last hidden state (B, 226, 4096)

The unconditional embedding is all zeros, not the encoding of an empty prompt: so upstream was trained.
"""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from training.model.digest import digest_of
from training.model.pretrained import PretrainedError, load_pretrained, load_whole

T5_LENGTH = 226
logger = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """Encodes prompts."""

    @property
    def text_length(self) -> int: ...

    @property
    def text_dim(self) -> int: ...

    @property
    def digest(self) -> str:
        """Equal for two encoders exactly when their weights and settings are: embeddings are kept by it."""
        ...

    def encode(self, prompts: Sequence[str]) -> Tensor: ...

    def unconditional(self, batch: int) -> Tensor: ...


class NoText:
    """Zeros for every prompt: for presets without a text encoder. A prompt changes nothing."""

    def __init__(self, text_length: int, text_dim: int) -> None:
        if text_length < 1 or text_dim < 1:
            raise ValueError(f"text_length, text_dim: expected at least 1, got {text_length} and {text_dim}")
        self.text_length = text_length
        self.text_dim = text_dim
        self.digest = f"none-{text_length}x{text_dim}"

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """(B, L, D) zeros, one a prompt."""
        check_prompts(prompts)
        return self.unconditional(len(prompts))

    def unconditional(self, batch: int) -> Tensor:
        """(B, L, D) zeros."""
        return torch.zeros(batch, self.text_length, self.text_dim)


class T5TextEncoder:
    """T5's encoder (v1.1-XXL in CogVideoX): the last hidden state of prompts padded to `text_length`.

    As upstream (and diffusers' CogVideoX pipelines) it gives the encoder **no attention mask**: padding is
    attended to, and the embeddings of the padding are part of what the denoiser sees."""

    def __init__(self, tokenizer: Any, encoder: Any, text_length: int = T5_LENGTH) -> None:
        if text_length < 1:
            raise ValueError(f"text_length: expected at least 1, got {text_length}")
        if len(tokenizer) > encoder.config.vocab_size:
            raise ValueError(
                f"tokenizer: expected at most the {encoder.config.vocab_size} tokens that the encoder "
                f"has embeddings for, got {len(tokenizer)}"
            )
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.text_length = text_length

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        text_length: int = T5_LENGTH,
        dtype: torch.dtype = torch.bfloat16,
        device: str | torch.device = "cpu",
    ) -> Self:
        """From CogVideoX's folder (`text_encoder/`, `tokenizer/`), a folder with both in it, or a hub's name.

        Raises:
            PretrainedError: it is not there, or not whole.
        """
        from transformers import AutoTokenizer, T5EncoderModel

        tokenizer = load_pretrained(AutoTokenizer.from_pretrained, source, "tokenizer")
        words = set(tokenizer.get_vocab()) - {*tokenizer.all_special_tokens, "▁"}
        if not words:  # what transformers makes of a folder without the vocabulary, silently
            raise PretrainedError(f"{source}: its tokenizer knows no words; is spiece.model missing?")
        encoder = load_whole(T5EncoderModel.from_pretrained, source, "text_encoder", dtype=dtype)
        return cls(tokenizer, encoder.to(device), text_length)

    @property
    def text_dim(self) -> int:
        return int(self.encoder.config.d_model)

    @cached_property
    def digest(self) -> str:
        """Of the weights, their dtype, the length, and what the tokenizer knows."""
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        return digest_of(self.encoder.state_dict(), text_length=self.text_length, vocabulary=vocabulary)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """(B, text_length, text_dim) on the encoder's device and in its dtype.

        Longer prompts are cut, with a warning.

        Raises:
            ValueError: `prompts` is not a list of texts, or is empty.
        """
        check_prompts(prompts)
        counts = [len(ids) for ids in self.tokenizer(list(prompts))["input_ids"]]
        for prompt, count in zip(prompts, counts, strict=True):
            if count > self.text_length:
                logger.warning("a prompt of %d tokens is cut to %d: %.60r", count, self.text_length, prompt)
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.text_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.encoder(input_ids=tokens["input_ids"].to(self.encoder.device)).last_hidden_state

    def unconditional(self, batch: int) -> Tensor:
        """(B, text_length, text_dim) zeros, where and as `encode` gives its embeddings."""
        size = (batch, self.text_length, self.text_dim)
        return torch.zeros(size, dtype=self.encoder.dtype, device=self.encoder.device)


def check_prompts(prompts: object) -> None:
    """Refuse anything but a list of at least one text; ValueError."""
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
        raise ValueError(f"prompts: expected a list of at least one text, got {prompts!r}")
    strangers = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if strangers:
        raise ValueError(f"prompts: expected texts, got {type(strangers[0]).__name__} {strangers[0]!r}")
