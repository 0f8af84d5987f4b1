"""One face-centred crop, and the media of a sample."""

import hashlib
import pickle
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.clip import Clip, FaceTrack
from data_pipeline.config import EncodeConfig
from data_pipeline.media import MediaError
from data_pipeline.stages.encode import MEDIA, Box, at_times, encode, face_crop
from tests.data_pipeline.makers import clicks, clicks_in, number_in, write_video

SIZE = (640, 480)
WHOLE = Box(0, 0, *SIZE)
NOWHERE = (np.nan,) * 4


def track_of(*boxes: tuple[float, ...], region: Box = WHOLE, period_s: float = 0.2) -> FaceTrack:
    """Boxes in pixels, one a sample; two landmarks at the corners of each."""
    pixels = np.array(boxes).reshape(-1, 2, 2)
    points = ((pixels - [region.x0, region.y0]) / [region.width, region.height]).astype(np.float32)
    identity = np.arange(4, dtype=np.float32)
    return FaceTrack(np.arange(len(boxes)) * period_s, points.reshape(-1, 4), points, identity)


def clip_of(track: FaceTrack | None, **fields) -> Clip:
    facts = {"start_s": 1.0, "end_s": 3.0, "source_width": SIZE[0], "source_height": SIZE[1]}
    return Clip("a.mp4", "ab" * 32, "c11b", **facts | {"track": track, "face_backend": "points", **fields})


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "numbers.mp4"
    return write_video(path, n_frames=100, fps=25, size=SIZE, sound=clicks([1.5], 4.0))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


# --- the crop


def test_the_crop_is_centred_on_the_face_and_scaled_by_its_height():
    crop = face_crop(track_of((280, 190, 360, 290)), WHOLE, EncodeConfig(face_scale=2.2))
    assert crop == Box(210, 130, 430, 350)


def test_the_crop_has_the_shape_of_the_output():
    crop = face_crop(track_of((280, 190, 360, 290)), WHOLE, EncodeConfig(width=720, height=480, face_scale=2))
    assert (crop.width, crop.height) == (300, 200)


def test_the_crop_moves_into_the_picture():
    crop = face_crop(track_of((10, 10, 90, 110)), WHOLE, EncodeConfig(face_scale=3))
    assert crop == Box(0, 0, 300, 300)


def test_the_crop_shrinks_into_the_picture():
    crop = face_crop(track_of((200, 100, 440, 400)), WHOLE, EncodeConfig(face_scale=3))
    assert crop == Box(80, 0, 560, 480)


def test_the_crop_grows_so_that_a_wandering_face_is_never_cut():
    crop = face_crop(track_of((50, 200, 130, 300), (330, 200, 410, 300)), WHOLE, EncodeConfig(face_scale=1))
    assert crop.x0 <= 40
    assert crop.x1 >= 420


def test_the_crop_reaches_over_the_edge_where_nothing_else_holds_the_face():
    track = track_of((5, 200, 85, 300), (555, 200, 635, 300))
    crop = face_crop(track, WHOLE, EncodeConfig())
    assert (crop.x0, crop.x1) == (0, 640)
    assert (crop.y0, crop.y1) == (-80, 560)


def test_the_crop_stays_in_the_part_that_the_list_asks_for():
    region = Box(100, 50, 300, 250)
    crop = face_crop(track_of((110, 60, 190, 160), region=region), region, EncodeConfig())
    assert crop == Box(100, 50, 300, 250)


def test_a_face_that_was_not_seen_leaves_the_middle():
    assert face_crop(track_of(NOWHERE), WHOLE, EncodeConfig()) == Box(80, 0, 560, 480)
    assert face_crop(None, WHOLE, EncodeConfig()) == Box(80, 0, 560, 480)


coordinate = st.floats(0, 1, width=32)


@given(
    corners=st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=1, max_size=4),
    size=st.tuples(st.integers(16, 2000), st.integers(16, 2000)),
    shape=st.sampled_from([(512, 512), (720, 480), (256, 512)]),
    face_scale=st.floats(1, 4),
)
def test_the_crop_holds_every_box_and_leaves_the_picture_only_if_it_must(corners, size, shape, face_scale):
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    track = FaceTrack(np.arange(len(boxes)) / 5, np.array(boxes), np.empty((len(boxes), 0, 2)))
    region = Box(0, 0, *size)
    crop = face_crop(track, region, EncodeConfig(width=shape[0], height=shape[1], face_scale=face_scale))
    assert crop.width % 2 == crop.height % 2 == 0
    assert crop.width == pytest.approx(crop.height * shape[0] / shape[1], abs=6)
    pixels = np.array(boxes) * [*size, *size]
    assert crop.x0 - 2 <= pixels[:, 0].min()
    assert crop.y0 - 2 <= pixels[:, 1].min()
    assert crop.x1 + 2 >= pixels[:, 2].max()
    assert crop.y1 + 2 >= pixels[:, 3].max()
    leaves = crop.x0 < 0 or crop.y0 < 0 or crop.x1 > size[0] or crop.y1 > size[1]
    assert not leaves or crop.width > size[0] - 2 or crop.height > size[1] - 2


# --- the face in each encoded frame


def test_values_between_samples_are_interpolated_and_held_beyond_the_ends():
    found = at_times(np.array([[0.0], [10.0]]), np.array([0.1, 0.3]), np.array([0.0, 0.1, 0.15, 0.3, 0.5]))
    assert found[:, 0] == pytest.approx([0, 0, 2.5, 10, 10])


def test_beside_an_unseen_sample_the_nearest_one_counts():
    values = np.array([[1.0], [np.nan], [5.0]])
    found = at_times(values, np.array([0.0, 0.2, 0.4]), np.array([0.0, 0.08, 0.12, 0.2, 0.28, 0.32, 0.4]))
    assert np.isnan(found[:, 0]).tolist() == [False, False, True, True, True, False, False]
    assert found[[0, 1, 5, 6], 0].tolist() == [1, 1, 5, 5]


def test_one_sample_counts_for_the_whole_clip():
    assert at_times(np.array([[7.0]]), np.array([0.4]), np.array([0.0, 0.4, 1.0]))[:, 0].tolist() == [7, 7, 7]


# --- the media


def test_a_clip_is_encoded_with_its_sound_and_its_face(source, tmp_path):
    track = track_of(*[(280, 190, 360, 290)] * 10)
    encoded = encode(clip_of(track), source, tmp_path, EncodeConfig(width=128, height=128))
    assert (encoded.width, encoded.height, encoded.fps, encoded.n_frames) == (128, 128, 25, 50)
    assert encoded.crop == [210, 130, 430, 350]
    with av.open(str(tmp_path / "c11b.mp4")) as container:
        pictures = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    assert [picture.shape for picture in pictures] == [(128, 128, 3)] * 50
    with av.open(str(tmp_path / "c11b.flac")) as container:
        sound = np.concatenate([block.to_ndarray().ravel() for block in container.decode(audio=0)])
    assert len(sound) == 32_000
    assert clicks_in(sound) == pytest.approx([0.5], abs=0.002)
    arrays = np.load(tmp_path / "c11b.npz")
    assert {name: (arrays[name].shape, arrays[name].dtype.kind) for name in arrays} == {
        "boxes": ((50, 4), "f"),
        "landmarks": ((50, 2, 2), "f"),
        "identity": ((4,), "f"),
        "identity_backend": ((), "U"),
    }
    assert arrays["boxes"].dtype == arrays["landmarks"].dtype == arrays["identity"].dtype == np.float32
    assert arrays["boxes"][7] == pytest.approx([70 / 220, 60 / 220, 150 / 220, 160 / 220], abs=1e-4)
    assert arrays["landmarks"][7].ravel() == pytest.approx(arrays["boxes"][7])
    assert str(arrays["identity_backend"]) == "points"


def test_the_picture_is_the_one_that_was_on_screen(source, tmp_path):
    track = track_of((0, 0, 640, 480))
    encode(clip_of(track), source, tmp_path, EncodeConfig(width=128, height=96))
    with av.open(str(tmp_path / "c11b.mp4")) as container:
        numbers = [number_in(picture.to_ndarray(format="rgb24")) for picture in container.decode(video=0)]
    assert numbers == list(range(25, 75))


def test_a_clip_is_never_larger_than_its_source(source, tmp_path):
    encoded = encode(clip_of(track_of((280, 190, 360, 290))), source, tmp_path, EncodeConfig())
    assert (encoded.width, encoded.height) == (220, 220)


def test_a_face_in_a_crop_of_the_list_is_where_the_crop_is(source, tmp_path):
    region = Box(320, 0, 640, 480)
    track = track_of((440, 190, 520, 290), region=region)
    encoded = encode(clip_of(track, crop=[320, 0, 700, 480]), source, tmp_path, EncodeConfig())
    assert encoded.crop == [370, 130, 590, 350]
    boxes = np.load(tmp_path / "c11b.npz")["boxes"]
    assert boxes[0] == pytest.approx([70 / 220, 60 / 220, 150 / 220, 160 / 220], abs=1e-4)


def test_a_clip_without_a_face_has_no_boxes(source, tmp_path):
    encode(clip_of(None), source, tmp_path, EncodeConfig(width=64, height=64))
    arrays = np.load(tmp_path / "c11b.npz")
    assert np.isnan(arrays["boxes"]).all()
    assert arrays["landmarks"].shape == (50, 0, 2)
    assert arrays["identity"].shape == (0,)


def test_the_same_clip_gives_the_same_bytes_and_nothing_else(source, tmp_path):
    track, config = track_of(*[(280, 190, 360, 290), NOWHERE] * 5), EncodeConfig(width=128, height=128)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        encode(clip_of(track), source, folder, config)
    assert digests(folders[0]) == digests(folders[1])
    assert sorted(digests(folders[0])) == sorted(f"c11b{suffix}" for suffix in MEDIA)


def test_a_source_that_cannot_be_read_leaves_nothing_behind(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    with pytest.raises(MediaError):
        encode(clip_of(None), tmp_path / "bad.mp4", tmp_path / "out", EncodeConfig())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_source_that_gave_no_clip_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="has no clip to encode"):
        encode(Clip("a.mp4"), tmp_path / "a.mp4", tmp_path, EncodeConfig())


def test_it_can_be_sent_to_another_process():
    call = (encode, clip_of(track_of((280, 190, 360, 290))), Path("a.mp4"), EncodeConfig())
    assert pickle.loads(pickle.dumps(call))[0] is encode  # noqa: S301


# --- sound that was found to be early or late


def clicks_of(clip: Clip, source: Path, folder: Path) -> list[float]:
    from data_pipeline import media

    encode(clip, source, folder, EncodeConfig(width=64, height=64))
    sound = media.read_audio(folder / f"{clip.clip_id}.flac")
    assert len(sound) == 2 * 16_000
    return [round(time_s, 2) for time_s in clicks_in(sound)]


@pytest.mark.parametrize(("shift_s", "heard_s"), [(0.12, 0.62), (-0.12, 0.38), (0.0, 0.5), (None, 0.5)])
def test_a_positive_shift_makes_the_sound_later_and_a_negative_one_earlier(
    source, tmp_path, shift_s, heard_s
):
    clip = clip_of(track_of((280, 190, 360, 290)), sync_shift_applied_s=shift_s)
    assert clicks_of(clip, source, tmp_path) == [heard_s]


def test_what_a_shift_brings_in_is_the_sources_own_sound(tmp_path):
    sound = clicks([0.95, 3.05], 4.0)
    source = write_video(tmp_path / "n.mp4", n_frames=100, fps=25, size=SIZE, sound=sound)
    later = clip_of(track_of((280, 190, 360, 290)), sync_shift_applied_s=0.12)
    assert clicks_of(later, source, tmp_path) == [0.07]
    earlier = clip_of(track_of((280, 190, 360, 290)), sync_shift_applied_s=-0.12)
    assert clicks_of(earlier, source, tmp_path) == [1.93]


def test_at_the_sources_edge_a_shift_brings_in_silence(tmp_path):
    source = write_video(tmp_path / "n.mp4", n_frames=50, fps=25, size=SIZE, sound=clicks([0.5], 2.0))
    box = track_of((280, 190, 360, 290))
    at_start = clip_of(box, start_s=0.0, end_s=2.0, sync_shift_applied_s=0.2)
    assert clicks_of(at_start, source, tmp_path) == [0.7]
    at_end = clip_of(box, start_s=0.0, end_s=2.0, sync_shift_applied_s=-0.2)
    assert clicks_of(at_end, source, tmp_path) == [0.3]
