"""`hallo3 demo`: everything so far on this machine, from made source videos, with the truth checked."""

import sys
from pathlib import Path

import pyarrow as pa

from cluster import curation
from data_pipeline.config import load_config
from data_pipeline.dataset import Dataset
from data_pipeline.demo import DemoSource, make_sources

PROBLEM = 1


def run(output: Path) -> int:
    """Make the source videos, curate them, and hold the result against what is known of them."""
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
    status = fit_codec(output / "dataset", output / "codec")
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
