"""`--on ADDRESS`: the same command as a job on a Ray cluster that is there."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data_pipeline.dataset import Dataset
from tests.cluster.test_curation import hallo3


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[str]:
    """The address of a one-node cluster of our own, with its job server."""
    ports = {"port": free_port(), "dashboard-port": free_port(), "dashboard-agent-listen-port": free_port()}
    ray = shutil.which("ray", path=str(Path(sys.executable).parent))
    assert ray
    folder = f"/tmp/r{os.getpid()}"  # Ray's sockets need a short path
    command = [ray, "start", "--head", "--block", "--num-cpus=2", "--object-store-memory=200000000"]
    command += ["--dashboard-host=127.0.0.1", "--disable-usage-stats", f"--temp-dir={folder}"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    head = subprocess.Popen(
        command,
        env=os.environ
        | {
            "RAY_AUTH_MODE": "disabled",  # the job server listens on loopback only
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # a job starts `python`
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while socket.socket().connect_ex(("127.0.0.1", ports["dashboard-port"])):
            assert head.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        yield f"http://127.0.0.1:{ports['dashboard-port']}"
    finally:
        started = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        for process in started:  # asked to end, Ray takes half a minute
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_build_runs_as_a_job_and_its_output_and_status_come_back(cluster, tmp_path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "text.mp4").write_text("no video\n")
    given = [f"sources={videos}", f"output={tmp_path / 'dataset'}"]
    done = hallo3("curate", "demo", *given, "--on", cluster)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "error     1: corrupt 1" in done.stdout
    assert Dataset.open(tmp_path / "dataset").manifest()["reason"].to_pylist() == ["corrupt"]
    wrong = hallo3("curate", "demo", f"sources={tmp_path}/nowhere", given[1], f"--on={cluster}")
    assert wrong.returncode == 2
    assert "nowhere" in wrong.stdout


def test_a_cluster_that_is_not_there_is_named() -> None:
    done = hallo3("curate", "demo", "sources=x", "output=y", "--on", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "the job could not be submitted" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_ray_that_does_not_start_in_time_is_started_again(tmp_path) -> None:
    (tmp_path / "text.mp4").write_text("no video\n")
    command = ["curate", "demo", f"sources={tmp_path}", f"output={tmp_path / 'dataset'}"]
    build = subprocess.Popen(
        [sys.executable, "-m", "cluster.cli", *command], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not (raylets := [p for p in psutil.Process(build.pid).children(True) if p.name() == "raylet"]):
        assert build.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    raylets[0].suspend()  # before it has told anybody that it is there
    said = build.communicate(timeout=240)[1]
    assert build.returncode == 0, said
    assert "started again" in said
    assert Dataset.open(tmp_path / "dataset").manifest()["reason"].to_pylist() == ["corrupt"]
