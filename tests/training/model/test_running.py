"""Precision, recomputation and compilation change how a model runs, not what it computes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.small_networks import SIZES, filled_model, inputs, run
from training.model import PortraitModel


def gradients(model: PortraitModel) -> tuple[Tensor, dict[str, Tensor]]:
    out = run(model, inputs())
    out.square().mean().backward()
    return out.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_bfloat16_is_float32_rounded() -> None:
    given = inputs()
    with torch.no_grad():
        exact = run(filled_model(), given)
        rounded = run(filled_model().bfloat16(), {name: value.bfloat16() for name, value in given.items()})
    assert rounded.dtype == torch.bfloat16
    error = (rounded.float() - exact).norm() / exact.norm()
    assert 1e-4 < error < 2e-2


def test_positions_stay_exact_in_bfloat16() -> None:
    model = filled_model().bfloat16()
    assert model.denoiser.rotary.cos.dtype == torch.float32
    torch.testing.assert_close(model.denoiser.rotary.sin, filled_model().denoiser.rotary.sin, rtol=0, atol=0)


def test_autocast_takes_float32_inputs_into_bfloat16_layers() -> None:
    model, given = filled_model(), inputs()
    with torch.no_grad():
        exact = run(model, given)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = run(model, given)
    assert (rounded.float() - exact).norm() / exact.norm() < 2e-2


@pytest.mark.parametrize("what", ["all_but_attention", "blocks"])
def test_recomputed_activations_give_the_same_gradients(what: str) -> None:
    out, wanted = gradients(filled_model())
    model = filled_model()
    model.recompute_in_backward(what)
    again, got = gradients(model)
    torch.testing.assert_close(again, out, rtol=0, atol=0)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-8, msg=name)


def test_less_is_held_the_more_is_recomputed() -> None:
    held = {}
    for what in ("nothing", "all_but_attention", "blocks"):
        model = filled_model()
        model.recompute_in_backward(what)
        held[what] = _bytes_held_for_backward(lambda model=model: run(model, inputs()))
    assert held["nothing"] > held["blocks"]


def _bytes_held_for_backward(forward: Callable[[], Tensor]) -> int:
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(seen.values())


class Computed(TorchDispatchMode):
    """The operations that are really computed: what a checkpoint still holds does not come this far."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("what", "again"), [("all_but_attention", False), ("blocks", True)])
def test_attention_is_not_computed_again_when_its_output_is_held(what: str, again: bool) -> None:
    model = filled_model()
    model.recompute_in_backward(what)
    out = run(model, inputs())
    with Computed() as computed:
        out.square().mean().backward()
    assert any(name.startswith("aten.gelu.") for name in computed.names)
    forward = [name for name in computed.names if "scaled_dot_product" in name and "backward" not in name]
    assert bool(forward) == again


def test_blocks_compile_without_a_graph_break() -> None:
    torch._dynamo.reset()
    counters.clear()
    out, wanted = gradients(filled_model())
    model = filled_model()
    model.compile_blocks(backend="aot_eager")  # fullgraph: a graph break would raise
    again, got = gradients(model)
    assert not counters["graph_break"]
    torch.testing.assert_close(again, out, rtol=0, atol=1e-6)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_one_compiled_block_serves_all_blocks_of_a_network() -> None:
    torch._dynamo.reset()
    counters.clear()
    model = filled_model()
    model.compile_blocks(backend="aot_eager")
    with torch.no_grad():
        run(model, inputs())
    networks = 2
    assert counters["stats"]["unique_graphs"] == networks


@pytest.mark.slow
def test_compiled_to_machine_code_it_is_the_same() -> None:
    torch._dynamo.reset()
    out, wanted = gradients(filled_model())
    model = filled_model()
    model.compile_blocks()
    again, got = gradients(model)
    torch.testing.assert_close(again, out, rtol=0, atol=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("kernel", ["math", "flash"])
def test_the_attention_kernel_is_the_user_s_choice(kernel: str) -> None:
    given = inputs()
    chosen = SIZES.model_copy(update={"attention_kernel": kernel})
    with torch.no_grad():
        torch.testing.assert_close(
            run(filled_model(chosen), given), run(filled_model(), given), rtol=0, atol=1e-5
        )


def test_a_portrait_s_conditions_serve_a_whole_batch() -> None:
    model, given = filled_model(), inputs()
    one = {name: given[name][:1] for name in ("portrait", "face", "audio")}
    whole = {name: value.expand(2, *value.shape[1:]) for name, value in one.items()}
    given["text"] = given["text"][:1].expand(2, -1, -1)
    with torch.no_grad():
        bank = model.reference(one["portrait"], given["text"][:1])
        out = model.denoiser(
            given["noisy"],
            torch.tensor([20, 700]),
            given["text"],
            image_condition=given["image_condition"],
            reference=bank,
            face=one["face"],
            audio=one["audio"],
        )
        torch.testing.assert_close(out, run(model, given | whole), rtol=0, atol=1e-6)


def test_the_example_in_the_docs_runs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "model.md").read_text()
    names: dict[str, object] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)  # noqa: S102
    velocity, latents = names["velocity"], names["latents"]
    assert isinstance(velocity, Tensor)
    assert isinstance(latents, Tensor)
    assert velocity.shape == latents.shape
