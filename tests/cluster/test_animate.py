"""`hallo3 animate` as a user runs it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster import cli
from data_pipeline.media import probe
from tests.evaluation.checkpoints import write_export
from tests.evaluation.test_animator import tone
from tests.evaluation.test_picture import astronaut


@pytest.fixture
def given(tmp_path) -> dict[str, Path]:
    astronaut().save(tmp_path / "face.jpg")
    return {
        "checkpoint": write_export(tmp_path / "model"),
        "image": tmp_path / "face.jpg",
        "audio": tone(tmp_path / "voice.wav", 0.5),
        "output": tmp_path / "talk.mp4",
    }


def animate(given: dict[str, Path], *more: str) -> int:
    flags = [part for name, path in given.items() for part in (f"--{name}", str(path))]
    return cli.main(["animate", *flags, "--steps", "2", *more])


def test_a_portrait_and_a_voice_become_a_video(given, capsys) -> None:
    assert animate(given, "--sampler", "clean", "--guidance", "1") == 0
    told = capsys.readouterr()
    assert f"{given['output']}: 13 frames, 0.52 s" in told.out
    assert "animate: 13/13 frames" in told.err
    assert probe(given["output"]).audio is not None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image": Path("/nowhere.jpg")}, "/nowhere.jpg: no such file or folder"),
        ({"checkpoint": Path("/nowhere")}, "/nowhere: no such file or folder"),
        ({"output": Path("talk.avi")}, "talk.avi: the video is an MP4; name it talk.mp4"),
        ({"image": Path(__file__)}, "no image that can be read"),
        ({"checkpoint": Path(__file__).parent}, str(Path(__file__).parent)),
    ],
)
def test_what_cannot_be_used_ends_with_status_2_and_its_name(given, changed, words, capsys) -> None:
    assert animate(given | changed) == 2
    assert words in capsys.readouterr().err
    assert not given["output"].exists()


def test_files_are_looked_at_before_a_model_is(given, tmp_path, capsys) -> None:
    (tmp_path / "no_model").mkdir()
    assert animate(given | {"checkpoint": tmp_path / "no_model", "audio": given["image"]}) == 2
    assert f"{given['image']}: not media" in capsys.readouterr().err


def test_steps_are_skipped_where_that_is_asked_for(given, capsys) -> None:
    assert animate(given, "--steps", "5", "--skip-steps", "1000000000") == 0
    assert "13 frames, 0.52 s, 6 steps skipped" in capsys.readouterr().out


@pytest.mark.parametrize("threshold", ["-0.1", "nan", "inf", "much"])
def test_a_threshold_that_is_none_is_refused(given, threshold, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        animate(given, f"--skip-steps={threshold}")
    assert ended.value.code == 2
    assert "--skip-steps" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_command_goes_on_with_its_last_window(given, tmp_path) -> None:
    given["audio"] = tone(tmp_path / "long.wav", 8)
    flags = [part for name, path in given.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, "-m", "cluster.cli", "animate", *flags, "--steps", "4"]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    parts = tmp_path / ".talk.mp4.parts"
    while len([*parts.glob("window-*.mp4")]) < 3:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not given["output"].exists()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "/200 frames, going on" in again.stderr
    gone_on = given["output"].read_bytes()
    assert animate(given, "--steps", "4") == 0
    assert given["output"].read_bytes() == gone_on
    assert not parts.exists()
