"""Run every benchmark, or those that are named: `python -m benchmarks [NAME ...]`."""

import sys

from benchmarks import (
    animate,
    codec,
    curation,
    decode,
    duplicates,
    fid_features,
    identities,
    loader,
    memory,
    model,
    overhead,
    refilter,
    step_skipping,
    sync_end_to_end,
    syncnet,
)

BENCHMARKS = {
    "decode": decode.main,
    "curation": curation.main,
    "refilter": refilter.main,
    "duplicates": duplicates.main,
    "overhead": overhead.main,
    "memory": memory.main,
    "identities": identities.main,
    "syncnet": syncnet.main,
    "fid_features": fid_features.main,
    "sync_end_to_end": sync_end_to_end.main,
    "codec": codec.main,
    "model": model.main,
    "loader": loader.main,
    "animate": animate.main,
    "step_skipping": step_skipping.main,
}

for name in sys.argv[1:] or BENCHMARKS:
    print(f"== {name}", flush=True)
    BENCHMARKS[name]()
