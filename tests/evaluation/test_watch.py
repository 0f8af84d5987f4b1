"""Every checkpoint of a training run is scored once, whatever the run does meanwhile, over restarts too."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from evaluation.watch import WATCHED, Outcome, step_of_export, watch
from training.config import TrainConfig
from training.run_folder import RunFolderError, save


def run_of(tmp_path: Path, max_steps: int = 3) -> Path:
    """A training run's folder without anything in it yet."""
    given = {"dataset": "none", "phase": "audio", "model": "tiny", "max_steps": max_steps}
    save(TrainConfig.model_validate({**given, "output": str(tmp_path / "run")}))
    return tmp_path / "run"


def export_step(run: Path, step: int) -> Path:
    """As a run that comes to its end leaves it, in the place of the one before."""
    shutil.rmtree(run / "export", ignore_errors=True)
    (run / "export").mkdir(parents=True)
    save_file({"weight": torch.tensor([float(step)])}, run / "export" / "model.safetensors")
    (run / "export" / "config.json").write_text(json.dumps({"training": {"state": {"step": step}}}))
    return run / "export"


class Scores:
    """Notes what it is asked to score, and that the weights are there then."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.steps: list[int] = []
        self._outcomes = list(outcomes)

    def __call__(self, checkpoint: Path, output: Path, step: int) -> Outcome:
        assert step_of_export(checkpoint / "export") == step
        assert (checkpoint / "export" / "model.safetensors").stat().st_size > 0
        self.steps.append(step)
        return self._outcomes.pop(0) if self._outcomes else Outcome(0, done=True)


def test_what_a_run_exports_is_scored_once(tmp_path) -> None:
    run, output, scores = run_of(tmp_path), tmp_path / "out", Scores()
    exported = export_step(run, 1)
    assert watch(run, output, scores, every_s=0) == 0
    assert watch(run, output, scores, every_s=0) == 0
    assert scores.steps == [1]
    export_step(run, 2)
    assert watch(run, output, scores, every_s=0) == 0
    assert scores.steps == [1, 2]
    assert json.loads((output / "step-00000002" / WATCHED).read_text())["step"] == 2
    assert not [*output.rglob("*.safetensors")]
    assert (exported / "model.safetensors").exists()  # the run keeps its own
    export_step(run, 3)
    assert watch(run, output, scores, every_s=60) == 0  # the last step: it ends by itself
    assert scores.steps == [1, 2, 3]


def test_what_is_not_done_is_tried_again(tmp_path) -> None:
    run, output, scores = run_of(tmp_path), tmp_path / "out", Scores(Outcome(1, done=False))
    export_step(run, 1)
    assert watch(run, output, scores, every_s=0) == 1
    export_step(run, 2)  # the run goes on, and what was taken of it stays
    assert watch(run, output, scores, every_s=0) == 0
    assert scores.steps == [1, 1, 2]


def test_the_status_is_that_of_the_gate(tmp_path) -> None:
    run = run_of(tmp_path)
    export_step(run, 1)
    assert watch(run, tmp_path / "out", Scores(Outcome(3, done=True)), every_s=0) == 3


def test_a_checkpoint_that_is_not_whole_is_left(tmp_path, caplog) -> None:
    run, scores = run_of(tmp_path), Scores()
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    export_step(run, 2)
    assert watch(run, tmp_path / "out", scores, every_s=0) == 0
    assert scores.steps == [2]
    assert "step 1 cannot be exported now" in caplog.text


def test_a_folder_that_is_no_run_s_is_refused(tmp_path) -> None:
    with pytest.raises(RunFolderError, match=r"is no training run's folder: it has no config\.yaml"):
        watch(tmp_path, tmp_path / "out", Scores(), every_s=0)


@pytest.mark.slow
def test_checkpoints_are_exported_and_scored_in_their_order(tmp_path) -> None:
    from tests.training.engine_run import alone
    from tests.training.small_networks import SIZES
    from tests.training.test_export import published, run_config, trained
    from training.model import load_model

    loaded: list[int] = []

    class Loads(Scores):
        def __call__(self, checkpoint: Path, output: Path, step: int) -> Outcome:
            load_model(checkpoint / "export")
            loaded.append(step)
            return super().__call__(checkpoint, output, step)

    with alone():
        config = run_config(tmp_path / "run", published(tmp_path / "base", SIZES), "max_steps=2")
        save(config)
        trained(config, 1)
        trained(config, 2)
        watch(tmp_path / "run", tmp_path / "out", Loads(), every_s=60)
    assert loaded == [1, 2]
    assert not (tmp_path / "run" / "export").exists()
