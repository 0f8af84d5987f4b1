"""What a model is before training, and how large its presets are."""

import json

import pytest
import torch

from tests.filled import GOLDEN
from tests.training.small_networks import sized
from training.model import PRESETS, AudioConditionConfig, FaceConditionConfig, PortraitModel
from training.model.conditioning import AudioProjector
from training.model.initialise import initialise

WIDE = sized(
    num_layers=4,
    num_heads=8,
    audio=AudioConditionConfig(window=1, layers=1, channels=16, hidden=32, tokens=2, dim=256),
    face=FaceConditionConfig(),
)


def test_new_cross_attention_starts_as_upstream_s() -> None:
    torch.manual_seed(0)
    for block in PortraitModel(WIDE).denoiser.blocks:
        for attention in (block.face_attention, block.audio_attention):
            assert attention.query.weight.std().item() == pytest.approx(0.02, rel=0.02)
            assert attention.key_value.weight.std().item() == pytest.approx(0.02, rel=0.02)
            assert attention.out.weight.std().item() == pytest.approx(0.02 / (2 * 4) ** 0.5, rel=0.02)
            assert all(
                not linear.bias.any() for linear in (attention.query, attention.key_value, attention.out)
            )


def test_named_entries_alone_are_set_anew() -> None:
    model = PortraitModel(WIDE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = "denoiser.blocks.1.audio_attention.query.weight"
    initialise(model, [chosen])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {chosen}


@pytest.mark.parametrize(
    ("stage", "part"), [(1, "denoiser_stage1"), (2, "denoiser_stage2"), (2, "reference")]
)
def test_upstream_s_sizes_have_upstream_s_number_of_parameters(stage: int, part: str) -> None:
    counts = json.loads((GOLDEN / "hallo3_contract" / "summary.json").read_text())["parameters"]
    config = PRESETS["hallo3_5b"]
    with torch.device("meta"):
        model = PortraitModel(config if stage == 2 else config.model_copy(update={"audio": None}))
    network = model.reference if part == "reference" else model.denoiser
    unused = network.unused_position_embeddings.numel()
    assert sum(parameter.numel() for parameter in network.parameters()) + unused == counts[part]


@pytest.mark.parametrize(("preset", "millions"), [("small", 116.0), ("tiny", 2.8)])
def test_the_small_presets_are_as_large_as_they_say(preset: str, millions: float) -> None:
    with torch.device("meta"):
        model = PortraitModel(PRESETS[preset])
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(
        millions, rel=0.02
    )


@pytest.mark.parametrize("halving", ["joint", "per_token"])
@pytest.mark.parametrize(("frames", "latent"), [(1, 1), (5, 2), (9, 3), (17, 5), (49, 13)])
def test_speech_has_as_many_frames_as_the_latents(halving: str, frames: int, latent: int) -> None:
    config = AudioConditionConfig(window=3, layers=2, channels=4, hidden=8, tokens=2, dim=6, halving=halving)
    tokens = AudioProjector(config)(torch.randn(2, frames, 3, 2, 4))
    assert tokens.shape == (2, latent, 2, 6)


def test_the_small_halving_keeps_tokens_apart() -> None:
    """A change of one token's features before the halvings moves that token only."""
    config = AudioConditionConfig(
        window=1, layers=1, channels=4, hidden=8, tokens=2, dim=6, halving="per_token"
    )
    projector = AudioProjector(config)
    frames = torch.randn(1, 9, 2, 6, generator=torch.Generator().manual_seed(0))
    moved = frames.clone()
    moved[:, 4, 1] += 1
    difference = projector._halve(projector._halve(frames)) - projector._halve(projector._halve(moved))
    assert not difference[:, :, 0].any()
    assert difference[:, :, 1].any()


def test_what_follows_from_the_sizes_or_is_never_read_may_be_missing_from_a_checkpoint() -> None:
    model = PortraitModel(WIDE)
    state = model.state_dict()
    kept = {name: value for name, value in state.items() if ".rotary." not in name and "unused" not in name}
    assert len(kept) == len(state) - 6
    again = PortraitModel(WIDE)
    again.load_state_dict(kept, strict=True)
    torch.testing.assert_close(again.state_dict(), state, rtol=0, atol=0)


def test_tables_of_another_grid_are_refused() -> None:
    state = PortraitModel(WIDE).state_dict()
    state["denoiser.rotary.cos"] = state["denoiser.rotary.cos"][:5]
    with pytest.raises(RuntimeError, match=r"size mismatch for denoiser\.rotary\.cos"):
        PortraitModel(WIDE).load_state_dict(state)
