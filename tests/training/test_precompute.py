"""Precompute: what is stored is the same whoever computes it and whatever is killed on the way."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from cluster.cli import main
from cluster.launch import ray_session
from data_pipeline.dataset import Dataset
from data_pipeline.feature_shards import FeatureMissing, StoredFeatures, open_features
from data_pipeline.storage import location
from data_pipeline.verify import verify
from tests.training.feature_datasets import codec, config, dataset_of
from tests.training.model.test_text import cogvideox_folder  # noqa: F401 - a fixture
from training.config import TrainConfig
from training.features import load_maker
from training.model.text import T5TextEncoder
from training.precompute import Job, PrecomputeError, Worker, Written, default_kinds, plan, precompute

KINDS = ["speech", "latents", "conditions"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Four clips in two shards; the second clip's video is no video."""
    return dataset_of(
        tmp_path_factory.mktemp("packed") / "dataset", people=4, shard_mb=0.1, broken=".mp4"
    ).root


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> str:
    return codec(tmp_path_factory.mktemp("codec") / "codec")


@pytest.fixture
def dataset(packed, tmp_path) -> Dataset:
    return Dataset.open(shutil.copytree(packed, tmp_path / "dataset"))


@pytest.fixture
def run(dataset, autoencoder) -> TrainConfig:
    return config(dataset.root, autoencoder, "conditions.stored_variants=2")


def compute(dataset: Dataset, run: TrainConfig, kinds: list[str] = KINDS) -> list[Written]:
    """All jobs, in this process."""
    worker = Worker(dataset.root, run, "cpu")
    return [list(worker.run(job))[-1] for job in plan(dataset, run, kinds).jobs]


def stored(dataset: Dataset, run: TrainConfig, kind: str) -> StoredFeatures:
    found = open_features(dataset, kind, load_maker(kind, run).features.digest)
    assert found is not None
    return found


def digests(root: Path) -> dict[str, str]:
    """Of all files of features."""
    files = sorted(path for path in (root / "features").glob("*/*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def places(dataset: Dataset) -> list[str]:
    found = dataset.places()
    return sorted(found, key=lambda clip_id: (found[clip_id].shard, found[clip_id].offset))


def broken_clip(dataset: Dataset) -> str:
    return next(x for x in places(dataset) if dataset.sample_of(x)[f"{x}.mp4"].startswith(b"no media"))


def test_all_kinds_are_stored_for_every_clip(dataset, run) -> None:
    compute(dataset, run)
    broken = broken_clip(dataset)
    speech, latents, conditions = (stored(dataset, run, kind) for kind in KINDS)
    for clip_id in places(dataset):
        assert speech.read(clip_id).shape == (25, 4, 80)
        if clip_id != broken:
            assert latents.read(f"{clip_id}/000016").shape == (3, 8, 4, 4)
            assert conditions.read(f"{clip_id}/000016", 1, 1).shape == (1, 2, 1, 8, 4, 4)


def test_a_broken_clip_is_named_with_its_reason_and_harms_no_other(dataset, run) -> None:
    written = compute(dataset, run, ["latents"])
    assert (sum(x.arrays for x in written), sum(x.missing for x in written)) == (9, 3)
    broken = broken_clip(dataset)
    with pytest.raises(
        FeatureMissing, match=f"{broken}/000008: could not be computed: MediaError: its video cannot"
    ):
        stored(dataset, run, "latents").read(f"{broken}/000008")


def test_a_shard_of_which_nothing_can_be_computed_is_not_recorded_as_done(tmp_path, autoencoder) -> None:
    """So does an encoder that runs out of something show: nothing of it may stay for good."""
    dataset = dataset_of(tmp_path / "dataset", people=2, shard_mb=0.05, broken=".mp4")
    run = config(dataset.root, autoencoder)
    shard = dataset.places()[broken_clip(dataset)].shard
    (job,) = (job for job in plan(dataset, run, ["latents"]).jobs if job.shard == shard)
    with pytest.raises(PrecomputeError, match="none of its clips can be computed; the first: "):
        list(Worker(dataset.root, run, "cpu").run(job))
    assert not [*job.features.folder(dataset.root).iterdir()]


def test_a_shard_that_is_gone_is_no_broken_clip(dataset, run) -> None:
    (dataset.root / "shards" / next(iter(dataset.version.shards))).unlink()
    job = plan(dataset, run, ["speech"]).jobs[0]
    with pytest.raises(Exception, match=r"no sample at byte 0: .*No such file"):
        list(Worker(dataset.root, run, "cpu").run(job))


def test_captions_are_stored_as_t5_embeds_them(dataset, autoencoder, cogvideox_folder) -> None:  # noqa: F811
    run = config(
        dataset.root,
        autoencoder,
        f"encoders.text={cogvideox_folder}",
        "model.text_dim=16",
        "model.text_length=24",
    )
    compute(dataset, run, ["text"])
    found = stored(dataset, run, "text")
    encoder = T5TextEncoder.load(cogvideox_folder, text_length=24)
    for clip_id in places(dataset):
        caption = dataset.sample_of(clip_id)[f"{clip_id}.txt"].decode()
        wanted = encoder.encode([caption])[0].float().numpy()
        np.testing.assert_array_equal(found.read(clip_id), wanted)  # bfloat16 loses nothing in float16


def test_a_broken_sound_is_a_broken_clip_s(tmp_path, autoencoder) -> None:
    dataset = dataset_of(tmp_path / "dataset", people=3, broken=".flac")
    run = config(dataset.root, autoencoder)
    (written,) = compute(dataset, run, ["speech"])
    assert (written.arrays, written.missing) == (2, 1)
    whole = [clip_id in stored(dataset, run, "speech") for clip_id in places(dataset)]
    assert sorted(whole) == [False, True, True]


def test_of_a_shard_that_is_purged_meanwhile_nothing_is_kept(dataset, run) -> None:
    job = plan(dataset, run, ["speech"]).jobs[0]
    steps = Worker(dataset.root, run, "cpu").run(job)
    assert [next(steps) for _ in job.clips] == [1, 2]
    (dataset.root / "shards" / job.shard).unlink()
    with pytest.raises(PrecomputeError, match="the shard was deleted meanwhile"):
        next(steps)
    assert not [*job.features.folder(dataset.root).iterdir()]


def test_what_is_there_is_not_computed_again(dataset, run) -> None:
    compute(dataset, run)
    before = digests(dataset.root)
    assert plan(dataset, run, KINDS).jobs == []
    first = sorted((dataset.root / "features").glob("latents-*/*.parquet"))[0]
    first.unlink()
    (first.parent / f".{first.stem}.tar.0a1b2c3d").write_bytes(b"of a job that was killed")
    work = plan(dataset, run, KINDS)
    assert [(job.features.kind, job.shard) for job in work.jobs] == [("latents", f"{first.stem}.tar")]
    assert work.done_before == 5
    list(Worker(dataset.root, run, "cpu").run(work.jobs[0]))
    assert digests(dataset.root) == before


def test_other_settings_are_other_features_beside_the_first(dataset, run, autoencoder) -> None:
    compute(dataset, run, ["latents"])
    before = digests(dataset.root)
    other = config(dataset.root, autoencoder, "samples.window_stride=4")
    compute(dataset, other, ["latents"])
    assert digests(dataset.root).items() > before.items()
    assert stored(dataset, other, "latents").features.window_stride == 4
    assert stored(dataset, run, "latents").features.window_stride == 8


def test_a_worker_with_another_encoder_than_the_job_s_is_refused(dataset, run, autoencoder, tmp_path) -> None:
    job = plan(dataset, run, ["latents"]).jobs[0]
    elsewhere = config(dataset.root, autoencoder, "samples.window_stride=4")
    with pytest.raises(PrecomputeError, match="the encoder on this machine has the digest"):
        next(Worker(dataset.root, elsewhere, "cpu").run(job))


def test_kinds_are_those_that_the_run_looks_at(dataset, autoencoder) -> None:
    assert default_kinds(config(dataset.root, autoencoder)) == ["speech", "latents"]
    assert default_kinds(config(dataset.root, autoencoder, "phase=identity")) == ["latents"]
    assert default_kinds(config(dataset.root, autoencoder, "encoders.text=t5"))[0] == "text"


def test_a_purge_leaves_nothing_of_a_person_s_features(dataset, run, capsys) -> None:
    compute(dataset, run)
    before = places(dataset)
    whole = [clip_id for clip_id in before if clip_id != broken_clip(dataset)]
    gone, stays = whole[0], whole[-1]
    rows = dataset.manifest(["clip_id", "source_uris"]).to_pylist()
    uri = next(row["source_uris"][0] for row in rows if row["clip_id"] == gone)
    latents = stored(dataset, run, "latents")
    trace = latents.read(f"{gone}/000000").tobytes()[:256]
    kept = latents.read(f"{stays}/000000").tobytes()[:256]

    def traced(data: bytes) -> list[Path]:
        return [path for path in dataset.root.rglob("*") if path.is_file() and data in path.read_bytes()]

    assert len(traced(trace)) == len(traced(kept)) == 1
    assert main(["dataset", "purge", str(dataset.root), "--source", uri, "--yes"]) == 0
    assert traced(trace) == traced(gone.encode()) == []
    made = Dataset.open(dataset.root)
    names = {path.name.split(".")[0] for path in (dataset.root / "features").rglob("*") if path.is_file()}
    assert names <= {shard.removesuffix(".tar") for shard in made.version.shards}
    if made.places()[stays].shard in dataset.version.shards:  # an untouched shard keeps its features
        assert len(traced(kept)) == 1
    compute(made, run)
    assert set(made.places()) == {*before} - {gone}
    assert all(clip_id in stored(made, run, "speech") for clip_id in made.places())


@pytest.mark.parametrize(
    ("arguments", "says", "status"),
    [
        (["--kinds", "text"], "kinds: encoders.text is none, whose zeros are not stored", 2),
        (
            ["--for", "RUN", "encoders.autoencoder=/nowhere"],
            "encoders.autoencoder: /nowhere: no such folder",
            2,
        ),
        (["--for", "RUN", "encoders.speach=log_mel"], "speach: unknown key .*did you mean speech", 2),
        (
            ["--for", "RUN", "encoders.autoencoder=''"],
            "encoders.autoencoder is empty: name a folder, or output=RUN, a run",
            2,
        ),
        (["--for", "no_such_preset"], "no preset and no file is called 'no_such_preset'", 2),
        (["--version", "7"], "has no version 7", 1),
    ],
)
def test_what_cannot_be_done_is_told_before_it_is_begun(
    dataset, run, tmp_path, capsys, arguments, says, status
) -> None:
    file = run_file(run, tmp_path)
    given = [file if word == "RUN" else word for word in arguments]
    named = [] if "--for" in given else ["--for", file]
    assert main(["dataset", "precompute", str(dataset.root), *named, *given]) == status
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(capsys.readouterr().err)
    assert not (dataset.root / "features").exists()


def test_an_empty_dataset_is_told(tmp_path, autoencoder) -> None:
    dataset = dataset_of(tmp_path / "dataset", people=0)
    with pytest.raises(PrecomputeError, match="version 1 keeps no clip; `hallo3 dataset show` says why"):
        plan(dataset, config(dataset.root, autoencoder), ["speech"])


def run_file(run: TrainConfig, folder: Path) -> str:
    import yaml

    path = folder / "run.yaml"
    values = run.model_dump(mode="json")
    del values["dataset"], values["output"]
    path.write_text(yaml.safe_dump(values))
    return str(path)


def command(dataset: Dataset, run: TrainConfig, folder: Path, *more: str) -> list[str]:
    name = [sys.executable, "-m", "cluster.cli", "dataset", "precompute", str(dataset.root)]
    return [*name, "--for", run_file(run, folder), *more]


@pytest.fixture
def ray_here(run) -> Iterator[None]:
    with ray_session(run.ray):
        yield


@pytest.mark.slow
def test_one_worker_and_two_leave_the_same_bytes(
    dataset, run, packed, autoencoder, tmp_path, ray_here
) -> None:
    other = Dataset.open(shutil.copytree(packed, tmp_path / "other"))
    for each, workers in ((dataset, 1), (other, 2)):
        steps: list[tuple[Job, int]] = []
        note = partial(lambda noted, *step: noted.append(step), steps)
        done, failures = precompute(each, run, plan(each, run, KINDS), note, workers)
        assert failures == []
        assert [(kind.features.kind, kind.shards, kind.clips) for kind in done] == [
            (kind, 2, 4) for kind in KINDS
        ]
        assert len(steps) == 12
        assert [kind.missing for kind in done] == [0, 3, 3]
        assert sum(kind.bytes for kind in done) == sum(
            path.stat().st_size for path in (each.root / "features").glob("*/*")
        )
    assert digests(dataset.root) == digests(other.root)
    compute(again := Dataset.open(shutil.copytree(packed, tmp_path / "here")), run)
    assert digests(again.root) == digests(other.root)


def kill_workers() -> int:
    """SIGKILL to this process's Ray workers that are at a shard; how many there were."""
    found = [
        process
        for process in psutil.Process().children(recursive=True)
        if "ray::Worker" in " ".join(process.cmdline())
    ]
    for process in found:
        process.kill()
    return len(found)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_shard_begun_anew(dataset, run, ray_here) -> None:
    killed = 0

    def once(job: Job, clips: int) -> None:
        nonlocal killed
        if not killed:
            killed = kill_workers()

    work = plan(dataset, run, ["latents"])
    done, failures = precompute(dataset, run, work, once, workers=1)
    assert (killed, failures, done[0].shards) == (1, [], 2)
    found = digests(dataset.root)
    shutil.rmtree(dataset.root / "features")
    compute(dataset, run, ["latents"])
    assert digests(dataset.root) == found


@pytest.mark.slow
def test_a_shard_that_kills_its_worker_each_time_is_told_and_the_others_are_done(
    dataset, run, ray_here
) -> None:
    first = sorted(dataset.version.shards)[0]

    def always(job: Job, clips: int) -> None:
        if job.shard == first:
            assert kill_workers() == 1

    work = plan(dataset, run, ["latents"])
    done, failures = precompute(dataset, run, work, always, workers=1)
    assert done[0].shards == 1
    assert failures == [
        f"latents of {first}: its worker died 3 times; a clip that kills decoders, or too little memory"
    ]
    assert [job.shard for job in plan(dataset, run, ["latents"]).jobs] == [first]


@pytest.mark.slow
def test_a_shard_that_is_gone_is_told_and_the_others_are_done(dataset, run, ray_here) -> None:
    first = min(dataset.version.shards)
    (dataset.root / "shards" / first).unlink()
    done, failures = precompute(dataset, run, plan(dataset, run, ["speech"]), lambda *_: None)
    assert done[0].shards == 1
    assert len(failures) == 1
    assert "No such file" in failures[0]


@pytest.mark.slow
def test_after_kill_9_the_same_command_does_the_rest_and_no_more(autoencoder, tmp_path) -> None:
    dataset = dataset_of(tmp_path / "dataset", people=12, shard_mb=0.1)
    run = config(dataset.root, autoencoder, "samples.window_stride=1", "conditions.stored_variants=8")
    work = command(dataset, run, tmp_path, "--workers", "1")
    job = subprocess.Popen(work, start_new_session=True, stderr=subprocess.PIPE, text=True)
    done: list[Path] = []
    while not done:
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.02)
        done = [*(dataset.root / "features").glob("conditions-*/*.parquet")]
    children = psutil.Process(job.pid).children(recursive=True)
    os.killpg(job.pid, signal.SIGKILL)
    for process in children:
        if process.is_running():
            process.kill()
    job.wait()
    done = [*(dataset.root / "features").glob("*/*.parquet")]
    written = {path: path.stat().st_mtime_ns for path in done}
    assert 0 < len(done) < 18
    ended = subprocess.run(work, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"{len(done)} of 18 shards' features were there" in ended.stdout
    assert {path: path.stat().st_mtime_ns for path in done} == written
    assert len([*(dataset.root / "features").rglob("*.parquet")]) == 18
    assert not [*(dataset.root / "features").rglob(".*")]
    found = digests(dataset.root)
    shutil.rmtree(dataset.root / "features")
    compute(dataset, run, KINDS)
    assert digests(dataset.root) == found
    assert [*verify(dataset)] == []


@pytest.fixture
def small_disk(dataset) -> Iterator[Path]:
    """Where the dataset's features go."""
    disk = dataset.root / "features"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room(
    dataset, run, small_disk, tmp_path
) -> None:
    work = command(dataset, run, tmp_path)
    ended = subprocess.run(work, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "6 of 6 shards could not be done; the same command tries them again" in ended.stderr
    assert "No space left on device" in ended.stderr
    assert not [path for path in small_disk.rglob("*") if path.is_file()]
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    ended = subprocess.run(work, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "latents    2 shards, 4 clips, 9 arrays, 3 missing (the indexes say why)" in ended.stdout


@pytest.mark.slow
def test_features_of_a_dataset_in_a_store_lie_in_the_store(store, packed, autoencoder, tmp_path) -> None:
    for path in packed.rglob("*"):
        if path.is_file() and "measured" not in path.parts:
            store.put(f"sets/{path.relative_to(packed)}", path.read_bytes())
    dataset = Dataset.open(f"{store.root}/sets")
    run = config(f"{store.root}/sets", autoencoder, "conditions.stored_variants=2")
    with ray_session(run.ray):
        done, failures = precompute(dataset, run, plan(dataset, run, KINDS), lambda *_: None)
    assert (failures, [kind.shards for kind in done]) == ([], [2, 2, 2])
    local = Dataset.open(shutil.copytree(packed, tmp_path / "dataset"))
    compute(local, run)
    there = {
        key.removeprefix("sets/"): hashlib.sha256(store.get(key)).hexdigest()
        for key in store.listed("sets/features")
    }
    assert there == digests(local.root)
    clip_id = places(dataset)[0]
    speech = stored(dataset, run, "speech")
    np.testing.assert_array_equal(
        speech.read(clip_id, 3, 9), stored(local, run, "speech").read(clip_id)[3:12]
    )
    assert plan(dataset, run, KINDS).jobs == []
    assert [x for x in verify(dataset) if "features" in x] == []
    assert location(f"{store.root}/sets/features").exists()
