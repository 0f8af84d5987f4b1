"""Videos over workers: real actors, real process groups, real accidents."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from evaluation.animator import AnimateError, Animator, Made, Take
from evaluation.crew import Crew, CrewError, check_sharing, crew_of
from evaluation.fleet import FleetLost, animate_all
from evaluation.worker import Failed, Happened, Load, Progress, There, Worker
from tests.evaluation.checkpoints import write_export
from tests.evaluation.test_animator import pictures, tone
from tests.evaluation.test_picture import astronaut
from training.config import TrainRayConfig
from training.generate import Sampling

NEW_FRAMES = 7
"""Of a window of the small model."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_export(tmp_path_factory.mktemp("fleet") / "model")


def loading(model: Path, steps: int = 2, guidance: float | None = None) -> Load:
    return partial(Animator.load, model, Sampling(steps, guidance))


@pytest.fixture
def takes(tmp_path) -> list[Take]:
    """Three videos of 13, 25 and 38 frames."""
    astronaut().save(tmp_path / "face.png")
    return [
        Take(tmp_path / "face.png", tone(tmp_path / f"{number}.wav", length), tmp_path / f"{number}.mp4")
        for number, length in enumerate((0.5, 1.0, 1.5))
    ]


def prepared(model: Path) -> Worker:
    worker = Worker(loading(model), "cpu", threads=1)
    worker.prepare(ranks=1)
    return worker


def test_a_worker_says_how_far_it_is_and_what_it_has_made(model, takes) -> None:
    told = [*prepared(model).animate(takes[0])]
    assert told == [Progress(0, 13), Progress(7, 13), Progress(13, 13), Made(13, ())]


def test_a_video_that_is_there_of_the_same_inputs_is_not_made_again(model, takes) -> None:
    worker, take = prepared(model), takes[0]
    assert [*worker.animate(take)][-1] == Made(13, ())
    before = take.output.stat().st_mtime_ns
    assert [*worker.animate(take)] == [There()]
    assert take.output.stat().st_mtime_ns == before
    assert [*worker.animate(replace(take, seed=1))][-1] == Made(13, ())
    astronaut().resize((300, 300)).save(take.image)
    assert [*worker.animate(replace(take, seed=1))][-1] == Made(13, ())
    take.output.write_bytes(take.output.read_bytes()[:2000])
    assert [*worker.animate(replace(take, seed=1))][-1] == Made(13, ())


def spoil(takes: Sequence[Take], tmp_path: Path) -> dict[int, str]:
    """Make the first two takes impossible; what is then said of them."""
    grey, text = tmp_path / "grey.png", tmp_path / "text.wav"
    Image.new("RGB", (64, 64), "grey").save(grey)
    text.write_text("no sound\n")
    object.__setattr__(takes[0], "image", grey)
    object.__setattr__(takes[1], "audio", text)
    return {0: f"{grey}: no face is seen", 1: f"{text}: not media"}


def test_what_is_wrong_with_a_take_is_said_and_the_worker_goes_on(model, takes, tmp_path) -> None:
    worker, words = prepared(model), spoil(takes, tmp_path)
    takes.append(replace(takes[2], output=tmp_path / "0.wav" / "a.mp4"))
    for number, take in enumerate(takes[:2]):
        (failed,) = worker.animate(take)
        assert isinstance(failed, Failed)
        assert failed.words.startswith(words[number])
    (failed,) = worker.animate(takes[3])
    assert isinstance(failed, Failed)
    assert failed.words.startswith(f"{tmp_path / '0.wav'}")
    assert [*worker.animate(takes[2])][-1] == Made(38, ())


def test_a_video_is_shared_only_by_as_many_as_divide_the_model_s_heads(model) -> None:
    check_sharing(model, 1)
    check_sharing(model, 2)
    with pytest.raises(CrewError, match=r"--workers-a-video 3 must divide the model's 2 heads, .* are 1, 2"):
        check_sharing(model, 3)
    with pytest.raises(AnimateError, match="no such checkpoint"):
        check_sharing(model / "nowhere", 1)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    from cluster.launch import ray_session

    with ray_session(TrainRayConfig(object_store_gb=0.1)):
        yield


def workers_here() -> list[psutil.Process]:
    return [each for each in psutil.Process().children(True) if "ray::Worker" in " ".join(each.cmdline())]


def fleet(
    takes: Sequence[Take],
    load: Load,
    crew: Crew,
    accident: Callable[[int, Happened], bool] = lambda number, happened: False,
) -> dict[int, list[Happened]]:
    """What happened to every take; the accident is tried until it has happened."""
    found: dict[int, list[Happened]] = {number: [] for number in range(len(takes))}
    over = False
    for number, happened in animate_all(takes, load, crew):
        found[number].append(happened)
        over = over or accident(number, happened)
    return found


def alone(take: Take, load: Load) -> Path:
    """The take's video as one process makes it."""
    output = take.output.with_name(f"alone-{take.output.name}")
    load(device="cpu").animate(replace(take, output=output))
    return output


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_workers_make_the_files_that_one_makes_and_a_broken_take_costs_only_itself(
    model, takes, tmp_path
) -> None:
    more = [replace(take, output=tmp_path / f"more-{take.output.name}", seed=5) for take in takes]
    words = spoil(takes, tmp_path)
    found = fleet([*takes, *more], loading(model), Crew("cpu", teams=2))
    for number in words:
        (failed,) = found[number]
        assert isinstance(failed, Failed)
        assert failed.words.startswith(words[number])
    assert [found[number][-1] for number in (2, 3, 4, 5)] == [Made(n, ()) for n in (38, 13, 25, 38)]
    for take in (takes[2], *more):
        assert take.output.read_bytes() == alone(take, loading(model)).read_bytes()
    again = fleet([takes[2], *more], loading(model), Crew("cpu", teams=1))
    assert [*again.values()] == 4 * [[There()]]
    assert not leftovers(tmp_path)


def kill_at(frames: int, at: str) -> Callable[[int, Happened], bool]:
    """SIGKILL for the worker that is at this, once a video has come so far."""

    def accident(number: int, happened: Happened) -> bool:
        if isinstance(happened, Progress) and happened.made >= frames:
            (worker,) = (each for each in workers_here() if at in " ".join(each.cmdline()))
            worker.kill()
            return True
        return False

    return accident


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(
    ("a_video", "at"), [(1, "animate"), (2, "animate"), (2, "follow")], ids=["alone", "first", "other"]
)
def test_a_killed_worker_costs_no_window(model, takes, tmp_path, a_video, at) -> None:
    take = replace(takes[0], audio=tone(tmp_path / "long.wav", 4))
    load = loading(model, steps=20)
    (told,) = fleet([take], load, Crew("cpu", 1, a_video), kill_at(2 * NEW_FRAMES, at)).values()
    assert told[-1] == Made(100, ())
    made = [each.made for each in told if isinstance(each, Progress)]
    assert made == sorted(made), "windows were made twice"
    assert len(made) > len({*made}), "the video was not gone on with"
    if a_video == 1:
        assert take.output.read_bytes() == alone(take, load).read_bytes()
    else:
        assert apart(pictures(take.output), pictures(alone(take, load))).mean() < 0.1
    assert not leftovers(tmp_path)


def apart(ours: list[np.ndarray], theirs: list[np.ndarray]) -> np.ndarray:
    """Levels between two videos' pictures."""
    return np.abs(np.stack(ours).astype(int) - np.stack(theirs))


def keeping(folder: Path, load: Load, device: str) -> Animator:
    """An animator that also keeps its frames as they are before they are coded."""
    animator = load(device=device)
    frames = animator.frames

    def kept(*given: Any, **named: Any) -> Iterator[np.ndarray]:
        for window in frames(*given, **named):
            number = len([*folder.glob(f"{os.getpid()}-*")])
            np.save(folder / f"{os.getpid()}-{number:03d}.npy", window)
            yield window

    animator.frames = kept
    return animator


def kept_frames(folder: Path) -> list[np.ndarray]:
    """Of each process, all."""
    found: dict[str, list[np.ndarray]] = {}
    for file in sorted(folder.iterdir()):
        found.setdefault(file.name.partition("-")[0], []).append(np.load(file))
    return [np.concatenate(windows) for windows in found.values()]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(("steps", "guidance"), [(20, None), (4, 3.5)])
def test_two_that_share_each_video_make_the_pictures_of_one(model, takes, tmp_path, steps, guidance) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    load = loading(model, steps, guidance)
    found = fleet(takes, partial(keeping, tmp_path / "two", load), Crew("cpu", teams=1, a_video=2))
    assert [told[-1] for told in found.values()] == [Made(n, ()) for n in (13, 25, 38)]
    for take in takes:
        alone(take, partial(keeping, tmp_path / "one", load))
    (wanted,) = kept_frames(tmp_path / "one")
    ours = kept_frames(tmp_path / "two")
    assert len(ours) == 2
    for each in ours:
        assert each.shape == wanted.shape == (13 + 25 + 38, 64, 64, 3)
        difference = apart([*each], [*wanted])
        assert difference.max() <= 2
        assert (difference == 0).mean() > 0.99


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_shared_video_that_cannot_be_written_costs_only_itself(model, takes, tmp_path) -> None:
    long = replace(takes[0], audio=tone(tmp_path / "long.wav", 4))
    blocked = long.output.with_name(f".{long.output.name}.parts") / "window-00010.mp4"

    def accident(number: int, happened: Happened) -> bool:
        if number == 0 and isinstance(happened, Progress):
            (blocked / "in the way").mkdir(parents=True)
            return True
        return False

    found = fleet([long, *takes[1:]], loading(model, steps=20), Crew("cpu", 1, a_video=2), accident)
    assert isinstance(found[0][-1], Failed)
    assert found[0][-1].words.startswith(f"{blocked.parent}/.{blocked.name}")
    assert "Is a directory" in found[0][-1].words
    assert [found[number][-1] for number in (1, 2)] == [Made(25, ()), Made(38, ())]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_model_that_cannot_be_used_ends_all(takes, tmp_path) -> None:
    deaf = write_export(tmp_path / "deaf", "identity")
    for a_video in (1, 2):
        with pytest.raises(AnimateError, match=r"no audio part \(phase identity\)"):
            fleet(takes, loading(deaf), Crew("cpu", 1, a_video))


def die(device: str) -> Animator:
    os._exit(1)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_workers_that_die_while_they_load_end_all(takes) -> None:
    with pytest.raises(FleetLost, match="workers were lost 3 times while they loaded the model"):
        fleet(takes, die, Crew("cpu", teams=1))


class Deadly(Animator):
    """With which a worker dies of each take."""

    def has_made(self, take: Take) -> bool:
        os._exit(1)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_take_that_kills_its_workers_is_given_up(model, takes) -> None:
    (told,) = fleet(takes[:1], partial(Deadly.load, model), Crew("cpu", teams=1)).values()
    assert told == [Failed("its workers were lost 3 times: they die, as for want of memory")]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_there_are_as_many_workers_as_there_are_places_for() -> None:
    assert crew_of("auto", None, 1) == Crew("cpu", 1, 1)
    assert crew_of("cpu", None, 2) == Crew("cpu", 1, 2)
    assert crew_of("auto", 2, 1) == Crew("cpu", 2, 1)
    with pytest.raises(CrewError, match=r"4096 workers take a CPU each, and there are \d+; give fewer"):
        crew_of("cpu", 4096, 1)
    with pytest.raises(CrewError, match="--workers 1 must be a multiple of --workers-a-video 2"):
        crew_of("cpu", 1, 2)
    with pytest.raises(CrewError, match="--device cuda: there is no GPU"):
        crew_of("cuda", None, 1)
