"""Fingerprint: what a take keeps when it is encoded again, scaled, cropped, trimmed or shown at another rate.

    frames + track -> the face, level and of one size, in a few frames -> 64 bits each  -> `phash`
    sound -> band levels -> anchors where it swells -> (time, 64 bits) each  -> `audio_fingerprint`

The picture is hashed around the face, so that cropping and scaling change nothing: it tells who is seen,
from where, in which light. One speaker's takes in one set look alike; which take it is, the sound tells.
The sound is described only where it swells: both copies have the same moments, wherever they start.
`data_pipeline.duplicates` compares.
"""

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE, AnalysisFrames, Clip, FaceTrack

PICTURES = 4  # hashes a clip

FACE_PX = 32
HASH_ORDERS = 8  # 8 x 8 bits
# Outer corners, left and right as the picture has them, by how many landmarks the backend has.
EYES_AND_MOUTH = {468: (33, 263, 61, 291), 68: (36, 45, 48, 54)}
TEMPLATE = np.array([[0.25, 0.3], [0.75, 0.3], [0.35, 0.75], [0.65, 0.75]], np.float32) * FACE_PX

STEP_S = 0.01
STEP = round(STEP_S * ANALYSIS_RATE)
WINDOW = 1024  # 64 ms
BANDS = 16
BAND_HZ = (300.0, 3400.0)  # what telephones carry, and every codec keeps
FLOOR_DB = -40.0  # below the loud parts: what is quieter differs between codecs
SWELL_STEPS = 4.0  # sigma of the smoothing before swells are looked for
SWELL_DB = 0.15  # a step, of a swell that counts
SWELL_REACH = 12  # steps to each side in which an anchor is the steepest place
PATCH = 100  # steps around an anchor that its bits describe
PATCH_ORDERS = (8, 8)  # in time, without the mean, and across the bands

ANCHOR = np.dtype([("step", "<u2"), ("bits", "<u8")])
"""One anchor: its time in steps of STEP_S from the clip's start, and its description."""
LAST_STEP = np.iinfo(np.uint16).max  # of a clip of over ten minutes the beginning is described


def fingerprint(clip: Clip) -> Clip:
    """Adds `phash` where a face was tracked and `audio_fingerprint` where there is sound."""
    if clip.frames is not None and clip.track is not None:
        clip.phash = picture_hashes(clip.frames, clip.track)
    if clip.audio is not None:
        clip.audio_fingerprint = sound_anchors(clip.audio).tobytes()
    return clip


def picture_hashes(frames: AnalysisFrames, track: FaceTrack) -> str | None:
    """PICTURES hashes of the tracked face at even steps, 16 hex digits each; None where none is seen."""
    seen = np.flatnonzero(~np.isnan(track.boxes[:, 0]))
    if not len(seen):
        return None
    places = np.linspace(0, len(seen) - 1, min(PICTURES, len(seen))).round().astype(int)
    faces = (aligned_face(frames.decode(i), track.boxes[i], track.landmarks[i]) for i in seen[places])
    return "".join(f"{picture_hash(face):016x}" for face in faces)


def picture_hash(grey: np.ndarray) -> int:
    """(N, N) -> 64 bits: which of the picture's low DCT coefficients are above their median.

    The perceptual hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions"
    (2010), without the mean, so that brightness and contrast do not count."""
    from scipy.fft import dctn

    low = dctn(grey.astype(np.float32), norm="ortho")[: HASH_ORDERS + 1, : HASH_ORDERS + 1].ravel()
    low = low[_ZIGZAG]
    return int(_packed(low > np.median(low)))


def _low_orders() -> np.ndarray:
    """The 64 lowest orders of the 9 x 9 after the mean, in order of their sum."""
    rows, columns = np.divmod(np.arange((HASH_ORDERS + 1) ** 2), HASH_ORDERS + 1)
    return np.lexsort((rows, rows + columns))[1 : HASH_ORDERS**2 + 1]


_ZIGZAG = _low_orders()


def aligned_face(rgb: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(FACE_PX, FACE_PX) float32 grey: eyes and mouth at fixed places, or the box where unknown."""
    import cv2

    size = np.array([rgb.shape[1], rgb.shape[0]], np.float32)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    corners = EYES_AND_MOUTH.get(len(landmarks))
    if corners is None or np.isnan(landmarks[0, 0]):
        x0, y0, x1, y1 = box * np.tile(size, 2)
        found = np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float32)
        wanted = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32) * FACE_PX
    else:
        found, wanted = (landmarks[list(corners)] * size).astype(np.float32), TEMPLATE
    to_face = _similarity(found, wanted)
    scale = float(np.hypot(to_face[0, 0], to_face[0, 1]))
    if scale < 1:  # warping alone would alias
        grey = cv2.GaussianBlur(grey, (0, 0), 0.5 / scale)
    return cv2.warpAffine(
        grey, to_face, (FACE_PX, FACE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)


def _similarity(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(2, 3): the rotation, scale and shift that bring (N, 2) points closest to others; least squares."""
    z, w = found @ [1, 1j], wanted @ [1, 1j]
    a = np.vdot(z - z.mean(), w - w.mean()) / np.vdot(z - z.mean(), z - z.mean()).real
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]], np.float64)


def sound_anchors(audio: np.ndarray) -> np.ndarray:
    """(S,) int16 at ANALYSIS_RATE -> (A,) of ANCHOR, about two a second of speech; none in silence.

    Bits are the signs of a patch's low two-dimensional DCT coefficients, as those of energy differences
    in Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (2002): blind to loudness. They
    are taken at moments that the sound itself marks, as the peaks of Wang, "An Industrial-Strength Audio
    Search Algorithm" (2003): copies need not start at one time."""
    from scipy.fft import dctn

    levels = _band_levels(audio)
    at = np.zeros(0, np.intp) if levels is None else _swells(levels)
    if levels is None or not len(at):
        return np.zeros(0, ANCHOR)
    padded = np.pad(levels, ((PATCH // 2, PATCH // 2), (0, 0)), constant_values=FLOOR_DB)
    patches = np.lib.stride_tricks.sliding_window_view(padded, PATCH, axis=0)[at]  # (A, BANDS, PATCH)
    orders, bands = PATCH_ORDERS
    low = dctn(patches, axes=(1, 2), norm="ortho")[:, :bands, 1 : orders + 1]
    anchors = np.zeros(len(at), ANCHOR)
    anchors["step"], anchors["bits"] = at, _packed(low.reshape(len(at), -1) > 0)
    return anchors


def _band_levels(audio: np.ndarray) -> np.ndarray | None:
    """(S,) -> (steps, BANDS) dB under the sound's loud parts, FLOOR_DB at least; None for digital silence."""
    padded = np.pad(audio.astype(np.float32), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::STEP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW).astype(np.float32), axis=1)) ** 2
    edges = np.geomspace(*BAND_HZ, BANDS + 1) * WINDOW / ANALYSIS_RATE
    bands = np.add.reduceat(power, edges.round().astype(int), axis=1)[:, :BANDS]
    loud = float(np.percentile(bands.sum(axis=1), 95))
    if loud <= 0:
        return None
    return 10 * np.log10(bands / loud + 10 ** (FLOOR_DB / 10))


def _swells(levels: np.ndarray) -> np.ndarray:
    """(steps, BANDS) -> (A,) steps at which the level rises most steeply."""
    from scipy.ndimage import gaussian_filter1d, maximum_filter1d

    rise = np.gradient(gaussian_filter1d(levels[: LAST_STEP + 1].mean(axis=1), SWELL_STEPS))
    steepest = maximum_filter1d(rise, 2 * SWELL_REACH + 1)
    return np.flatnonzero((rise == steepest) & (rise > SWELL_DB))


def _packed(bits: np.ndarray) -> np.ndarray:
    """(..., 64) bool -> (...) uint64."""
    return (bits.astype(np.uint64) << np.arange(64, dtype=np.uint64)).sum(axis=-1, dtype=np.uint64)
