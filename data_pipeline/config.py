"""CurationConfig: everything that a dataset depends on, typed, frozen and checked at the door.

Two digests come from it. `measure_sha256` covers what changes a measurement; `policy_sha256` what
changes a decision. So a changed threshold packs again and measures nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data_pipeline import config_file
from data_pipeline.config_file import Section
from data_pipeline.own_models import InsightFaceConfig, SyncNetConfig, WhisperXConfig
from data_pipeline.storage import location

PRESETS = Path(__file__).with_name("presets")
MEASURED_SECTIONS = ("segment", "faces", "speech", "sync", "caption", "encode")
"""What changes a measurement."""
MEASURE_REVISION = 2
"""Raised when the code measures something else under the same configuration: what was measured before is then
measured again. 2: decoys of the sync measure begin with whole frames."""


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

    backend: Literal["embedded", "insightface"] = "embedded"
    insightface: InsightFaceConfig = InsightFaceConfig()
    detector_px: int = Field(320, ge=128, le=1280, description="longer side at which faces are detected")
    detector_threshold: float = Field(0.5, gt=0, lt=1)
    identity_fps: float = Field(1.0, gt=0, description="embeddings a second")


class SpeechConfig(Section):
    """Which models listen."""

    backend: Literal["embedded", "whisperx"] = Field("embedded", description="who transcribes")
    transcribe: bool = True
    speech_quality: bool = Field(True, description="DNSMOS")
    whisperx: WhisperXConfig = WhisperXConfig()

    @property
    def runs_whisperx(self) -> bool:
        return self.transcribe and self.backend == "whisperx"


class SyncConfig(Section):
    """Which model compares mouth and sound, and which offsets are corrected. Frames are of 25 fps."""

    backend: Literal["lip_correlation", "syncnet"] = "lip_correlation"
    syncnet: SyncNetConfig = SyncNetConfig()
    min_confidence: float = Field(3.0, description="from which an offset is believed, to correct it")
    min_margin: float = Field(0.5, description="over other speech, below which it is not")
    correct_from_frames: float = Field(2.0, ge=0, description="less is within the measure's own error")
    correct_to_frames: float = Field(5.0, ge=0, description="0: correct nothing")

    @property
    def own_network(self) -> Path | None:
        """The user's own file, where it takes the published one's place."""
        if self.backend != "syncnet" or self.syncnet.weights is None:
            return None
        return Path(self.syncnet.weights).expanduser()


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
    transcribe_timeout_s: float = Field(300.0, gt=0, description="for a clip, by speech.backend=whisperx")
    address_space_gb: float = Field(8.0, gt=0)
    max_pixels: int = Field(8192 * 4608, gt=0, description="of a frame; a larger one is `unsupported`")


class ResourcesConfig(Section):
    """What one actor of a stage group asks of Ray, and how many there may be."""

    cpus: float = Field(0.36, gt=0, description="one of each of the five groups fits on two CPUs")
    gpus: float = Field(0.0, ge=0)
    max_actors: int | None = Field(None, ge=1)


class RayConfig(Section):
    """The stage groups; each scales on its own."""

    decode: ResourcesConfig = ResourcesConfig()
    speech: ResourcesConfig = ResourcesConfig()
    faces: ResourcesConfig = ResourcesConfig()
    sync: ResourcesConfig = ResourcesConfig()
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
    licences: list[str] = Field([], description="patterns such as cc-by-*; empty: any that is not denied")
    denied_licences: list[str] = Field([], description="patterns, stronger than `licences`")
    allow_unknown_licence: bool = Field(True, description="of sources that no list gives a licence")
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
    max_sync_offset_frames: float | None = Field(5.0, description="of 25 fps, where an offset is believed")
    min_sync_confidence: float | Literal["auto"] | None = Field(
        "auto", description="auto: 3 with syncnet, none with lip_correlation; a number is for either"
    )
    min_sync_margin: float | None = Field(0.5, description="over other speech, to believe an offset")
    max_sync_distance: float | Literal["auto"] | None = Field(
        "auto", description="at the best offset; auto: 0.78 with lip_correlation, none with syncnet"
    )
    keep_duplicates: bool = Field(False, description="every copy of a take, not the best one only")


class DuplicatesConfig(Section):
    """When two clips are one take: see `data_pipeline.duplicates`."""

    max_sound_bits: int = Field(14, ge=0, le=32, description="of 64, that differ between like anchors")
    min_sound_share: float = Field(0.5, gt=0, le=1, description="of the anchors in the time that both share")
    max_picture_bits: float = Field(12.0, ge=0, le=64, description="of 64, between hashes around the face")
    min_overlap: float = Field(0.5, ge=0.5, lt=1, description="of the longer clip, that both must share")


class IdentitiesConfig(Section):
    """Who is who."""

    same_person_distance: float | None = Field(
        None, gt=0, description="root mean square between one person's clips; None: the face backend's own"
    )


class SplitsConfig(Section):
    """Shares of the identities; those that are neither validation nor test are for training."""

    val: float = Field(0.0, ge=0, le=1)
    test: float = Field(0.0, ge=0, le=1)
    exclude: list[str] = Field([], description="datasets or folders of pictures whose people train nothing")

    @model_validator(mode="after")
    def _within_one(self) -> "SplitsConfig":
        if self.val + self.test > 1:
            raise ValueError(f"val ({self.val}) and test ({self.test}) are more than 1 together")
        return self


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
    sync: SyncConfig = SyncConfig()
    caption: CaptionConfig = CaptionConfig()
    encode: EncodeConfig = EncodeConfig()
    filters: FiltersConfig = FiltersConfig()
    duplicates: DuplicatesConfig = DuplicatesConfig()
    identities: IdentitiesConfig = IdentitiesConfig()
    splits: SplitsConfig = SplitsConfig()
    pack: PackConfig = PackConfig()
    limits: LimitsConfig = LimitsConfig()
    ray: RayConfig = RayConfig()
    measure_all: bool = Field(False, description="measure rejected clips to the end")
    max_error_fraction: float = Field(0.05, ge=0, le=1)
    labels: str | None = Field(None, description="a CSV of reviewers' words on clips: clip_id, label")

    @field_validator("output")
    @classmethod
    def _is_a_place(cls, output: str) -> str:
        location(output)
        return output

    def measure_sha256(self) -> str:
        """Digest of what changes a measurement: segmentation, backends, their weights, encoding, our code.

        Raises WeightsUnavailable where a user's own model is not on this machine."""
        from data_pipeline import weights

        parts: dict[str, Any] = {
            name: getattr(self, name).model_dump(mode="json") for name in MEASURED_SECTIONS
        }
        parts["revision"] = MEASURE_REVISION
        parts["weights"] = weights.digests_of_backends(self)
        parts["speech"].pop("whisperx")
        if self.speech.runs_whisperx:
            parts["whisperx"] = self.speech.whisperx.content()
        parts["sync"].pop("syncnet")
        if self.sync.own_network:
            parts["syncnet"] = weights.digest_of_file(self.sync.own_network)
        parts["faces"].pop("insightface")  # what is in its files counts, not where they lie
        if self.faces.backend == "insightface":
            from data_pipeline.models import insightface_pack

            pack = insightface_pack.find(self.faces.insightface)
            parts["insightface"] = [pack.name, weights.digest_of_folder(pack.folder)]
        return _digest(parts)

    def policy_sha256(self) -> str:
        """Digest of what changes a decision."""
        names = ("filters", "duplicates", "identities", "splits")
        return _digest({name: getattr(self, name).model_dump(mode="json") for name in names})


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load_config(config: str, overrides: list[str]) -> CurationConfig:
    """The configuration of a preset or a YAML file, with `key=value` on top. Raises ConfigError."""
    return config_file.load(CurationConfig, PRESETS, config, overrides)


def config_with(values: dict[str, Any], overrides: list[str], name: str) -> CurationConfig:
    """A checked configuration; `name` says in errors where the values came from. Raises ConfigError."""
    return config_file.checked(CurationConfig, values, overrides, name)


def preset_names() -> list[str]:
    """The presets that travel with this package."""
    return config_file.preset_names(PRESETS)
