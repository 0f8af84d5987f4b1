"""Clips that are written are read back: their pictures, their sound, and that both are equally long."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipeline.media import read_audio, read_frames
from tests.training.little_room import files_of_at_most
from training.clip_file import join_clips, write_clip

FPS, RATE = 25, 16_000


def pictures(n: int, size: tuple[int, int] = (64, 96), first: int = 0) -> np.ndarray:
    """Smooth colours that move."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    shown = [np.stack([rows * 3, columns * 2, rows + columns + 4 * (first + k)], -1) for k in range(n)]
    return np.clip(shown, 0, 255).astype(np.uint8)


def tone(seconds: float) -> np.ndarray:
    times_s = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * 440 * times_s) * np.minimum(1, 4 * times_s)).astype(np.float32)


def seconds(path: Path, kind: str) -> float:
    with av.open(str(path)) as file:
        stream = file.streams.get(**{kind: 0})[0]
        return float(stream.duration * stream.time_base)


def test_pictures_come_back(tmp_path) -> None:
    shown = pictures(10)
    assert write_clip(tmp_path / "a.mp4", [shown[:7], shown[7:]], FPS) == 10
    found = np.stack([frame.rgb() for frame in read_frames(tmp_path / "a.mp4")])
    error = np.square(found.astype(float) - shown).mean()
    assert found.shape == shown.shape
    assert 10 * np.log10(255**2 / error) > 36


WRITE = """
import sys, numpy as np
from pathlib import Path
from training.clip_file import write_clip
frames = np.random.default_rng(0).integers(0, 64, (12, 64, 64, 3)).astype(np.uint8)
frames += np.linspace(0, 180, 64).astype(np.uint8)[:, None]
write_clip(Path(sys.argv[1]), [np.roll(frames, 3 * k, 2) for k in range(4)], 25)
"""


def test_the_same_frames_give_the_same_bytes_whatever_was_in_memory_before(tmp_path) -> None:
    files = [tmp_path / f"{filling}.mp4" for filling in (33, 254)]
    for file in files:
        filled = {**os.environ, "MALLOC_PERTURB_": file.stem}  # glibc: what fresh memory is filled with
        subprocess.run([sys.executable, "-c", WRITE, str(file)], env=filled, check=True)
    assert len({file.read_bytes() for file in files}) == 1


def test_the_sound_comes_back_beside_its_pictures(tmp_path) -> None:
    heard = tone(0.8)
    write_clip(tmp_path / "a.mp4", [pictures(15), pictures(5, first=15)], FPS, heard)
    found = read_audio(tmp_path / "a.mp4").astype(float)[: len(heard)]
    assert np.corrcoef(found, heard[: len(found)])[0, 1] > 0.99


def test_sound_of_16_bits_is_the_same_sound(tmp_path) -> None:
    heard = (tone(0.8) * 32768).round().astype(np.int16)
    for name, sound in (("a", heard), ("b", heard.astype(np.float32) / 32768)):
        write_clip(tmp_path / f"{name}.mp4", [pictures(20)], FPS, sound)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("heard_s", [0.2, 0.8, 3.0])
def test_sound_and_pictures_are_equally_long(tmp_path, heard_s) -> None:
    write_clip(tmp_path / "a.mp4", [pictures(20)], FPS, tone(heard_s))
    assert seconds(tmp_path / "a.mp4", "video") == pytest.approx(0.8)
    assert seconds(tmp_path / "a.mp4", "audio") == pytest.approx(0.8, abs=1 / FPS)


def test_the_same_clip_is_the_same_bytes_however_it_comes(tmp_path) -> None:
    whole, sound = pictures(12), tone(0.48)
    write_clip(tmp_path / "a.mp4", [whole], FPS, sound)
    write_clip(tmp_path / "b.mp4", (whole[k : k + 5] for k in (0, 5, 10)), FPS, sound)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_without_sound_there_is_no_sound_track(tmp_path) -> None:
    write_clip(tmp_path / "a.mp4", [pictures(3)], FPS)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert [stream.type for stream in file.streams] == ["video"]


def test_what_breaks_off_leaves_what_was_there(tmp_path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"before")

    def breaking() -> Iterator[np.ndarray]:
        yield pictures(3)
        raise ValueError("no numbers")

    with pytest.raises(ValueError, match="no numbers"):
        write_clip(tmp_path / "a.mp4", breaking(), FPS, tone(1))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.mp4", b"before")]


def test_a_full_disk_leaves_nothing_behind(tmp_path) -> None:
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        write_clip(tmp_path / "a.mp4", [pictures(10)], FPS)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("windows", "says"),
    [
        ([], "there is no frame to write"),
        ([pictures(2, (63, 64))], r"both sides even, got \(63, 64, 3\)"),
        ([pictures(2), pictures(2, (32, 32))], r"\(64, 96, 3\) each as the first, got \(2, 32"),
        ([pictures(2) / 255], "expected uint8, .* float64"),
    ],
)
def test_what_is_no_video_is_refused_in_words(tmp_path, windows, says) -> None:
    with pytest.raises(ValueError, match=says):
        write_clip(tmp_path / "a.mp4", windows, FPS)
    assert not [*tmp_path.iterdir()]


def decoded(path: Path) -> np.ndarray:
    return np.stack([frame.rgb() for frame in read_frames(path)])


def test_clips_are_joined_without_being_coded_again(tmp_path) -> None:
    parts, first = [], 0
    for n in (15, 7, 1, 12):
        parts.append(tmp_path / f"{first}.mp4")
        write_clip(parts[-1], [pictures(n, first=first)], FPS)
        first += n
    heard = tone(35 / FPS)
    assert join_clips(tmp_path / "whole.mp4", parts, FPS, heard, metadata={"comment": "of four"}) == 35
    assert np.array_equal(decoded(tmp_path / "whole.mp4"), np.concatenate([*map(decoded, parts)]))
    assert [frame.time_s for frame in read_frames(tmp_path / "whole.mp4")] == pytest.approx(
        np.arange(35) / FPS
    )
    assert seconds(tmp_path / "whole.mp4", "audio") == pytest.approx(1.4, abs=1 / FPS)
    found = read_audio(tmp_path / "whole.mp4").astype(float)[: len(heard)]
    assert np.corrcoef(found, heard[: len(found)])[0, 1] > 0.99
    with av.open(str(tmp_path / "whole.mp4")) as file:
        assert file.metadata["comment"] == "of four"


def test_nothing_cannot_be_joined(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"a\.mp4: there is no clip to join"):
        join_clips(tmp_path / "a.mp4", [], FPS)
