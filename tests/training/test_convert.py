"""`hallo3 weights convert` on small checkpoints, both ways and bit by bit."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cluster.cli import main
from tests.training.golden_networks import golden_config, golden_model, upstream_weights
from training.convert import convert
from training.model import ModelConfig
from training.model.loading import empty_model, load_model
from training.model.weights_map import remap_upstream, to_diffusers, to_upstream


@pytest.fixture(scope="module")
def upstream() -> dict[str, Tensor]:
    """A stage-2 checkpoint in upstream's names, weights in bfloat16, rotary tables in float32."""
    model = golden_model("a", 2)
    return {
        name: value.clone() if "freqs_" in name else value.bfloat16()
        for name, value in to_upstream(model.state_dict()).items()
    }


@pytest.fixture
def source(upstream, tmp_path) -> Path:
    file = tmp_path / "mp_rank_00_model_states.pt"
    torch.save({"module": upstream | {"conditioner.bias": torch.zeros(2)}}, file)
    return file


def read(folder: Path) -> dict[str, Tensor]:
    """All entries of a converted folder, by its index."""
    (index,) = folder.glob("*.safetensors.index.json")
    weight_map = json.loads(index.read_text())["weight_map"]
    found: dict[str, Tensor] = {}
    for file in sorted(set(weight_map.values())):
        found |= load_file(folder / file)
    assert found.keys() == weight_map.keys()
    return found


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """The same names, dtypes and bits."""
    return first.keys() == second.keys() and all(
        value.dtype == second[name].dtype and torch.equal(value, second[name])
        for name, value in first.items()
    )


def test_upstreams_checkpoint_comes_back_bit_by_bit(source, upstream, tmp_path, capsys) -> None:
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert main(["weights", "convert", str(source), str(ours)]) == 0
    assert equal(read(ours), remap_upstream(upstream))
    said = capsys.readouterr().out
    assert f"{len(upstream)} entries, names of hallo3" in said
    assert "left out: 1 entries (conditioner.bias)" in said
    assert "2 layers, 2 heads of 64, latents 13 x 4 x 6" in said
    assert main(["weights", "convert", str(ours), str(back), "--to", "upstream"]) == 0
    assert equal(read(back), upstream)


def test_the_converted_folder_is_a_model(source, tmp_path) -> None:
    convert(source, tmp_path / "ours", shard_bytes=2_000_000)
    model, report = load_model(tmp_path / "ours")
    assert model.config == golden_config("a", 2)
    assert ModelConfig.model_validate_json((tmp_path / "ours" / "config.json").read_text()) == model.config
    assert not report.initialised


def test_files_are_of_bounded_size_and_readable_by_all(source, upstream, tmp_path) -> None:
    report = convert(source, tmp_path / "ours", shard_bytes=1_000_000)
    files = sorted((tmp_path / "ours").glob("*.safetensors"))
    assert len(files) == report.shards > 4
    largest = max(value.nbytes for value in upstream.values())
    assert all(file.stat().st_size < max(1_000_000, largest) + 20_000 for file in files)
    index = json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in upstream.values())
    assert files[0].stat().st_mode & 0o777 == (tmp_path / "ours").stat().st_mode & 0o666


@pytest.mark.slow
def test_diffusers_reads_what_was_converted_for_it_and_it_comes_back(source, upstream, tmp_path) -> None:
    from diffusers import CogVideoXTransformer3DModel

    theirs, both = tmp_path / "theirs", tmp_path / "both"
    assert main(["weights", "convert", str(source), str(theirs), "--to", "diffusers"]) == 0
    model = CogVideoXTransformer3DModel.from_pretrained(theirs, torch_dtype=torch.bfloat16)
    denoiser = {
        name.removeprefix("denoiser."): value
        for name, value in remap_upstream(upstream).items()
        if name.startswith("denoiser.")
    }
    backbone = to_diffusers(denoiser)
    model.patch_embed.to(torch.bfloat16)  # diffusers keeps the position table in float64 whatever it is given
    assert equal(dict(model.state_dict()), backbone)
    assert main(["weights", "convert", str(theirs), str(both)]) == 0
    found = read(both)
    for prefix in ("denoiser.", "reference."):
        own = {n.removeprefix(prefix): v for n, v in found.items() if n.startswith(prefix)}
        assert equal(to_diffusers(own), backbone)
    sizes = ModelConfig.model_validate_json((both / "config.json").read_text())
    assert sizes.patch_grid == golden_config("a", 2).patch_grid


def test_another_dtype_is_for_weights_and_not_for_rotary_tables(tmp_path) -> None:
    state = upstream_weights("a", 1)
    tables = {n: v for n, v in to_upstream(golden_model("a", 1).state_dict()).items() if "freqs_" in n}
    save_file(state | tables, tmp_path / "model.safetensors")
    given = ["weights", "convert", str(tmp_path / "model.safetensors"), str(tmp_path / "half")]
    assert main([*given, "--to", "upstream", "--dtype", "bfloat16"]) == 0
    assert equal(read(tmp_path / "half"), {n: v.bfloat16() for n, v in state.items()} | tables)


def test_numbers_that_a_dtype_cannot_hold_are_refused(tmp_path, capsys) -> None:
    state = remap_upstream(upstream_weights("a", 1))
    state["reference.final_norm.bias"][3] = 1e6
    save_file(state, tmp_path / "model.safetensors")
    given = ["weights", "convert", str(tmp_path / "model.safetensors"), str(tmp_path / "half")]
    assert main([*given, "--dtype", "float16"]) == 1
    assert "reference.final_norm.bias: has numbers beyond torch.float16's largest" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_checkpoint_that_does_not_tell_its_sizes_is_converted_without_a_config(tmp_path, capsys) -> None:
    save_file(upstream_weights("a", 1), tmp_path / "model.safetensors")
    assert main(["weights", "convert", str(tmp_path / "model.safetensors"), str(tmp_path / "ours")]) == 0
    assert "no config.json: " in (said := capsys.readouterr().out)
    assert "do not tell text_length, latent_frames" in said
    assert not (tmp_path / "ours" / "config.json").exists()


def test_what_is_there_is_not_overwritten(source, tmp_path, capsys) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "mine.txt").touch()
    assert main(["weights", "convert", str(source), str(tmp_path / "ours")]) == 2
    assert "exists; name a new folder" in capsys.readouterr().err


def test_a_source_that_is_missing_or_broken_is_said_so(tmp_path, capsys) -> None:
    assert main(["weights", "convert", str(tmp_path / "no"), str(tmp_path / "ours")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04")
    assert main(["weights", "convert", str(tmp_path / "broken.pt"), str(tmp_path / "ours")]) == 1
    assert "damaged, cut short" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_disk_that_takes_no_more_ends_with_status_1_and_leaves_nothing(source, tmp_path) -> None:
    command = [sys.executable, "-m", "cluster.cli", "weights", "convert", source, tmp_path / "ours"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit_file_size)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("hallo3: ")
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.slow
def test_one_file_at_a_time_is_in_memory(tmp_path) -> None:
    sizes: dict[str, Any] = golden_config("a", 1).model_dump() | {"num_layers": 8, "num_heads": 12}
    state = {
        name: torch.zeros(value.shape, dtype=torch.bfloat16)
        for name, value in empty_model(ModelConfig.model_validate(sizes)).state_dict().items()
    }
    save_file(state, tmp_path / "model.safetensors")
    command = [
        sys.executable,
        "-m",
        "tests.training.peak_of_convert",
        tmp_path / "model.safetensors",
        tmp_path / "ours",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    total = sum(value.nbytes for value in state.values())
    assert total > 250_000_000
    assert int(done.stdout) < 100_000_000
