"""What the web page's controls do: from what was put into it to a video, and what is said on the way.

picture, voice, seconds, seed, steps, guidance -> looked at; what is wrong is said, by its name
  -> behind the videos of others (waiting_line.py), how far and how long, twice a second
  -> the video, or what went wrong

Nothing here knows how a page is made (page.py).
"""

import asyncio
import logging
import math
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from data_pipeline.media import probe
from evaluation.animator import WRONG_INPUTS, AnimateError, Animator, Made, Take, Told, check
from evaluation.waiting_line import Place, Turn, WaitingLine, Wanted
from training.features import FPS
from training.generate import Sampling

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.5
ENDS_WITHIN_S = 5.0
MOST_STEPS = 1000
NOT_KNOWN = "how long it takes is not known yet; the first window will tell"
Kind = Literal["estimate", "waiting", "working", "made", "failed", "left"]


@dataclass(frozen=True)
class Seen:
    """What the page shows of a video, now."""

    kind: Kind
    lines: tuple[str, ...]
    """Of text."""
    share: float | None = None
    """Of its frames that are there."""
    video: Path | None = None


class Studio:
    """Makes what pages ask for, one video at a time.

    Args:
        sampling: what pages do not ask about.
        folder: of uploads; no other files are taken. Videos come to lie in it.
    """

    def __init__(self, animator: Animator, sampling: Sampling, folder: Path) -> None:
        self.reads_prompts = animator.reads_prompts
        self._animator = animator
        self._sampling = sampling
        self._folder = folder.resolve()
        self._line = WaitingLine(self._make)

    def close(self) -> bool:
        """Make no more; whether what was being made has ended."""
        return self._line.close(ENDS_WITHIN_S)

    async def estimate(self, audio: Any, seconds: Any, steps: Any, guidance: Any) -> Seen | None:
        """How long a video would take, before it is asked for; None: there is no voice yet."""
        if audio is None:
            return None
        try:
            frames = await asyncio.to_thread(_frames, self._uploaded("voice", audio), _seconds(seconds))
            place = self._line.place_of_new(frames, self._wanted(steps, guidance))
        except WRONG_INPUTS as error:
            return Seen("failed", (self._without_folders(error),))
        first = f"{_videos(place.before)} first, in all " if place.before else ""
        long = NOT_KNOWN if place.left_s is None else first + _about(place.left_s)
        return Seen("estimate", (f"{frames} frames ({frames / FPS:.1f} s): {long}",))

    async def animate(
        self, image: Any, audio: Any, prompt: Any, seconds: Any, seed: Any, steps: Any, guidance: Any
    ) -> AsyncIterator[Seen]:
        """One video, from the click to its end. Whoever closes the iterator leaves the line."""
        yield Seen("waiting", ("Looking at the picture and the voice",))
        try:
            picture = self._uploaded("picture", image)
            take = Take(
                picture,
                self._uploaded("voice", audio),
                self._folder / "videos" / uuid4().hex / f"{picture.stem}.mp4",
                str(prompt or "").strip(),
                int(_number("seed", seed, -(2**63), 2**63 - 1)),
                _seconds(seconds),
            )
            sampling = self._wanted(steps, guidance)
            await asyncio.to_thread(check, take)
            frames = await asyncio.to_thread(_frames, take.audio, take.seconds)
        except WRONG_INPUTS as error:
            yield Seen("failed", (self._without_folders(error),))
            return
        turn = self._line.join(take, sampling, frames)
        try:
            last: Seen | None = None
            while (place := self._line.place(turn)).state in ("waiting", "working"):
                if (seen := _how_far(place)) != last:
                    last = seen
                    yield seen
                await asyncio.sleep(LOOK_EVERY_S)
            yield self._ended(turn)
        finally:
            self._line.leave(turn)

    def _make(self, take: Take, sampling: Sampling, told: Told, wanted: Wanted) -> Made:
        """A window may take minutes; before each block of the network it can be ended."""
        blocks = self._animator.generator.model.denoiser.blocks
        hooks = [block.register_forward_pre_hook(lambda *_: wanted()) for block in blocks]
        try:
            return self._animator.sampled(sampling).animate(take, told)
        except BaseException:
            shutil.rmtree(take.output.parent, ignore_errors=True)
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def _ended(self, turn: Turn) -> Seen:
        if turn.error is not None:
            if isinstance(turn.error, WRONG_INPUTS):
                return Seen("failed", (self._without_folders(turn.error),))
            log.error("a video could not be made", exc_info=turn.error)
            words = f"The video could not be made: {turn.error} (the terminal of the app says more)"
            return Seen("failed", (words,))
        if turn.result is None:
            return Seen("failed", ("The app has ended; this video is not made.",))
        made = turn.result
        first = f"{made.frames} frames, {made.frames / FPS:.1f} s, made in {_time(turn.took_s)}."
        warnings = (self._without_folders(warning) for warning in made.warnings)
        return Seen("made", (first, *warnings), video=turn.take.output)

    def _wanted(self, steps: Any, guidance: Any) -> Sampling:
        """Raises AnimateError."""
        scale = _number("guidance", guidance, 0, 100)
        return replace(
            self._sampling,
            steps=int(_number("steps", steps, 1, MOST_STEPS)),
            guidance=scale if scale != 1 else None,
        )

    def _uploaded(self, name: str, value: Any) -> Path:
        """The file that an upload became. Raises AnimateError."""
        if not isinstance(value, Mapping) or not isinstance(value.get("path"), str):
            raise AnimateError(f"There is no {name} yet; give one.")
        path = Path(value["path"]).resolve()
        if not path.is_relative_to(self._folder):
            raise AnimateError(f"{name}: was not uploaded; give a file")
        return path

    def _without_folders(self, words: object) -> str:
        """Files by the names that they had where they came from."""
        return re.sub(rf"{re.escape(str(self._folder))}/(?:[^/\s]+/)*", "", str(words))


def _frames(audio: Path, seconds: float | None) -> int:
    """That the video will have, as the sound's container says. Raises MediaError."""
    length_s = probe(audio).duration_s
    return max(1, math.ceil(FPS * min(length_s, seconds or length_s)))


def _seconds(value: Any) -> float | None:
    """Empty and 0: as long as the voice. Raises AnimateError."""
    return None if value in (None, 0, "") else _number("seconds", value, 1 / FPS, 1e6)


def _number(name: str, value: Any, least: float, most: float) -> float:
    """Raises AnimateError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise AnimateError(f"{name}: expected a number from {least:g} to {most:g}, got {value}")
    return value


def _how_far(place: Place) -> Seen:
    left = NOT_KNOWN if place.left_s is None else f"{_about(place.left_s)} left"
    if place.before:
        return Seen("waiting", (f"{_videos(place.before)} first; {left}",))
    words = f"{place.done} of {place.frames} frames, {left}"
    return Seen("working", (words,), share=place.done / place.frames)


def _videos(number: int) -> str:
    return "1 video comes" if number == 1 else f"{number} videos come"


def _about(seconds: float) -> str:
    return "a few seconds" if seconds < 10 else f"about {_time(seconds)}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
