"""`hallo3 app`: what `animate` does, in a browser.

model -> studio (studio.py), which makes one video at a time <- page (page.py) <- browsers

What is uploaded and what is made lie in one temporary folder, the only one from which the page gets files; it
goes with the app, and what is in it after a day. Nobody else is asked for anything: no fonts, no statistics
(own_origin.py).
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.middleware import Middleware

from evaluation.animator import Animator
from evaluation.own_origin import OwnOrigin
from evaluation.page import STYLE, page, theme
from evaluation.studio import Studio
from training.generate import Sampling

GOODBYE_S = 1
LARGEST_UPLOAD = "2gb"


@dataclass
class Served:
    """A page that is being served."""

    address: str = ""
    still_works: bool = False
    """Afterwards: what was being made did not end in time, its thread goes on."""


@contextmanager
def serving(
    animator: Animator, sampling: Sampling, seed: int, host: str, port: int, signer: str | None = None
) -> Iterator[Served]:
    """The page, for as long as the context lasts.

    Args:
        sampling, seed: what the page begins with.
        signer: who signs videos, as the page says.

    Raises:
        OSError: the port is in use.
    """
    with TemporaryDirectory(prefix="hallo3-app-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # Gradio has no argument for it
        direct = os.environ.get("NO_PROXY"), "localhost", host  # Gradio asks itself whether it is there
        os.environ["NO_PROXY"] = ",".join(filter(None, direct))
        studio, served = Studio(animator, sampling, Path(folder)), Served()
        blocks = page(studio, sampling, seed, signer)
        try:
            blocks.queue(default_concurrency_limit=None)
            _, served.address, _ = blocks.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                inbrowser=False,
                enable_monitoring=False,
                run_history=False,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
                footer_links=[],
                max_file_size=LARGEST_UPLOAD,
                app_kwargs={"middleware": [Middleware(OwnOrigin)]},
                theme=theme(),
                css_paths=STYLE,
            )
            blocks.server.config.timeout_graceful_shutdown = GOODBYE_S
            yield served
        finally:
            served.still_works = not studio.close()
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of pages that are cut off now
            blocks.close(verbose=False)
