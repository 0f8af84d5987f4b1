"""Run every benchmark, or those that are named: `python -m benchmarks [NAME ...]`."""

import sys

from benchmarks import curation, decode, memory, overhead, refilter

BENCHMARKS = {
    "decode": decode.main,
    "curation": curation.main,
    "refilter": refilter.main,
    "overhead": overhead.main,
    "memory": memory.main,
}

for name in sys.argv[1:] or BENCHMARKS:
    print(f"== {name}", flush=True)
    BENCHMARKS[name]()
