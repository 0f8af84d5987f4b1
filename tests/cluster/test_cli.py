import subprocess
import sys

import pytest

from cluster.cli import main

HEAVY = {
    "ray",
    "torch",
    "gradio",
    "c2pa",
    "av",
    "cv2",
    "onnxruntime",
    "pyarrow",
    "dlib",
    "faster_whisper",
    "pandas",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["app", "--help"],
        ["curate", "--help"],
        ["curate", "talking_head", "sources=x", "output=y", "filters.min_snr=3"],
        ["curate", "nothing"],
    ],
)
def test_help_and_wrong_input_are_answered_before_anything_heavy_is_imported(arguments) -> None:
    code = (
        "import sys\nfrom cluster.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        f"print('heavy:', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("heavy: []")


def test_a_wrong_key_ends_with_status_2_and_one_message(capsys) -> None:
    assert main(["curate", "talking_head", "sources=x", "output=y", "filters.min_snr=3"]) == 2
    assert "filters.min_snr: unknown key (given 3); did you mean min_snr_db?" in capsys.readouterr().err


def test_a_folder_that_is_no_dataset_is_said_so(tmp_path, capsys) -> None:
    for action in (["show"], ["verify"]):
        assert main(["dataset", *action, str(tmp_path)]) == 1
        assert f"{tmp_path} is no dataset" in capsys.readouterr().err


def test_an_unknown_command_is_status_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["curat"])
    assert caught.value.code == 2
