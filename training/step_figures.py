"""What a step tells: each worker's few numbers, exchanged once, and the figures that are logged of them."""

import resource
import time
from dataclasses import astuple, dataclass

import torch
import torch.distributed as dist

from training.config import TrainConfig
from training.flops import sample_flops
from training.model.loading import empty_model
from training.plan import GPUS, trained_of


@dataclass(frozen=True)
class Told:
    """One worker's numbers of one step."""

    loss_sum: float
    """Over its samples that are whole."""
    samples: float
    bad_samples: float
    wait_s: float
    """For the loader."""
    step_s: float
    """With the wait."""
    peak_memory_gb: float
    stop: float
    """1: it was asked to end."""


@dataclass(frozen=True)
class Step:
    """All workers' numbers of one step."""

    told: tuple[Told, ...]

    @property
    def stop(self) -> bool:
        return any(each.stop for each in self.told)

    @property
    def samples(self) -> int:
        return int(sum(each.samples for each in self.told))

    @property
    def bad_samples(self) -> int:
        return int(sum(each.bad_samples for each in self.told))

    @property
    def loss(self) -> float:
        """The mean over all samples that are whole; NaN where none is."""
        return sum(each.loss_sum for each in self.told) / self.samples if self.samples else float("nan")

    @property
    def loss_max(self) -> float:
        """The mean loss of the worker that has the highest."""
        means = [each.loss_sum / each.samples for each in self.told if each.samples]
        return max(means, default=float("nan"))

    def figures(self, config: TrainConfig, mfu_of_sample: float | None) -> dict[str, float]:
        """As they are logged: of the slowest worker's time, and of the fullest one's memory.

        `mfu_of_sample`: see there; with it `mfu` is among them."""
        step_s = max(each.step_s for each in self.told)
        samples_per_s = config.batch / step_s
        found = {
            "loss": self.loss,
            "loss_max": self.loss_max,
            "samples_per_s": samples_per_s,
            "tokens_per_s": samples_per_s * tokens_of_sample(config),
            "data_wait_share": max(each.wait_s for each in self.told) / step_s,
            "step_s": step_s,
            "peak_memory_gb": max(each.peak_memory_gb for each in self.told),
        }
        if mfu_of_sample is not None:
            found["mfu"] = samples_per_s * mfu_of_sample
        return found


def exchange(told: Told, device: torch.device) -> Step:
    """Every worker's numbers, on every worker, in the order of ranks. Collective; once a step."""
    own = torch.tensor(astuple(told), dtype=torch.float64, device=device)
    everyones = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, own)
    return Step(tuple(Told(*numbers) for numbers in torch.stack(everyones).tolist()))


def peak_memory_gb(device: torch.device) -> float:
    """Of the GPU's memory, or of this process where it computes on the CPU, so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def tokens_of_sample(config: TrainConfig) -> int:
    """Those that the denoiser looks at: the prompt's and the video's."""
    sizes = config.sizes
    return sizes.text_length + sizes.latent_frames * sizes.patches_per_frame


def mfu_of_sample(config: TrainConfig, device: torch.device) -> float | None:
    """Model FLOPs utilization at one sample a second; None where the device's peak is not known.

    Of forward and backward; what is computed again does not count (Chowdhery et al. 2022, appendix B)."""
    peak = peak_flops(device, config.precision)
    if peak is None:
        return None
    flops = sample_flops(config.sizes, trained_of(empty_model(config.sizes), config))
    return (flops.forward + flops.backward) / (config.num_workers * peak)


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Of this GPU in a second, by its datasheet; None of others and of CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower()
    gpu = next((GPUS[key] for key in GPUS if key in name.replace(" ", "")), None)
    if gpu is None:
        return None
    return 1e12 * (gpu.bf16_tflops if precision == "bf16" else gpu.fp32_tflops)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun
