"""A configuration: the name of a preset or a YAML file, dotted overrides, and a typed model that checks them.

preset or file (which may start from a preset) -> key=value on top -> the model, or ConfigError in words
"""

import difflib
import json
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """A part of a configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Config = TypeVar("Config", bound=BaseModel)


class ConfigError(Exception):
    """A configuration that cannot be used; the message names the key, what was given and what is allowed."""


def load(model: type[Config], presets: Path, config: str, overrides: list[str]) -> Config:
    """The configuration of a preset's name or a YAML file, with dotted `key=value` overrides.

    A YAML file may start from a preset with `preset: NAME`. Raises ConfigError.
    """
    return checked(model, read_values(presets, config), overrides, config)


def checked(model: type[Config], values: dict[str, Any], overrides: list[str], name: str) -> Config:
    """A checked configuration; `name` says in errors where the values came from. Raises ConfigError."""
    values = json.loads(json.dumps(values))  # a copy to write into
    for number, override in enumerate(overrides):
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"{override!r} is not an override: write key=value, e.g. output=out")
        lost = next((earlier for earlier in overrides[:number] if earlier.startswith(f"{key}.")), None)
        if lost is not None:
            raise ConfigError(f"{override} would take back {lost}, given before it: write it first")
        _set(values, key.split("."), _parse(key, text))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_in_words(problem, model, name) for problem in error.errors())) from None


def preset_names(presets: Path) -> list[str]:
    """The presets in a folder."""
    return sorted(path.stem for path in presets.glob("*.yaml"))


def read_values(presets: Path, config: str) -> dict[str, Any]:
    """The keys and values of a preset or a file, unchecked. Raises ConfigError."""
    names = preset_names(presets)
    path = presets / f"{config}.yaml" if config in names else Path(config)
    try:
        values = yaml.safe_load(path.read_text("utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError(
            f"no preset and no file is called {config!r}; presets: {', '.join(names)}"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{config}: cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{config}: expected keys and values, found {type(values).__name__}")
    preset = values.pop("preset", None)
    return values if preset is None else _merged(read_values(presets, str(preset)), values)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merged(base[key], value) if both else value
    return merged


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        nested = values.setdefault(key, {})
        if not isinstance(nested, dict):
            raise ConfigError(f"{'.'.join(path)}: {key} is a value ({nested!r}), not a section")
        values = nested
    values[path[-1]] = value


def _parse(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: {text!r} is not a YAML value: {error}") from None


def _in_words(problem: Any, model: type[BaseModel], name: str) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path) or name
    if problem["type"] == "missing":
        return f"{key}: missing; give it in {name} or as {key}=VALUE"
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(model, path[:-1])
        near = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{key}: unknown key (given {problem['input']!r}){hint} Allowed: {', '.join(allowed)}"
    message = problem["msg"].removeprefix("Value error, ")
    if not path:  # of the whole configuration: what was given is in the message
        return f"{key}: {message}"
    return f"{key}: {message} (given {problem['input']!r})"


def _allowed_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    section = model
    for key in path:
        if key.isdecimal():  # a place in a list of sections
            continue
        field = section.model_fields.get(key)
        nested = [kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)] if field else []
        if not nested:
            return []
        section = nested[0]
    return list(section.model_fields)


def _kinds(annotation: Any) -> list[type]:
    """The classes that an annotation allows, in a list or not."""
    if get_origin(annotation) in (Union, UnionType, list):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation] if isinstance(annotation, type) else []
