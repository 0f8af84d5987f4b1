"""The package syncnet-python at work, run by the Python of its own environment: one JSON line in, one out.

argument: {"syncnet": state dict of SyncNet, "s3fd": of S3FD, "threads": 1}
{"crops": folder of 000001.jpg .. and audio.wav}  -> its SyncNetInstance.evaluate
{"video": a file}                                 -> its SyncNetPipeline.inference, as it is by default
-> {"seconds", "cpu_seconds", "offset", "confidence", "distance"}
"""

import json
import os
import resource
import sys
import time
from types import SimpleNamespace

import torch
from syncnet_python.syncnet_pipeline import SyncNetPipeline

Scores = tuple[float, float, float]


def main() -> None:
    setup = json.loads(sys.argv[1])
    torch.set_num_threads(setup["threads"])
    asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    # The package prints, and the ffmpeg that it starts reads its standard input.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    pipeline = SyncNetPipeline(s3fd_weights=setup["s3fd"], syncnet_weights=setup["syncnet"], device="cpu")
    for line in asked:
        print(json.dumps(timed(pipeline, json.loads(line))), file=answers, flush=True)


def timed(pipeline: SyncNetPipeline, asked: dict[str, str]) -> dict[str, float]:
    started, cpu_started = time.perf_counter(), cpu_seconds()
    score = of_video if "video" in asked else of_crops
    offset, confidence, distance = score(pipeline, *asked.values())
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": cpu_seconds() - cpu_started,
        "offset": offset,
        "confidence": confidence,
        "distance": distance,
    }


def of_crops(pipeline: SyncNetPipeline, crops: str) -> Scores:
    return pipeline.syncnet.evaluate(SimpleNamespace(tmp_dir=crops, batch_size=20, vshift=15))


def of_video(pipeline: SyncNetPipeline, video: str) -> Scores:
    offsets, confidences, distances, *_ = pipeline.inference(video)
    (offset,), (confidence,), (distance,) = offsets, confidences, distances  # of the only track
    return offset, confidence, distance


def cpu_seconds() -> float:
    """Of this process and of the programs that it has run."""
    of_either = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in of_either)


if __name__ == "__main__":
    main()
