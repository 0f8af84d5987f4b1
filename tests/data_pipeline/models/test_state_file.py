"""A file of weights is what it is taken for, or its error says what it is."""

from pathlib import Path

import pytest
import torch
from torch import nn

from data_pipeline.models.state_file import load_weights
from data_pipeline.weights import WeightsUnavailable, digest_of_file


class Small(nn.Module):
    def __init__(self, width: int = 2):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.bn = nn.BatchNorm1d(width)


def saved(path: Path, what: object) -> Path:
    torch.save(what, path)
    return path


def test_weights_are_loaded_and_the_network_evaluates(tmp_path):
    network = Small()
    loaded = load_weights(Small(), saved(tmp_path / "x.pth", network.state_dict()))
    assert torch.equal(loaded.linear.weight, network.linear.weight)
    assert not loaded.training


def test_the_expected_digest_is_compared(tmp_path):
    path = saved(tmp_path / "x.pth", Small().state_dict())
    assert load_weights(Small(), path, digest_of_file(path)).linear.weight.shape == (2, 2)
    with pytest.raises(ValueError, match="not the expected file of Small: its sha256 is"):
        load_weights(Small(), path, "0" * 64)


def test_no_file_is_said_to_be_none(tmp_path):
    with pytest.raises(WeightsUnavailable, match="no file"):
        load_weights(Small(), tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (Small(3).state_dict(), r"of another Small: bn.bias is \(3,\), not \(2,\)"),
        ({"linear.weight": torch.ones(2, 2)}, "5 names differ; bn.bias is missing"),
        (Small().state_dict() | {"other": torch.ones(1)}, "1 names differ; other is none of its names"),
        ([1, 2], "holds a list, not a state dict of Small"),
        (Small(), "more or less than plain tensors"),
    ],
)
def test_another_file_is_refused_in_words(tmp_path, what, words):
    with pytest.raises(ValueError, match=words):
        load_weights(Small(), saved(tmp_path / "x.pth", what))


def test_a_page_and_half_a_file_are_refused_in_words(tmp_path):
    path = saved(tmp_path / "x.pth", Small().state_dict())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="cut short or damaged"):
        load_weights(Small(), path)
    path.write_text("<html>")
    with pytest.raises(ValueError, match="a web page saved by mistake"):
        load_weights(Small(), path)
