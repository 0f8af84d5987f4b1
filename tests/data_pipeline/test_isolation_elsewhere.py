"""A sandbox on the interpreter of another environment: a real virtual environment, with nothing in it."""

import os
import signal
import sys
import venv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from data_pipeline.isolation import ChildCrashed, ChildTimeout, Sandbox
from tests.data_pipeline import elsewhere


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Shares with ours the interpreter, and no library; these tests' functions are in its search path."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    (site_packages / "tests.pth").write_text(str(Path(__file__).parents[2]))
    return folder / "bin" / "python"


@pytest.fixture
def sandbox(python: Path) -> Iterator[Sandbox]:
    with Sandbox(address_space_bytes=None, timeout_s=60, stall_timeout_s=60, python=python) as sandbox:
        yield sandbox


def test_the_child_runs_in_the_other_environment(sandbox: Sandbox, python: Path) -> None:
    assert Path(sandbox.call(elsewhere.prefix)) == python.parents[1] != Path(sys.prefix)


def test_of_ours_it_sees_this_package_and_no_library(sandbox: Sandbox) -> None:
    assert sandbox.call(elsewhere.finds, "data_pipeline")
    assert not sandbox.call(elsewhere.finds, "numpy")


def test_neither_the_environment_nor_the_folder_lends_it_libraries(
    python: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lent.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Sandbox(address_space_bytes=None, timeout_s=60, stall_timeout_s=60, python=python) as sandbox:
        assert not sandbox.call(elsewhere.finds, "lent")


def test_an_exception_of_its_own_libraries_comes_as_text(sandbox: Sandbox) -> None:
    with pytest.raises(RuntimeError, match=r"TheirError: that model is not here"):
        sandbox.call(elsewhere.fails)


def test_no_limit_of_address_space_is_none(sandbox: Sandbox) -> None:
    assert sandbox.call(elsewhere.address_space_limit) == -1


def test_a_new_child_is_made_ready_and_only_a_new_one(python: Path, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with Sandbox(
        address_space_bytes=None,
        timeout_s=60,
        stall_timeout_s=60,
        python=python,
        on_start=partial(elsewhere.note, starts),
    ) as sandbox:
        sandbox.start()
        sandbox.start()
        first = sandbox.call(os.getpid)
        assert starts.read_text() == f"{first}\n"
        with pytest.raises(ChildCrashed, match="SIGKILL"):
            sandbox.call(elsewhere.dies, signal.SIGKILL)
        second = sandbox.call(os.getpid)
    assert starts.read_text() == f"{first}\n{second}\n"


def test_a_child_that_hangs_is_replaced_by_one_that_is_ready(python: Path, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with Sandbox(
        address_space_bytes=None,
        timeout_s=2,
        stall_timeout_s=2,
        python=python,
        on_start=partial(elsewhere.note, starts),
    ) as sandbox:
        with pytest.raises(ChildTimeout, match="hangs took longer than 2"):
            sandbox.call(elsewhere.hangs)
        next_one = sandbox.call(os.getpid)
    assert starts.read_text().splitlines()[1:] == [str(next_one)]


def test_a_child_that_cannot_be_made_ready_says_why_and_is_gone(python: Path) -> None:
    sandbox = Sandbox(
        address_space_bytes=None, timeout_s=60, stall_timeout_s=60, python=python, on_start=elsewhere.fails
    )
    for _ in range(2):
        with pytest.raises(RuntimeError, match="that model is not here"):
            sandbox.call(os.getpid)
