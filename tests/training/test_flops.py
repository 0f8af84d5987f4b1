"""Operations of a step against those that torch counts while it computes them."""

from time import process_time

import pytest
from torch.utils.flop_counter import FlopCounterMode

from tests.training.planned import given_to, model_of, sizes_of
from tests.training.small_networks import SIZES, run
from training.flops import Trained, sample_flops
from training.model.config import PRESETS, ModelConfig

SCORES_HELD = 2.0
"""Of attention's forward is its backward, in the kernel whose products torch can count on a CPU."""


def counted(config: ModelConfig, what: str, recompute: str) -> tuple[float, float, Trained]:
    """What torch counted forward and backward, of a step of one sample."""
    model, trained = model_of(config, what)
    model.recompute_in_backward(recompute)  # type: ignore[arg-type]
    given = given_to(config)
    with FlopCounterMode(display=False) as forward:
        loss = run(model, given).square().mean()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops(), trained


@pytest.mark.parametrize("recompute", ["nothing", "blocks"])
@pytest.mark.parametrize("what", ["identity", "audio", "joint", "all"])
@pytest.mark.parametrize("config", [SIZES, PRESETS["tiny"]], ids=["small networks", "tiny"])
def test_what_is_counted_is_what_is_computed(config, what, recompute) -> None:
    config = sizes_of(config, what).model_copy(update={"attention_kernel": "math"})
    forward, backward, trained = counted(config, what, recompute)
    planned = sample_flops(config, trained, recompute, SCORES_HELD)
    assert planned.forward == pytest.approx(forward, rel=0.001)
    assert planned.backward + planned.recomputed == pytest.approx(backward, rel=0.01)


def test_recomputing_all_but_attention_saves_the_attention() -> None:
    everything = Trained({"denoiser.blocks.0.attention.qkv.weight"})
    blocks, kept = (sample_flops(SIZES, everything, what) for what in ("blocks", "all_but_attention"))
    assert 0 < kept.recomputed < blocks.recomputed < blocks.forward
    assert kept.backward == blocks.backward


def test_what_trains_nothing_has_no_backward_pass() -> None:
    nothing = sample_flops(SIZES, Trained(()), "blocks")
    assert nothing.forward > 0
    assert (nothing.backward, nothing.recomputed) == (0, 0)


@pytest.mark.slow
def test_a_step_takes_the_time_that_its_operations_foretell() -> None:
    """From one depth to another of the same width: the same kernels, so the same operations a second."""

    def step(layers: int) -> tuple[float, float]:
        """Seconds of the fastest of five, and operations."""
        config = PRESETS["tiny"].model_copy(
            update={"num_layers": layers, "num_heads": 8, "latent_height": 12, "latent_width": 12}
        )
        model, trained = model_of(config, "joint")
        given, times = given_to(config), []
        for _ in range(5):
            begun = process_time()  # of this process alone: others may use the machine
            run(model, given).square().mean().backward()
            times.append(process_time() - begun)
        return min(times), sample_flops(config, trained).total

    (short_s, short), (long_s, long) = step(3), step(9)
    print(f"{short / short_s / 1e9:.1f} and {long / long_s / 1e9:.1f} GFLOP/s")
    foretold_s = long / (short / short_s)
    assert foretold_s == pytest.approx(long_s, rel=0.15)
