import json
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.filled import GOLDEN, filled, golden, golden_facts
from tests.training.golden_networks import backbone_sizes, golden_config, upstream_weights
from training.model import PRESETS, ModelConfig, PortraitModel
from training.model.loading import empty_model
from training.model.weights_map import (
    WeightsError,
    in_both_networks,
    remap_diffusers,
    remap_upstream,
    to_diffusers,
    to_upstream,
)

PREFIX = "model.diffusion_model."


def contract(stage: int) -> dict[str, Tensor]:
    """Upstream's full-size checkpoint, without memory."""
    entries = golden_facts("hallo3_contract/full.stage2")["entries"]
    return {
        name: torch.empty(shape, device="meta")
        for name, shape, _ in entries
        if stage == 2 or "audio" not in name
    }


def full_model(stage: int) -> PortraitModel:
    config = PRESETS["hallo3_5b"]
    return empty_model(config if stage == 2 else config.model_copy(update={"audio": None}))


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize(("stage", "count"), [(1, 1892), (2, 2238)])
def test_upstreams_full_checkpoint_in_our_names_is_the_full_model(stage, count) -> None:
    checkpoint, model = contract(stage), full_model(stage)
    ours = remap_upstream(checkpoint)
    assert len(checkpoint) == len(ours) == count
    assert shapes(ours) == shapes(model.state_dict())
    model.load_state_dict(ours, strict=True, assign=True)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_full_model_in_upstreams_names_is_upstreams_full_checkpoint(stage) -> None:
    assert shapes(to_upstream(full_model(stage).state_dict())) == shapes(contract(stage))


@pytest.mark.parametrize("stage", [1, 2])
def test_a_models_weights_come_back_from_upstreams_names_as_they_were(stage) -> None:
    model = PortraitModel(golden_config("b", stage))
    given = upstream_weights("b", stage)
    tables = {name: value for name, value in to_upstream(model.state_dict()).items() if "freqs_" in name}
    model.load_state_dict(remap_upstream(given | tables), strict=True)
    back = to_upstream(model.state_dict())
    assert back.keys() == (given | tables).keys()
    assert all(torch.equal(back[name], value) for name, value in (given | tables).items())


def test_names_that_upstream_does_not_have_are_listed() -> None:
    unknown = {
        "optimizer.step": torch.zeros(1),
        "model.diffusion_model.transformer.layers.0.attention.dense.scale": torch.zeros(1),
        "ref_model.diffusion_model.transformer.layers.0.face_attn.query.weight": torch.zeros(1),
        "model.diffusion_model.time_embed.1.weight": torch.zeros(1),
    }
    with pytest.raises(
        WeightsError, match=r"^4 names are not of upstream.*: optimizer\.step, .* and 1 more$"
    ):
        remap_upstream(contract(1) | unknown)


def test_names_that_our_model_does_not_have_are_listed() -> None:
    with pytest.raises(WeightsError, match=r"1 names are not of PortraitModel: teacher\.positions"):
        to_upstream({"denoiser.positions": torch.zeros(1), "teacher.positions": torch.zeros(1)})


def test_the_text_encoder_and_autoencoder_of_a_checkpoint_are_left_out_and_told(caplog) -> None:
    caplog.set_level("INFO", logger="training.model.weights_map")
    others = {
        "conditioner.embedders.0.weight": torch.zeros(1),
        "first_stage_model.encoder.bias": torch.zeros(1),
    }
    assert remap_upstream(contract(1) | others).keys() == remap_upstream(contract(1)).keys()
    assert "2 entries have no place" in caplog.text
    assert "first_stage_model.encoder.bias" in caplog.text


def recorded_rows() -> list[tuple[str, str, Any]]:
    return golden_facts("cogvideox_mapping/mapping")["rows"]


def test_every_entry_of_diffusers_is_made_as_the_recorded_mapping_says() -> None:
    rows = recorded_rows()
    assert len(rows) == len(golden_facts("cogvideox_mapping/diffusers_full")["entries"])
    backbone: dict[
        str, Tensor
    ] = {}  # 12 rows each, which all modulations, qkv and their thirds can be cut into
    for _, name, _ in rows:
        backbone.setdefault(name, torch.randn(12, 2))
    made = to_diffusers({name.removeprefix("denoiser."): v for name, v in remap_upstream(backbone).items()})
    assert made.keys() == {row[0] for row in rows}
    for name, source, blocks in rows:
        expected = backbone[source]
        if blocks:
            count, which = blocks
            expected = torch.cat([expected.chunk(count)[i] for i in which])
        assert torch.equal(made[name], expected), name


def test_diffusers_full_transformer_gives_both_backbones_of_the_full_model() -> None:
    entries = golden_facts("cogvideox_mapping/diffusers_full")["entries"]
    state = {name: torch.empty(shape, device="meta") for name, shape, _ in entries}
    ours = shapes(in_both_networks(remap_diffusers(state)))
    model = shapes(full_model(1).state_dict())
    lacking = {name for name in model if name not in ours}
    assert ours.items() <= model.items()
    assert all(".face_" in name or ".rotary." in name or ".unused_" in name for name in lacking)


def test_a_backbone_goes_to_diffusers_and_back_without_a_change() -> None:
    backbone = PortraitModel(golden_config("a", 1)).reference.state_dict()
    back = remap_diffusers(to_diffusers(backbone))
    assert backbone.keys() - back.keys() == {"rotary.cos", "rotary.sin", "unused_position_embeddings"}
    assert all(torch.equal(value, backbone[name]) for name, value in back.items())


def test_a_missing_part_of_a_joined_matrix_is_told() -> None:
    state = to_diffusers(PortraitModel(golden_config("a", 1)).reference.state_dict())
    del state["transformer_blocks.1.attn1.to_k.weight"]
    with pytest.raises(WeightsError, match=r"blocks\.1\.attention\.qkv\.weight: only a part.*to_k"):
        remap_diffusers(state)


def test_names_that_diffusers_cogvideox_does_not_have_are_listed() -> None:
    with pytest.raises(WeightsError, match=r"1 names are not of diffusers.*ofs_embedding"):
        remap_diffusers({"ofs_embedding.linear_1.weight": torch.zeros(1)})


TINY = golden_facts("cogvideox_mapping/tiny")


@pytest.fixture(scope="module")
def sat_backbone() -> Any:
    """The recorded run's weights in our names, filled by the names that they have upstream."""
    model = PortraitModel(ModelConfig(**backbone_sizes(TINY)))
    upstream = {
        name.replace("ref_model.", "model."): value
        for name, value in to_upstream(model.state_dict()).items()
        if name.startswith("ref_model.") and "freqs_" not in name
    }
    weights = remap_upstream({name: filled(name, value) for name, value in upstream.items()})
    model.reference.load_state_dict(
        {name.removeprefix("denoiser."): value for name, value in weights.items()}, strict=False
    )
    return model.reference


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in golden("cogvideox_mapping/tiny").items()}


def test_our_backbone_computes_what_the_recorded_one_did(sat_backbone, recorded) -> None:
    text = sat_backbone.embed_text(recorded["text"])
    with torch.no_grad():
        out = sat_backbone.predict(recorded["x"], recorded["timesteps"], text)
        one_frame = sat_backbone.predict(recorded["x"][:, :1], recorded["timesteps"], text)
    torch.testing.assert_close(out, recorded["sat_out"], atol=1e-5, rtol=0)
    torch.testing.assert_close(one_frame, recorded["sat_out_one_frame"], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def diffusers_model(sat_backbone) -> Any:
    from diffusers import CogVideoXTransformer3DModel

    given = golden_facts("cogvideox_mapping/diffusers_full")["config"]
    own = {
        "num_attention_heads": TINY["num_heads"],
        "num_layers": TINY["num_layers"],
        "time_embed_dim": TINY["time_embed_dim"],
        "text_embed_dim": TINY["text_dim"],
        "max_text_seq_length": TINY["text_length"],
        "sample_frames": TINY["num_frames"],
        "sample_height": TINY["latent_height"],
        "sample_width": TINY["latent_width"],
    }
    model = CogVideoXTransformer3DModel(**(given | own)).eval()
    model.load_state_dict(to_diffusers(sat_backbone.state_dict()), strict=True)
    return model


def run_diffusers(model: Any, backbone: Any, recorded: dict[str, Tensor], frames: int) -> Tensor:
    patches = frames * backbone.config.patches_per_frame
    tables = backbone.rotary.cos[:patches], backbone.rotary.sin[:patches]
    with torch.no_grad():
        return model(
            recorded["x"][:, :frames], recorded["text"], recorded["timesteps"], image_rotary_emb=tables
        ).sample


def test_diffusers_with_our_weights_computes_the_same(
    diffusers_model, sat_backbone, recorded, monkeypatch
) -> None:
    frames = recorded["x"].shape[1]
    out = run_diffusers(diffusers_model, sat_backbone, recorded, frames)
    torch.testing.assert_close(out, recorded["diffusers_out"], atol=1e-5, rtol=0)
    torch.testing.assert_close(out, recorded["sat_out"], atol=5e-5, rtol=0)
    monkeypatch.setattr(diffusers_model.norm_out.norm, "eps", 1e-6)  # upstream's; diffusers has 1e-5
    out = run_diffusers(diffusers_model, sat_backbone, recorded, frames)
    torch.testing.assert_close(out, recorded["sat_out"], atol=1e-5, rtol=0)


def test_diffusers_needs_the_leading_learned_positions_for_one_frame(
    diffusers_model, sat_backbone, recorded, monkeypatch
) -> None:
    """For another number of frames it computes a sine table instead of cutting the learned one."""
    monkeypatch.setattr(diffusers_model.norm_out.norm, "eps", 1e-6)
    out = run_diffusers(diffusers_model, sat_backbone, recorded, frames=1)
    torch.testing.assert_close(out, recorded["diffusers_out_one_frame"], atol=1e-5, rtol=0)
    rows = TINY["text_length"] + sat_backbone.config.patches_per_frame
    embed = diffusers_model.patch_embed
    monkeypatch.setattr(
        embed, "_get_positional_embeddings", lambda *_, **__: sat_backbone.positions[:, :rows].detach()
    )
    out = run_diffusers(diffusers_model, sat_backbone, recorded, frames=1)
    torch.testing.assert_close(out, recorded["sat_out_one_frame"], atol=1e-5, rtol=0)


def test_the_golden_data_names_the_entries_without_a_counterpart() -> None:
    missing = json.loads((GOLDEN / "cogvideox_mapping/tiny.json").read_text())[
        "sat_entries_without_counterpart"
    ]
    ours = {name.removeprefix("denoiser.") for name in remap_upstream(dict.fromkeys(missing, torch.zeros(1)))}
    assert to_diffusers(dict.fromkeys(ours, torch.zeros(1))) == {}
