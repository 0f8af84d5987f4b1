import json
import logging
from pathlib import Path

import pytest
import torch

from tests.filled import fill
from training.model.pretrained import PretrainedError
from training.model.text import NoText, T5TextEncoder

LINES = [
    "it was the best of times it was the worst of times",
    "it was the age of wisdom it was the age of foolishness",
    "a person is talking to the camera",
    "ever tried ever failed no matter try again fail again fail better",
]
WORDS = 48


@pytest.fixture(scope="module")
def cogvideox_folder(tmp_path_factory) -> Path:
    """`text_encoder/` and `tokenizer/` as CogVideoX publishes them (spiece.model alone), with small sizes."""
    import sentencepiece
    from transformers import T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("CogVideoX")
    (folder / "tokenizer").mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 4),
        model_prefix=str(folder / "tokenizer" / "spiece"),
        vocab_size=WORDS,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    about = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 226}
    about |= {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(about))
    sizes = {"vocab_size": WORDS, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    with torch.no_grad():
        encoder = fill(T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu")), gain=1.0)
    encoder.save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="module")
def text_encoder(cogvideox_folder):
    return T5TextEncoder.load(cogvideox_folder, text_length=24, dtype=torch.float32)


def test_a_prompt_becomes_an_embedding_a_token_padded_to_the_text_length(text_encoder):
    embeddings = text_encoder.encode(["a person is talking", ""])
    assert embeddings.shape == (2, 24, 16)
    assert (text_encoder.text_length, text_encoder.text_dim) == (24, 16)
    assert not torch.allclose(embeddings[0], embeddings[1])


def test_the_published_length_is_226_tokens(cogvideox_folder):
    assert T5TextEncoder.load(cogvideox_folder).encode(["ever tried"]).shape == (1, 226, 16)


def test_embeddings_are_those_of_diffusers_own_pipeline(text_encoder):
    from diffusers import CogVideoXImageToVideoPipeline

    pipeline = CogVideoXImageToVideoPipeline.__new__(CogVideoXImageToVideoPipeline)
    pipeline.tokenizer, pipeline.text_encoder = text_encoder.tokenizer, text_encoder.encoder
    prompts = ["it was the best of times", "no matter"]
    with torch.no_grad():
        theirs = pipeline._get_t5_prompt_embeds(prompts, max_sequence_length=24, device=torch.device("cpu"))
    torch.testing.assert_close(text_encoder.encode(prompts), theirs, atol=0, rtol=0)


def test_padding_is_attended_to_as_upstream_does(text_encoder):
    tokens = text_encoder.tokenizer(["no matter"], padding="max_length", max_length=24, return_tensors="pt")
    with torch.no_grad():
        masked = text_encoder.encoder(**tokens).last_hidden_state
    assert not torch.allclose(text_encoder.encode(["no matter"])[0, 0], masked[0, 0], atol=1e-3)


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(text_encoder, caplog):
    with caplog.at_level(logging.WARNING):
        embeddings = text_encoder.encode([" ".join(LINES)])
    assert embeddings.shape == (1, 24, 16)
    assert "tokens is cut to 24: 'it was the best" in caplog.text


def test_the_unconditional_embedding_is_zeros_not_an_empty_prompt(text_encoder):
    assert torch.equal(text_encoder.unconditional(2), torch.zeros(2, 24, 16))
    assert text_encoder.encode([""]).abs().max() > 0


def test_embeddings_come_in_the_dtype_that_was_asked_for(cogvideox_folder):
    half = T5TextEncoder.load(cogvideox_folder, text_length=8, dtype=torch.bfloat16)
    assert half.encode(["no matter"]).dtype == half.unconditional(1).dtype == torch.bfloat16


def test_the_digest_tells_lengths_and_weights_apart(cogvideox_folder, text_encoder):
    again, longer, rounded = (
        T5TextEncoder.load(cogvideox_folder, text_length=length, dtype=dtype)
        for length, dtype in ((24, torch.float32), (25, torch.float32), (24, torch.bfloat16))
    )
    assert again.digest == text_encoder.digest
    assert len({text_encoder.digest, longer.digest, rounded.digest}) == 3


def test_no_text_is_zeros_for_every_prompt():
    none = NoText(text_length=4, text_dim=8)
    assert torch.equal(none.encode(["anything", "else"]), torch.zeros(2, 4, 8))
    assert torch.equal(none.unconditional(3), torch.zeros(3, 4, 8))
    assert none.digest == "none-4x8"
    with pytest.raises(ValueError, match="expected at least 1, got 0 and 8"):
        NoText(0, 8)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("one text", "expected a list of at least one text, got 'one text'"),
        ([], r"expected a list of at least one text, got \[\]"),
        (["fine", None], "expected texts, got NoneType None"),
    ],
)
def test_prompts_that_are_no_list_of_texts_are_refused(text_encoder, prompts, words):
    for encoder in (text_encoder, NoText(4, 8)):
        with pytest.raises(ValueError, match=words):
            encoder.encode(prompts)


def test_a_tokenizer_without_its_vocabulary_is_refused(cogvideox_folder, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    about = "tokenizer/tokenizer_config.json"
    (tmp_path / about).write_text((cogvideox_folder / about).read_text())
    with pytest.raises(PretrainedError, match=r"its tokenizer knows no words; is spiece\.model missing"):
        T5TextEncoder.load(tmp_path)


def test_a_folder_without_the_encoder_is_refused(cogvideox_folder, tmp_path):
    (tmp_path / "tokenizer").symlink_to(cogvideox_folder / "tokenizer")
    with pytest.raises(PretrainedError, match=r"its text_encoder could not be loaded .*hf download"):
        T5TextEncoder.load(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(text_encoder):
    from transformers import T5Config, T5EncoderModel

    sizes = {"d_model": 8, "d_kv": 8, "d_ff": 8, "num_layers": 1, "num_heads": 1}
    small = T5EncoderModel(T5Config(vocab_size=10, **sizes))
    with pytest.raises(ValueError, match="tokenizer: expected at most the 10 tokens"):
        T5TextEncoder(text_encoder.tokenizer, small)
    with pytest.raises(ValueError, match="text_length: expected at least 1, got 0"):
        T5TextEncoder(text_encoder.tokenizer, text_encoder.encoder, text_length=0)
