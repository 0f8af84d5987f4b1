"""Caption: the text prompt of a clip.

In order of precedence: a list's `caption` column, a text file beside the video, the template. A
caption is of the source, not of what was measured, so the first two are laid over the template when
the dataset is packed; a changed caption measures nothing again.
"""

import logging
from dataclasses import replace

from data_pipeline.clip import Clip
from data_pipeline.config import CaptionConfig
from data_pipeline.storage import Location

SIDECAR_BYTES = 16 * 1024  # a text file that is longer is not a caption

log = logging.getLogger(__name__)


class Caption:
    """Gives a clip without a caption the template's."""

    def __init__(self, config: CaptionConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """There is no model to load."""

    def __call__(self, clip: Clip) -> Clip:
        return replace(clip, caption=clip.caption or self.config.template)


def sidecar_caption(video: Location) -> str | None:
    """The text in `{stem}.txt` beside the video, as one line; None where there is none.

    A file that is empty, not UTF-8, or longer than SIDECAR_BYTES is not a caption; a warning says so."""
    path = video.with_suffix(".txt")
    try:
        with path.open("rb") as file:
            data = file.read(SIDECAR_BYTES + 1)
    except OSError:  # most videos have none
        return None
    if len(data) > SIDECAR_BYTES:
        log.warning("%s: longer than %d bytes: not used as a caption", path, SIDECAR_BYTES)
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        log.warning("%s: not UTF-8: not used as a caption", path)
        return None
    return " ".join(text.split()) or None
