"""Crop: turn, crop, scale and pad pictures into yuv420p of one size, without leaving YUV."""

from dataclasses import dataclass
from typing import Any

from data_pipeline.media.video import VideoFrame

Box = tuple[float, float, float, float]
"""x0 y0 x1 y1 in displayed pixels."""

_TURNS: dict[int, list[tuple[str, str]]] = {
    0: [],
    90: [("transpose", "clock")],
    180: [("hflip", ""), ("vflip", "")],
    270: [("transpose", "cclock")],
}


class Cropper:
    """Makes one box of every frame into a picture of `size` (width, height), black outside the frame."""

    def __init__(self, box: Box, displayed: tuple[int, int], size: tuple[int, int]) -> None:
        """`displayed` is the (width, height) in whose pixels the box is given."""
        self.size = size
        self._box = box
        self._displayed = displayed
        self._graph: Any = None
        self._made_for: tuple | None = None

    def __call__(self, frame: VideoFrame) -> Any:
        """An av.VideoFrame: yuv420p, BT.709, limited range."""
        picture = frame.picture
        kind = (
            *(picture.width, picture.height, picture.format.name),
            *(int(picture.colorspace), int(picture.color_range), frame.rotation_deg),
        )
        if kind != self._made_for:  # a stream may change on the way
            self._graph, self._made_for = self._built(frame), kind
        self._graph.push(picture)
        return self._graph.pull()

    def _built(self, frame: VideoFrame) -> Any:
        from av.filter import Graph

        picture = frame.picture
        source = (
            f"video_size={picture.width}x{picture.height}:pix_fmt={picture.format.name}:time_base=1/1000"
            f":colorspace={int(picture.colorspace)}:range={int(picture.color_range)}"
        )
        filters = [
            ("buffer", source),
            *_TURNS[frame.rotation_deg],
            *self._placement(frame),
            ("setsar", "1"),
            ("buffersink", ""),
        ]
        graph = Graph()
        graph.threads = 1
        graph.link_nodes(*(graph.add(name, arguments) for name, arguments in filters)).configure()
        return graph

    def _placement(self, frame: VideoFrame) -> list[tuple[str, str]]:
        """Crop what lies inside the picture, scale it to its place in the output, pad the rest."""
        coded = frame.picture.width, frame.picture.height
        coded = coded[::-1] if frame.is_turned else coded
        across = _span(self._box[0], self._box[2], self._displayed[0], coded[0], self.size[0])
        down = _span(self._box[1], self._box[3], self._displayed[1], coded[1], self.size[1])
        kernel = "area" if across.length > across.out_length else "bicubic"
        return [
            ("crop", f"{across.length}:{down.length}:{across.start}:{down.start}:exact=1"),
            (
                "scale",
                f"{across.out_length}:{down.out_length}:flags={kernel}+accurate_rnd+full_chroma_int+bitexact"
                ":out_color_matrix=bt709:out_range=tv",
            ),
            ("format", "yuv420p"),
            ("pad", f"{self.size[0]}:{self.size[1]}:{across.out_start}:{down.out_start}:black"),
        ]


@dataclass(frozen=True, slots=True)
class _Span:
    """One side of a crop: which pixels of the picture, and where they come to lie in the output."""

    start: int
    length: int
    out_start: int
    out_length: int


def _span(low: float, high: float, displayed_px: int, coded_px: int, out_px: int) -> _Span:
    """The box's side from `low` to `high` displayed pixels; even numbers, as 4:2:0 chroma needs them."""
    if not low < high or high <= 0 or low >= displayed_px:
        raise ValueError(f"a crop from {low} to {high} px shows nothing of a picture of {displayed_px} px")
    low, high = low * coded_px / displayed_px, high * coded_px / displayed_px
    start = min(_even(max(low, 0.0)), max(coded_px - 2, 0))
    end = min(max(_even(min(high, coded_px)), start + 2), coded_px)
    scale = out_px / (high - low)
    out_start = min(max(_even((start - low) * scale), 0), out_px - 2) if low < 0 else 0
    out_end = min(max(_even((coded_px - low) * scale), out_start + 2), out_px) if high > coded_px else out_px
    return _Span(start, end - start, out_start, out_end - out_start)


def _even(value: float) -> int:
    return round(value / 2) * 2
