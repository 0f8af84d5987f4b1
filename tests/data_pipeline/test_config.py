import pytest

from data_pipeline.config import load_config, preset_names
from data_pipeline.config_file import ConfigError

GIVEN = ["sources=videos", "output=out"]


def test_every_preset_is_a_valid_configuration() -> None:
    assert set(preset_names()) == {"talking_head", "wild", "demo"}
    for name in preset_names():
        assert load_config(name, GIVEN).name == name


def test_a_dotted_override_reaches_its_key() -> None:
    config = load_config("talking_head", [*GIVEN, "filters.min_snr_db=3", "encode.width=256"])
    assert config.filters.min_snr_db == 3
    assert config.encode.width == 256


def test_null_switches_a_rule_off() -> None:
    assert load_config("talking_head", [*GIVEN, "filters.max_yaw_deg=null"]).filters.max_yaw_deg is None


def test_a_file_may_start_from_a_preset(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("preset: wild\nsources: a\noutput: b\nfilters: {min_snr_db: 5}\n")
    config = load_config(str(path), [])
    assert config.filters.max_yaw_deg == 90
    assert config.filters.min_snr_db == 5


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["filters.min_snr=3"], ["filters.min_snr", "did you mean min_snr_db?", "Allowed: "]),
        (["encode.width=ten"], ["encode.width", "'ten'", "integer"]),
        (["encode.width=511"], ["encode.width", "multiple of 2", "511"]),
        (["encode=5"], ["encode", "5"]),
        (["segment.min_s=9"], ["segment", "at least twice min_s"]),
        (["max_error_fraction=2"], ["max_error_fraction", "less than or equal to 1", "2"]),
        (["output=s4://bucket/set"], ["output", "nothing is known of s4://", "s3://"]),
        (["output=s3://"], ["output", "names no bucket"]),
        (["nonsense"], ["'nonsense' is not an override"]),
        (["name.deeper=1"], ["name is a value"]),
        (["name=[1"], ["name", "is not a YAML value"]),
        (["encode.width=64", "encode={height: 64}"], ["would take back encode.width=64", "write it first"]),
    ],
)
def test_a_wrong_override_is_named_with_what_is_allowed(overrides, words) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("talking_head", [*GIVEN, *overrides])
    for word in words:
        assert word in str(caught.value)


def test_missing_keys_and_unknown_presets_are_named() -> None:
    with pytest.raises(ConfigError, match="sources: missing; give it in talking_head or as sources=VALUE"):
        load_config("talking_head", ["output=out"])
    with pytest.raises(ConfigError, match="no preset and no file is called 'talking_heads'"):
        load_config("talking_heads", GIVEN)


def test_a_file_that_is_not_yaml_is_named(tmp_path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1")
    with pytest.raises(ConfigError, match=r"broken\.yaml: cannot be read as YAML"):
        load_config(str(path), [])
    path.write_text("- a\n")
    with pytest.raises(ConfigError, match="expected keys and values, found list"):
        load_config(str(path), [])


def test_a_threshold_changes_the_policy_and_not_the_measuring() -> None:
    config = load_config("talking_head", GIVEN)
    other = load_config("talking_head", [*GIVEN, "filters.min_snr_db=3"])
    assert config.measure_sha256() == other.measure_sha256()
    assert config.policy_sha256() != other.policy_sha256()


@pytest.mark.parametrize("override", ["segment.max_s=10", "encode.crf=20", "faces.identity_fps=2"])
def test_segmentation_backends_and_encoding_change_the_measuring(override) -> None:
    config = load_config("talking_head", GIVEN)
    other = load_config("talking_head", [*GIVEN, override])
    assert config.measure_sha256() != other.measure_sha256()
    assert config.policy_sha256() == other.policy_sha256()


def test_paths_and_workers_change_neither() -> None:
    config = load_config("talking_head", GIVEN)
    other = load_config(
        "talking_head", ["sources=x", "output=y", "ray.faces.max_actors=7", "measure_all=true"]
    )
    assert config.measure_sha256() == other.measure_sha256()
    assert config.policy_sha256() == other.policy_sha256()


def test_code_that_measures_something_else_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("talking_head", GIVEN)
    before = config.measure_sha256(), config.policy_sha256()
    monkeypatch.setattr("data_pipeline.config.MEASURE_REVISION", 999)
    assert config.measure_sha256() != before[0]
    assert config.policy_sha256() == before[1]
