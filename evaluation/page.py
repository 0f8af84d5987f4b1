"""The web page: controls, how they look, and what they are tied to in the studio.

picture, voice, prompt, seconds, seed, steps, guidance, [Make the video] -> what is said | player, download
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from evaluation.studio import Seen, Studio
from training.generate import Sampling

STYLE = Path(__file__).parent / "templates" / "app.css"
TIDY_EVERY_S = 3600
KEPT_S = 24 * 3600
FONT = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Liberation Sans", "Arial", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")
COLOURS = {
    "body_background_fill": ("#f7f7f5", "#101214"),
    "body_text_color": ("#17191c", "#eceae6"),
    "body_text_color_subdued": ("#5a6068", "#a5a9ad"),
    "block_background_fill": ("#ffffff", "#181b1e"),
    "block_border_color": ("#e0e0db", "#2d3135"),
    "block_label_text_color": ("#5a6068", "#a5a9ad"),
    "block_title_text_color": ("#17191c", "#eceae6"),
    "block_info_text_color": ("#5a6068", "#a5a9ad"),
    "input_background_fill": ("#ffffff", "#101214"),
    "input_border_color": ("#b9bcb8", "#4a4f54"),
    "button_primary_background_fill": ("#0e7c72", "#35b8a6"),
    "button_primary_background_fill_hover": ("#0b655d", "#5accbc"),
    "button_primary_border_color": ("#0e7c72", "#35b8a6"),
    "button_primary_border_color_hover": ("#0b655d", "#5accbc"),
    "button_primary_text_color": ("#ffffff", "#101214"),
    "button_secondary_background_fill": ("#ffffff", "#181b1e"),
    "button_secondary_border_color": ("#b9bcb8", "#4a4f54"),
    "button_secondary_text_color": ("#17191c", "#eceae6"),
}
"""Those of our reports; in the light, in the dark."""
Updates = tuple[Any, ...]
"""Of estimate, status, player, download, the button that makes and the one that stops."""


def page(studio: Studio, sampling: Sampling, seed: int, signer: str | None) -> gr.Blocks:
    """The page.

    Args:
        sampling, seed: what it begins with.
        signer: who signs its videos, if they are signed.
    """
    with gr.Blocks(title="hallo3", analytics_enabled=False, delete_cache=(TIDY_EVERY_S, KEPT_S)) as blocks:
        gr.HTML("<h1>hallo3 <small>a portrait and a voice become a video</small></h1>")
        with gr.Row():
            with gr.Column(scale=5, min_width=300):
                image, audio = _uploads()
                prompt = gr.Textbox(
                    label="Prompt", info="What the video shows, in words", visible=studio.reads_prompts
                )
                seconds = _number(0, "Seconds at most", "0: as long as the voice", step=0.5)
                with gr.Accordion("Advanced", open=False), gr.Row():
                    seed_ = _number(seed, "Seed", "of the noise", precision=0)
                    steps = _number(sampling.steps, "Steps", "of the sampler", precision=0)
                    guidance = _number(sampling.guidance or 1, "Guidance", "1: none, faster", step=0.5)
                estimate = gr.HTML(elem_id="estimate")
                make = gr.Button("Make the video", variant="primary", elem_id="make")
                status = gr.HTML(elem_id="status")
                stop = gr.Button("Stop", visible=False, elem_id="stop")
            with gr.Column(scale=6, min_width=300):
                player = gr.Video(label="Video", interactive=False, buttons=[], elem_id="player", height=420)
                download = gr.DownloadButton("Download", visible=False, elem_id="download")
        gr.HTML(_footer(signer))

        async def animated(*given: Any) -> AsyncIterator[Updates]:
            async with aclosing(studio.animate(*given)) as seen:  # type: ignore[type-var]
                async for each in seen:
                    yield _updates(each)

        async def estimated(*given: Any) -> str:
            seen = await studio.estimate(*given)
            return "" if seen is None else _markup(seen)

        tied: dict[str, Any] = {
            "preprocess": False,  # the studio looks at uploads, and says what is wrong with them
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        outputs = [estimate, status, player, download, make, stop]
        inputs = [image, audio, prompt, seconds, seed_, steps, guidance]
        making = make.click(animated, inputs, outputs, **tied)
        stopped = _updates(Seen("left", ("Stopped.",)))
        stop.click(lambda: stopped, None, outputs, cancels=[making], **tied)
        timed: list[Any] = [audio, seconds, steps, guidance]
        gr.on([each.change for each in timed], estimated, timed, estimate, **tied)
    return blocks


def theme() -> gr.themes.Base:
    """Colours and fonts, none of which is fetched."""
    teal, zinc = gr.themes.colors.teal, gr.themes.colors.zinc
    base = gr.themes.Base(primary_hue=teal, secondary_hue=teal, neutral_hue=zinc, font=FONT, font_mono=MONO)
    both = {name: light for name, (light, _) in COLOURS.items()}
    both |= {f"{name}_dark": dark for name, (_, dark) in COLOURS.items()}
    widths = dict.fromkeys(("block_border_width", "button_border_width", "input_border_width"), "1px")
    return base.set(**both, **widths)


def _uploads() -> tuple[gr.Image, gr.Audio]:
    image = gr.Image(
        label="Picture of a face",
        sources=["upload", "clipboard"],
        type="filepath",
        image_mode=None,
        height=240,
        buttons=[],
        elem_id="picture",
    )
    audio = gr.Audio(
        label="Voice",
        sources=["upload", "microphone"],
        type="filepath",
        editable=False,
        buttons=[],
        elem_id="voice",
    )
    for upload in (image, audio):
        upload.async_move_resource_to_block_cache = _as_uploaded  # type: ignore[method-assign, assignment]
    return image, audio


async def _as_uploaded(path: str | Path | None) -> str | None:
    """In place of Gradio's own, which fetches what is an address."""
    if path is not None and "://" in str(path):
        raise gr.Error("addresses are not fetched; upload a file", print_exception=False)
    return None if path is None else str(path)


def _number(value: float, label: str, info: str, **more: Any) -> gr.Number:
    return gr.Number(value, label=label, info=info, min_width=90, elem_id=label.split()[0].lower(), **more)


def _updates(seen: Seen) -> Updates:
    video = None if seen.video is None else str(seen.video)
    under_way = seen.kind in ("waiting", "working")
    return (
        "",
        _markup(seen),
        video,
        gr.update(value=video, visible=video is not None),
        gr.update(interactive=not under_way),
        gr.update(visible=under_way),
    )


def _markup(seen: Seen) -> str:
    bar = ""
    if seen.share is not None:
        bar = f'<progress max="1" value="{seen.share:.4f}" aria-label="frames"></progress>'
    role = "alert" if seen.kind == "failed" else "status"
    text = "".join(f"<p>{escape(line)}</p>" for line in seen.lines)
    return f'<div class="said {seen.kind}" role="{role}">{bar}{text}</div>'


def _footer(signer: str | None) -> str:
    signed = f", and is signed by {escape(signer)}" if signer else ""
    return (
        "<footer>Every video says in its file that it is generated, by which model and from which files"
        f"{signed}.</footer>"
    )
