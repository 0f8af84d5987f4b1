"""A list of videos to be made: one JSON object a line, checked as a whole before anything is loaded.

    {"image": "anna.jpg", "audio": "monday.wav", "output": "out/monday.mp4"}
    {"image": "anna.jpg", "audio": "talk.mp4", "output": "out/talk.mp4", "prompt": "she reads", "seed": 7}

Paths are relative to the list's folder. What is inside the files is looked at when their turn comes.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from data_pipeline.media import MediaError, probe
from evaluation.animator import Take

VIDEO = ".mp4"
Name = Annotated[str, StringConstraints(min_length=1)]


class ItemsError(ValueError):
    """A list that cannot be used; the message names every wrong line, and what is wrong with it."""


class Item(BaseModel):
    """A line."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: Name
    audio: Name
    output: Name
    prompt: str = ""
    seed: int | None = None


def read_items(path: Path, seed: int = 0) -> list[Take]:
    """The videos of a list, in its order; empty lines count for nothing.

    Args:
        seed: of the items that name none.

    Raises:
        ItemsError: all that is wrong with its lines, files that are not there included; or it has none.
    """
    try:
        # Not `splitlines`, which knows ends that may be inside of JSON's strings.
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else f"not UTF-8: {error}"
        raise ItemsError(f"{path}: the list cannot be read: {words}") from None
    takes: dict[int, Take] = {}
    wrong: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            item = _item(line)
            if isinstance(item, Item):
                takes[number] = _take(item, path.parent, seed)
            else:
                wrong += [(number, words) for words in item]
    if not takes and not wrong:
        raise ItemsError(f"{path}: an empty list; write a JSON object a line: image, audio, output")
    wrong += _wrong_paths(takes)
    if wrong:
        raise ItemsError("\n".join(f"{path}:{number}: {words}" for number, words in sorted(wrong)))
    return list(takes.values())


def seconds_of(take: Take) -> float:
    """About how long its sound is, for estimates; 0 where that cannot be known."""
    try:
        return probe(take.audio).duration_s
    except MediaError:
        return 0.0


def _item(line: str) -> Item | list[str]:
    """A line's item, or all that is wrong with it."""
    try:
        values = json.loads(line)
    except ValueError as error:
        return [f"not JSON: {error}"]
    if not isinstance(values, dict):
        return [f"expected a JSON object, found {line.strip()}"]
    try:
        return Item.model_validate(values)
    except ValidationError as error:
        return [_in_words(problem) for problem in error.errors()]


def _in_words(problem: Any) -> str:
    key, allowed = str(problem["loc"][0]), list(Item.model_fields)
    if problem["type"] == "missing":
        return f"{key}: missing"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, allowed, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(allowed)}"
        return f"{key}: unknown key; {hint}"
    return f"{key}: {problem['msg']} (given {problem['input']!r})"


def _take(item: Item, folder: Path, seed: int) -> Take:
    image, audio, output = (folder / name for name in (item.image, item.audio, item.output))
    return Take(image, audio, output, item.prompt, seed if item.seed is None else item.seed)


def _wrong_paths(takes: dict[int, Take]) -> Iterator[tuple[int, str]]:
    """What no line by itself is wrong about is here too: a video of two lines, one that would replace a file
    that is read."""
    read = {file.resolve(): number for number, take in takes.items() for file in (take.image, take.audio)}
    written: dict[Path, int] = {}
    for number, take in takes.items():
        for key, file in (("image", take.image), ("audio", take.audio)):
            if not file.is_file():
                yield number, f"{key}: {file}: no such file"
        if take.output.suffix != VIDEO:
            name = take.output.with_suffix(VIDEO).name
            yield number, f"output: {take.output}: the video is an MP4; name it {name}"
        output = take.output.resolve()
        if output in read:
            yield number, f"output: {take.output}: line {read[output]} reads this file; name another one"
        if output in written:
            yield number, f"output: {take.output}: line {written[output]} writes the same; name another one"
        written.setdefault(output, number)
