"""Processes killed in the middle of a build: the same command completes it, byte for byte, and does no
committed work twice. Real Ray, real kills.

The rules are off: what is measured is not the point here, so any moving picture will do.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_pipeline.dataset import Dataset
from data_pipeline.policy import RULES
from data_pipeline.verify import verify
from tests.data_pipeline.makers import clicks, write_video
from tests.data_pipeline.test_actors import drifting

SOURCES = 8
DEADLINE_S = 240


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(SOURCES):
        sound = clicks([0.3 + 0.2 * number], 2.4)
        write_video(folder / f"{number}.mp4", n_frames=60, size=(160, 128), pixels=drifting, sound=sound)
    (folder / "broken.mp4").write_text("no video\n")
    return folder


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed") / "dataset"
    build = start(videos, root)
    assert build.wait(DEADLINE_S) == 0
    assert len(Dataset.open(root).places()) == SOURCES
    assert list(verify(Dataset.open(root))) == []
    return content(root)


def start(videos: Path, root: Path) -> subprocess.Popen:
    off = [f"filters.{rule.filter_key}=null" for rule in RULES]
    small = ["segment.min_s=1", "encode.width=64", "encode.height=64", "encode.preset=ultrafast"]
    command = ["curate", "talking_head", f"sources={videos}", f"output={root}", *off, *small]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "cluster.cli", *command, "ray.object_store_gb=0.2"],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def content(root: Path) -> dict[str, bytes]:
    """What must be the same: shards and manifest; a version also names the output's path."""
    paths = [path for part in ("shards", "manifest") for path in sorted((root / part).rglob("*"))]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def records(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.glob("measured/*/*/record.json")}


def wait_until(condition: Callable[[], Any], build: subprocess.Popen) -> Any:
    """What `condition` gives, as soon as that is something."""
    until = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert build.poll() is None, "the build ended before it could be disturbed"
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def actors(build: subprocess.Popen, title: str = "MapBatches(") -> list[psutil.Process]:
    found = []
    for process in psutil.Process(build.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end while we look
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def at_work(build: subprocess.Popen, stage: str) -> list[psutil.Process]:
    """The stage's actors that have a batch in hand: Ray says so in the title of their process."""
    return actors(build, f"MapBatches({stage})).submit")


def test_a_killed_driver_loses_nothing_and_measures_no_committed_source_again(
    videos, undisturbed, tmp_path
) -> None:
    root = tmp_path / "dataset"
    build = start(videos, root)
    wait_until(lambda: len(records(root)) >= 3, build)
    children = psutil.Process(build.pid).children(recursive=True)
    writers = actors(build)
    build.send_signal(signal.SIGKILL)
    build.wait()
    _, alive = psutil.wait_procs(writers, timeout=60)
    for child in children:  # Ray's own agents take a while to find out
        with contextlib.suppress(psutil.Error):
            child.kill()
    assert not alive, f"workers outlived their driver: {[process.name() for process in alive]}"
    assert not (root / "dataset.json").exists()
    committed = records(root)
    assert 3 <= len(committed) <= SOURCES
    again = start(videos, root)
    assert again.wait(DEADLINE_S) == 0
    assert {path: time_ns for path, time_ns in records(root).items() if path in committed} == committed
    assert content(root) == undisturbed
    assert list(verify(Dataset.open(root))) == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["Decode", "Look", "Synchronise", "Encode"])
def test_a_killed_worker_is_replaced_and_the_dataset_is_the_same(
    videos, undisturbed, tmp_path, stage
) -> None:
    root = tmp_path / "dataset"
    build = start(videos, root)
    for victim in wait_until(lambda: at_work(build, stage), build):
        victim.kill()
    assert build.wait(DEADLINE_S) == 0
    assert content(root) == undisturbed
    assert list(verify(Dataset.open(root))) == []
