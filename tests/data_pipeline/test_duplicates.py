"""Duplicates: which clips are one take, however the table is ordered and however many there are."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.config import DuplicatesConfig, FiltersConfig
from data_pipeline.dataset import Dataset
from data_pipeline.duplicates import WINDOW, near_duplicates, overlapping_parts, with_groups
from data_pipeline.explain import explain
from data_pipeline.labels import LABELS
from data_pipeline.pack import pack
from data_pipeline.policy import decide, needs_measuring
from data_pipeline.refilter import preview, with_filters
from data_pipeline.verify import verify
from tests.data_pipeline.prints import coded, face, part, print_of, printed, take
from tests.data_pipeline.rows import measurements
from tests.data_pipeline.test_pack import add_source, config_of, media, write_listing

__all__ = ["media"]  # a fixture

CONFIG = DuplicatesConfig()
FILTERS = FiltersConfig()


def groups(*differences: dict) -> list[int | None]:
    """Each row's group, as the number of the group's first row."""
    found = with_groups(printed(*differences), CONFIG)["duplicate_group"].to_pylist()
    return [None if name is None else int(name, 16) for name in found]


def test_a_copy_of_other_bits_that_starts_later_is_the_same_take() -> None:
    said = take(1)
    copy = print_of(coded(part(said, 0.3, 8), 2), coded(face(1), 3), 7.7)
    assert groups(print_of(said, face(1)), print_of(take(2), face(2)), copy) == [0, None, 0]


def test_takes_of_one_speaker_look_alike_and_are_not_one() -> None:
    assert groups(*(print_of(take(seed), coded(face(1), seed, 0.02)) for seed in range(20))) == [None] * 20


def test_the_same_sound_under_another_face_is_a_dub_and_no_duplicate() -> None:
    said = take(1)
    assert groups(print_of(said, face(1)), print_of(coded(said, 1), face(2))) == [None, None]


def test_the_same_picture_with_other_words_is_no_duplicate() -> None:
    assert groups(print_of(take(1), face(1)), print_of(take(2), face(1))) == [None, None]


def test_an_intro_that_clips_share_does_not_make_them_one() -> None:
    jingle = take(99, 3.0)

    def clip(seed: int) -> dict:
        words = take(seed)
        return print_of(np.concatenate([jingle, words[words["step"] > 300]]), face(1))

    assert groups(*map(clip, range(50))) == [None] * 50


def test_copies_must_share_more_than_half_of_the_longer_one() -> None:
    said = take(1, 12.0)
    whole = print_of(said, face(1), 12.0)
    assert groups(whole, print_of(part(said, 2, 9), face(1), 7.0)) == [0, 0]
    assert groups(whole, print_of(part(said, 2, 7), face(1), 5.0)) == [None, None]


def test_a_clip_posted_hundreds_of_times_is_one_group() -> None:
    said = take(1)
    posted = [print_of(coded(said, seed), coded(face(1), seed)) for seed in range(20 * WINDOW)]
    assert set(groups(*posted)) == {0}


def test_copies_are_found_in_a_sound_that_hundreds_of_faces_speak() -> None:
    said = take(1)
    meme = [print_of(said, face(seed)) for seed in range(20 * WINDOW)]
    copies = [print_of(said, coded(face(seed), seed)) for seed in (17, 170, 300)]
    found = groups(*meme, *copies)
    assert found[len(meme) :] == [17, 170, 300]
    assert sum(name is not None for name in found) == 6


def test_a_chain_through_different_sources_is_one_group() -> None:
    said = take(1, 16.0)
    chain = [print_of(part(said, s, s + 8), face(1), start_s=s) for s in (0.0, 3.5, 7.0)]
    assert groups(chain[0], chain[2]) == [None, None]
    assert groups(*chain) == [0, 0, 0]


def test_a_source_cut_at_other_places_pairs_each_clip_once_and_does_not_chain() -> None:
    said = take(1, 40.0)
    first = [print_of(part(said, s, s + 8), face(1)) for s in (0, 8, 16, 24)]
    again = [print_of(coded(part(said, s, s + 8), 5), face(1)) for s in (3, 11, 19, 27)]
    assert groups(*first, *again) == [0, 1, 2, 3, 0, 1, 2, 3]


def test_parts_of_a_source_that_overlap_are_held_against_the_first_of_their_group() -> None:
    one = {"source_sha256": "ab" * 32}
    windows = [one | {"start_s": s, "end_s": s + 10.0} for s in (0.0, 4.0, 8.0, 12.0, 30.0)]
    assert groups(*windows) == [0, 0, 2, 2, None]
    elsewhere = {"source_sha256": "cd" * 32, "start_s": 0.0, "end_s": 10.0}
    assert groups(windows[0], elsewhere) == [None, None]


def test_clips_without_fingerprints_and_sources_without_clips_are_alone() -> None:
    said = take(1)
    bare = [{"phash": None}, {"audio_fingerprint": None}, {"audio_fingerprint": b""}, {"phash": ""}]
    rows = [print_of(said, face(1)) | difference for difference in bare]
    rows.append({"clip_id": None, "source_sha256": None, "start_s": None, "end_s": None})
    assert groups(*rows) == [None] * 5
    assert with_groups(measurements(), CONFIG).num_rows == 0


def test_too_few_anchors_say_nothing() -> None:
    two = take(1)[:2]
    assert groups(print_of(two, face(1)), print_of(two, face(1))) == [None, None]


def test_whether_a_clip_is_kept_does_not_count() -> None:
    said = take(1)
    rejected = print_of(said, face(1), stage_reasons=["screen_recording"])
    assert groups(rejected, print_of(said, face(1))) == [0, 0]


def components(n_rows: int, edges: Iterable[tuple[int, int]]) -> list[set[int]]:
    """Connected sets of more than one, found the plain way."""
    sets = [{row} for row in range(n_rows)]
    for a, b in edges:
        if sets[a] is not sets[b]:
            sets[a] |= sets[b]
            for row in sets[b]:
                sets[row] = sets[a]
    return sets


@st.composite
def tables(draw) -> pa.Table:
    """Clips cut anywhere from a few takes, of a few people, coded again or not."""
    takes = {seed: take(seed, 20.0) for seed in range(3)}
    rows = []
    for number in range(draw(st.integers(0, 12))):
        start_s = draw(st.sampled_from([0.0, 1.0, 3.0, 5.0]))
        seconds = draw(st.sampled_from([3.0, 6.0, 9.0]))
        said = part(takes[draw(st.integers(0, 2))], start_s, start_s + seconds)
        seen = face(draw(st.integers(0, 1)))
        source = {"source_sha256": f"{draw(st.integers(0, 4)):064x}"}
        rows.append(print_of(coded(said, number), coded(seen, number), seconds, start_s) | source)
    return printed(*rows)


@settings(max_examples=25, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_the_table_does_not_count_and_a_second_time_changes_nothing(rows, random) -> None:
    order = list(range(rows.num_rows))
    random.shuffle(order)
    once = with_groups(rows, CONFIG)
    shuffled = with_groups(rows.take(pa.array(order, pa.int64())), CONFIG)
    assert shuffled.sort_by("clip_id") == once
    assert with_groups(once, CONFIG) == once


@settings(max_examples=25, deadline=None)
@given(tables())
def test_a_group_is_a_connected_component_named_by_its_smallest_clip(rows) -> None:
    edges = [*near_duplicates(rows, CONFIG).tolist(), *overlapping_parts(rows, CONFIG.min_overlap).tolist()]
    ids = rows["clip_id"].to_pylist()
    found = with_groups(rows, CONFIG)["duplicate_group"].to_pylist()
    for row, members in enumerate(components(rows.num_rows, edges)):
        assert found[row] == (min(ids[member] for member in members) if len(members) > 1 else None)


def table_of(*differences: dict) -> pa.Table:
    """One group of copies, clip_ids 0, 1, 2, ..., each as good as the others but for what is given."""
    rows = printed(*differences)
    return rows.append_column("duplicate_group", pa.array(["the take"] * rows.num_rows))


def kept_of(rows: pa.Table, filters: FiltersConfig = FILTERS, **labels: str) -> list[int]:
    words = pa.Table.from_pylist(
        [{"clip_id": f"{int(clip[1:]):016x}", "label": label} for clip, label in labels.items()], LABELS
    )
    decided = decide(rows, filters, words)["status"].to_pylist()
    return [row for row, status in enumerate(decided) if status == "kept"]


@pytest.mark.parametrize(
    "better",
    [
        {"face_height_px": 260.0, "source_width": 400, "sharpness": 10.0},
        {"source_width": 800, "sharpness": 10.0, "face_height_px": 199.0},
        {"source_width": 640, "end_s": 8.5, "sharpness": 10.0},
        {"sharpness": 101.0, "sync_confidence": 1.0},
        {"sync_confidence": 6.0},
    ],
)
def test_the_best_copy_stays_and_the_others_say_which_it_is(better) -> None:
    worse = {"sync_confidence": 5.0, "source_width": 640}
    rows = decide(table_of(worse, worse, worse | better, worse), FILTERS)
    assert rows["reason"].to_pylist() == ["duplicate", "duplicate", None, "duplicate"]
    assert rows["duplicate_of"].to_pylist() == [f"{2:016x}", f"{2:016x}", None, f"{2:016x}"]


def test_a_copy_at_another_rate_repeats_frames_and_gives_way() -> None:
    assert kept_of(table_of({"repeated_frame_ratio": 0.17, "sharpness": 200.0}, {})) == [1]


def test_of_equals_the_smallest_clip_id_stays_whatever_the_order() -> None:
    rows = table_of({}, {}, {})
    assert kept_of(rows) == [0]
    assert kept_of(rows.take([2, 1, 0])) == [2]


def test_what_is_not_measured_is_worth_the_least() -> None:
    unmeasured = dict.fromkeys(
        ("face_height_px", "source_width", "repeated_frame_ratio", "sharpness", "sync_confidence")
    )
    assert kept_of(table_of(unmeasured, {})) == [1]


def test_only_clips_that_no_rule_is_against_compete() -> None:
    rows = decide(table_of({"face_height_px": 400.0, "snr_db": 1.0}, {}, {}), FILTERS)
    assert rows["reason"].to_pylist() == ["noisy", None, "duplicate"]
    assert rows["duplicate_of"].to_pylist() == [None, None, f"{1:016x}"]


def test_a_clip_without_media_does_not_take_the_place_of_one_that_has_them() -> None:
    assert kept_of(table_of({"face_height_px": 400.0, "has_media": False, "complete": False}, {})) == [1]


def test_a_duplicate_is_measured_to_the_end_already() -> None:
    assert needs_measuring(table_of({}, {}), FILTERS).tolist() == [False, False]


def test_a_reviewers_word_decides_which_copy_stays() -> None:
    rows = table_of({"face_height_px": 400.0}, {}, {})
    assert kept_of(rows) == [0]
    assert kept_of(rows, _0="drop") == [1]
    assert kept_of(rows, _2="keep") == [2]
    assert kept_of(rows, _1="keep", _2="keep") == [1, 2]


def test_duplicates_stay_where_the_filters_say_so_and_where_none_were_looked_for() -> None:
    rows = table_of({}, {})
    assert kept_of(rows, FiltersConfig(keep_duplicates=True)) == [0, 1]
    assert kept_of(rows.drop_columns("duplicate_group")) == [0, 1]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.floats(0, 30), st.integers(0, 3)), max_size=9)
)
def test_each_group_keeps_exactly_one_of_those_that_pass(clips) -> None:
    facts = [{"snr_db": snr_db, "sharpness": 50.0 + sharp} for _, snr_db, sharp in clips]
    rows = printed(*facts).append_column("duplicate_group", pa.array([c[0] for c in clips], pa.string()))
    decided = decide(rows, FILTERS).to_pylist()
    passing = [row for row, (_, snr_db, _) in zip(decided, clips, strict=True) if snr_db >= 8.0]
    for group in ("a", "b"):
        members = [row for row in passing if row["duplicate_group"] == group]
        kept = [row for row in members if row["status"] == "kept"]
        assert len(kept) == min(1, len(members))
        assert all(row["duplicate_of"] == kept[0]["clip_id"] for row in members if row["status"] != "kept")
    assert all(row["status"] == "kept" for row in passing if row["duplicate_group"] is None)


@pytest.fixture
def root(tmp_path: Path, media: Path) -> Path:
    """Two copies of one take in two sources, and something else."""
    said, other = take(1, 1.0 * 8), take(2)
    root = tmp_path / "dataset"
    add_source(root, media, "large.mp4", as_clip(said, face_height_px=300.0, snr_db=20.0))
    add_source(root, media, "small.mp4", as_clip(coded(said, 1), face_height_px=150.0, snr_db=25.0))
    add_source(root, media, "other.mp4", as_clip(other, face_height_px=150.0, snr_db=25.0))
    write_listing(root, "large.mp4", "small.mp4", "other.mp4")
    return root


def as_clip(sound: np.ndarray, **facts: float) -> dict:
    """A clip of one second, as the media are; its anchors lie eight times as close."""
    squeezed = sound.copy()
    squeezed["step"] //= 8
    return print_of(squeezed, face(1)) | facts


def names_of(root: Path, status: str) -> list[str]:
    rows = Dataset.open(root).manifest(["source_uris", "status"]).to_pylist()
    return sorted(Path(row["source_uris"][0]).name for row in rows if row["status"] == status)


def test_pack_keeps_the_better_copy_and_moves_the_next_one_up_without_encoding_it(root: Path) -> None:
    pack(config_of(root))
    assert names_of(root, "kept") == ["large.mp4", "other.mp4"]
    row = next(row for row in Dataset.open(root).manifest().to_pylist() if row["reason"] == "duplicate")
    assert row["source_uris"] == ["/videos/small.mp4"]
    assert row["duplicate_of"] in Dataset.open(root).places()
    assert len(list((root / "measured").rglob("*.mp4"))) == 1
    stricter = ["filters.min_snr_db=22"]
    change = preview(Dataset.open(root), with_filters(Dataset.open(root), stricter))
    assert (change.kept_after, change.newly_rejected) == (2, {"noisy": 1})
    assert (change.newly_kept, change.to_measure) == ({"duplicate": 1}, {})
    pack(config_of(root, *stricter))
    assert names_of(root, "kept") == ["other.mp4", "small.mp4"]
    assert list(verify(Dataset.open(root))) == []


def test_pack_forgets_a_group_when_the_better_source_leaves_the_listing(root: Path) -> None:
    pack(config_of(root))
    write_listing(root, "small.mp4", "other.mp4")
    pack(config_of(root))
    assert names_of(root, "kept") == ["other.mp4", "small.mp4"]
    assert set(Dataset.open(root).manifest(["duplicate_group"])["duplicate_group"].to_pylist()) == {None}


def test_explain_names_the_copy_that_was_kept_instead(root: Path) -> None:
    pack(config_of(root))
    assert "the same take as clip" in "\n".join(explain(Dataset.open(root), "small.mp4"))
