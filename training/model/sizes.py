"""The sizes of a model, read from the shapes of its weights (in our names)."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor, arange, stack, unique

from training.model.config import AudioConditionConfig, ModelConfig
from training.model.rotary import rotary_tables
from training.model.weight_files import Checkpoint, shape_of
from training.model.weights_map import WeightsError

Shapes = Mapping[str, tuple[int, ...]]

TABLE_ROUNDING = 0.01
"""bfloat16 tables differ from exact ones by up to 2 ** -8."""


def sizes(shapes: Shapes) -> dict[str, int | str]:
    """What shapes tell, by the names of ModelConfig's fields; `audio.` and `face.` for its parts.

    Where shapes tell only a sum or product of fields, the key says so."""
    network = "denoiser." if any(name.startswith("denoiser.") for name in shapes) else "reference."
    own = {name.removeprefix(network): shape for name, shape in shapes.items() if name.startswith(network)}
    found: dict[str, int | str] = {}
    if blocks := {int(name.split(".")[1]) for name in own if name.startswith("blocks.")}:
        found["num_layers"] = len(blocks)
    if norm := own.get("blocks.0.attention.query_norm.weight"):
        found["head_dim"] = norm[0]
        if qkv := own.get("blocks.0.attention.qkv.weight"):
            found["num_heads"] = qkv[1] // norm[0]
    if patch := own.get("patch_embed.weight"):
        found |= {"in_channels": patch[1], "patch_size": patch[2]}
        if head := own.get("head.linear.weight"):
            found["out_channels"] = head[0] // patch[2] ** 2
    if text := own.get("text_embed.weight"):
        found["text_dim"] = text[1]
    if time := own.get("time_embed.0.weight"):
        found["time_embed_dim"] = time[0]
    if positions := own.get("positions"):
        if video := own.get("rotary.cos"):
            found["text_length"] = positions[1] - video[0]
        found["text_length + video tokens"] = positions[1]
    return found | _face(own) | _audio(own)


def differences(checkpoint: Shapes, model: Shapes) -> str:
    """Which settings of a checkpoint's model are not this model's, in words; "" where shapes do not tell."""
    theirs, ours = sizes(checkpoint), sizes(model)
    told = [
        f"{key} {theirs[key]} (model: {ours[key]})"
        for key in theirs
        if key in ours and theirs[key] != ours[key]
    ]
    return "The checkpoint was made with " + ", ".join(told) if told else ""


def config_of(checkpoint: Checkpoint) -> ModelConfig:
    """The configuration of a checkpoint: its config.json, checked against its shapes, or what those tell.

    The grid is read from the rotary tables, which follow from it. A backbone alone gets the default face
    and no audio. Of the audio window, layers and channels only the product is known: upstream's
    5 and 12 are taken for the first two.

    Raises:
        WeightsError: config.json is another model's, or a size cannot be told.
    """
    plan = checkpoint.in_our_names()
    shapes = {name: shape_of(parts, checkpoint.tensors) for name, parts in plan.entries.items()}
    found = sizes(shapes)
    given = checkpoint.config
    if given is not None and "num_layers" in given and "_class_name" not in given:
        settings = {key: value for key, value in given.items() if key != "training"}  # how it was made
        return _checked(checkpoint, settings, found)
    fields: dict[str, Any] = {key: value for key, value in found.items() if key in ModelConfig.model_fields}
    cos = plan.entries.get("denoiser.rotary.cos")
    if checkpoint.vocabulary == "diffusers":
        fields |= _diffusers_grid(given or {})
    elif cos:
        sin = plan.entries["denoiser.rotary.sin"]
        fields |= _grid(checkpoint.tensors[cos[0].source], checkpoint.tensors[sin[0].source], found)
    for part in ("face", "audio"):
        inside = {key.partition(".")[2]: value for key, value in found.items() if key.startswith(f"{part}.")}
        if inside:
            fields[part] = _part(inside)
    return _checked(checkpoint, fields, found)


def _face(own: Shapes) -> dict[str, int | str]:
    proj, norm = own.get("face_projector.proj.weight"), own.get("face_projector.norm.weight")
    if not (proj and norm):
        return {}
    return {"face.embedding_dim": proj[1], "face.tokens": proj[0] // norm[0], "face.dim": norm[0]}


def _audio(own: Shapes) -> dict[str, int | str]:
    names = ("proj1.weight", "proj3.weight", "norm.weight", "halving.weight")
    proj1, proj3, norm, halving = (own.get(f"audio_projector.{name}") for name in names)
    if not (proj1 and proj3 and norm and halving):
        return {}
    return {
        "audio.window * layers * channels": proj1[1],
        "audio.hidden": proj1[0],
        "audio.tokens": proj3[0] // norm[0],
        "audio.dim": norm[0],
        "audio.halving": "joint" if halving[0] == proj3[0] else "per_token",
    }


def _part(inside: dict[str, int | str]) -> dict[str, Any]:
    product = inside.pop("window * layers * channels", None)
    if not isinstance(product, int):
        return inside
    usual = AudioConditionConfig()
    if product % (usual.window * usual.layers):
        raise WeightsError(
            f"audio: window * layers * channels is {product}, not a multiple of "
            f"{usual.window} * {usual.layers}; which sizes are they? Put a config.json beside the weights"
        )
    channels = product // (usual.window * usual.layers)
    return inside | {"window": usual.window, "layers": usual.layers, "channels": channels}


def _grid(cos: Tensor, sin: Tensor, found: dict[str, int | str]) -> dict[str, int]:
    """Latent frames, height and width from rotary tables (T * h * w, head_dim): the first channel of each of
    their three parts turns by 1 radian a step, so it has as many different angles as there are steps."""
    head_dim, patch = int(found.get("head_dim", 0)), int(found.get("patch_size", 0))
    if not (patch and cos.ndim == sin.ndim == 2 and cos.shape[1] == sin.shape[1] == head_dim):
        return {}
    spatial = head_dim * 3 // 8
    starts = (0, head_dim - 2 * spatial, head_dim - spatial)
    frames, rows, columns = (len(unique(stack([cos[:, i], sin[:, i]]).float(), dim=1)[0]) for i in starts)
    if frames * rows * columns != len(cos):
        return {}
    made, _ = rotary_tables([arange(frames), arange(rows), arange(columns)], head_dim)
    if (made - cos.float()).abs().max() > TABLE_ROUNDING:
        return {}
    return {"latent_frames": frames, "latent_height": rows * patch, "latent_width": columns * patch}


def _diffusers_grid(given: dict[str, Any]) -> dict[str, int]:
    names = {
        "latent_height": "sample_height",
        "latent_width": "sample_width",
        "text_length": "max_text_seq_length",
    }
    fields = {ours: given[theirs] for ours, theirs in names.items() if theirs in given}
    if "sample_frames" in given:
        fields["latent_frames"] = (given["sample_frames"] - 1) // given.get(
            "temporal_compression_ratio", 4
        ) + 1
    return fields


def _checked(checkpoint: Checkpoint, fields: dict[str, Any], found: dict[str, int | str]) -> ModelConfig:
    missing = [name for name in ModelConfig.model_fields if _required(name) and name not in fields]
    if missing:
        raise WeightsError(
            f"{checkpoint.path}: its shapes do not tell {', '.join(missing)}; put a config.json with the "
            "model's sizes beside the weights"
        )
    try:
        config = ModelConfig.model_validate(fields)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise WeightsError(f"{checkpoint.path}: its sizes are no possible model: {reasons}") from error
    told = _told(config)
    wrong = [
        f"{key} is {told[key]}, its weights have {found[key]}"
        for key in found
        if told.get(key, found[key]) != found[key]
    ]
    if config.audio is None and "audio.tokens" in found:
        wrong.append("audio is none, its weights have it")
    if wrong:
        raise WeightsError(f"{checkpoint.path}: config.json is not of these weights: {'; '.join(wrong)}")
    return config


def _required(name: str) -> bool:
    return ModelConfig.model_fields[name].is_required()


def _told(config: ModelConfig) -> dict[str, int | str]:
    """The settings in the words of `sizes`."""
    flat: dict[str, int | str] = {}
    for key, value in config.model_dump().items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": setting for inner, setting in value.items()}
        else:
            flat[key] = value
    frames, rows, columns = config.patch_grid
    flat["text_length + video tokens"] = config.text_length + frames * rows * columns
    if config.audio:
        audio = config.audio
        flat["audio.window * layers * channels"] = audio.window * audio.layers * audio.channels
        if audio.tokens == 1:
            flat["audio.halving"] = "joint"  # one token: both halvings are the same convolution
    return flat
