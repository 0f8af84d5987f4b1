"""Where a pack of insightface's models lies: a folder of .onnx files that belong together.

    an absolute path            that folder
    a name                      ROOT/models/NAME, as insightface itself has it,
                                else what `hallo3 weights pull insightface-NAME` brought in, checked

Nothing of insightface is imported to find one, so that the configuration's digest stays cheap.
"""

from dataclasses import dataclass
from pathlib import Path

from data_pipeline import weights
from data_pipeline.config import InsightFaceConfig
from data_pipeline.weights import WeightsUnavailable

MANIFEST = "manifest.json"  # packs since 2.0 name their files in one


@dataclass(frozen=True, slots=True)
class Pack:
    """A folder with models in it."""

    name: str
    """What rows call it."""
    folder: Path


def find(config: InsightFaceConfig) -> Pack:
    """The configured pack on this machine. Raises WeightsUnavailable."""
    folders = _folders(config)
    for folder in folders:
        if any(folder.glob("*.onnx")) or (folder / MANIFEST).is_file():
            return Pack(f"insightface-{folder.name if _is_folder(config) else config.pack}", folder)
    looked = "\n".join(f"  looked in: {folder} ({_what_is_there(folder)})" for folder in folders)
    raise WeightsUnavailable(
        f"faces.insightface.pack: there are no models of the pack {config.pack!r} on this machine\n{looked}\n"
        f"{_way_out(config)}\nEvery node needs the same files in the same place. "
        "insightface's published models are for non-commercial research only"
    )


def obtain(config: InsightFaceConfig) -> Pack:
    """As `find`, but a pack that is not here is fetched: with its checksums where the registry knows it,
    else from insightface's own zoo, which has none. Raises WeightsUnavailable."""
    try:
        return find(config)
    except WeightsUnavailable as missing:
        if _is_folder(config):
            raise
        absent = missing
    if _registered(config) in weights.registry():
        weights.pull([_registered(config)])
    else:
        _from_zoo(config, absent)
    return find(config)


def _from_zoo(config: InsightFaceConfig, absent: WeightsUnavailable) -> None:
    """Not atomic: insightface unpacks in place, so only the one process that prepares a run may do it."""
    import shutil
    from zipfile import BadZipFile

    from insightface.utils.storage import ensure_available

    folder = _folders(config)[0]
    if folder.exists():  # insightface would take it as it is
        raise absent
    try:
        ensure_available("models", config.pack, root=config.root)
    except (OSError, RuntimeError, BadZipFile) as error:  # requests' errors are OSErrors
        shutil.rmtree(folder, ignore_errors=True)  # half unpacked, it would pass for whole next time
        raise WeightsUnavailable(
            f"{absent}\ntried: insightface's zoo: {type(error).__name__}: {error}"
        ) from error


def _is_folder(config: InsightFaceConfig) -> bool:
    return config.pack.startswith(("/", "~"))


def _folders(config: InsightFaceConfig) -> list[Path]:
    if _is_folder(config):
        return [Path(config.pack).expanduser()]
    folders = [Path(config.root).expanduser() / "models" / config.pack]
    if _registered(config) in weights.registry():
        folders.append(weights.registry()[_registered(config)].directory)
    return folders


def _registered(config: InsightFaceConfig) -> str:
    return f"insightface-{config.pack.replace('_', '-')}"


def _what_is_there(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    inside = sorted(path.name for path in folder.iterdir())
    return f"no .onnx file among: {', '.join(inside[:5])}" if inside else "empty"


def _way_out(config: InsightFaceConfig) -> str:
    if _is_folder(config):
        return "name the folder that holds the .onnx files of a detector and a recognition model"
    registered = _registered(config)
    if registered in weights.registry():
        return f"get them: hallo3 weights pull {registered}, or give a folder as faces.insightface.pack"
    return (
        f"unpack the zoo's {config.pack}.zip into {config.root}/models/{config.pack}, "
        "or give a folder as faces.insightface.pack"
    )
