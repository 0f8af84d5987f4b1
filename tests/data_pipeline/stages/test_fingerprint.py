"""The fingerprint: what it keeps through codecs, scaling and cropping, and what it tells apart."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipeline import media, weights
from data_pipeline.clip import Clip
from data_pipeline.config import FacesConfig
from data_pipeline.stages.faces import Faces
from data_pipeline.stages.fingerprint import ANCHOR, PICTURES, fingerprint, sound_anchors
from tests.data_pipeline.face_media import astronaut, clip_of, group
from tests.data_pipeline.makers import write_sound
from tests.data_pipeline.sounds import noise, over, read_aloud, silence, to_int16

SPEECH_S = 8.0


def in_common(a: np.ndarray, b: np.ndarray, late_steps: int = 0) -> float:
    """Share of the anchors of `a` that `b` has as much later, with at most 14 other bits."""
    late = b["step"].astype(int) - a["step"].astype(int)[:, None] - late_steps
    bits = np.bitwise_count(a["bits"][:, None] ^ b["bits"])
    return float(((np.abs(late) <= 2) & (bits <= 14)).any(axis=1).mean())


@pytest.fixture(scope="module")
def anchors() -> np.ndarray:
    return sound_anchors(read_aloud(0, SPEECH_S))


@pytest.mark.parametrize("codec", ["aac", "libmp3lame", "libopus"])
def test_a_codec_leaves_most_anchors_as_they_were(codec, anchors, tmp_path: Path) -> None:
    path = weights.fetch("demo-speech") / "two_cities.wav"
    sound = media.read_audio(path, 0, SPEECH_S, rate=48_000)[:, None]
    coded = write_sound(tmp_path / "coded.mkv", sound, codec=codec)
    assert in_common(anchors, sound_anchors(media.read_audio(coded))) > 0.8


def test_loudness_and_some_noise_change_little(anchors) -> None:
    speech = read_aloud(0, SPEECH_S)
    louder = sound_anchors(to_int16(speech * 2.0))
    noisier = sound_anchors(over(speech, noise(SPEECH_S), snr_db=25))
    assert in_common(anchors, louder) > 0.9
    assert in_common(anchors, noisier) > 0.6


def test_what_begins_later_has_the_same_anchors_as_much_earlier(anchors) -> None:
    later = sound_anchors(read_aloud(0.337, SPEECH_S))
    inside = anchors[anchors["step"] > 80]
    assert in_common(inside, later, late_steps=-34) > 0.9


def test_other_words_of_the_same_speaker_have_no_anchor_in_common(anchors) -> None:
    others = sound_anchors(read_aloud(SPEECH_S, 2 * SPEECH_S))
    bits = np.bitwise_count(anchors["bits"][:, None] ^ others["bits"])
    assert bits.min() > 14
    assert 26 < bits.mean() < 36


def test_speech_has_an_anchor_or_more_a_second_and_silence_none(anchors) -> None:
    assert SPEECH_S < len(anchors) < 4 * SPEECH_S
    assert not len(sound_anchors(silence(4.0)))
    assert not len(sound_anchors(silence(0.0)))


def test_a_clip_without_sound_or_without_a_track_has_no_such_fingerprint() -> None:
    clip = fingerprint(clip_of([astronaut()] * 2))
    assert (clip.phash, clip.audio_fingerprint) == (None, None)


@pytest.fixture(scope="module")
def faces() -> Faces:
    stage = Faces(FacesConfig())
    stage.setup()
    return stage


def hashes(faces: Faces, *images: np.ndarray) -> np.ndarray:
    clip: Clip = fingerprint(faces(clip_of(list(images))))
    assert clip.phash is not None
    return np.array([int(clip.phash[i : i + 16], 16) for i in range(0, len(clip.phash), 16)], np.uint64)


def other_bits(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.bitwise_count(a[:, None] ^ b).min(axis=1).mean())


def test_scaling_cropping_light_and_coding_leave_the_hashes_of_a_face(faces) -> None:
    image = astronaut()
    cropped = np.ascontiguousarray(image[10:440, 60:480])
    altered = {
        "smaller": cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA),
        "cropped": cropped,
        "cropped and larger": cv2.resize(cropped, None, fx=1.4, fy=1.4),
        "darker": (image * 0.6).astype(np.uint8),
        "turned a little": cv2.warpAffine(
            image, cv2.getRotationMatrix2D((256, 200), 5, 1), (512, 512), borderMode=cv2.BORDER_REPLICATE
        ),
        "coded": cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 25])[1], 1),
    }
    original = hashes(faces, image, image)
    found = {name: other_bits(original, hashes(faces, other, other)) for name, other in altered.items()}
    assert max(found.values()) <= 8, found


def test_another_face_has_other_hashes(faces) -> None:
    one = np.ascontiguousarray(group()[:, :400])
    assert other_bits(hashes(faces, astronaut()), hashes(faces, one)) > 15


def test_a_long_clip_has_no_more_hashes_than_a_short_one_and_few_bytes_of_sound(faces) -> None:
    assert len(hashes(faces, *[astronaut()] * 9)) == PICTURES
    assert len(sound_anchors(read_aloud(0, 14.0))) * ANCHOR.itemsize < 500
