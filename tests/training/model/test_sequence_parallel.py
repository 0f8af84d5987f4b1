"""Two ranks that share a sample compute what one rank computes alone."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.training.small_networks import sized
from training.model import PRESETS, AudioConditionConfig, PortraitModel
from training.model.sequence_parallel import SequenceParallel
from training.model.step_cache import StepCache

# 3 text tokens and 15 patches a frame: neither divides by two.
UNEVEN = sized(
    text_length=3,
    latent_height=6,
    latent_width=10,
    audio=AudioConditionConfig(window=1, layers=1, channels=4, hidden=8, tokens=2, dim=8),
)


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_and_gradients(shared: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The model's output, and each weight's gradient averaged over the ranks."""
    torch.manual_seed(0)
    model = PortraitModel(UNEVEN)
    for index, parameter in enumerate(model.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
    model.double()
    if shared:
        model.share_samples()
    text = drawn(2, 3, 8, seed=1)
    bank = model.reference(drawn(2, 1, 16, 6, 10, seed=2), text)
    latents, condition = drawn(2, 3, 16, 6, 10, seed=3), drawn(2, 3, 16, 6, 10, seed=4)
    out = model.denoiser(
        latents,
        torch.tensor([17, 803]),
        text,
        image_condition=condition,
        reference=bank,
        face=drawn(2, 16, seed=5),
        audio=drawn(2, 9, 1, 1, 4, seed=6),
    )
    (out - latents).square().mean().backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            if shared:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
            gradients[name] = parameter.grad
    return out.detach(), gradients


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    out, gradients = loss_and_gradients(shared=True)
    torch.save({"out": out, **gradients}, f"{folder}/{rank}.pt")
    Path(folder, f"{rank}.json").write_text(json.dumps(_refusal()))
    Path(folder, f"{rank}-skipped.json").write_text(json.dumps(_skipped(rank)))
    dist.destroy_process_group()


def _refusal() -> str:
    one_head = sized(num_heads=1)
    try:
        PortraitModel(one_head).share_samples()
    except ValueError as error:
        return str(error)
    return ""


def _skipped(rank: int) -> list[int]:
    """Of three steps, of which the middle one changes by 0.3 on the first rank, by 0.1 on the second."""
    skipped = []
    for threshold in (0.15, 0.25):
        cache = StepCache(threshold, steps=3)
        for added in (1.0, 1.3 if rank == 0 else 1.1, 1.0):
            block = [lambda text, video, added=added: (text, video + added)]
            cache.run(block, torch.zeros(1, 1, 4), torch.zeros(1, 2, 3, 4), SequenceParallel())
        skipped.append(cache.skipped)
    return skipped


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_rank, (str(folder),), nprocs=2)
    return folder


def test_outputs_and_gradients_are_those_of_one_rank(two_ranks: Path) -> None:
    out, gradients = loss_and_gradients(shared=False)
    for rank in (0, 1):
        shared = torch.load(two_ranks / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(shared.pop("out"), out, rtol=0, atol=1e-12)
        assert shared.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(shared[name], gradient, rtol=1e-9, atol=1e-14, msg=name)


def test_ranks_that_do_not_divide_the_heads_are_refused(two_ranks: Path) -> None:
    said = json.loads((two_ranks / "0.json").read_text())
    assert (
        said
        == "2 ranks cannot share the 1 heads of this model: choose a number of ranks that divides num_heads"
    )


def test_ranks_skip_a_step_together_by_what_changed_on_all(two_ranks: Path) -> None:
    for rank in (0, 1):
        assert json.loads((two_ranks / f"{rank}-skipped.json").read_text()) == [0, 1]


def test_the_presets_heads_divide_among_eight() -> None:
    assert PRESETS["hallo3_5b"].num_heads % 8 == 0
