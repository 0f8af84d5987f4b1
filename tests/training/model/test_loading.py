"""Checkpoints as they come, whole and broken, into models without memory."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.training.golden_networks import golden_config, golden_model
from tests.training.small_networks import SIZES, filled_model, sized
from training.model import FaceConditionConfig, ModelConfig, PortraitModel
from training.model.loading import empty_model, load_checkpoint, load_model
from training.model.sizes import config_of
from training.model.weight_files import open_checkpoint
from training.model.weights_map import WeightsError, to_diffusers, to_upstream

STAGE_1 = SIZES.model_copy(update={"audio": None})


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Stage 2, in our names."""
    return filled_model().state_dict()


def stage_1(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if ".audio_" not in name}


def saved(weights: dict[str, Tensor], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, file)
    return file


def sharded(weights: dict[str, Tensor], folder: Path, stem: str = "model", index: bool = True) -> Path:
    """Three files, with an index or without."""
    names = list(weights)
    files = {f"{stem}-{i + 1:05d}-of-00003.safetensors": names[i::3] for i in range(3)}
    for file, own in files.items():
        saved({name: weights[name] for name in own}, folder / file)
    if index:
        weight_map = {name: file for file, own in files.items() for name in own}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def deepspeed(weights: dict[str, Tensor], folder: Path) -> Path:
    """As DeepSpeed and SwissArmyTransformer leave it: settings and random states beside the weights."""
    (folder / "1").mkdir(parents=True)
    (folder / "latest").write_text("1\n")
    content = {
        "module": to_upstream(weights) | {"first_stage_model.encoder.weight": torch.zeros(3)},
        "optimizer": None,
        "args": argparse.Namespace(train_iters=10, mode="finetune"),
        "np_rng_state": np.random.default_rng(0).bit_generator.state | {"legacy": np.random.get_state()},
        "torch_rng_state": torch.get_rng_state(),
        "ds_version": "0.15.0",
    }
    torch.save(content, folder / "1" / "mp_rank_00_model_states.pt")
    return folder


def same(model: PortraitModel, weights: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> bool:
    state = model.state_dict()
    return all(
        torch.equal(state[name], value if ".rotary." in name else value.to(dtype))
        for name, value in weights.items()
    )


def into_empty(path: Path, config: ModelConfig = SIZES, **options: Any) -> PortraitModel:
    model = empty_model(config)
    load_checkpoint(model, path, **options)
    return model


@pytest.mark.parametrize(
    "written",
    [
        lambda weights, folder: saved(weights, folder / "model.safetensors"),
        lambda weights, folder: saved(weights, folder / "model.safetensors").parent,
        lambda weights, folder: sharded(weights, folder),
        lambda weights, folder: sharded(weights, folder) / "model.safetensors.index.json",
        lambda weights, folder: sharded(weights, folder, index=False),
        lambda weights, folder: saved(to_upstream(weights), folder / "model.safetensors"),
        deepspeed,
        lambda weights, folder: deepspeed(weights, folder) / "1",
    ],
    ids=["file", "folder", "shards", "index", "no index", "upstream", "deepspeed", "deepspeed's subfolder"],
)
def test_every_form_of_a_checkpoint_gives_the_same_weights(weights, tmp_path, written) -> None:
    assert same(into_empty(written(weights, tmp_path)), weights)


def test_the_report_accounts_for_every_entry(weights, tmp_path) -> None:
    model = empty_model(SIZES)
    report = load_checkpoint(model, deepspeed(weights, tmp_path), dtype=torch.bfloat16)
    entries = model.state_dict()
    assert sorted(report.loaded + report.initialised + report.computed) == sorted(entries)
    assert report.left_over == ("first_stage_model.encoder.weight",)
    assert report.loaded_bytes == sum(2 * entries[name].numel() for name in report.loaded)
    assert len(str(report).splitlines()) <= 4
    assert f"{len(report.loaded)} entries loaded" in str(report)


def test_weights_become_the_wanted_dtype_and_rotary_tables_stay_exact(weights, tmp_path) -> None:
    rounded = {name: value.bfloat16() for name, value in weights.items()}
    model = into_empty(saved(rounded, tmp_path / "model.safetensors"), dtype=torch.bfloat16)
    assert same(model, weights, torch.bfloat16)
    assert model.denoiser.rotary.cos.dtype == torch.float32


def test_a_model_with_memory_is_filled_in_place(weights, tmp_path) -> None:
    model = PortraitModel(SIZES)
    parameters = list(model.parameters())
    load_checkpoint(model, saved(weights, tmp_path / "model.safetensors"))
    assert same(model, weights)
    assert all(old is new for old, new in zip(parameters, model.parameters(), strict=True))


def test_frozen_parameters_stay_frozen(weights, tmp_path) -> None:
    model = empty_model(SIZES).requires_grad_(False)
    model.denoiser.blocks[0].audio_attention.requires_grad_(True)
    load_checkpoint(model, saved(weights, tmp_path / "model.safetensors"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {
        f"denoiser.blocks.0.audio_attention.{part}.{leaf}"
        for part in ("query", "key_value", "out")
        for leaf in ("weight", "bias")
    }


def test_a_stage_1_checkpoint_starts_stage_2_with_audio_as_before_training(weights, tmp_path) -> None:
    model = empty_model(SIZES)
    report = load_checkpoint(model, saved(stage_1(weights), tmp_path / "model.safetensors"))
    assert same(model, stage_1(weights))
    assert set(report.initialised) == {name for name in weights if ".audio_" in name}
    attention = model.denoiser.blocks[1].audio_attention
    assert attention.query.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert attention.out.weight.std().item() == pytest.approx(0.02 / 2, rel=0.1)  # 0.02 / sqrt(2 * 2 blocks)
    assert not attention.key_value.bias.any()
    assert model.denoiser.audio_projector.proj1.weight.any()


def test_parts_are_started_untrained_only_where_that_is_allowed(weights, tmp_path) -> None:
    file = saved(stage_1(weights), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="It has no audio part; with 'audio' in may_initialise"):
        into_empty(file, may_initialise=("face",))


def test_a_part_that_is_there_by_half_is_refused(weights, tmp_path) -> None:
    halved = {name: value for name, value in weights.items() if ".blocks.1.audio_" not in name}
    with pytest.raises(WeightsError, match="Its audio part is incomplete"):
        into_empty(saved(halved, tmp_path / "model.safetensors"))


@pytest.mark.parametrize("own_config", [True, False])
def test_diffusers_folder_starts_both_networks(weights, tmp_path, own_config) -> None:
    backbone = {n.removeprefix("reference."): v for n, v in weights.items() if n.startswith("reference.")}
    folder = sharded(to_diffusers(backbone), tmp_path / "transformer", "diffusion_pytorch_model")
    if own_config:
        (folder / "config.json").write_text('{"_class_name": "CogVideoXTransformer3DModel", "num_layers": 2}')
    model = empty_model(STAGE_1)
    report = load_checkpoint(model, tmp_path)
    state = model.state_dict()
    for name in backbone.keys() - {"rotary.cos", "rotary.sin", "unused_position_embeddings"}:
        assert torch.equal(state[f"reference.{name}"], backbone[name])
        assert torch.equal(state[f"denoiser.{name}"], backbone[name])
    assert all(".face_" in name or ".unused_" in name for name in report.initialised)


def test_upstreams_backbone_alone_starts_both_networks(weights, tmp_path) -> None:
    backbone = {n: v for n, v in to_upstream(weights).items() if n.startswith("ref_model.")}
    file = saved({n.removeprefix("ref_"): v for n, v in backbone.items()}, tmp_path / "backbone.safetensors")
    state = into_empty(file, STAGE_1).state_dict()
    name = "blocks.1.attention.qkv.weight"
    assert torch.equal(state[f"denoiser.{name}"], weights[f"reference.{name}"])
    assert torch.equal(state[f"reference.{name}"], weights[f"reference.{name}"])


def test_a_checkpoint_of_other_sizes_is_refused_and_the_setting_named(weights, tmp_path) -> None:
    file = saved(weights, tmp_path / "model.safetensors")
    other = SIZES.model_copy(update={"text_dim": 12})
    with pytest.raises(WeightsError) as caught:
        into_empty(file, other)
    assert "denoiser.text_embed.weight: expected (128, 12), given (128, 8)" in str(caught.value)
    assert "The checkpoint was made with text_dim 8 (model: 12)" in str(caught.value)
    with pytest.raises(WeightsError, match=r"num_layers 2 \(model: 3\)"):
        into_empty(file, SIZES.model_copy(update={"num_layers": 3}))
    with pytest.raises(WeightsError, match="The model has no audio part"):
        into_empty(file, STAGE_1)


def test_a_refused_checkpoint_leaves_the_model_as_it_was(weights, tmp_path) -> None:
    wrong = weights | {"denoiser.final_norm.weight": torch.zeros(5)}
    model = empty_model(SIZES)
    with pytest.raises(WeightsError, match=r"final_norm\.weight: expected \(128,\), given \(5,\)"):
        load_checkpoint(model, saved(wrong, tmp_path / "model.safetensors"))
    assert all(parameter.is_meta for parameter in model.parameters())


def test_parts_of_a_matrix_that_do_not_fit_together_are_refused(weights, tmp_path) -> None:
    backbone = {n.removeprefix("reference."): v for n, v in weights.items() if n.startswith("reference.")}
    parts = to_diffusers(backbone) | {"transformer_blocks.0.attn1.to_k.bias": torch.zeros(64)}
    with pytest.raises(WeightsError, match=r"parts of one matrix differ in size: .*to_k"):
        into_empty(saved({n: v.clone() for n, v in parts.items()}, tmp_path / "t.safetensors"), STAGE_1)


class Evil:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_that_wants_code_to_run_is_not_read(weights, tmp_path) -> None:
    file, marker = tmp_path / "model.pt", tmp_path / "ran"
    torch.save({"module": to_upstream(weights), "args": Evil(marker)}, file)
    with pytest.raises(WeightsError, match=r"code would have to run \(.*\), so it is not read"):
        open_checkpoint(file)
    assert not marker.exists()


@pytest.mark.parametrize("form", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.6, 0.999])
def test_a_file_cut_short_is_refused(weights, tmp_path, form, kept) -> None:
    file = tmp_path / form
    save_file(weights, file) if file.suffix == ".safetensors" else torch.save(weights, file)
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(WeightsError, match=f"{form}: (damaged|neither)"):
        open_checkpoint(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a" + bytes(100), "neither safetensors nor a file of torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\x80\x04}q\x00.", "a bare pickle, which is never read"),
        (b"PK\x03\x04" + bytes(100), "damaged, cut short or not of torch.save"),
    ],
)
def test_a_file_of_another_kind_is_said_so(tmp_path, content, message) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        open_checkpoint(file)


def test_missing_shards_are_named(weights, tmp_path) -> None:
    for index in (True, False):
        folder = sharded(weights, tmp_path / str(index), index=index)
        (folder / "model-00002-of-00003.safetensors").unlink()
        with pytest.raises(WeightsError, match=r"model-00002-of-00003\.safetensors is missing"):
            open_checkpoint(folder)


def test_an_index_may_not_point_outside_its_folder(weights, tmp_path) -> None:
    saved(weights, tmp_path / "secret.safetensors")
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(WeightsError, match=r"names '\.\./secret\.safetensors', expected the name of a file"):
        open_checkpoint(index.parent)
    index.write_text('["a"]')
    with pytest.raises(WeightsError, match="not an index"):
        open_checkpoint(index.parent)


def test_folders_without_or_with_unclear_weights_are_refused(weights, tmp_path) -> None:
    with pytest.raises(WeightsError, match="no such file or folder"):
        open_checkpoint(tmp_path / "nothing")
    with pytest.raises(WeightsError, match=r"expected .*safetensors.* found none"):
        open_checkpoint(tmp_path)
    (tmp_path / "mp_rank_00_model_states.pt").touch()
    (tmp_path / "mp_rank_01_model_states.pt").touch()
    with pytest.raises(WeightsError, match="cut over 2 model-parallel ranks"):
        open_checkpoint(tmp_path)
    saved(weights, tmp_path / "twice" / "a.safetensors")
    saved(weights, tmp_path / "twice" / "b.safetensors")
    with pytest.raises(WeightsError, match="is in more than one file"):
        open_checkpoint(tmp_path / "twice")


def test_weights_of_something_else_are_refused(tmp_path) -> None:
    file = saved({"encoder.conv.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"no weights of Hallo3 or CogVideoX.*encoder\.conv\.weight"):
        open_checkpoint(file)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds a list, expected a dictionary of tensors"):
        open_checkpoint(tmp_path / "list.pt")
    torch.save({"denoiser.positions": 3}, tmp_path / "number.pt")
    with pytest.raises(WeightsError, match=r"denoiser\.positions is no tensor"):
        open_checkpoint(tmp_path / "number.pt")


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sizes_of_a_model_are_read_from_upstreams_checkpoint(tmp_path, name, stage, dtype) -> None:
    state = to_upstream(golden_model(name, stage).state_dict())
    file = saved({key: value.to(dtype) for key, value in state.items()}, tmp_path / "model.safetensors")
    found, wanted = config_of(open_checkpoint(file)), golden_config(name, stage)
    if wanted.audio and found.audio and (wanted.audio.window, wanted.audio.layers) != (5, 12):
        same_product = found.audio.model_copy(
            update=wanted.audio.model_dump(include={"window", "layers", "channels"})
        )
        found = found.model_copy(update={"audio": same_product})
    assert found == wanted


def test_a_model_is_made_from_its_checkpoint_alone(weights, tmp_path) -> None:
    saved(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(SIZES.model_dump_json())
    model, _ = load_model(tmp_path)
    assert model.config == SIZES
    assert same(model, weights)


def test_a_config_of_other_weights_is_refused(weights, tmp_path) -> None:
    saved(weights, tmp_path / "model.safetensors")
    for other, message in (
        (SIZES.model_copy(update={"text_dim": 9}), "text_dim is 9, its weights have 8"),
        (SIZES.model_copy(update={"latent_frames": 7}), "video tokens is 116, its weights have 52"),
        (STAGE_1, "audio is none, its weights have it"),
    ):
        (tmp_path / "config.json").write_text(other.model_dump_json())
        with pytest.raises(WeightsError, match=message):
            load_model(tmp_path)


def test_sizes_that_shapes_do_not_tell_are_asked_for(weights, tmp_path) -> None:
    without = {name: value for name, value in stage_1(weights).items() if ".rotary." not in name}
    file = saved(without, tmp_path / "model.safetensors")
    wanted = "do not tell text_length, latent_frames, latent_height, latent_width"
    with pytest.raises(WeightsError, match=wanted):
        load_model(file)
    with_audio = saved(weights, tmp_path / "audio.safetensors")
    with pytest.raises(WeightsError, match=r"window \* layers \* channels is 48, not a multiple of 5 \* 12"):
        load_model(with_audio)


LARGE = sized(num_layers=8, num_heads=16, audio=None, face=FaceConditionConfig())
"""About 240 M parameters, the largest tensor of 4 M."""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A folder with LARGE in bfloat16, as safetensors and as a torch file; entry i is full of i % 200."""
    folder = tmp_path_factory.mktemp("large")
    state = {
        name: torch.full(value.shape, i % 200, dtype=torch.bfloat16)
        for i, (name, value) in enumerate(empty_model(LARGE).state_dict().items())
    }
    (folder / "sizes.json").write_text(LARGE.model_dump_json())
    save_file(state, folder / "large.safetensors")
    torch.save({"module": to_upstream(state)}, folder / "large.pt")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("file", ["large.safetensors", "large.pt"])
def test_a_model_is_loaded_where_a_second_copy_of_it_does_not_fit(large, file) -> None:
    path = large / file
    allowed = path.stat().st_size + 250_000_000  # the model once, and less than half of it for all the rest
    command = [sys.executable, "-m", "tests.training.model.weights_in_little_memory", path, str(allowed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = list(empty_model(LARGE).state_dict())
    assert found["loaded"] > 0.99 * path.stat().st_size > 450_000_000
    assert found["grown"] < found["loaded"] + 60_000_000
    assert not found["compiler"], "seconds of imports that loading does not need"
    assert sorted(found["firsts"]) == sorted(
        i % 200 for i, name in enumerate(names) if ".rotary." not in name
    )
