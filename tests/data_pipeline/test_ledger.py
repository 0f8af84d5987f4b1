from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import pytest

from data_pipeline.clip import Clip, Reason, Word
from data_pipeline.ledger import Ledger

SHA = "cd" * 32
IDS = ["0" * 16, "1" * 16, "2" * 16]


def clip(number: int) -> Clip:
    return Clip(
        "a.mp4",
        source_sha256=SHA,
        clip_id=IDS[number],
        start_s=3.0 * number,
        end_s=3.0 * number + 3,
        snr_db=20.000000001,
        words=[Word("hi", 0.1, 0.2, 0.9)],
        stage_seconds={"faces": 1.5},
    )


def source(**outcome) -> Clip:
    return Clip("a.mp4", source_sha256=SHA, start_s=0.0, end_s=9.0, stage_seconds={"decode": 0.5}, **outcome)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_source_is_done_when_all_its_clips_are_there_in_any_order(tmp_path, order) -> None:
    ledger = Ledger(tmp_path, "m1")
    steps = [lambda n=n: ledger.add_clip(clip(n), "", complete=True) for n in range(3)]
    steps.append(lambda: ledger.add_source(source(), IDS, ""))
    for position, step in enumerate(order):
        assert ledger.record(SHA) is None, f"done after {position} of 4 steps"
        steps[step]()
    record = ledger.record(SHA)
    assert record is not None
    assert record.clip_ids == IDS
    assert record.stage_seconds == {"decode": 0.5, "faces": 4.5}
    rows = ledger.measurements(record)
    assert rows["clip_id"].to_pylist() == IDS
    assert rows["snr_db"].to_pylist() == [20.0] * 3
    assert rows["words"].to_pylist()[0] == [{"text": "hi", "start_s": 0.1, "end_s": 0.2, "probability": 0.9}]
    assert [path.name for path in ledger.folder(SHA).iterdir() if "parts" in path.name] == []


def test_a_source_without_clips_is_done_at_once(tmp_path) -> None:
    ledger = Ledger(tmp_path, "m1")
    ledger.add_source(source(reasons=[Reason.CORRUPT], error="broken"), [], "")
    record = ledger.record(SHA)
    assert record is not None
    assert (record.reason, record.error) == ("corrupt", "broken")
    row = ledger.measurements(record).to_pylist()[0]
    assert (row["clip_id"], row["stage_reasons"], row["has_media"]) == (None, ["corrupt"], False)


def test_another_configuration_has_no_record(tmp_path) -> None:
    Ledger(tmp_path, "m1").add_source(source(), [], "")
    assert Ledger(tmp_path, "m2").record(SHA) is None


def test_windows_of_a_source_have_records_of_their_own(tmp_path) -> None:
    ledger = Ledger(tmp_path, "m1")
    ledger.add_source(source(), [], "aaaa")
    assert ledger.record(SHA) is None
    assert ledger.record(SHA, "aaaa") is not None


def test_the_same_content_measured_twice_at_a_time_leaves_one_record_and_no_rest(tmp_path) -> None:
    def measure(_: int) -> None:
        ledger = Ledger(tmp_path, "m1")
        for number in range(3):
            ledger.add_clip(clip(number), "", complete=True)
        ledger.add_source(source(), IDS, "")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(measure, range(16)))
    ledger = Ledger(tmp_path, "m1")
    record = ledger.record(SHA)
    assert record is not None
    assert ledger.measurements(record)["clip_id"].to_pylist() == IDS
    assert sorted(path.name for path in ledger.folder(SHA).iterdir()) == [
        "measurements.parquet",
        "record.json",
    ]


def test_a_half_measured_source_has_no_record_and_is_measured_again(tmp_path) -> None:
    ledger = Ledger(tmp_path, "m1")
    ledger.add_clip(clip(0), "", complete=True)
    ledger.add_source(source(), IDS, "")
    assert ledger.record(SHA) is None
    for number in range(3):
        ledger.add_clip(clip(number), "", complete=True)
    assert ledger.record(SHA) is not None


def test_a_clip_without_a_name_cannot_be_recorded(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"a\.mp4"):
        Ledger(tmp_path, "m1").add_clip(Clip("a.mp4"), "", complete=True)
