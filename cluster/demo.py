"""`hallo3 demo`: everything so far on this machine, from made source videos, with the truth checked."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from cluster import animate, curation
from data_pipeline.config import load_config
from data_pipeline.dataset import Dataset
from data_pipeline.demo import DemoSource, make_sources

if TYPE_CHECKING:
    from evaluation.learned import HeldOut, Made

PROBLEM = 1

STEPS_A_MINUTE = 200
"""Of the tiny model, 4 samples a step, on two cores."""
PHASES = {"identity": 1 / 4, "audio": 3 / 4}
"""And each one's share of the time."""
SAMPLED = ("--steps", "10", "--guidance", "4", "--sampler", "clean", "--device", "cpu", "--workers", "2")
"""How the held-out takes are made."""
SCORED = ("clip.width=256", "clip.height=256", "clip.max_s=1.04", "device=cpu")
"""How much of them is looked at by networks that take a second for a second of video."""


def run(output: Path, minutes: float) -> int:
    """Make the source videos, curate them, hold the result against what is known of them, train on it, and
    see whether the mouth of what the model makes follows voices that it has not heard.

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
    status = fit_codec(output / "dataset", output / "codec") or train(output, minutes) or judge(output)
    status = status or evaluate(output)
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


def judge(output: Path) -> int:
    """What training taught the mouth, on voices that it has not heard; the untrained model beside it."""
    from data_pipeline.demo.held_out import make_held_out
    from evaluation.learned import HeldOut
    from evaluation.learned import judge as judge_takes
    from evaluation.learned_report import summary, write_report
    from training.export import write_untrained

    print("making the held-out takes, with the model before and after its training", file=sys.stderr)
    made = make_held_out(output / "held_out")
    takes = [HeldOut(take.name, take.words, take.portrait, take.video, take.opening) for take in made]
    exported = output / "audio" / "export"
    write_untrained(exported, output / "untrained")
    folders: Made = {"untrained": output / "made" / "untrained", "trained": output / "made" / "trained"}
    for model, folder in folders.items():
        listed = _list(takes, folder)
        checkpoint = exported if model == "trained" else output / model
        status = _animate("--checkpoint", str(checkpoint), "--batch", str(listed), *SAMPLED)
        if status:
            return status
    found = judge_takes(takes, folders)
    page = write_report(output / "report.html", takes, folders, found, " ".join(SAMPLED))
    print(f"{summary(found)}; {page}")
    return 0


def evaluate(output: Path) -> int:
    """`hallo3 evaluate` of the same videos, beside the real takes: every metric, and the report."""
    from cluster import evaluate as command

    real = sorted((output / "held_out").glob("*.mp4"))
    lines = [
        {"name": take.stem, "image": str(take.with_suffix(".png").absolute()), "video": str(take.absolute())}
        for take in real
    ]
    listed = output / "held_out.jsonl"
    listed.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    given = [
        f"benchmark={listed}",
        f"videos={output / 'made' / 'trained'}",
        f"output={output / 'evaluation'}",
    ]
    parser = argparse.ArgumentParser()
    command.add_command(parser.add_subparsers())
    return command.run(parser.parse_args(["evaluate", "wild", *given, *SCORED]))


def _list(takes: "list[HeldOut]", folder: Path) -> Path:
    """The list of what is to be made in `folder`, beside it."""
    lines = [
        {"image": take.portrait, "audio": take.video, "output": folder / f"{take.name}.mp4"} for take in takes
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    listed = folder.with_suffix(".jsonl")
    written = [json.dumps({key: str(path.absolute()) for key, path in line.items()}) for line in lines]
    listed.write_text("\n".join(written) + "\n", "utf-8")
    return listed


def _animate(*arguments: str) -> int:
    """`hallo3 animate`, as a user would run it."""
    parser = argparse.ArgumentParser()
    animate.add_command(parser.add_subparsers())
    return animate.run(parser.parse_args(["animate", *arguments]))


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
