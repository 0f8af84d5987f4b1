"""The networks of tests/golden/hallo3_net: sizes, weights by rule, recorded tensors."""

import json
from typing import Any

import torch
from torch import Tensor

from tests.filled import GOLDEN, drawn, filled, golden
from training.model import AudioConditionConfig, FaceConditionConfig, ModelConfig, PortraitModel
from training.model.weights_map import remap_upstream

NET = GOLDEN / "hallo3_net"


def recorded(name: str) -> dict[str, Tensor]:
    """The recorded tensors of a set: "a", "b" or "fullgeo"."""
    return {key: torch.from_numpy(value) for key, value in golden(f"hallo3_net/{name}").items()}


def facts(name: str) -> dict[str, Any]:
    """Sizes, timesteps, `fill_check` of a set."""
    return json.loads((NET / f"{name}.config.json").read_text())


def backbone_sizes(given: dict[str, Any]) -> dict[str, int]:
    """What the recorded sizes are in ModelConfig's words, but for face and audio."""
    same = "num_layers num_heads head_dim time_embed_dim text_dim text_length latent_height latent_width"
    return {name: given[name] for name in same.split()} | {
        "latent_frames": (given["num_frames"] - 1) // 4 + 1
    }


def golden_config(name: str, stage: int) -> ModelConfig:
    """The sizes of a set; stage 1 has no audio."""
    given = facts(name)
    audio = given["audio"]
    return ModelConfig(
        **backbone_sizes(given),
        audio=AudioConditionConfig(
            window=audio["window"],
            layers=audio["blocks"],
            channels=audio["channels"],
            hidden=audio["intermediate"],
            tokens=audio["tokens"],
            dim=audio["out_dim"],
        )
        if stage == 2
        else None,
        face=FaceConditionConfig(
            embedding_dim=given["face"]["in_dim"],
            tokens=given["face"]["tokens"],
            dim=given["face"]["out_dim"],
        ),
    )


def upstream_weights(name: str, stage: int) -> dict[str, Tensor]:
    """A set's checkpoint in upstream's names, filled by rule, without the rotary tables."""
    entries = json.loads((NET / f"{name}.contract.stage2.json").read_text())["entries"]
    return {
        entry: filled(entry, torch.empty(shape))
        for entry, shape, _ in entries
        if not entry.endswith(("freqs_sin", "freqs_cos")) and (stage == 2 or "audio" not in entry)
    }


def golden_model(name: str, stage: int) -> PortraitModel:
    """The networks of a set with its weights."""
    model = PortraitModel(golden_config(name, stage))
    model.load_state_dict(remap_upstream(upstream_weights(name, stage)), strict=True)
    return model


def fullgeo_inputs() -> dict[str, Tensor]:
    """The inputs of the set at the true latent size, drawn by rule."""
    given = facts("fullgeo")
    tags, shapes = given["inputs"], given["shapes"]
    inputs = {name: drawn(tags[name], tuple(shapes[name])) for name in ("x", "ref", "text", "audio", "face")}
    inputs["concat"] = torch.zeros(shapes["x"])
    batch, _, *rest = shapes["x"]
    inputs["concat"][:, :1] = drawn(tags["concat first frame"], (batch, 1, *rest))
    inputs["uncond_text"] = torch.zeros(shapes["uncond_text"])
    return inputs
