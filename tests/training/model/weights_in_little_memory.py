"""A program for test_loading: loads a checkpoint where a second copy does not fit; prints figures as JSON.

python -m tests.training.model.weights_in_little_memory CHECKPOINT ALLOWED_BYTES
"""

import json
import resource
import sys
from pathlib import Path

import torch

from tests.training.own_memory import status, watched
from training.model.config import ModelConfig
from training.model.loading import empty_model, load_checkpoint


def main(path: Path, allowed: int) -> None:
    torch.set_num_threads(1)
    model = empty_model(ModelConfig.model_validate_json((path.parent / "sizes.json").read_text()))
    # The mapped file takes addresses, not memory: they are allowed on top.
    limit = status("VmSize") + path.stat().st_size + allowed
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with watched() as growth:
        report = load_checkpoint(model, path, dtype=torch.bfloat16)
    state = model.state_dict()
    firsts = [int(state[name].flatten()[0]) for name in report.loaded]
    found = {"grown": growth.most, "loaded": report.loaded_bytes, "firsts": firsts}
    print(json.dumps(found | {"compiler": "torch._dynamo" in sys.modules}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
