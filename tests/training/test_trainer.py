"""The loop with a real engine: what it logs, when it judges and saves, what ends it, how it goes on."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.engine_run import alone, batch_of, small_config, small_engine
from training.batch import Batch
from training.checkpoint import TrainState, latest, restore
from training.config import TrainConfig
from training.run_folder import STOP
from training.trainer import TrainerError, train


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    with alone():
        yield


def batches(config: TrainConfig, first: int = 0, **broken: Any) -> Iterator[list[Batch]]:
    """Steps from `first` on; `broken` replaces parts of every batch."""
    step = first
    while True:
        places = [
            range(number, number + config.micro_batch)
            for number in range(0, config.batch, config.micro_batch)
        ]
        yield [replace(batch_of(config, step, [*own]), **broken) for own in places]
        step += 1


class Run:
    """One run of the loop, from a checkpoint where there is one."""

    def __init__(self, config: TrainConfig, **broken: Any) -> None:
        self.config, self.broken = config, broken
        self.engine = small_engine(config)
        found = latest(Path(config.output))
        self.state = restore(self.engine, found, config) if found else TrainState()
        self.rows: dict[int, dict[str, float]] = {}
        self.judged: list[int] = []

    def go(self) -> bool:
        samples = batches(self.config, self.state.step, **self.broken)
        return train(self.engine, samples, self.state, self.config, self._log, self.judged.append)

    def _log(self, step: int, figures: dict[str, float]) -> None:
        self.rows[step] = figures

    @property
    def losses(self) -> list[str]:
        return [row["loss"].hex() for row in self.rows.values()]


def config(tmp_path: Path, *overrides: str) -> TrainConfig:
    return small_config(tmp_path / "run", "micro_batch=2", "max_steps=6", *overrides)


def slow(*stages: int) -> list[Any]:
    return [pytest.param(stage, marks=pytest.mark.slow) for stage in stages]


def saved(config: TrainConfig) -> list[str]:
    return sorted(path.name for path in (Path(config.output) / "checkpoints").glob("step-*"))


def test_every_step_is_logged_with_the_figures_of_the_design(tmp_path) -> None:
    run = Run(config(tmp_path, "max_steps=2"))
    assert run.go()
    assert [*run.rows] == [1, 2]
    assert {*run.rows[1]} == {
        *("loss", "loss_max", "gradient_norm", "learning_rate", "samples_per_s", "tokens_per_s"),
        *("data_wait_share", "step_s", "peak_memory_gb", "bad_samples", "skipped_steps"),
    }
    assert run.rows[1]["gradient_norm"] > 0
    assert 0 <= run.rows[1]["data_wait_share"] < 1


def test_it_judges_and_saves_when_it_is_due_and_at_the_end(tmp_path) -> None:
    given = config(
        tmp_path, "validation.every_steps=4", "checkpoints.every_steps=2", "checkpoints.keep_last=9"
    )
    run = Run(given)
    assert run.go()
    assert run.judged == [4, 6]
    assert saved(given) == ["step-00000002", "step-00000004", "step-00000006"]


def test_a_run_that_is_never_judged_is_not_judged_at_its_end(tmp_path) -> None:
    run = Run(config(tmp_path, "max_steps=1", "validation.every_steps=null"))
    assert run.go()
    assert run.judged == []


@pytest.mark.parametrize("stage", [0, 2])
def test_a_run_that_goes_on_has_the_losses_of_one_that_was_not_broken_off(tmp_path, stage) -> None:
    over = (f"deepspeed.zero_stage={stage}", "optimizer.schedule=cosine", "optimizer.warmup_steps=2")
    whole = Run(config(tmp_path / "whole", *over))
    assert whole.go()
    given = config(tmp_path / "broken", *over)
    first = Run(given)
    Path(given.output).mkdir(parents=True)
    stop_at = 3
    first._log = lambda step, row: (  # type: ignore[method-assign]
        first.rows.__setitem__(step, row),
        step == stop_at - 1 and (Path(given.output) / STOP).touch(),
    )
    assert not first.go()
    assert saved(given) == ["step-00000003"]
    (Path(given.output) / STOP).unlink()
    second = Run(given)
    assert second.state.step == stop_at
    assert second.go()
    assert first.losses + second.losses == whole.losses


def test_ten_steps_without_a_finite_gradient_end_the_run_and_name_the_last_checkpoint(tmp_path) -> None:
    given = config(tmp_path, "max_steps=30", "checkpoints.every_steps=2")
    good = Run(given.model_copy(update={"max_steps": 2}))
    assert good.go()
    before = {name: weight.clone() for name, weight in good.engine.module.named_parameters()}
    nan = torch.full((2, 3, 16, 8, 8), float("nan"))
    run = Run(given, latents=nan)
    with pytest.raises(
        TrainerError, match=r"10 steps in a row, the last is 12; the last checkpoint is .*step-0"
    ):
        run.go()
    assert run.rows[12]["skipped_steps"] == 10
    for name, weight in run.engine.module.named_parameters():
        assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("stage", [0, 2, *slow(1, 3)])
def test_a_step_whose_gradient_is_not_finite_moves_nothing_in_any_stage(tmp_path, stage) -> None:
    given = config(tmp_path, f"deepspeed.zero_stage={stage}", "max_steps=1")
    run = Run(given, latents=torch.full((2, 3, 16, 8, 8), float("inf")))
    assert run.go()
    assert run.state.skipped_steps == 1
    fresh = Run(config(tmp_path / "fresh", f"deepspeed.zero_stage={stage}", "max_steps=1"))
    assert fresh.go()
    assert fresh.state.skipped_steps == 0


def test_more_broken_samples_than_are_allowed_end_the_run_from_the_hundredth_on(tmp_path) -> None:
    given = config(tmp_path, "max_steps=40", "samples.max_bad_fraction=0.3", "validation.every_steps=null")
    run = Run(given, weight=torch.tensor([1.0, 0.0]))
    with pytest.raises(TrainerError, match=r"50 of 100 samples are broken \(50.0%\).*max_bad_fraction=0.3"):
        run.go()
    assert run.state.step == 25


def test_a_broken_sample_weighs_nothing(tmp_path) -> None:
    """Whatever stands in its place."""
    rows = []
    for number, filled in enumerate((0.0, 7.0)):

        def given_batches(own: TrainConfig, filled: float = filled) -> Iterator[list[Batch]]:
            for made in batches(own):
                for batch in made:
                    batch.latents[1] = filled
                yield [replace(batch, weight=torch.tensor([1.0, 0.0])) for batch in made]

        own = config(tmp_path / str(number), "max_steps=2", "validation.every_steps=null")
        run = Run(own)
        train(run.engine, given_batches(own), run.state, own, run._log, run.judged.append)
        rows.append(json.dumps([[row["loss"], row["gradient_norm"]] for row in run.rows.values()]))
    assert rows[0] == rows[1]
