"""Image files of every kind become the same portrait; what is none is named."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_pipeline import weights
from data_pipeline.config import FacesConfig
from data_pipeline.models.face_models import FaceModels, face_models
from evaluation.picture import PictureError, framed_whole, read_picture, show

ORIENTATION = 0x0112
TURNED = 6  # EXIF: to be shown a quarter to the right
SAME_LEVELS = 3.0


@cache
def astronaut() -> Image.Image:
    """512 x 512, one person, whose face is above the middle."""
    return Image.open(weights.fetch("demo-portrait-astronaut") / "astronaut.png").convert("RGB")


@cache
def faces() -> FaceModels:
    return face_models(FacesConfig())


def save_turned(path: Path) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    astronaut().transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif, quality=95)
    return path.with_suffix(".jpg")


def save_animation(path: Path) -> Path:
    others = [Image.new("RGB", astronaut().size, colour) for colour in ("red", "blue")]
    astronaut().save(path.with_suffix(".webp"), save_all=True, append_images=others, quality=95)
    return path.with_suffix(".webp")


def save_as(mode: str, suffix: str, **how):
    def save(path: Path) -> Path:
        astronaut().convert(mode).save(path.with_suffix(suffix), **how)
        return path.with_suffix(suffix)

    return save


SAVED = {
    "JPEG": save_as("RGB", ".jpg", quality=95),
    "PNG": save_as("RGB", ".png"),
    "WebP": save_as("RGB", ".webp", quality=95),
    "TIFF": save_as("RGB", ".tif"),
    "AVIF": save_as("RGB", ".avif", quality=95),
    "with alpha": save_as("RGBA", ".png"),
    "CMYK": save_as("CMYK", ".jpg", quality=95),
    "turned by EXIF": save_turned,
    "animated": save_animation,
}


@pytest.mark.parametrize("how", SAVED)
def test_a_picture_is_the_same_however_it_is_saved(how, tmp_path) -> None:
    found = read_picture(SAVED[how](tmp_path / "face"))
    assert found.shape == (512, 512, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(float) - np.asarray(astronaut())).mean() < SAME_LEVELS


def test_the_first_picture_of_an_animated_gif_counts(tmp_path) -> None:
    first, second = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert read_picture(tmp_path / "a.gif")[5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", ".png"), ("LA", ".png"), ("RGBA", ".gif")])
def test_what_is_transparent_is_white(mode, suffix, tmp_path) -> None:
    image = Image.new("RGBA", (8, 8), (10, 10, 10, 255))
    image.paste((0, 0, 0, 0), (0, 0, 8, 4))
    image.convert(mode).save(tmp_path / f"a{suffix}")
    found = read_picture(tmp_path / f"a{suffix}")
    assert found[0, 0].tolist() == [255, 255, 255]
    assert np.abs(found[7, 7].astype(int) - 10).max() <= 2


def test_sixteen_bits_of_grey_become_eight(tmp_path) -> None:
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png")
    assert np.array_equal(found[..., 0], levels >> 8)
    assert np.array_equal(found[..., 0], found[..., 2])


def test_what_is_no_whole_image_is_named(tmp_path) -> None:
    (tmp_path / "text.jpg").write_text("no picture\n")
    (tmp_path / "empty.png").touch()
    whole = SAVED["PNG"](tmp_path / "whole").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, words in {
        "text.jpg": "no image that can be read",
        "empty.png": "no image that can be read",
        "cut.png": "the image cannot be read",
        "nowhere.png": "No such file",
        ".": "Is a directory",
    }.items():
        with pytest.raises(PictureError, match=words) as error:
            read_picture(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name))


@given(
    rows=st.integers(1, 3000),
    columns=st.integers(1, 3000),
    height=st.integers(1, 60).map(lambda n: 8 * n),
    width=st.integers(1, 90).map(lambda n: 8 * n),
)
def test_the_whole_of_a_picture_is_inside_the_frame_and_as_wide_as_it_was(
    rows, columns, height, width
) -> None:
    frame, (top, left, shown_height, shown_width) = framed_whole(
        np.full((rows, columns, 3), 200, np.uint8), height, width
    )
    inside = frame[top : top + shown_height, left : left + shown_width]
    assert frame.shape == (height, width, 3)
    assert inside.shape == (shown_height, shown_width, 3)
    assert (inside == 200).all()
    assert frame.sum() == inside.sum()  # black elsewhere
    assert shown_height % 2 == shown_width % 2 == 0
    assert shown_height == height or shown_width == width
    scale = min(height / rows, width / columns)
    assert abs(shown_height - rows * scale) <= 2
    assert abs(shown_width - columns * scale) <= 2


@pytest.mark.parametrize(("height", "width"), [(256, 256), (480, 720), (320, 160)])
def test_the_box_stays_on_the_face(height, width) -> None:
    shown = show(np.asarray(astronaut()), height, width, faces())
    assert shown.other_faces == 0
    again = show(shown.portrait.image, height, width, faces())
    assert np.allclose(shown.portrait.box, again.portrait.box, atol=0.03)
    assert np.linalg.norm(shown.portrait.identity - again.portrait.identity) < faces().same_person_distance


def test_the_largest_of_several_faces_is_taken() -> None:
    large = np.asarray(astronaut())
    small = np.asarray(astronaut().resize((256, 256)).crop((40, 0, 216, 200)))
    both = np.full((512, 760, 3), 128, np.uint8)
    both[:, :512] = large
    both[100:300, 560:736] = small[:, :176]
    shown = show(both, 480, 720, faces())
    assert shown.other_faces == 1
    assert shown.portrait.box[2] < 512 / 760
    alone = show(large, 480, 720, faces())
    assert np.linalg.norm(shown.portrait.identity - alone.portrait.identity) < 0.2


def test_a_picture_without_a_face_is_refused_in_words() -> None:
    with pytest.raises(PictureError, match=r"no face is seen in the picture of 300 x 200 px; give one"):
        show(np.full((200, 300, 3), 90, np.uint8), 64, 64, faces())
