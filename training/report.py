"""RUN/report.html: where a person looks at how a run goes, and how it went.

    config.yaml, metrics.jsonl, checkpoints/latest, samples/step-N/ -> one page that needs nothing else

It may be written at any time, also when there is no step yet. The parts: history.py (what metrics.jsonl
tells), curves.py (how a chart is drawn), takes.py (which clips are in the page).
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import data_pipeline
from data_pipeline.page import render_page
from data_pipeline.storage import replacing
from data_pipeline.wording import percent_text
from training.checkpoint_folder import CheckpointError, TrainState, contents, latest
from training.config import TrainConfig
from training.history import History
from training.metrics import read_metrics
from training.mlflow_run import SENT
from training.progress import hours_text
from training.run_folder import CONFIG, ERROR, METRICS, saved_config
from training.takes import takes

REPORT = "report.html"
TEMPLATES = Path(__file__).with_name("templates")
STYLE = Path(data_pipeline.__file__).with_name("templates") / "report.css"
EVENTS_SHOWN = 200
ERROR_CHARACTERS = 6000
PIXELS_A_LATENT = 8


def write_report(run: Path) -> Path:
    """Write RUN/report.html, whole or not at all, and return it.

    Raises:
        RunFolderError, MetricsError: a file of the run is not one.
        OSError: there is no room; an older report is as before.
    """
    page = render(run)
    with replacing(run / REPORT) as temporary:
        temporary.write_text(page, "utf-8")
    return run / REPORT


def render(run: Path) -> str:
    """The page. Raises RunFolderError, MetricsError, OSError."""
    config = saved_config(run)
    history = History(list(read_metrics(run / METRICS)) if (run / METRICS).exists() else [])
    error = run / ERROR
    return render_page(
        TEMPLATES / "run.html.j2",
        style=(STYLE, TEMPLATES / "run.css"),
        script=TEMPLATES / "run.js",
        filters={"percent": _percent, "time": time_text, "moment": moment_text},
        name=run.absolute().name,
        config=config,
        max_steps=config.max_steps if config else None,
        history=history,
        facts=list(_facts(run, config)) if config else [],
        begun=_begun(run, config),
        takes=takes(run),
        happened=history.happened,
        events_shown=EVENTS_SHOWN,
        error=error.read_text("utf-8", "replace")[-ERROR_CHARACTERS:] if error.exists() else None,
        files=[
            (name, (run / name).read_text("utf-8"))
            for name in (CONFIG, "deepspeed.json")
            if (run / name).exists()
        ],
    )


def _facts(run: Path, config: TrainConfig) -> Iterator[tuple[str, str]]:
    """What the run is, in words."""
    from training.model.loading import empty_model
    from training.plan import count

    sizes, weights = config.sizes, count(empty_model(config.sizes), config)
    width, height = sizes.latent_width * PIXELS_A_LATENT, sizes.latent_height * PIXELS_A_LATENT
    state = _state(run)
    yield "phase", config.phase
    yield "parameters", f"{weights.total:,}"
    share = percent_text(weights.trained, weights.total)
    yield "trained parameters", f"{weights.trained:,} ({share}, trainable={config.trainable})"
    yield "networks", f"{sizes.num_layers} blocks, width {sizes.hidden_size}"
    yield "window", f"{sizes.num_frames} frames of {width} x {height} px"
    yield "begun from", config.start_from or "nothing"
    for data in _datasets(config, state):
        yield "dataset", data
    yield (
        "batch",
        f"{config.batch}: {config.data_parallel} times {config.micro_batch}, {config.accumulation} in a row",
    )
    yield (
        "workers",
        f"{config.num_workers}"
        + (f", {config.sequence_parallel} a sample" if config.sequence_parallel > 1 else ""),
    )
    zero = config.deepspeed
    offloaded = [name for name in ("optimizer", "parameters") if getattr(zero, f"offload_{name}")]
    yield (
        "ZeRO stage",
        f"{zero.zero_stage}" + (f", {' and '.join(offloaded)} in host memory" if offloaded else ""),
    )
    yield "precision", config.precision
    given = config.optimizer
    yield "learning rate", f"{given.learning_rate:g}, {given.schedule}, {given.warmup_steps} steps of warm-up"
    yield "average of weights", "none" if given.ema_decay is None else f"decay {given.ema_decay:g}"
    yield "speech", config.encoders.speech if sizes.audio is not None else "none"
    yield "seed", f"{config.seed}"
    if state is not None:
        yield "last checkpoint", f"step {state.step}"
        yield "samples seen", f"{state.seen_samples:,}"
        held_out = state.samples.get("held_out")
        if held_out:
            yield "held out", f"{held_out['windows']} windows of {held_out['clips']} clips"
    if (run / SENT).exists():
        sent = json.loads((run / SENT).read_text("utf-8"))
        yield "MLflow", f"{sent['uri']}, run {sent['run_id']}"


def _datasets(config: TrainConfig, state: TrainState | None) -> Iterator[str]:
    """With version and digest, from the checkpoint; before the first one, what is configured."""
    known = state.samples.get("datasets", []) if state else []
    for data in known:
        yield (
            f"{data['name']}, version {data['version']} ({data['digest']}), weight {data['weight']:g}: "
            f"{data['clips']} clips, {data['windows']} windows"
        )
    for share in config.datasets if not known else []:
        yield f"{share.uri}, version {share.version}, weight {share.weight:g}"


def _state(run: Path) -> TrainState | None:
    try:
        found = latest(run)
        return contents(found).state if found else None
    except CheckpointError:  # the run itself says so, when it goes on from it
        return None


def _begun(run: Path, config: TrainConfig | None) -> tuple[str, str] | None:
    """The name and the link of the report of the run from whose export this one began."""
    if config is None or config.start_from is None:
        return None
    page = Path(config.start_from).parent / REPORT
    if not page.is_file():
        return None
    return page.parent.name, quote(os.path.relpath(page, run.absolute()))


def _percent(share: float) -> str:
    return percent_text(share, 1.0)


def time_text(seconds: float) -> str:
    """42 s; from two minutes on in hours and minutes, 3:07 h."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{hours_text(seconds)} h"


def moment_text(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
