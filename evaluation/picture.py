"""An image file of any kind -> the portrait that a video is made of.

file -> upright RGB: its first picture, opaque
     -> the largest face in it, and who that is
     -> the whole of it inside the model's frame, without distortion, black where it has nothing
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.models.face_models import FaceModels
from training.generate import Portrait

if TYPE_CHECKING:
    from PIL import Image

BACKGROUND = (255, 255, 255)
"""Seen through transparent pixels."""


class PictureError(ValueError):
    """No picture, or none of a face; the message says what was found and what to do."""


@dataclass(frozen=True)
class Shown:
    """A picture as the model sees it."""

    portrait: Portrait
    """Its image has the model's size."""
    place: tuple[int, int, int, int]
    """Top, left, height and width of the picture in the model's frame; even, as video wants it."""
    other_faces: int
    """Smaller ones in the picture, which stay as they are."""

    def of(self, frames: np.ndarray) -> np.ndarray:
        """Of frames (N, height, width, 3) in the model's size the picture's part, without the black."""
        top, left, height, width = self.place
        return np.ascontiguousarray(frames[:, top : top + height, left : left + width])


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, the way up that its EXIF says.

    Of an animation it is the first picture; 16 bits become 8, CMYK and palettes RGB, what is behind
    transparent pixels is white.

    Raises:
        PictureError: names the file; it is not there, no image, cut short, or larger than Pillow opens.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise PictureError(f"{path}: no image that can be read; give a JPEG, PNG, WebP or the like") from None
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path}: too large, make it smaller: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, of files that are cut short or damaged
        words = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise PictureError(f"{path}: the image cannot be read: {words}") from None


def _rgb(image: "Image.Image") -> np.ndarray:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits, whatever Pillow calls them: converting would clip them
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(opaque, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def show(picture: np.ndarray, height: int, width: int, faces: FaceModels) -> Shown:
    """The person in a picture (H, W, 3), ready for a model of `height` x `width` pixels.

    Raises:
        PictureError: there is no face that is clear enough.
    """
    box, identity, others = _largest_face(picture, faces)
    framed, (top, left, shown_height, shown_width) = framed_whole(picture, height, width)
    x0, x1 = (float(side) / picture.shape[1] * shown_width + left for side in box[::2])
    y0, y1 = (float(side) / picture.shape[0] * shown_height + top for side in box[1::2])
    portrait = Portrait(framed, (x0 / width, y0 / height, x1 / width, y1 / height), identity)
    return Shown(portrait, (top, left, shown_height, shown_width), others)


def framed_whole(
    picture: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A picture (H, W, 3) in the middle of a black frame (height, width, 3), as large as fits, undistorted;
    and its place: top, left, height, width, the latter two even."""
    import cv2

    scale = min(height / picture.shape[0], width / picture.shape[1])
    rows, columns = (max(2, 2 * round(side * scale / 2)) for side in picture.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    top, left = (height - rows) // 2, (width - columns) // 2
    frame = np.zeros((height, width, 3), np.uint8)
    frame[top : top + rows, left : left + columns] = cv2.resize(picture, (columns, rows), interpolation=how)
    return frame, (top, left, rows, columns)


def _largest_face(picture: np.ndarray, faces: FaceModels) -> tuple[np.ndarray, np.ndarray, int]:
    """Its box in pixels, its embedding, and how many others there are."""
    found = faces.detect(picture)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    for index in np.argsort(-sides.prod(axis=1), kind="stable"):
        face = faces.fit(picture, found.boxes[index], found.points[index])
        if face.fits:
            return found.boxes[index], faces.embed(picture, face), len(found) - 1
    height, width = picture.shape[:2]
    seen = f"none of {len(found)} faces is clear enough" if len(found) else "no face is seen"
    raise PictureError(
        f"{seen} in the picture of {width} x {height} px; give one that shows a face larger, from the front"
    )
