"""SyncNet against what syncnet_python computed from the same filled weights, and by what must hold of any."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import weights
from data_pipeline.models.sync_score import SyncBackend
from data_pipeline.models.syncnet import MAX_SHIFT, WEIGHTS, WEIGHTS_FILE, SyncNet, mfcc, sync_score
from data_pipeline.models.syncnet_scorer import SyncNetScorer, count_windows
from tests.filled import agrees_with, fill, golden, golden_facts

SHARED = Path(__file__).parents[4] / "shared" / "golden" / "syncnet" / "branches.safetensors"
SCORED = ["random", "shift3", "shift-7", "short"]


@pytest.fixture(scope="module")
def network() -> SyncNet:
    return fill(SyncNet(), gain=2**0.5)


@pytest.fixture(scope="module")
def scorer(network: SyncNet) -> SyncNetScorer:
    return SyncNetScorer(network, golden("syncnet/evaluate")["wav_int16"][::-1])


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, np.ndarray]:
    """(30, 224, 224, 3) RGB, and its sound; the stored frames are blue first."""
    stored = golden("syncnet/evaluate")
    blue_first = stored["frames_small_uint8"].repeat(16, axis=1).repeat(16, axis=2)
    return blue_first[..., ::-1], stored["wav_int16"]


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


# --- the sound's front end ----------------------------------------------------------------------------


def test_mfcc_are_those_of_python_speech_features():
    stored = golden("syncnet/sound")
    found = mfcc(stored["wav_int16"])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, stored["mfcc"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("n_samples", "n_frames"), [(1, 1), (400, 1), (401, 2), (560, 2), (561, 3), (16_000, 99)]
)
def test_the_last_frame_of_a_sound_may_be_begun_only(n_samples, n_frames):
    assert mfcc(np.ones(n_samples, np.int16)).shape == (n_frames, 13)


def test_silence_has_finite_mfcc():
    assert np.isfinite(mfcc(np.zeros(1000, np.int16))).all()


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_no_sound_and_two_channels_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(S,\) samples"):
        mfcc(np.zeros(shape, np.int16))


# --- the network --------------------------------------------------------------------------------------


def test_the_state_dict_is_that_of_the_published_network(network):
    found = {name: [*value.shape] for name, value in network.state_dict().items()}
    assert found == {name: shape for name, shape, _ in golden_facts("syncnet/contract")["entries"]}


def test_the_filled_network_is_the_one_that_was_recorded(network):
    assert agrees_with(network, golden_facts("syncnet/fill")["fill_check"])


def test_the_audio_branch_gives_the_recorded_features(network):
    stored = golden("syncnet/sound")
    with torch.inference_mode():
        found = network.audio(stored["branch.audio.in"])
    assert deviation(found, stored["branch.audio.out"]) < 1e-5


def test_the_lip_branch_gives_the_recorded_features(network):
    if not SHARED.is_file():
        pytest.skip(f"{SHARED} is not here: 1.7 MB of frames that do not travel with the tests")
    from safetensors.numpy import load_file

    stored = load_file(SHARED)
    with torch.inference_mode():
        features = network.lip_features(stored["branch.lip.in_uint8"])
        found = network.lip(stored["branch.lip.in_uint8"])
    assert deviation(features, stored["branch.lip.feature512"]) < 1e-5
    assert deviation(found, stored["branch.lip.out"]) < 1e-5


def test_an_input_of_another_shape_is_refused(network):
    with pytest.raises(ValueError, match=r"\(2, 1, 20, 13\), not \(B, 1, 13, 20\)"):
        network.audio(np.zeros((2, 1, 20, 13), np.float32))


# --- the file -----------------------------------------------------------------------------------------


def test_a_saved_state_dict_is_loaded_exactly(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / WEIGHTS_FILE)
    loaded = SyncNet.load(tmp_path / WEIGHTS_FILE).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())


def test_the_format_of_torch_before_1_6_without_counters_is_loaded(network, tmp_path):
    """The published file was written in 2018."""
    old = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(old, tmp_path / WEIGHTS_FILE, _use_new_zipfile_serialization=False)
    loaded = SyncNet.load(tmp_path / WEIGHTS_FILE)
    assert torch.equal(loaded.netfclip[3].weight, network.netfclip[3].weight)


def test_the_published_file_is_loaded_where_it_is_there():
    if not weights.registry()[WEIGHTS].is_cached():
        pytest.skip(f"not pulled: hallo3 weights pull {WEIGHTS}")
    assert not SyncNet.load(weights.fetch(WEIGHTS) / WEIGHTS_FILE).training


@pytest.mark.parametrize("wrong", ["page", "cut", "module", "other", "size", "list"])
def test_a_file_that_is_not_its_state_dict_is_refused_in_words(network, tmp_path, wrong):
    path = tmp_path / WEIGHTS_FILE
    if wrong == "page":
        path.write_text("<!doctype html><title>404</title>")
    elif wrong == "cut":
        torch.save(network.state_dict(), path)
        path.write_bytes(path.read_bytes()[:1_000_000])
    elif wrong == "module":
        torch.save(network, path)
    elif wrong == "other":
        torch.save({"fc1.weight": torch.zeros(2, 2)}, path)
    elif wrong == "size":
        torch.save(network.state_dict() | {"netfcaud.3.bias": torch.zeros(256)}, path)
    else:
        torch.save([1, 2], path)
    said = {
        "page": "a web page",
        "cut": "cut short or damaged",
        "module": r"save its state_dict\(\)",
        "other": "names differ",
        "size": r"netfcaud\.3\.bias is \(256,\), not \(1024,\)",
        "list": "holds a list",
    }
    with pytest.raises(ValueError, match=said[wrong]):
        SyncNet.load(path)


# --- scoring ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SCORED)
def test_scores_are_the_recorded_ones(case):
    stored, facts = golden("syncnet/scoring"), golden_facts("syncnet/scoring")[case]
    found = sync_score(stored[f"{case}.video"], stored[f"{case}.audio"])
    assert found.offset == facts["offset"]
    assert found.confidence == pytest.approx(facts["confidence"], abs=2e-4)
    assert found.distance == pytest.approx(facts["min_distance"], abs=1e-4)
    np.testing.assert_allclose(found.dists, stored[f"{case}.dists"], atol=1e-4)
    np.testing.assert_allclose(found.mean_dists, stored[f"{case}.mean_dists"], atol=1e-4)
    np.testing.assert_allclose(found.framewise_conf, stored[f"{case}.framewise_conf"], atol=2e-4)


@settings(max_examples=30, deadline=None)
@given(shift=st.integers(-MAX_SHIFT, MAX_SHIFT), seed=st.integers(0, 2**32 - 1))
def test_a_sound_that_is_early_by_k_frames_has_offset_k(shift, seed):
    rng = np.random.default_rng(seed)
    take = rng.normal(size=(60 + 2 * MAX_SHIFT, 32))
    video = take[MAX_SHIFT : MAX_SHIFT + 60]
    audio = take[MAX_SHIFT + shift : MAX_SHIFT + shift + 60]
    assert sync_score(video, audio + 0.1 * rng.normal(size=audio.shape)).offset == shift


@settings(max_examples=20, deadline=None)
@given(n_frames=st.integers(1, 40), max_shift=st.integers(0, 20), seed=st.integers(0, 1000))
def test_every_distance_is_that_of_its_two_rows(n_frames, max_shift, seed):
    video, audio = np.random.default_rng(seed).normal(size=(2, n_frames, 8))
    found = sync_score(torch.from_numpy(video), torch.from_numpy(audio), max_shift)
    frame, column = seed % n_frames, seed % (2 * max_shift + 1)
    other = frame + column - max_shift
    row = audio[other] if 0 <= other < n_frames else np.zeros(8)
    expected = torch.nn.functional.pairwise_distance(torch.tensor(video[frame]), torch.tensor(row))
    assert found.dists[frame, column] == pytest.approx(float(expected), rel=1e-9)
    assert found.distance == pytest.approx(found.dists.mean(axis=0).min())


def test_features_that_do_not_fit_or_are_no_numbers_are_refused():
    ones = np.ones((10, 4))
    with pytest.raises(ValueError, match=r"\(10, 4\) and \(9, 4\)"):
        sync_score(ones, ones[1:])
    with pytest.raises(ValueError, match="not all finite"):
        sync_score(ones, ones * np.nan)


# --- the whole routine --------------------------------------------------------------------------------


def test_a_clip_gives_the_recorded_features_distances_and_scores(scorer, clip):
    faces, audio = clip
    stored, facts = golden("syncnet/evaluate"), golden_facts("syncnet/evaluate")
    n_windows = count_windows(len(faces), len(audio))
    assert n_windows == facts["windows"]
    video = scorer.video_features(faces, n_windows)
    sound = scorer.audio_features(audio, n_windows)
    assert deviation(video, stored["video_features"]) < 1e-5
    assert deviation(sound, stored["audio_features"]) < 1e-5
    found = sync_score(video, sound)
    assert deviation(found.dists, stored["dists"]) < 1e-5
    assert found.offset == facts["offset"]
    assert found.confidence == pytest.approx(facts["confidence"], rel=1e-4)
    assert found.distance == pytest.approx(facts["min_distance"], rel=1e-5)


def test_the_folded_lip_branch_is_the_lip_branch(scorer, network, clip):
    faces, _ = clip
    windows = np.stack([faces[k : k + 5] for k in (0, 7)])[..., ::-1]  # (B, 5, H, W, 3), blue first
    with torch.inference_mode():
        expected = network.lip(np.ascontiguousarray(windows.transpose(0, 4, 1, 2, 3)))
    found = scorer.video_features(faces[:12], 8)[[0, 7]]
    assert deviation(found, expected.numpy()) < 1e-5


def test_the_margin_is_over_the_best_decoy_which_may_go_round_the_end_of_the_other_speech(scorer, clip):
    faces, audio = clip[0][:24], clip[1][: 24 * 640]
    other = clip[1][::-1][: 30 * 640]
    found = scorer.score(faces, audio, [3, 20])
    video = scorer.video_features(faces, 19)
    sounds = (audio, other[3 * 640 :], np.roll(other, -20 * 640))
    own, *others = (sync_score(video, scorer.audio_features(sound, 19)) for sound in sounds)
    assert (found.offset_frames, found.confidence, found.distance) == (
        own.offset,
        own.confidence,
        own.distance,
    )
    best = max(other.confidence for other in others)  # but for the sample before the cut, which MFCC look at
    assert found.margin == pytest.approx(own.confidence - best, rel=0.02)


def test_without_a_decoy_there_is_no_margin(scorer, clip):
    assert scorer.score(clip[0][:6], clip[1], []).margin is None


def test_what_is_too_short_or_no_face_crop_is_refused_in_words(scorer, clip):
    faces, audio = clip
    with pytest.raises(ValueError, match=r"5 frames and 1\.21 s of sound are too short"):
        scorer.score(faces[:5], audio, [])
    with pytest.raises(ValueError, match=r"a sound of 0\.10 s; 0\.32 s are needed"):
        scorer.audio_features(audio[:1600], 3)
    with pytest.raises(ValueError, match=r"not uint8 \(F, 224, 224, 3\)"):
        scorer.score(faces[:8].astype(np.float32), audio, [])


def test_it_is_what_the_sync_stage_asks_for(scorer):
    backend: SyncBackend = scorer
    assert backend.name == "syncnet_v2"
