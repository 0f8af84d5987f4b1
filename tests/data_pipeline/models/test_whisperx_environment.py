"""The environment that WhisperX runs in: found, or missed in words. Real virtual environments."""

import venv
from pathlib import Path

import pytest

from data_pipeline.config import load_config
from data_pipeline.curate import BackendMissing, prepare
from data_pipeline.models import whisperx_environment
from data_pipeline.models.whisperx_environment import COMMAND, EnvironmentMissing


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is looked for; nothing is there."""
    monkeypatch.setenv("HALLO3_CACHE", str(tmp_path))
    return tmp_path / "environments" / "whisperx"


def test_where_there_is_none_the_error_says_where_and_how_to_make_it(folder: Path) -> None:
    with pytest.raises(EnvironmentMissing) as error:
        whisperx_environment.python()
    assert str(folder) in str(error.value)
    assert COMMAND in str(error.value)


def test_one_without_whisperx_is_not_enough(folder: Path) -> None:
    venv.create(folder, symlinks=True)
    with pytest.raises(EnvironmentMissing, match="has no whisperx; make it again: python -m"):
        whisperx_environment.python()


def test_one_whose_interpreter_is_gone_is_told_from_one_without_whisperx(folder: Path) -> None:
    venv.create(folder, symlinks=True)
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").write_text("#!/nowhere/python\n")
    (folder / "bin" / "python").chmod(0o755)
    with pytest.raises(EnvironmentMissing, match="cannot be run"):
        whisperx_environment.python()


def test_one_that_is_linked_to_will_do(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "mine"
    venv.create(elsewhere, symlinks=True)
    (next(elsewhere.glob("lib/python*/site-packages")) / "whisperx").mkdir()
    folder.parent.mkdir()
    folder.symlink_to(elsewhere)
    assert whisperx_environment.python() == folder / "bin" / "python"


def test_a_curation_that_needs_it_says_so_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    config = load_config("talking_head", [f"sources={tmp_path}", "output=out", "speech.backend=whisperx"])
    with pytest.raises(BackendMissing, match=r"speech\.backend: WhisperX needs an environment .*=embedded"):
        prepare(config)


@pytest.mark.slow
def test_what_pip_cannot_install_is_no_environment(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match=r"-m pip install .* failed"):
        whisperx_environment.make(["--no-index", "--find-links", str(tmp_path)])
    with pytest.raises(EnvironmentMissing, match="has no whisperx"):
        whisperx_environment.python()
