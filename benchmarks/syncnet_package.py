"""The package syncnet-python at work, run by the Python of its own environment: one JSON line in, one out.

argument: {"weights": state dict of SyncNet, "threads": 1}
{"crops": folder of 000001.jpg .. and audio.wav}  -> its SyncNetInstance.evaluate
-> {"seconds", "cpu_seconds", "offset", "confidence", "distance"}
"""

import json
import sys
import time
from types import SimpleNamespace

import torch
from syncnet_python.SyncNetInstance import SyncNetInstance
from syncnet_python.SyncNetModel import S


def main() -> None:
    setup = json.loads(sys.argv[1])
    torch.set_num_threads(setup["threads"])
    answers, sys.stdout = sys.stdout, sys.stderr  # the package prints
    network = S()
    network.load_state_dict(torch.load(setup["weights"]))
    instance = SyncNetInstance(network.eval(), device="cpu")
    for line in sys.stdin:
        print(json.dumps(timed(instance, json.loads(line)["crops"])), file=answers, flush=True)


def timed(instance: SyncNetInstance, crops: str) -> dict[str, float]:
    started, cpu_started = time.perf_counter(), time.process_time()
    options = SimpleNamespace(tmp_dir=crops, batch_size=20, vshift=15)
    offset, confidence, distance = instance.evaluate(options)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "offset": offset,
        "confidence": confidence,
        "distance": distance,
    }


if __name__ == "__main__":
    main()
