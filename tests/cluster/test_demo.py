"""What the demo says when its parts do not come together."""

from pathlib import Path

import pytest

from cluster.demo import PROBLEM, fit_codec
from tests.filled import GOLDEN


def test_a_dataset_with_too_few_faces_for_an_autoencoder_is_a_problem_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit_codec(GOLDEN / "dataset_v1", tmp_path / "codec") == PROBLEM
    assert "keeps 1 clips, expected 2 or more" in capsys.readouterr().err
    assert not (tmp_path / "codec").exists()
