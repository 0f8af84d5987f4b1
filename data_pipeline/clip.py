"""Clip: the record that flows through the stages, and the words for what became of it.

Segmentation makes clips; each later stage adds its own fields and nothing else. A field that was
not measured is None. A source that gives no clip travels as one Clip whose `clip_id` is None, so
nothing that came in is ever lost on the way.
"""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

ANALYSIS_RATE = 16_000  # Hz, of every sound that a stage sees


class Reason(StrEnum):
    """Why a clip is not in the training set, worst first."""

    MISSING = "missing"
    STORAGE = "storage"
    CORRUPT = "corrupt"
    UNSUPPORTED = "unsupported"
    DECODE_TIMEOUT = "decode_timeout"
    DECODER_CRASH = "decoder_crash"
    STAGE_FAILED = "stage_failed"
    NO_VIDEO = "no_video"
    NO_AUDIO = "no_audio"
    LOW_RESOLUTION = "low_resolution"
    LOW_FRAME_RATE = "low_frame_rate"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    SCENE_CUT = "scene_cut"
    SILENT = "silent"
    NO_SPEECH = "no_speech"
    SINGING = "singing"
    NOISY = "noisy"
    WRONG_LANGUAGE = "wrong_language"
    DARK = "dark"
    LOW_MOTION = "low_motion"
    HIGH_MOTION = "high_motion"
    NO_FACE = "no_face"
    MULTI_FACE = "multi_face"
    FACE_TOO_SMALL = "face_too_small"
    PROFILE = "profile"
    OCCLUDED = "occluded"
    NOT_HUMAN = "not_human"
    UNSTABLE_IDENTITY = "unstable_identity"
    BLURRY = "blurry"
    SCREEN_RECORDING = "screen_recording"
    OFF_SYNC = "off_sync"
    SYNC_UNMEASURED = "sync_unmeasured"
    DUPLICATE = "duplicate"
    LICENCE = "licence"
    LABELLED_OUT = "labelled_out"


ERROR_REASONS = frozenset(
    {
        Reason.CORRUPT,
        Reason.UNSUPPORTED,
        Reason.MISSING,
        Reason.STORAGE,
        Reason.DECODE_TIMEOUT,
        Reason.DECODER_CRASH,
        Reason.STAGE_FAILED,
    }
)
"""Could not be measured: the row's status is `error`; every other reason makes it `rejected`."""

RETRIED_REASONS = frozenset({Reason.MISSING, Reason.STORAGE, Reason.DECODE_TIMEOUT})
"""May be better tomorrow: the next run measures these sources again."""

COUNTED_REASONS = frozenset({Reason.STORAGE, Reason.DECODE_TIMEOUT, Reason.STAGE_FAILED})
"""Our failure rather than the input's: these count towards `max_error_fraction`."""


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word; times in seconds from the clip's start."""

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(slots=True)
class AnalysisFrames:
    """Small RGB frames sampled at even steps from a clip, kept as JPEG so that a clip stays small."""

    times_s: np.ndarray
    """(N,) float64, presentation times from the clip's start."""
    jpegs: list[bytes]
    height: int
    width: int

    def decode(self, index: int) -> np.ndarray:
        """Frame `index` as (height, width, 3) uint8 RGB."""
        import cv2

        encoded = np.frombuffer(self.jpegs[index], np.uint8)
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB))

    def __len__(self) -> int:
        return len(self.jpegs)


@dataclass(slots=True)
class FaceTrack:
    """The clip's main face in each analysis frame; NaN where it was not seen.

    Boxes and landmarks are fractions of the frame; K depends on the backend."""

    times_s: np.ndarray
    """(N,) float64, from the clip's start."""
    boxes: np.ndarray
    """(N, 4) float32, x0 y0 x1 y1."""
    landmarks: np.ndarray
    """(N, K, 2) float32."""
    identity: np.ndarray | None = None
    """(D,) float32: the medoid embedding of the track."""


@dataclass(slots=True)
class Clip:
    """One stretch of one source, from `start_s` to `end_s`, and all that was measured on it."""

    source_uri: str
    source_sha256: str | None = None
    clip_id: str | None = None
    start_s: float | None = None
    end_s: float | None = None

    # segment: the container's and the picture's facts
    source_duration_s: float | None = None
    source_fps: float | None = None
    source_width: int | None = None
    source_height: int | None = None
    repeated_frame_ratio: float | None = None

    # quality
    luminance: float | None = None
    sharpness: float | None = None
    motion: float | None = None
    blockiness: float | None = None

    # speech
    loudness_dbfs: float | None = None
    speech_ratio: float | None = None
    music_ratio: float | None = None
    singing_ratio: float | None = None
    snr_db: float | None = None
    speech_quality: float | None = None
    language: str | None = None
    language_probability: float | None = None
    transcript: str | None = None
    n_words: int | None = None
    asr_logprob: float | None = None
    words: list[Word] = field(default_factory=list)
    speech_backend: str | None = None

    # faces
    n_faces_max: int | None = None
    other_face_ratio: float | None = None
    face_fraction: float | None = None
    face_height_px: float | None = None
    face_detected_ratio: float | None = None
    face_gap_s: float | None = None
    yaw_deg_p95: float | None = None
    pitch_deg_p95: float | None = None
    roll_deg_p95: float | None = None
    identity_consistency: float | None = None
    human_score: float | None = None
    face_confidence: float | None = None
    """The detector's median confidence at a standard size; low where something covers the face."""
    face_backend: str | None = None
    identity_embedding: list[float] | None = None
    """(D,): the medoid of the track's embeddings, in the face backend's own space."""

    # sync: raw scores in the scale of `sync_backend`
    sync_offset_frames: float | None = None
    """In frames of 25 fps; positive where the sound is early (SyncNet's sign)."""
    sync_confidence: float | None = None
    sync_distance: float | None = None
    sync_margin: float | None = None
    """How far the clip's own speech beats other speech over the same lips."""
    sync_shift_applied_s: float | None = None
    """What the stored sound was moved by to bring the offset to 0; positive is later."""
    sync_backend: str | None = None

    # fingerprint: what the same take keeps when it is encoded again, cropped, or at another rate
    phash: str | None = None
    """Perceptual hashes of several frames, 16 hex digits each."""
    audio_fingerprint: bytes | None = None

    # caption
    caption: str | None = None

    # encode
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    n_frames: int | None = None
    crop: list[float] | None = None
    """x0 y0 x1 y1 in source pixels (after rotation)."""

    # what became of it
    reasons: list[Reason] = field(default_factory=list)
    error: str | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    thumbnail: bytes | None = None
    """A small JPEG strip for the report."""

    # travels between stages, never stored
    frames: AnalysisFrames | None = None
    audio: np.ndarray | None = None
    """(S,) int16 mono at ANALYSIS_RATE."""
    track: FaceTrack | None = None


def clip_id_of(source_sha256: str, start_s: float, end_s: float) -> str:
    """The clip's name: content and time range, in whole milliseconds, and nothing else."""
    text = f"{source_sha256} {round(start_s * 1000)} {round(end_s * 1000)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
