"""How many workers make videos, where, and how many of them share one."""

from dataclasses import dataclass
from pathlib import Path

from evaluation.animator import weights_of
from training.model.sizes import config_of
from training.model.weight_files import open_checkpoint


class CrewError(ValueError):
    """Workers that cannot be had like this; the message names the number, and what there is."""


@dataclass(frozen=True)
class Crew:
    """The workers."""

    device: str
    """cpu, or cuda: a GPU each."""
    teams: int
    a_video: int = 1
    """Workers of a team, which makes one video at a time."""

    @property
    def workers(self) -> int:
        """Of all teams."""
        return self.teams * self.a_video


def check_sharing(checkpoint: Path, a_video: int) -> None:
    """Whether so many workers can share a video of this model; nothing of it is read but its sizes.

    Raises CrewError; AnimateError and WeightsError for the checkpoint."""
    heads = config_of(open_checkpoint(weights_of(checkpoint))).num_heads
    if heads % a_video:
        fit = ", ".join(str(number) for number in range(1, heads + 1) if not heads % number)
        raise CrewError(
            f"--workers-a-video {a_video} must divide the model's {heads} heads, which its workers share; "
            f"possible are {fit}"
        )


def crew_of(device: str, workers: int | None, a_video: int) -> Crew:
    """Who works, on the Ray that is connected.

    Args:
        device: auto, cpu or cuda.
        workers: None: one a GPU; without GPUs one, or as many as share a video.

    Raises:
        CrewError: there are not so many GPUs or CPUs, or workers are left over.
    """
    import ray

    there = ray.cluster_resources()
    gpus = 0 if device == "cpu" else int(there.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise CrewError("--device cuda: there is no GPU; give --device cpu")
    most, kind = (gpus, "GPU") if gpus else (int(there.get("CPU", 1)), "CPU")
    wanted = workers or max(a_video, gpus - gpus % a_video)
    if wanted > most:
        raise CrewError(f"{wanted} workers take a {kind} each, and there are {most}; give fewer")
    if wanted % a_video:
        raise CrewError(f"--workers {wanted} must be a multiple of --workers-a-video {a_video}")
    return Crew("cuda" if gpus else "cpu", wanted // a_video, a_video)
