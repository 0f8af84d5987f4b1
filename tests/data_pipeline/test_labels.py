from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cli import main
from data_pipeline.config import FiltersConfig
from data_pipeline.dataset import Dataset
from data_pipeline.labels import LABELS, LabelsError, check_labels, no_labels, read_labels, united
from data_pipeline.pack import pack
from data_pipeline.policy import decide, licence_allowed
from data_pipeline.refilter import apply, preview, with_filters, with_labels
from data_pipeline.show import lines_of_preview
from data_pipeline.verify import verify
from tests.data_pipeline.packed import add_source, config_of, encoded, write_listing
from tests.data_pipeline.rows import measurements

FILTERS = FiltersConfig()
A, B, C = (f"{number:016x}" for number in range(3))


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("media")
    return {person: encoded(folder / str(person), person) for person in (1, 2)}


def labels(folder: Path, *lines: str, header: str = "clip_id,label,note,reviewer") -> Path:
    path = folder / f"labels-{len(list(folder.glob('labels*')))}.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def outcomes(table) -> list[str]:
    return [row["reason"] or row["status"] for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0123,keep", r"line 2: clip_id '0123' is no clip's name"),
        (f"{A},maybe", r"line 2: label 'maybe'; allowed are keep and drop"),
        (f"{A},", r"line 2: label None"),
        (f"{A},keep,too,many,values", r"line 2: more values than columns"),
    ],
)
def test_a_bad_line_is_named_with_its_value_and_what_is_allowed(tmp_path, line, message) -> None:
    with pytest.raises(LabelsError, match=message):
        read_labels(labels(tmp_path, line))


def test_a_file_without_the_columns_or_that_is_none_is_said_so(tmp_path) -> None:
    with pytest.raises(LabelsError, match="no column 'label'; found clip_id, verdict"):
        read_labels(labels(tmp_path, header="clip_id,verdict"))
    with pytest.raises(LabelsError, match="cannot be read"):
        read_labels(tmp_path / "nowhere.csv")


def test_the_later_line_and_the_later_file_count(tmp_path) -> None:
    first = read_labels(labels(tmp_path, f"{A},keep", f"{B},drop,blurred", f"{A},drop"))
    assert first.schema == LABELS
    assert [row["label"] for row in first.to_pylist()] == ["drop", "drop"]
    second = read_labels(labels(tmp_path, f"{A},KEEP,fine,ann"))
    assert [row["label"] for row in united(first, second).to_pylist()] == ["keep", "drop"]


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["keep", "drop"]))))
def test_uniting_is_the_last_word_on_each_clip(words) -> None:
    tables = [no_labels().from_pylist([{"clip_id": c, "label": w}], LABELS) for c, w in words]
    found = united(no_labels(), *tables).to_pylist()
    assert {row["clip_id"]: row["label"] for row in found} == dict(words)
    assert [row["clip_id"] for row in found] == sorted(dict(words))


def test_keep_overrules_thresholds_and_drop_what_passes(tmp_path) -> None:
    words = read_labels(labels(tmp_path, f"{A},keep", f"{B},drop"))
    table = measurements({"snr_db": 1.0}, {}, {"snr_db": 1.0})
    assert outcomes(decide(table, FILTERS, words)) == ["kept", "labelled_out", "noisy"]


def test_keep_cannot_overrule_an_error_or_bring_media_that_were_never_encoded(tmp_path) -> None:
    words = read_labels(labels(tmp_path, f"{A},keep", f"{B},keep", f"{'f' * 16},drop"))
    table = measurements(
        {"stage_reasons": ["stage_failed"]}, {"snr_db": 1.0, "has_media": False, "complete": False}
    )
    decided = decide(table, FILTERS, words)
    assert outcomes(decided) == ["stage_failed", "noisy"]
    check = check_labels(words, decided)
    assert check.without_media == [A, B]
    assert check.unknown == ["f" * 16]


def test_keep_stands_beside_the_best_of_its_duplicates(tmp_path) -> None:
    words = read_labels(labels(tmp_path, f"{B},keep"))
    table = measurements({}, {"sharpness": 50.0}, {"sharpness": 40.0})
    table = table.append_column("duplicate_group", pa.array(["take"] * 3))
    assert sum(outcome == "kept" for outcome in outcomes(decide(table, FILTERS))) == 1
    assert outcomes(decide(table, FILTERS, words))[1] == "kept"


def test_labels_survive_later_packs_without_their_file(tmp_path, media) -> None:
    root = tmp_path / "dataset"
    ids = add_source(root, media, "a.mp4", {"person": 1, "snr_db": 1.0}, {"person": 1})
    ids += add_source(root, media, "b.mp4", {"person": 2})
    write_listing(root, "a.mp4", "b.mp4")
    pack(config_of(root))
    dataset = Dataset.open(root)
    csv = labels(tmp_path, f"{ids[0]},keep,the hum is his voice,ann", f"{ids[2]},drop", f"{'e' * 16},drop")
    words = with_labels(dataset, csv)
    change = preview(dataset, with_filters(dataset, []), words)
    assert (change.newly_kept, change.newly_rejected) == ({"noisy": 1}, {"labelled_out": 1})
    assert "1 clip (eeeeeeeeeeeeeeee) unknown here" in "\n".join(lines_of_preview(change))
    apply(dataset, with_filters(dataset, []), frozenset(), words)
    csv.unlink()
    assert {*Dataset.open(root).places()} == {ids[0], ids[1]}
    pack(config_of(root, "filters.max_yaw_deg=30"))
    again = Dataset.open(root)
    assert again.version.version == 3
    assert {*again.places()} == {ids[0], ids[1]}
    assert again.labels().num_rows == 3
    assert list(verify(again)) == []


def test_verify_finds_labels_that_were_changed_or_are_gone(tmp_path, media) -> None:
    root = tmp_path / "dataset"
    (clip_id,) = add_source(root, media, "a.mp4", {"person": 1})
    write_listing(root, "a.mp4")
    pack(config_of(root), labels=read_labels(labels(tmp_path, f"{clip_id},keep")))
    assert list(verify(Dataset.open(root))) == []
    (path,) = (root / "labels").iterdir()
    path.write_bytes(path.read_bytes() + b"more")
    (problem,) = verify(Dataset.open(root))
    assert problem.startswith(f"labels/{path.name}: its sha256 is ")
    path.unlink()
    assert list(verify(Dataset.open(root))) == [f"labels/{path.name}: missing"]


def test_the_command_applies_the_labels_that_its_preview_spoke_of(tmp_path, media, capsys) -> None:
    root = tmp_path / "dataset"
    ids = add_source(root, media, "a.mp4", {"person": 1}, {"person": 2})
    write_listing(root, "a.mp4")
    pack(config_of(root))
    refilter = ["dataset", "refilter", str(root), "--labels", str(labels(tmp_path, f"{ids[0]},drop"))]
    assert main(refilter) == 0
    assert {*Dataset.open(root).places()} == {*ids}
    assert main([*refilter, "--apply"]) == 0
    assert capsys.readouterr().out.endswith("version 2\n")
    assert {*Dataset.open(root).places()} == {ids[1]}
    assert Dataset.open(root).labels()["clip_id"].to_pylist() == [ids[0]]


def test_a_label_that_changes_nothing_yet_is_remembered(tmp_path, media) -> None:
    root = tmp_path / "dataset"
    (clip_id,) = add_source(root, media, "a.mp4", {"person": 1, "snr_db": 1.0})
    write_listing(root, "a.mp4")
    pack(config_of(root))
    dataset = Dataset.open(root)
    apply(
        dataset,
        with_filters(dataset, []),
        frozenset(),
        with_labels(dataset, labels(tmp_path, f"{clip_id},drop")),
    )
    pack(config_of(root, "filters.min_snr_db=0"))
    assert outcomes(Dataset.open(root).manifest()) == ["labelled_out"]


@pytest.mark.parametrize(
    ("licence", "rules", "allowed"),
    [
        ("CC BY 4.0", {"licences": ["cc-by-*"]}, True),
        ("cc_by-sa 3.0", {"licences": ["CC-BY-*"]}, True),
        ("CC BY-NC 4.0", {"licences": ["cc-by-*"], "denied_licences": ["*-nc-*"]}, False),
        ("MIT", {"licences": ["cc-by-*", "cc0-*"]}, False),
        ("MIT", {}, True),
        ("MIT", {"denied_licences": ["mit"]}, False),
        (None, {"licences": ["cc-by-*"]}, True),
        (None, {"allow_unknown_licence": False}, False),
        ("  ", {"allow_unknown_licence": False}, False),
    ],
)
def test_a_licence_is_matched_by_patterns_and_denial_is_stronger(licence, rules, allowed) -> None:
    assert licence_allowed(licence, FiltersConfig(**rules)) is allowed


def test_clips_under_a_licence_that_is_not_allowed_are_rejected_and_a_preview_says_so(
    tmp_path, media
) -> None:
    root = tmp_path / "dataset"
    add_source(root, media, "a.mp4", {"person": 1})
    add_source(root, media, "b.mp4", {"person": 2})
    write_listing(root, "a.mp4", "b.mp4", a={"licence": "CC BY 4.0"}, b={"licence": "CC-BY-NC-4.0"})
    pack(config_of(root))
    dataset = Dataset.open(root)
    stricter = preview(dataset, with_filters(dataset, ["filters.denied_licences=['*-nc-*']"]))
    assert stricter.newly_rejected == {"licence": 1}
    pack(config_of(root, "filters.denied_licences=['*-nc-*']"))
    rows = Dataset.open(root).manifest().to_pylist()
    assert {(row["source_licence"], row["reason"]) for row in rows} == {
        ("CC BY 4.0", None),
        ("CC-BY-NC-4.0", "licence"),
    }
