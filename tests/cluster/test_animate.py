"""`hallo3 animate` as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

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


def test_size_and_rate_are_flags(given, capsys) -> None:
    assert animate(given, "--guidance", "1", "--size", "80x80", "--fps", "30", "--offload") == 0
    assert f"{given['output']}: 15 frames, 0.50 s" in capsys.readouterr().out
    video = probe(given["output"]).video
    assert (video.height, video.width, video.fps) == (80, 80, 30)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (("--size", "big"), "big is not HEIGHTxWIDTH, e.g. 480x720"),
        (("--size", "60x60"), "60x60 is not of multiples of 8 px"),
        (("--tile", "240x360"), "240x360 is not of multiples of 32 px"),
        (("--fps", "29.97"), "29.97 is no whole number from 10 to 60"),
        (("--fps", "5"), "5 is no whole number from 10 to 60"),
    ],
)
def test_sizes_and_rates_that_cannot_be_are_refused_at_once(given, flag, words, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        animate(given, *flag)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "words"), [(("--size", "72x64"), "multiples of 16 px"), (("--tile", "32x32"), "a fitted codec")]
)
def test_what_this_model_cannot_do_ends_with_status_2(given, flag, words, capsys) -> None:
    assert animate(given, *flag) == 2
    assert words in capsys.readouterr().err


def test_files_are_looked_at_before_a_model_is(given, tmp_path, capsys) -> None:
    (tmp_path / "no_model").mkdir()
    assert animate(given | {"checkpoint": tmp_path / "no_model", "audio": given["image"]}) == 2
    assert f"{given['image']}: not media" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--image is missing: give --image, --audio and --output, or a list of them with --batch"),
        (
            ["--batch", "LIST", "--output", "a.mp4"],
            "--output a.mp4: the lines of --batch say it, each its own",
        ),
        (["--batch", "LIST", "--prompt", "x"], "--prompt x: the lines of --batch say it"),
        (["--batch", "/nowhere.jsonl"], "/nowhere.jsonl: no such file or folder"),
        (["--image", "a", "--audio", "a", "--output", "a.mp4", "--workers", "2"], "--workers is for a list"),
        (["--batch", "LIST"], "2: audio: missing"),
        (["--batch", "LIST", "--workers-a-video", "0"], "0 is not 1 or more"),
    ],
)
def test_words_that_do_not_go_together_end_with_status_2(given, tmp_path, flags, words, capsys) -> None:
    listed = write_list(tmp_path, given, {}, {"image": "face.jpg", "output": "b.mp4"})
    command = ["animate", "--checkpoint", str(given["checkpoint"]), *flags]
    try:
        status = cli.main([str(listed) if word == "LIST" else word for word in command])
    except SystemExit as error:  # as argparse ends
        status = error.code
    assert status == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "talk.mp4").exists()


def test_more_workers_than_can_share_a_video_end_with_status_2_before_ray_starts(given, capsys) -> None:
    assert animate(given, "--workers-a-video", "3") == 2
    assert "--workers-a-video 3 must divide the model's 2 heads" in capsys.readouterr().err


def write_list(folder: Path, given: dict[str, Path], *items: dict[str, object]) -> Path:
    """Of items that have what is given where they say nothing; one with an image of its own says all."""
    lines = [item if "image" in item else {**paths(given), **item} for item in items]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "items.jsonl"


def paths(given: dict[str, Path]) -> dict[str, str]:
    return {name: str(given[name]) for name in ("image", "audio", "output")}


def batch(checkpoint: Path, listed: Path, *more: str) -> list[str]:
    command = [sys.executable, "-m", "cluster.cli", "animate", "--checkpoint", str(checkpoint)]
    return [*command, "--batch", str(listed), *more]


@pytest.mark.slow
def test_a_list_of_videos_is_made_but_for_what_cannot_be(given, tmp_path) -> None:
    grey = tmp_path / "grey.png"
    Image.new("RGB", (64, 64), "grey").save(grey)
    listed = write_list(
        tmp_path,
        given,
        {"output": "out/a.mp4"},
        {"image": "grey.png", "audio": "voice.wav", "output": "out/b.mp4"},
        {"output": "out/c.mp4", "seed": 1},
    )
    command = batch(given["checkpoint"], listed, "--steps", "2", "--workers", "2")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    out = tmp_path / "out"
    assert sorted(done.stdout.splitlines()) == [f"{out / name}.mp4: 13 frames, 0.52 s" for name in ("a", "c")]
    assert "hallo3: 1 of 3 videos could not be made" in done.stderr
    assert f"  {out / 'b.mp4'}: {grey}: no face is seen" in done.stderr
    assert animate(given, "--seed", "1") == 0
    assert (out / "c.mp4").read_bytes() == given["output"].read_bytes()
    astronaut().save(grey)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == [
        f"{out / 'b.mp4'}: 13 frames, 0.52 s",
        "2 of 3 videos were there, of the same inputs",
    ]


@pytest.mark.slow
def test_a_list_that_is_stopped_goes_on(given, tmp_path) -> None:
    given["audio"] = tone(tmp_path / "long.wav", 8)
    listed = write_list(tmp_path, given, {"output": "a.mp4"}, {"output": "b.mp4", "seed": 1})
    command = batch(given["checkpoint"], listed, "--steps", "4")
    stopped = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    parts = tmp_path / ".b.mp4.parts"
    while len([*parts.glob("window-*.mp4")]) < 3:
        assert stopped.poll() is None
        time.sleep(0.01)
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does
    told = stopped.communicate(timeout=60)[1]
    assert stopped.returncode == 130, told
    assert "Traceback" not in told
    assert "the same command goes on from here" in told
    before = (tmp_path / "a.mp4").stat().st_mtime_ns
    assert 3 <= len([*parts.glob("window-*.mp4")]) < 29, "nothing was left to be made"
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "1 of 2 videos were there" in again.stdout
    assert (tmp_path / "a.mp4").stat().st_mtime_ns == before
    assert animate(given, "--steps", "4", "--seed", "1") == 0
    assert (tmp_path / "b.mp4").read_bytes() == given["output"].read_bytes()
    assert not parts.exists()


@pytest.mark.slow
def test_two_workers_share_one_video(given) -> None:
    flags = [part for name, path in given.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, "-m", "cluster.cli", "animate", *flags, "--steps", "2"]
    done = subprocess.run([*command, "--workers-a-video", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{given['output']}: 13 frames, 0.52 s" in done.stdout
    assert probe(given["output"]).audio is not None


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
