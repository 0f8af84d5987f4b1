"""wav2vec 2.0 features against what transformers computed from the same filled weights."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Model

from data_pipeline.models.wav2vec2 import (
    at_video_frames,
    conv_features,
    count_frames,
    load,
    normalised,
    speech_features,
)
from tests.filled import agrees_with, fill, golden, golden_facts

FACTS = golden_facts("wav2vec/wav2vec")


@pytest.fixture(scope="module")
def model() -> Wav2Vec2Model:
    torch.set_num_threads(1)
    return fill(Wav2Vec2Model(Wav2Vec2Config(**FACTS["config"])), FACTS["gain"], FACTS["salt"]).eval()


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return golden("wav2vec/wav2vec")


@pytest.fixture(scope="module")
def wav(stored) -> np.ndarray:
    return stored["wav_int16"] / 32768


def test_the_filled_model_is_the_one_that_was_recorded(model):
    found = {name: [*value.shape] for name, value in model.state_dict().items()}
    assert found == {name: shape for name, shape, _ in golden_facts("wav2vec/contract_tiny")["entries"]}
    assert agrees_with(model, FACTS["fill_check"])


def test_every_step_gives_what_was_recorded(model, stored, wav):
    values = normalised(wav)
    np.testing.assert_allclose(values, stored["input_values"], atol=1e-6)
    with torch.inference_mode():
        features = conv_features(model, torch.from_numpy(values))
        resampled = at_video_frames(features, 50).transpose(1, 2)
        projected, _ = model.feature_projection(resampled)
    np.testing.assert_allclose(features.transpose(1, 2), stored["conv_features"], atol=1e-6)
    np.testing.assert_allclose(resampled, stored["interpolated"], atol=1e-6)
    np.testing.assert_allclose(projected, stored["projected"], atol=1e-5)


def test_the_outputs_of_all_layers_are_the_recorded_ones(model, stored, wav):
    found = speech_features(model, wav)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, stored["all_layers"], atol=2e-5)
    np.testing.assert_allclose(found[:, -1], stored["last_layer"], atol=2e-5)


def test_padding_to_whole_clips_gives_the_recorded_features(model, stored, wav):
    found = speech_features(model, wav, clip_frames=49)
    assert found.shape == stored["all_layers_clip49"].shape
    np.testing.assert_allclose(found, stored["all_layers_clip49"], atol=2e-5)
    assert count_frames(len(wav)) == FACTS["frames_clip49_reported"]


def test_whole_clips_are_not_padded(model, wav):
    whole = wav[: 49 * 640]
    np.testing.assert_array_equal(
        speech_features(model, whole, clip_frames=49), speech_features(model, whole)
    )


@settings(max_examples=10, deadline=None)
@given(n_samples=st.integers(400, 16_000), fps=st.sampled_from([24, 25, 29.97, 30]))
def test_there_is_a_row_for_every_frame_that_is_begun(model, n_samples, fps):
    rows = speech_features(model, np.sin(np.arange(n_samples) / 5), fps=fps)
    assert rows.shape == (count_frames(n_samples, fps), 3, 64)
    assert 0 <= len(rows) / fps - n_samples / 16_000 < 1 / fps + 1e-9


def test_dropout_does_not_touch_a_model_in_training(model, wav):
    expected = speech_features(model, wav)
    model.train()
    try:
        np.testing.assert_array_equal(speech_features(model, wav), expected)
        assert model.training
    finally:
        model.eval()


def test_louder_is_the_same_after_normalisation(model, wav):
    found = speech_features(model, wav * 0.25 + 0.1)
    np.testing.assert_allclose(found, speech_features(model, wav), atol=2e-3)


# --- long files ---------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(chunk_s=st.floats(0.1, 3.0))
def test_convolutions_by_chunk_are_those_of_the_whole(model, wav, chunk_s):
    values = torch.from_numpy(normalised(wav))
    with torch.inference_mode():
        whole, parts = conv_features(model, values), conv_features(model, values, chunk_s)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_convolutions_by_chunk_of_a_model_with_layer_norms_are_those_of_the_whole(wav):
    config = Wav2Vec2Config(**FACTS["config"] | {"feat_extract_norm": "layer", "do_stable_layer_norm": True})
    large = fill(Wav2Vec2Model(config), gain=1.0).eval()
    values = torch.from_numpy(normalised(wav))
    with torch.inference_mode():
        whole, parts = conv_features(large, values), conv_features(large, values, 0.3)
        last = large.encoder(large.feature_projection(at_video_frames(whole, 50).transpose(1, 2))[0])
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    np.testing.assert_allclose(speech_features(large, wav)[:, -1], last.last_hidden_state[0], atol=1e-5)


def test_a_chunk_with_the_whole_around_it_is_the_whole(model, wav):
    found = speech_features(model, wav, chunk_s=0.5, context_s=4)
    np.testing.assert_allclose(found, speech_features(model, wav), atol=2e-5)


def test_less_context_than_the_whole_is_near_it_and_more_is_nearer(model):
    long = np.random.default_rng(0).normal(size=24 * 16_000) * np.sin(np.arange(24 * 16_000) / 9_000)
    whole = speech_features(model, long)
    deviations = [
        np.linalg.norm(speech_features(model, long, chunk_s=4, context_s=context_s) - whole)
        / np.linalg.norm(whole)
        for context_s in (4, 12)
    ]
    assert 0 < deviations[1] < deviations[0] < 0.1


def test_too_little_context_is_refused(model, wav):
    with pytest.raises(ValueError, match="at least 4"):
        speech_features(model, wav, chunk_s=10, context_s=1)


# --- what is no sound, and what is no model -----------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros(16_000, np.int16), "float of -1..1"),
        (np.zeros((2, 16_000)), r"not \(S,\)"),
        (np.zeros(399), "399 samples"),
        (np.full(16_000, np.nan), "not finite"),
    ],
)
def test_what_is_no_sound_is_refused_in_words(model, wrong, said):
    with pytest.raises(ValueError, match=said):
        speech_features(model, wrong)


def save_as_published(model: Wav2Vec2Model, folder, prefix="wav2vec2.", old=True, **more) -> None:
    """As facebook/wav2vec2-base-960h is laid out: with a head, a prefix, and no mask."""
    spelt = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {"lm_head.weight": torch.zeros(8, 64), "lm_head.bias": torch.zeros(8)}
    for name, value in model.state_dict().items():
        if name == "masked_spec_embed":
            continue
        for new, official in spelt.items():
            name = name.replace(new, official) if old else name
        state[prefix + name] = value.clone()
    save_file(state | more, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(FACTS["config"]))


@pytest.mark.parametrize(("prefix", "old"), [("wav2vec2.", True), ("", False)])
def test_the_official_names_and_transformers_own_are_loaded(model, wav, tmp_path, prefix, old):
    save_as_published(model, tmp_path, prefix, old)
    expected = speech_features(model, wav)
    np.testing.assert_array_equal(speech_features(load(tmp_path), wav), expected)
    np.testing.assert_array_equal(speech_features(load(tmp_path / "model.safetensors"), wav), expected)


def test_what_transformers_saves_is_loaded(model, wav, tmp_path):
    Wav2Vec2ForCTC(model.config).save_pretrained(tmp_path / "ctc")
    model.save_pretrained(tmp_path / "own")
    np.testing.assert_array_equal(speech_features(load(tmp_path / "own"), wav), speech_features(model, wav))
    assert load(tmp_path / "ctc").config.hidden_size == 64


def test_a_pickled_state_dict_is_loaded(model, wav, tmp_path):
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(FACTS["config"]))
    np.testing.assert_array_equal(speech_features(load(tmp_path), wav), speech_features(model, wav))


def test_a_model_that_is_not_there_is_said_in_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a folder nor a file"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        load(tmp_path)


def test_weights_that_do_not_fit_are_said_in_words(model, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FACTS["config"]))
    (tmp_path / "model.safetensors").write_bytes(b"<html>no such file</html>")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load(tmp_path)
    save_file({"lm_head.bias": torch.zeros(8)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not the weights of a wav2vec"):
        load(tmp_path)
    odd = {"wav2vec2.encoder.layer_norm.weight": torch.zeros(32)}
    save_as_published(model, tmp_path, **odd)
    with pytest.raises(ValueError, match=r"encoder\.layer_norm\.weight is \(32,\), not \(64,\)"):
        load(tmp_path)
