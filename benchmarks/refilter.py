"""How long a preview of other thresholds takes on a manifest of 100,000 rows."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.config import load_config
from data_pipeline.dataset import MANIFEST, SCHEMA_VERSION, Dataset, Version, commit
from data_pipeline.policy import RULES, decide
from data_pipeline.refilter import preview, with_filters

ROWS = 100_000


def main() -> None:
    """Print the seconds from opening the dataset to the preview."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        _write(root)
        started = time.perf_counter()
        dataset = Dataset.open(root)
        change = preview(dataset, with_filters(dataset, ["filters.min_snr_db=12", "filters.max_yaw_deg=30"]))
        seconds = time.perf_counter() - started
    print(
        f"refilter preview of {ROWS} rows: {seconds:.2f} s ({change.kept_before} -> {change.kept_after} kept)"
    )


def _write(root: Path) -> None:
    config = load_config("talking_head", ["sources=none", f"output={root}"])
    random = np.random.default_rng(0)
    columns: dict[str, pa.Array] = {
        name: pa.nulls(ROWS, MANIFEST.field(name).type) for name in MANIFEST.names
    }
    for rule in RULES:
        limit = getattr(config.filters, rule.filter_key) or 1.0
        drawn = limit * random.lognormal(0.7 if rule.bound == "min" else -0.7, 0.4, ROWS)
        columns[rule.column] = pa.array(drawn).cast(MANIFEST.field(rule.column).type, safe=False)
    columns |= {
        "clip_id": pa.array([f"{number:016x}" for number in range(ROWS)]),
        "source_uris": pa.array([[f"/videos/{number}.mp4"] for number in range(ROWS)]),
        "start_s": pa.array(np.zeros(ROWS)),
        "end_s": pa.array(np.full(ROWS, 8.0)),
        "stage_reasons": pa.array([[]] * ROWS, pa.list_(pa.string())),
        "complete": pa.array(np.ones(ROWS, bool)),
        "has_media": pa.array(np.ones(ROWS, bool)),
    }
    decided = ("status", "reason", "reasons", "split")
    rows = pa.table({name: column for name, column in columns.items() if name not in decided})
    rows = decide(rows, config.filters)
    rows = rows.append_column("split", pa.nulls(ROWS, pa.string())).select(MANIFEST.names).cast(MANIFEST)
    (root / "manifest" / "1").mkdir(parents=True)
    pq.write_table(rows, root / "manifest" / "1" / "part-00000.parquet")
    parts = {"manifest/1/part-00000.parquet": ""}
    given = config.model_dump(mode="json")
    commit(root, "bench", Version(1, SCHEMA_VERSION, "bench", "", "", parts, {}, {}, given))


if __name__ == "__main__":
    main()
