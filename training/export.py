"""RUN/export: the model of a checkpoint, as others load it, with everything that says where it comes from.

    start_model(config) -> the model as the run began, with its frozen weights
      checkpoint -> trained weights: the average where there is one, else the last
      LoRA -> folded into the layers
      -> model.safetensors (in parts with an index where it is large), config.json, README.md, autoencoder/

config.json has the model's sizes, as `load_model` and `start_from` read them, and under `training` how it was
made. The folder is written beside the old one, and takes its place when it is whole. One process, without
the others.
"""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from training.checkpoint import TrainState, check_same, contents, read_weights
from training.config import TrainConfig
from training.convert import SHARD_BYTES
from training.encoders import FITTED
from training.metrics import read_metrics
from training.model.autoencoder import SPATIAL_STRIDE
from training.model.patch_pca import PatchPcaAutoencoder
from training.model.portrait import PortraitModel
from training.model.sizes import config_of
from training.model.weight_files import open_checkpoint
from training.optimizer import AVERAGE
from training.run_folder import METRICS
from training.start_model import DTYPES, start_model

EXPORT = "export"
CARD = "model_card.md.j2"


def export(checkpoint: Path, config: TrainConfig, folder: Path | None = None) -> Path:
    """Write RUN/export, or `folder`, and return it.

    Raises:
        CheckpointError: the checkpoint is not whole, or of another configuration.
        OSError: there is no room; an older export is as before.
    """
    run = Path(config.output)
    model = trained_model(checkpoint, config)
    final = folder or run / EXPORT
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_weights(model, partial, DTYPES[config.precision], SHARD_BYTES)
        codec = _fitted_autoencoder(config)
        if codec is not None:
            shutil.copytree(codec, partial / FITTED)
        facts = _facts(checkpoint, config, codec)
        described = model.config.model_dump(mode="json") | {"training": facts}
        (partial / "config.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")
        (partial / "README.md").write_text(_card(model, config, facts), "utf-8")
        _replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def trained_model(checkpoint: Path, config: TrainConfig) -> PortraitModel:
    """The run's model on the CPU, with a checkpoint's weights, averaged where it has averages.

    Raises CheckpointError.
    """
    model = start_model(config).model
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    shapes = {name: tuple(weight.shape) for name, weight in trained.items()}
    check_same(checkpoint, contents(checkpoint), shapes, config)
    with torch.no_grad():
        for name, value in read_weights(checkpoint, averaged=True).items():
            trained[name].copy_(value)
    if config.trainable == "lora":
        from training.lora import merge_lora

        merge_lora(model)
    return model


def write_untrained(exported: Path, folder: Path, seed: int = 0) -> None:
    """The same model with weights as before any training: what a trained one is to be compared with.

    `folder` gets them, config.json and the run's own autoencoder. Raises OSError, WeightsError."""
    config = config_of(open_checkpoint(exported))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PortraitModel(config)
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(model, folder, torch.float32, SHARD_BYTES)
    shutil.copy(exported / "config.json", folder)
    if (exported / FITTED).is_dir():
        shutil.copytree(exported / FITTED, folder / FITTED, dirs_exist_ok=True)


def _write_weights(model: nn.Module, folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    from huggingface_hub import save_torch_state_dict

    entries = {name: _as_stored(name, value, dtype) for name, value in model.state_dict().items()}
    try:
        save_torch_state_dict(entries, folder, max_shard_size=shard_bytes)
    except SafetensorError as error:  # the disk is full, most likely
        raise OSError(f"the weights cannot be written to {folder}: {error}") from error
    for file in folder.glob("*.safetensors"):
        file.chmod(folder.stat().st_mode & 0o666)  # they are its owner's alone otherwise


def _as_stored(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotary tables stay float32, as everywhere."""
    return value if ".rotary." in name or not value.is_floating_point() else value.to(dtype)


def _fitted_autoencoder(config: TrainConfig) -> Path | None:
    """The folder of the run's own, small autoencoder; None where it is a published one."""
    folder = Path(config.encoders.autoencoder or Path(config.output) / FITTED).expanduser()
    return folder if (folder / "codec.json").is_file() else None


def _facts(checkpoint: Path, config: TrainConfig, codec: Path | None) -> dict[str, Any]:
    """How the model was made, for config.json."""
    found = contents(checkpoint)
    return {
        "phase": config.phase,
        "trainable": config.trainable,
        "weights": AVERAGE if found.averaged else "last",
        "state": vars(found.state),
        "encoders": _encoders(config, found.state, codec),
        "metrics": _last_metrics(Path(config.output) / METRICS, found.state.step),
        "config": config.model_dump(mode="json"),
    }


def _encoders(config: TrainConfig, state: TrainState, codec: Path | None) -> dict[str, dict[str, str | None]]:
    """Names of the frozen models, and their digests: of a fitted codec its own, of others those by which the
    dataset's stored features are kept, where the run read such."""
    given = config.encoders
    stored: dict[str, str] = {}
    for dataset in state.samples.get("datasets", []):
        stored |= dataset.get("stored", {})
    digest = PatchPcaAutoencoder.load(codec).digest if codec else stored.get("latents")
    named = {
        "autoencoder": {"name": FITTED if codec else given.autoencoder, "digest": digest},
        "text": {"name": given.text, "digest": stored.get("text")},
    }
    if config.sizes.audio is not None:
        named["speech"] = {"name": given.speech, "digest": stored.get("speech")}
    return named


def _last_metrics(path: Path, step: int) -> dict[str, dict[str, Any]]:
    """The last row of each kind up to a step: `train`, `held_out`."""
    if not path.exists():
        return {}
    rows = [row for row in read_metrics(path) if row["step"] <= step and row["kind"] != "event"]
    return {row["kind"]: row for row in rows}


def _card(model: PortraitModel, config: TrainConfig, facts: Mapping[str, Any]) -> str:
    import jinja2

    template = (Path(__file__).with_name("templates") / CARD).read_text("utf-8")
    environment = jinja2.Environment(  # noqa: S701 - Markdown
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    sizes = model.config
    low_rank = f"LoRA of rank {config.lora.rank}, folded in"
    told = {"all": "all weights", "lora": low_rank, "phase": f'the weights of phase "{config.phase}"'}
    return environment.from_string(template).render(
        name=f"{Path(config.output).name}, step {facts['state']['step']}",
        parameters=_count(sum(weight.numel() for weight in model.parameters())),
        audio=sizes.audio is not None,
        averaged=facts["weights"] == AVERAGE,
        autoencoder=facts["encoders"]["autoencoder"]["name"] == FITTED,
        precision=config.precision,
        frames=sizes.num_frames,
        size=f"{sizes.latent_width * SPATIAL_STRIDE} x {sizes.latent_height * SPATIAL_STRIDE}",
        trained=told[config.trainable],
        **{key: facts[key] for key in ("phase", "state", "encoders", "metrics", "config")},
    )


def _count(number: int) -> str:
    """12.3 k, 2.84 M, 15.6 B."""
    power = min(3, int(math.log10(number)) // 3)
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'B'][power]}".strip()


def _replace(partial: Path, final: Path) -> None:
    before = final.with_name(f".{final.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if final.exists():
        final.rename(before)
    partial.rename(final)
    shutil.rmtree(before, ignore_errors=True)
