"""A program for test_loading: loads a checkpoint where a second copy does not fit; prints figures as JSON.

python -m tests.training.model.weights_in_little_memory CHECKPOINT ALLOWED_BYTES
"""

import json
import resource
import sys
import threading
from pathlib import Path

import torch

from training.model.config import ModelConfig
from training.model.loading import empty_model, load_checkpoint


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main(path: Path, allowed: int) -> None:
    torch.set_num_threads(1)
    model = empty_model(ModelConfig.model_validate_json((path.parent / "sizes.json").read_text()))
    before = status("RssAnon")
    # The mapped file takes addresses, not memory: they are allowed on top.
    limit = status("VmSize") + path.stat().st_size + allowed
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak.append(status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    report = load_checkpoint(model, path, dtype=torch.bfloat16)
    done.set()
    watcher.join()
    state = model.state_dict()
    firsts = [int(state[name].flatten()[0]) for name in report.loaded]
    print(json.dumps({"grown": max(peak) - before, "loaded": report.loaded_bytes, "firsts": firsts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
