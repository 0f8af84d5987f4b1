"""What all our reports have in common: one HTML file that needs nothing else and runs no script but ours."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.wording import number_text, percent_text, visible_text


def render_page(
    template: Path,
    *,
    style: Sequence[Path],
    script: Path,
    filters: dict[str, Callable[..., Any]],
    **values: Any,
) -> str:
    """A template filled in.

    Values are escaped; `style` and `script` are our own files, whose text is markup. The template's content
    security policy admits the script by `script_digest`. A name that no value has is an error.

    Args:
        filters: beside `count`, `number`, `percent`, `visible`, or in their place.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "number": number_text,
        "percent": percent_text,
        "visible": visible_text,
        **filters,
    }
    code = script.read_text("utf-8")
    return environment.get_template(template.name).render(
        script=Markup(code),  # noqa: S704
        script_digest=base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
        style=Markup("".join(path.read_text("utf-8") for path in style)),  # noqa: S704
        **values,
    )
