"""A real run that needs no dataset: a linear layer on keyed random samples, checkpoints, and accidents.

`train` stands where `training.worker.train_worker` stands: its arguments, RUN's folders, the process group
that the launcher made. What is tested around it is the launcher.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from training.config import TrainConfig
from training.run_folder import CHECKPOINTS, STOP

EVERY = 4
SIZE = 8


def train(config: TrainConfig, report: Any) -> dict[str, Any]:
    """max_steps steps of AdamW over all ranks; each step's loss in RUN/losses-{rank}.jsonl."""
    torch.set_num_threads(1)
    root, rank, world = Path(config.output), dist.get_rank(), dist.get_world_size()
    torch.manual_seed(config.seed)
    layer = torch.nn.Linear(SIZE, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
    latest = root / CHECKPOINTS / "latest"
    first = 0
    if latest.exists():
        state = torch.load(latest, weights_only=True)
        layer.load_state_dict(state["layer"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    for step in range(first, config.max_steps):
        accident(root, rank, step)
        samples = torch.randn(SIZE, generator=torch.Generator().manual_seed(step * world + rank))
        loss = (layer(samples) - samples.sum()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for parameter in layer.parameters():
            dist.all_reduce(parameter.grad)
        optimizer.step()
        with (root / f"losses-{rank}.jsonl").open("a") as file:
            file.write(json.dumps([step, loss.item().hex(), node()]) + "\n")
        if report is not None:
            report({"step": step, "loss": loss.item()})
        wished = torch.tensor(float((root / STOP).exists()))
        dist.all_reduce(wished)
        if rank == 0 and ((step + 1) % EVERY == 0 or wished):
            latest.parent.mkdir(exist_ok=True)
            state = {"layer": layer.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, latest.with_suffix(".new"))
            latest.with_suffix(".new").replace(latest)
        if wished:
            return {"step": step + 1}
    return {"step": config.max_steps}


def accident(root: Path, rank: int, step: int) -> None:
    """Whatever RUN/accidents.json says for this rank and step; once, unless it says `always`."""
    plan = root / "accidents.json"
    for number, (kind, at_rank, at_step) in enumerate(json.loads(plan.read_text()) if plan.exists() else []):
        done = root / f"accident-{number}"
        if at_rank != rank or at_step != step or (done.exists() and "always" not in kind):
            continue
        done.touch()
        if "kill" in kind:
            os.kill(os.getpid(), signal.SIGKILL)
        if "wrong" in kind:
            raise ValueError("the latents are of another world\nand more than one line is said of it")
        if "hang" in kind:
            time.sleep(600)


def node() -> str | None:
    """Ray's name of the node that this process runs on; None without Ray."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else None


def losses(root: Path, rank: int = 0) -> dict[int, str]:
    """Each step's loss, bit for bit; of steps that were done twice, the one that counted in the end."""
    rows = [json.loads(line) for line in (root / f"losses-{rank}.jsonl").read_text().splitlines()]
    return {step: loss for step, loss, _ in rows}


def nodes(root: Path, rank: int) -> list[str]:
    """Where each of a rank's steps ran."""
    return [json.loads(line)[2] for line in (root / f"losses-{rank}.jsonl").read_text().splitlines()]
