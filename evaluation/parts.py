"""A video in the making, so that one whose maker is killed goes on with its last window.

.V.mp4.parts/   about.json           what the video is made of: other inputs begin anew
                window-00000.mp4     each window's frames, coded once
                last-00000.npy       its last two frames as they were made, from which the next one begins
                whole.mp4            with the sound, to be signed
-> V.mp4, with the sound; then the folder goes
"""

import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from data_pipeline.storage import replacing
from training.clip_file import join_clips, write_clip
from training.generate import Begun


class BeingMade(RuntimeError):
    """Another process makes this video."""


class Parts:
    """The windows of one video that are there; of one process at a time.

    Args:
        output: the video's path.
        about: all that its frames follow from.
    """

    def __init__(self, output: Path, about: Mapping[str, Any], fps: int) -> None:
        self._output = output
        self._about = json.dumps(about, sort_keys=True)
        self._fps = fps
        self._folder = output.with_name(f".{output.name}.parts")
        self._lock = FileLock(output.with_name(f".{output.name}.lock"))

    def __enter__(self) -> Self:
        """Raises BeingMade, OSError."""
        self._output.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BeingMade(f"{self._output}: another process makes it; wait, or name another file") from None
        about = self._folder / "about.json"
        if not about.is_file() or about.read_text("utf-8") != self._about:
            shutil.rmtree(self._folder, ignore_errors=True)
            with replacing(about) as temporary:
                temporary.write_text(self._about, "utf-8")
        self._windows = sorted(self._folder.glob("window-*.mp4"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    @property
    def begun(self) -> Begun | None:
        """What there is; None: nothing yet."""
        if not self._windows:
            return None
        return Begun(len(self._windows), np.load(self._last(len(self._windows) - 1)))

    def add(self, frames: np.ndarray, last: np.ndarray) -> None:
        """The next window.

        Args:
            frames: (n, H, W, 3) uint8, as the video shows them.
            last: (2, height, width, 3) uint8, the last two as they were made.
        """
        number = len(self._windows)
        array = io.BytesIO()
        np.save(array, last)
        with replacing(self._last(number)) as temporary:
            temporary.write_bytes(array.getvalue())
        clip = self._folder / f"window-{number:05d}.mp4"
        write_clip(clip, [frames], self._fps)
        self._windows.append(clip)
        if number:
            self._last(number - 1).unlink(missing_ok=True)

    def finish(
        self,
        sound: np.ndarray,
        rate: int,
        metadata: Mapping[str, str],
        sign: Callable[[Path, Path], None] | None = None,
    ) -> int:
        """The whole video, with its sound (S,) int16; the number of its frames.

        Args:
            sign: writes the video at the first path, signed, to the second one.
        """
        whole = self._output if sign is None else self._folder / "whole.mp4"
        n_frames = join_clips(whole, self._windows, self._fps, sound, rate, metadata)
        if sign is not None:
            with replacing(self._output) as temporary:
                sign(whole, temporary)
        shutil.rmtree(self._folder)
        return n_frames

    def _last(self, number: int) -> Path:
        return self._folder / f"last-{number:05d}.npy"
