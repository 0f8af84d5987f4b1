"""`hallo3 demo`: everything so far on this machine, from made source videos, with the truth checked."""

import sys
from pathlib import Path

import pyarrow as pa

from cluster import curation
from data_pipeline.config import load_config
from data_pipeline.dataset import Dataset
from data_pipeline.demo import DemoSource, make_sources

PROBLEM = 1

STEPS_A_MINUTE = 100
"""Of the tiny model, 8 samples a step, on two cores."""
PHASES = {"identity": 1 / 3, "audio": 2 / 3}
"""And each one's share of the time."""


def run(output: Path, minutes: float) -> int:
    """Make the source videos, curate them, hold the result against what is known of them, and train on it.

    Args:
        minutes: for the training's steps, about, on two cores; two starts come on top.
    """
    print("making the source videos (portraits and speech that packages carry)", file=sys.stderr)
    known = make_sources(output / "sources")
    config = load_config("demo", [f"sources={output / 'sources'}", f"output={output / 'dataset'}"])
    status = curation.run(config, sample=None)
    if status:
        return status
    rows = Dataset.open(output / "dataset").manifest(["source_uris", "status", "reason"])
    wrong = 0
    print(f"{'source':<28} {'known to be':<16} {'found':<24}")
    for source in known:
        found = outcome_of(rows, source.name)
        right = agrees(source, found)
        wrong += not right
        mark = "" if right else "   <- differs"
        expected = source.reason.value if source.reason else source.expected
        print(f"{source.name:<28} {expected:<16} {', '.join(sorted(found)):<24}{mark}".rstrip())
    print(f"{len(known) - wrong} of {len(known)} sources came out as they are known to be")
    status = fit_codec(output / "dataset", output / "codec") or train(output, minutes)
    return PROBLEM if wrong else status


def fit_codec(dataset: Path, folder: Path) -> int:
    """Fit what the tiny model's latents are made of on the faces that were kept, and say how good it is."""
    try:
        from training.fit_autoencoder import fit_autoencoder
    except ModuleNotFoundError as error:
        print(f"hallo3: the model needs {error.name}; pip install 'hallo3[train]'", file=sys.stderr)
        return PROBLEM
    from training.model.config import PRESETS

    tiny = PRESETS["tiny"]
    try:
        fit = fit_autoencoder(Dataset.open(dataset), 8 * tiny.latent_height, tiny.out_channels)
    except ValueError as error:
        print(f"hallo3: {error}", file=sys.stderr)
        return PROBLEM
    fit.autoencoder.save(folder)
    print(
        f"autoencoder of the tiny model in {folder}: {fit.held_out_psnr_db:.1f} dB on {fit.held_out_clips} "
        f"clips that it was not fitted on, {fit.fitted_psnr_db:.1f} dB on the {fit.fitted_clips} others"
    )
    return 0


def train(output: Path, minutes: float) -> int:
    """Both phases of the tiny model, the second from the first one's export; says what they learned."""
    from cluster import training
    from training.config import load_config as load_training

    start: list[str] = []
    for phase, share in PHASES.items():
        steps = max(1, round(minutes * STEPS_A_MINUTE * share))
        given = [f"dataset={output / 'dataset'}", f"encoders.autoencoder={output / 'codec'}", *start]
        sizes = [f"max_steps={steps}", f"validation.every_steps={max(1, steps // 4)}"]
        warm_up = [f"optimizer.warmup_steps={steps // 10}"]
        config = load_training(f"demo_{phase}", [*given, f"output={output / phase}", *sizes, *warm_up])
        print(f"phase {phase}: {steps} steps", file=sys.stderr)
        status = training.run(config, allowed=[])
        if status:
            return status
        start = [f"start_from={output / phase / 'export'}"]
        print(f"phase {phase}: {learned(output / phase)}; {output / phase / 'report.html'}")
    return 0


def learned(run: Path) -> str:
    """What became of a run's held-out loss, from its first judgement to its last."""
    from training.metrics import read_metrics
    from training.run_folder import METRICS

    judged = [row for row in read_metrics(run / METRICS) if row["kind"] == "held_out"]
    if not judged:
        return "nothing was held out"
    first, last = judged[0], judged[-1]
    return (
        f"held-out loss {first['loss']:.3f} after {first['step']} steps, "
        f"{last['loss']:.3f} after {last['step']}"
    )


def outcome_of(rows: pa.Table, name: str) -> set[str]:
    """`kept`, or the reasons against, of every clip of the source whose file is called `name`."""
    return {
        "kept" if row["status"] == "kept" else row["reason"]
        for row in rows.to_pylist()
        if any(Path(uri).name == name for uri in row["source_uris"])
    }


def agrees(source: DemoSource, found: set[str]) -> bool:
    """Whether an outcome is what is known of a source."""
    if source.expected == "keep":
        return "kept" in found
    return "kept" not in found and (source.reason is None or source.reason.value in found)
