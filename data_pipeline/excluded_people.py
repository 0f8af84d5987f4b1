"""Whom a dataset must not train on: the people of a benchmark, given as a dataset or as pictures.

splits.exclude -> for each entry: a dataset's identities, or the faces of a folder's pictures
-> people by face backend, in the words of near_groups.py
"""

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from data_pipeline.config import FacesConfig
from data_pipeline.dataset import Dataset, DatasetError
from data_pipeline.identities import groups_of
from data_pipeline.near_groups import Groups, concatenated
from data_pipeline.storage import Location, location

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
NAMED_AT_MOST = 5


class ExcludedPeopleError(Exception):
    """People to exclude who cannot be told; the message names entry and picture, and what to do."""


def check_entries(entries: Sequence[str]) -> None:
    """Make sure that every entry is there, before anything starts. Raises ExcludedPeopleError."""
    for entry in entries:
        folder = _folder(entry)
        if not (folder / "dataset.json").exists():
            _pictures(entry, folder)


def excluded_people(
    entries: Sequence[str], faces: FacesConfig, face_backends: Sequence[str]
) -> dict[str, Groups]:
    """The people of all entries, by face backend. `face_backends` are those that the clips have.

    An entry whose faces none of these backends knows would exclude nobody, so it is an error.
    Raises ExcludedPeopleError; WeightsUnavailable where pictures need models that are not here."""
    people: dict[str, Groups] = {}
    for entry in entries:
        folder = _folder(entry)
        is_dataset = (folder / "dataset.json").exists()
        found = _of_dataset(entry, folder) if is_dataset else _of_pictures(entry, folder, faces)
        if face_backends and not set(found) & set(face_backends):
            raise ExcludedPeopleError(
                f"splits.exclude: {entry} knows its people by {', '.join(sorted(found)) or 'no face'}, the "
                f"clips here are known by {', '.join(face_backends)}: give pictures of the people, or "
                "measure both under the same faces.backend"
            )
        for face_backend, some in found.items():
            both = people.get(face_backend)
            people[face_backend] = some if both is None else concatenated(both, some)
    return people


def _folder(entry: str) -> Location:
    try:
        folder = location(entry)
        if folder.is_dir():
            return folder
    except (OSError, ValueError) as error:
        raise ExcludedPeopleError(f"splits.exclude: {entry}: {error}") from None
    raise ExcludedPeopleError(
        f"splits.exclude: {entry} is no folder; give a hallo3 dataset, or a folder of pictures"
    )


def _of_dataset(entry: str, folder: Location) -> dict[str, Groups]:
    """The people of whom a dataset keeps a clip."""
    try:
        dataset = Dataset.open(folder)
        identities, rows = dataset.identities(), dataset.manifest(["identity_id", "status"])
    except (DatasetError, OSError) as error:
        raise ExcludedPeopleError(f"splits.exclude: {entry}: {error}") from None
    kept = pc.unique(rows["identity_id"].filter(pc.equal(rows["status"], "kept")))
    identities = identities.filter(pc.is_in(identities["identity_id"], value_set=kept))
    backends = pc.unique(identities["face_backend"].drop_null()).sort().to_pylist()
    return {face_backend: groups_of(identities, face_backend)[1] for face_backend in backends}


def _of_pictures(entry: str, folder: Location, faces: FacesConfig) -> dict[str, Groups]:
    from data_pipeline.models.face_models import NotOneFace, face_models, identity_of_picture

    embeddings, useless = [], []
    for path in _pictures(entry, folder):
        try:
            embeddings.append(identity_of_picture(_read(path), faces))
        except (NotOneFace, OSError, ValueError) as error:
            useless.append(f"{path.name}: {error}")
    if useless:
        more = f" (and {len(useless) - NAMED_AT_MOST} more)" if len(useless) > NAMED_AT_MOST else ""
        raise ExcludedPeopleError(
            f"splits.exclude: {entry}: of {len(useless)} pictures nobody can be told: "
            f"{'; '.join(useless[:NAMED_AT_MOST])}{more}. Who is on them would not be excluded: crop them to "
            "one face, or take them out of the folder"
        )
    points = np.array(embeddings, np.float32)
    return {face_models(faces).name: Groups(np.ones(len(points)), points, np.zeros(len(points)))}


def _pictures(entry: str, folder: Location) -> list[Location]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not found:
        raise ExcludedPeopleError(
            f"splits.exclude: {entry} is neither a dataset nor a folder of pictures ({', '.join(PICTURES)})"
        )
    return found


def _read(path: Location) -> np.ndarray:
    import cv2

    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise ValueError("cannot be decoded as a picture")
    return picture
