"""`hallo3 plan` as a user runs it."""

import json

from cluster import cli


def test_a_plan_needs_neither_dataset_nor_output(capsys) -> None:
    assert cli.main(["plan", "demo_audio"]) == 0
    told = capsys.readouterr().out
    for word in ("parameters", "activations", "optimizer", "of 80 GB: fits", "a step"):
        assert word in told


def test_a_run_that_does_not_fit_ends_with_status_1_and_the_way_out(capsys) -> None:
    alone = ["num_workers=1", "deepspeed.zero_stage=2", "batch=8", "micro_batch=8"]
    assert cli.main(["plan", "demo_audio", *alone, "--gpu-gb", "1.66"]) == 1
    told = capsys.readouterr().out
    assert "too much" in told
    assert "it would fit with  micro_batch=1" in told


def test_a_run_that_nothing_makes_fit_says_so(capsys) -> None:
    assert cli.main(["plan", "demo_audio", "--gpu-gb", "0.5"]) == 1
    assert "does not fit on 2 such GPUs, whatever is shared" in capsys.readouterr().out


def test_programs_read_the_same_plan(capsys) -> None:
    assert cli.main(["plan", "demo_audio", "--json", "--gpu", "a100"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fits"] is True
    assert sum(told["gpu_bytes"].values()) == told["gpu_bytes_together"]
    assert told["step_s"] > 0


def test_a_wrong_key_and_an_unknown_gpu_end_with_status_2(capsys) -> None:
    assert cli.main(["plan", "demo_audio", "max_step=3"]) == 2
    assert cli.main(["plan", "demo_audio", "--gpu", "abacus"]) == 2
    assert "known are h100" in capsys.readouterr().err


def test_animating_is_planned_by_moment(capsys) -> None:
    assert cli.main(["plan", "demo_audio", "--animate", "--two-passes", "--size", "128x128"]) == 0
    told = capsys.readouterr().out
    for word in ("frames of 128x128", "--two-passes", "denoising", "the most: decoding", "of 80 GB: fits"):
        assert word in told


def test_animating_that_does_not_fit_ends_with_status_1_and_the_flags_that_make_it_fit(capsys) -> None:
    assert cli.main(["plan", "small_audio", "encoders.text=none", "--animate", "--gpu-gb", "6"]) == 1
    told = capsys.readouterr().out
    assert "of 6 GB: 3.3 GB too much" in told
    assert "it would fit with  --tile 128x192" in told
    assert cli.main(["plan", "demo_audio", "--animate", "--gpu-gb", "1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["change"] is None


def test_a_plan_of_animating_that_cannot_be_ends_with_status_2(capsys) -> None:
    for flags, words in (
        (["--animate", "--tile", "64x64"], "a fitted autoencoder knows no tiles"),
        (["--animate", "--gpu", "abacus"], "known are h100"),
        (["--offload"], "are about videos: add --animate"),
        (["phase=identity", "--animate"], "no audio part"),
    ):
        assert cli.main(["plan", "demo_audio", *flags]) == 2
        assert words in capsys.readouterr().err
