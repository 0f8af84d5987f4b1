"""Pictures with faces for tests: photographs that packages carry, and clips made of them."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline import weights
from data_pipeline.clip import AnalysisFrames, Clip

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
FPS = 5.0


def astronaut() -> np.ndarray:
    """(512, 512, 3) uint8 RGB: one woman, looking into the camera."""
    return _read(weights.fetch("demo-portrait-astronaut") / "astronaut.png")


def group() -> np.ndarray:
    """(886, 1280, 3) uint8 RGB: six people."""
    return _read(weights.fetch("demo-portraits-group") / "t1.jpg")


def portrait(name: str) -> np.ndarray:
    """A portrait of shared/real, or the test is skipped."""
    path = REAL / "portraits" / name
    if not path.is_file():
        pytest.skip(f"the real portraits are not here ({path})")
    return _read(path)


def clip_of(images: list[np.ndarray], scale: float = 1.0, fps: float = FPS) -> Clip:
    """A clip whose source is `scale` times as large as the frames."""
    import cv2

    jpegs = [
        cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])[
            1
        ].tobytes()
        for image in images
    ]
    height, width = images[0].shape[:2]
    return Clip(
        source_uri="test",
        clip_id="0" * 16,
        start_s=0.0,
        end_s=len(images) / fps,
        source_width=round(width * scale),
        source_height=round(height * scale),
        frames=AnalysisFrames(np.arange(len(images)) / fps, jpegs, height, width),
    )


def real_clip(name: str, longer_side_px: int = 640) -> Clip:
    """The first seconds of a video of shared/real, or the test is skipped."""
    import av
    import cv2

    path = REAL / name
    if not path.is_file():
        pytest.skip(f"the real clips are not here ({path})")
    images: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time is None or frame.time * FPS < len(images):
                continue
            image = frame.to_ndarray(format="rgb24")
            ratio = min(1.0, longer_side_px / max(image.shape[:2]))
            images.append(cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA))
            if len(images) == 20:
                break
    return clip_of(images)


def _read(path: Path) -> np.ndarray:
    import cv2

    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
