"""The environment of WhisperX: a virtual environment of its own, as its package asks for an older torch.

    python -m data_pipeline.models.whisperx_environment [OPTIONS OF PIP INSTALL]

makes it in the cache, as `environments/whisperx`. Every node that transcribes needs it: run the command
on each, or in the image that they start from, or once where they share the cache. Any other virtual
environment with WhisperX and Python 3.11 or later will do that lies there, or is linked to from there.
"""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from data_pipeline import weights

REQUIREMENT = "whisperx==3.8.6"
COMMAND = "python -m data_pipeline.models.whisperx_environment"

_FIND = (
    "import sys; from importlib.util import find_spec; "
    "print('has a Python older than 3.11' if sys.version_info < (3, 11) else "
    "'' if find_spec('whisperx') else 'has no whisperx')"
)
_IMPORT = "import whisperx.alignment, whisperx.asr"


class EnvironmentMissing(Exception):
    """There is no environment that WhisperX could run in; the text says how to make it."""


def folder() -> Path:
    """Where the environment is looked for."""
    return weights.cache_dir() / "environments" / "whisperx"


def python() -> Path:
    """The environment's interpreter. Raises EnvironmentMissing."""
    path = folder() / "bin" / "python"
    if not path.exists():
        raise EnvironmentMissing(
            f"WhisperX needs an environment of its own in {folder()}; make it: {COMMAND}"
        )
    try:
        found = subprocess.run([str(path), "-I", "-c", _FIND], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise EnvironmentMissing(f"{path} cannot be run ({error}); make it again: {COMMAND}") from error
    if lack := found.stdout.strip():
        raise EnvironmentMissing(f"the environment in {folder()} {lack}; make it again: {COMMAND}")
    return path


def make(pip_options: Sequence[str] = ()) -> Path:
    """Make the environment, or mend it, and import WhisperX in it; returns its interpreter.

    Raises EnvironmentMissing where pip or the import fails; they have printed why."""
    venv.create(folder(), with_pip=True)
    path = folder() / "bin" / "python"
    for command in (["-m", "pip", "install", *pip_options, REQUIREMENT], ["-I", "-c", _IMPORT]):
        if subprocess.run([str(path), *command], check=False).returncode != 0:
            raise EnvironmentMissing(f"{folder()}: `python {' '.join(command)}` failed, see above")
    return python()


if __name__ == "__main__":
    try:
        print(f"WhisperX will run in {make(sys.argv[1:])}")
    except EnvironmentMissing as error:
        sys.exit(str(error))
