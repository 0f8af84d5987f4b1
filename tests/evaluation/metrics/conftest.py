"""What tests of Fréchet metrics share: published weights that are none, in a cache of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from threadpoolctl import threadpool_limits
from torch import nn

from data_pipeline import weights


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """For torch, NumPy and SciPy: tests that run side by side do not take each other's cores."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """publish(name, network): register the weights of this network instead of the ones of that name."""
    entries = yaml.safe_load(weights.REGISTRY.read_text())
    monkeypatch.setattr(weights, "REGISTRY", tmp_path / "weights.yaml")
    monkeypatch.setenv("HALLO3_CACHE", str(tmp_path / "cache"))

    def register(name: str, network: nn.Module) -> None:
        (file,) = entries[name]["files"]
        path = tmp_path / file
        torch.save(network.state_dict(), path)
        facts = {"uris": [path.as_uri()], "sha256": weights.digest_of_file(path), "size": path.stat().st_size}
        entries[name]["files"] = {file: facts}
        weights.REGISTRY.write_text(yaml.safe_dump(entries))
        weights.registry.cache_clear()

    yield register
    weights.registry.cache_clear()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights at all are here."""
    monkeypatch.setenv("HALLO3_CACHE", str(tmp_path / "cache"))
