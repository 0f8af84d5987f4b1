"""CurationConfig: everything that a dataset depends on, typed, frozen and checked at the door.

Two digests come from it. `measure_sha256` covers what changes a measurement; `policy_sha256` what
changes a decision. So a changed threshold packs again and measures nothing.
"""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PRESETS = Path(__file__).with_name("presets")


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SegmentConfig(Section):
    """How a source is cut into clips."""

    backend: Literal["pyscenedetect", "transnetv2"] = "pyscenedetect"
    cut_threshold: float = Field(27.0, gt=0, description="ContentDetector's score of a hard cut")
    min_s: float = Field(2.0, gt=0)
    max_s: float = Field(14.0, gt=0)
    analysis_fps: float = Field(5.0, gt=0, le=25, description="frames a second that the models see")
    analysis_px: int = Field(640, ge=64, le=1280, description="longer side of those frames")

    @model_validator(mode="after")
    def _ordered(self) -> "SegmentConfig":
        if self.max_s < 2 * self.min_s:
            raise ValueError(
                f"max_s ({self.max_s}) must be at least twice min_s ({self.min_s}): "
                "a longer shot is split into clips of at least min_s"
            )
        if self.min_s * self.analysis_fps < 2:
            raise ValueError(
                f"analysis_fps ({self.analysis_fps}) must show at least two frames of the shortest clip: "
                f"min_s is {self.min_s}"
            )
        return self


class FacesConfig(Section):
    """Which models look at faces, and how often."""

    backend: Literal["embedded"] = "embedded"
    detector_px: int = Field(320, ge=128, le=1280, description="longer side at which faces are detected")
    detector_threshold: float = Field(0.5, gt=0, lt=1)
    identity_fps: float = Field(1.0, gt=0, description="embeddings a second")


class SpeechConfig(Section):
    """Which models listen."""

    backend: Literal["embedded"] = "embedded"
    transcribe: bool = True
    speech_quality: bool = Field(True, description="DNSMOS")


class CaptionConfig(Section):
    """The text prompt of a clip that has no caption of its own."""

    template: str = "A person is talking to the camera."


class EncodeConfig(Section):
    """The video in a sample."""

    width: int = Field(512, ge=64, le=4096, multiple_of=2)
    height: int = Field(512, ge=64, le=4096, multiple_of=2)
    fps: float = Field(25.0, gt=0, le=60)
    crf: int = Field(18, ge=0, le=51)
    preset: str = "veryfast"
    face_scale: float = Field(2.2, ge=1, description="height of the crop in face heights")


class LimitsConfig(Section):
    """What one source may cost."""

    decode_timeout_s: float = Field(600.0, gt=0, description="for probing a source, and for encoding a clip")
    stall_timeout_s: float = Field(60.0, gt=0, description="of a decoder without any sign of life")
    address_space_gb: float = Field(8.0, gt=0)
    max_pixels: int = Field(8192 * 4608, gt=0, description="of a frame; a larger one is `unsupported`")


class ResourcesConfig(Section):
    """What one actor of a stage group asks of Ray, and how many there may be."""

    cpus: float = Field(0.45, gt=0)
    gpus: float = Field(0.0, ge=0)
    max_actors: int | None = Field(None, ge=1)


class RayConfig(Section):
    """The stage groups; each scales on its own."""

    decode: ResourcesConfig = ResourcesConfig()
    speech: ResourcesConfig = ResourcesConfig()
    faces: ResourcesConfig = ResourcesConfig()
    encode: ResourcesConfig = ResourcesConfig()
    object_store_gb: float = Field(1.0, gt=0, description="of a cluster that this command starts itself")


class FiltersConfig(Section):
    """The thresholds. None switches a rule off."""

    min_short_side_px: int | None = 256
    min_source_fps: float | None = 23.0
    max_repeated_frame_ratio: float | None = 0.8
    min_loudness_dbfs: float | None = -50.0
    min_speech_ratio: float | None = 0.4
    max_singing_ratio: float | None = 0.5
    max_music_ratio: float | None = None
    min_snr_db: float | None = 8.0
    min_speech_quality: float | None = None
    languages: list[str] = Field([], description="empty: any")
    min_luminance: float | None = 10.0
    max_luminance: float | None = 210.0
    min_motion: float | None = 0.05
    max_motion: float | None = 20.0
    min_sharpness: float | None = 5.0
    min_face_detected_ratio: float | None = 0.9
    max_face_gap_s: float | None = 1.0
    max_other_face_ratio: float | None = 0.4
    min_face_fraction: float | None = 0.10
    min_face_height_px: float | None = 80.0
    max_yaw_deg: float | None = 40.0
    max_pitch_deg: float | None = 35.0
    max_roll_deg: float | None = 30.0
    min_identity_consistency: float | None = 0.9
    min_face_confidence: float | None = Field(0.8, description="of the detector; a covered face has less")
    min_human_score: float | None = None


class PackConfig(Section):
    """How kept clips become shards."""

    shard_mb: float = Field(256.0, gt=0)
    keep_measured: bool = Field(False, description="keep clips' media in measured/ after a commit")


class CurationConfig(Section):
    """Source videos -> dataset. `sources` and `output` are the user's; the rest has defaults."""

    sources: str | list[str]
    output: str
    name: str = "talking_head"
    segment: SegmentConfig = SegmentConfig()
    faces: FacesConfig = FacesConfig()
    speech: SpeechConfig = SpeechConfig()
    caption: CaptionConfig = CaptionConfig()
    encode: EncodeConfig = EncodeConfig()
    filters: FiltersConfig = FiltersConfig()
    pack: PackConfig = PackConfig()
    limits: LimitsConfig = LimitsConfig()
    ray: RayConfig = RayConfig()
    measure_all: bool = Field(False, description="measure rejected clips to the end")
    max_error_fraction: float = Field(0.05, ge=0, le=1)

    @field_validator("output")
    @classmethod
    def _is_local(cls, output: str) -> str:
        if "://" in output:
            raise ValueError("a dataset is written to a local path; object stores are not supported yet")
        return output

    def measure_sha256(self) -> str:
        """Digest of what changes a measurement: segmentation, backends, their weights, encoding."""
        from data_pipeline import weights

        names = ("segment", "faces", "speech", "caption", "encode")
        parts: dict[str, Any] = {name: getattr(self, name).model_dump(mode="json") for name in names}
        parts["weights"] = weights.digests_of_backends(self)
        return _digest(parts)

    def policy_sha256(self) -> str:
        """Digest of what changes a decision."""
        return _digest({"filters": self.filters.model_dump(mode="json")})


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ConfigError(Exception):
    """A configuration that cannot be used; the message names the key, what was given and what is allowed."""


def load_config(config: str, overrides: list[str]) -> CurationConfig:
    """The configuration of a preset's name or a YAML file, with dotted `key=value` overrides.

    A YAML file may start from a preset with `preset: NAME`. Raises ConfigError.
    """
    return config_with(_read(config), overrides, config)


def config_with(values: dict[str, Any], overrides: list[str], name: str) -> CurationConfig:
    """A checked configuration; `name` says in errors where the values came from. Raises ConfigError."""
    values = json.loads(json.dumps(values))  # a copy to write into
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"{override!r} is not an override: write key=value, e.g. filters.min_snr_db=6")
        _set(values, key.split("."), _parse(key, text))
    try:
        return CurationConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_in_words(problem, name) for problem in error.errors())) from None


def preset_names() -> list[str]:
    """The presets that travel with this package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _read(config: str) -> dict[str, Any]:
    path = PRESETS / f"{config}.yaml" if config in preset_names() else Path(config)
    try:
        values = yaml.safe_load(path.read_text("utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError(
            f"no preset and no file is called {config!r}; presets: {', '.join(preset_names())}"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{config}: cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{config}: expected keys and values, found {type(values).__name__}")
    preset = values.pop("preset", None)
    return values if preset is None else _merged(_read(str(preset)), values)


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


def _in_words(problem: Any, name: str) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path) or name
    if problem["type"] == "missing":
        return f"{key}: missing; give it in {name} or as {key}=VALUE"
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(path[:-1])
        near = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{key}: unknown key (given {problem['input']!r}){hint} Allowed: {', '.join(allowed)}"
    return f"{key}: {problem['msg']} (given {problem['input']!r})"


def _allowed_keys(path: list[str]) -> list[str]:
    section: type[BaseModel] = CurationConfig
    for key in path:
        annotation = section.model_fields[key].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return list(section.model_fields)
