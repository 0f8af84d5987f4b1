"""Decode alone, without Ray: every input has an outcome, none harms the next."""

import os
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_pipeline.actors import Decode, Item, Synchronise, packed, unpacked
from data_pipeline.clip import Clip, FaceTrack, Reason
from data_pipeline.config import CurationConfig, load_config
from data_pipeline.ledger import Ledger
from data_pipeline.shards import file_sha256
from data_pipeline.sources import Source
from data_pipeline.tombstones import Tombstones, clip_tombstone, content_tombstone, uri_tombstone
from tests.data_pipeline import crashing
from tests.data_pipeline.makers import clicks, write_sound, write_video

SOUND = clicks([0.5, 1.5, 2.5], 3.0)


def drifting(k: int, width: int, height: int) -> np.ndarray:
    """One shot: a soft pattern that drifts sideways."""
    row = 128 + 60 * np.sin((np.arange(width) + 3 * k) * 12 * np.pi / width)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8)


def good_video(path: Path, n_frames: int = 75) -> Path:
    return write_video(path, n_frames=n_frames, size=(320, 256), pixels=drifting, sound=SOUND)


@pytest.fixture
def config(tmp_path) -> CurationConfig:
    given = [f"sources={tmp_path}", f"output={tmp_path / 'dataset'}", "limits.decode_timeout_s=120"]
    return load_config("talking_head", [*given, "filters.min_motion=null", "filters.min_sharpness=null"])


def items_of(decode: Decode, *sources: Source) -> list[Item]:
    known = {"known_sha256": None, "known_size": None, "known_modified_ns": None}
    batch = pa.Table.from_pylist([asdict(source) | known for source in sources])
    return [item for block in decode(batch) for item in unpacked(block)]


def outcome(config: CurationConfig, path: Path, **facts) -> Item:
    return items_of(Decode(config), Source(str(path), **facts))[-1]


def test_a_good_source_gives_its_clips_and_then_its_own_row(config, tmp_path) -> None:
    clip, end = items_of(Decode(config), Source(str(good_video(tmp_path / "a.mp4"))))
    assert clip.clip.clip_id == end.end.clip_ids[0]
    assert clip.clip.frames is not None
    assert len(clip.clip.audio) == round(clip.clip.end_s * 16000) - round(clip.clip.start_s * 16000)
    assert (end.clip.source_width, end.clip.source_height) == (320, 256)
    assert end.end.size == (tmp_path / "a.mp4").stat().st_size


BAD = {
    "zero bytes": (lambda path: path.write_bytes(b""), Reason.CORRUPT),
    "text": (lambda path: path.write_text("a text file\n" * 100), Reason.CORRUPT),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(20_000)), Reason.CORRUPT),
    "sound only": (lambda path: write_sound(path.with_suffix(".wav"), SOUND).rename(path), Reason.NO_VIDEO),
    "no sound": (lambda path: write_video(path, n_frames=75, size=(320, 256)), Reason.NO_AUDIO),
    "one frame": (
        lambda path: write_video(path, n_frames=1, size=(320, 256), sound=SOUND[:2000]),
        Reason.TOO_SHORT,
    ),
    "missing": (lambda path: None, Reason.MISSING),
    "folder": (lambda path: path.mkdir(), Reason.UNSUPPORTED),
    "pipe": (lambda path: os.mkfifo(path), Reason.UNSUPPORTED),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_input_has_its_reason(config, tmp_path, kind) -> None:
    make, reason = BAD[kind]
    path = tmp_path / "bad one.mp4"
    make(path)
    end = outcome(config, path)
    assert end.clip.reasons == [reason]
    assert end.end.clip_ids == []


def test_a_truncated_file_is_corrupt_and_gives_no_clip(config, tmp_path) -> None:
    path = good_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert outcome(config, path).clip.reasons == [Reason.CORRUPT]


def test_an_unreadable_file_is_a_storage_error(config, tmp_path) -> None:
    path = good_video(tmp_path / "a.mp4")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything: ask as somebody else
        pid = os.fork()
        if pid == 0:
            for folder in (*tmp_path.parents, tmp_path):
                if os.stat(folder).st_uid == 0 and str(folder).count("/") > 1:
                    folder.chmod(0o755)
            os.setuid(65534)
            end = items_of(Decode(config), Source(str(path)))[-1]
            os._exit(0 if end.clip.reasons == [Reason.STORAGE] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    else:
        assert outcome(config, path).clip.reasons == [Reason.STORAGE]


def test_frames_beyond_the_limit_are_unsupported(config, tmp_path) -> None:
    limits = config.limits.model_copy(update={"max_pixels": 320 * 240})
    path = good_video(tmp_path / "a.mp4")
    end = outcome(config.model_copy(update={"limits": limits}), path)
    assert end.clip.reasons == [Reason.UNSUPPORTED]


def test_8k_frames_are_decoded_within_the_limits(config, tmp_path) -> None:
    path = write_video(
        tmp_path / "8k.mp4", n_frames=3, fps=1, size=(7680, 4320), pixels=drifting, sound=SOUND
    )
    filters = config.filters.model_copy(update={"min_source_fps": None})
    clip, end = items_of(Decode(config.model_copy(update={"filters": filters})), Source(str(path)))
    assert end.clip.reasons == []
    assert max(clip.clip.frames.height, clip.clip.frames.width) <= config.segment.analysis_px


@pytest.mark.slow
def test_half_an_hour_is_cut_in_bounded_memory(config, tmp_path) -> None:
    path = write_video(
        tmp_path / "long.mp4",
        n_frames=30 * 60 * 25,
        size=(320, 256),
        pixels=drifting,
        sound=np.zeros((30 * 60 * 8000, 1), np.int16),
        rate=8000,
    )
    # All of its frames at once would be 11 GB.
    limits = config.limits.model_copy(update={"address_space_gb": 2.0})
    *clips, end = items_of(Decode(config.model_copy(update={"limits": limits})), Source(str(path)))
    assert end.clip.reasons == []
    assert len(clips) == len(end.end.clip_ids)
    assert clips[-1].clip.end_s == pytest.approx(1800, abs=0.1)
    assert all(a.clip.end_s == b.clip.start_s for a, b in pairwise(clips))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("dies_by_signal", Reason.DECODER_CRASH),
        ("hangs", Reason.DECODE_TIMEOUT),
        ("fails", Reason.STAGE_FAILED),
    ],
)
def test_a_decoder_that_ends_badly_is_recorded_and_the_next_source_is_decoded(
    config, tmp_path, monkeypatch, function, reason
) -> None:
    limits = config.limits.model_copy(update={"decode_timeout_s": 20.0})
    decode = Decode(config.model_copy(update={"limits": limits}))
    source = Source(str(good_video(tmp_path / "a.mp4")))
    monkeypatch.setattr("data_pipeline.stages.segment.probe_source", getattr(crashing, function))
    (end,) = items_of(decode, source)
    assert end.clip.reasons == [reason]
    assert end.clip.error
    monkeypatch.undo()
    assert items_of(decode, source)[-1].clip.reasons == []


def test_a_decoder_that_hangs_in_the_middle_is_a_timeout_of_the_whole_source(
    config, tmp_path, monkeypatch
) -> None:
    limits = config.limits.model_copy(update={"stall_timeout_s": 10.0})
    monkeypatch.setattr("data_pipeline.stages.segment.segment_alive", crashing.hangs_after_a_clip)
    source = Source(str(good_video(tmp_path / "a.mp4")))
    _, end = items_of(Decode(config.model_copy(update={"limits": limits})), source)
    assert end.clip.reasons == [Reason.DECODE_TIMEOUT]
    assert end.end.clip_ids == []


def test_a_source_that_breaks_off_after_good_clips_is_an_error_as_a_whole(
    config, tmp_path, monkeypatch
) -> None:
    source = Source(str(good_video(tmp_path / "a.mp4")))
    monkeypatch.setattr("data_pipeline.stages.segment.segment_alive", crashing.breaks_off)
    clip, end = items_of(Decode(config), source)
    assert end.clip.reasons == [Reason.CORRUPT]
    assert "damaged at its end" in end.clip.error
    assert end.end.clip_ids == []
    ledger = Ledger(Path(config.output), config.measure_sha256())
    ledger.add_clip(clip.clip, "", complete=True)
    ledger.add_source(end.clip, end.end.clip_ids, "")
    record = ledger.record(end.clip.source_sha256)
    assert record.reason == "corrupt"
    assert ledger.measurements(record)["clip_id"].to_pylist() == [None]
    assert not list(ledger.folder(end.clip.source_sha256).glob("parts-*"))


def test_a_source_that_a_rule_stops_is_not_decoded(config, tmp_path) -> None:
    filters = config.filters.model_copy(update={"min_short_side_px": 300})
    end = outcome(config.model_copy(update={"filters": filters}), good_video(tmp_path / "a.mp4"))
    assert (end.end.clip_ids, end.clip.reasons, end.clip.source_height) == ([], [], 256)


def test_a_digest_that_is_not_the_lists_is_corrupt(config, tmp_path) -> None:
    end = outcome(config, good_video(tmp_path / "a.mp4"), sha256="0" * 64)
    assert end.clip.reasons == [Reason.CORRUPT]
    assert "the list says sha256 000" in end.clip.error


def test_a_part_of_a_source_is_measured_as_a_part(config, tmp_path) -> None:
    path = good_video(tmp_path / "a.mp4", n_frames=200)
    source = Source(str(path), start_s=2.0, end_s=5.0, crop=(0.0, 0.0, 256.0, 256.0))
    clip, end = items_of(Decode(config), source)
    assert (clip.clip.start_s, clip.clip.end_s) == (2.0, 5.0)
    assert end.source.window != ""


def test_a_text_file_beside_the_video_is_its_caption(config, tmp_path) -> None:
    path = good_video(tmp_path / "a.mp4")
    path.with_suffix(".txt").write_text("Ada speaks in the garden.\n")
    end = outcome(config, path)
    assert end.end.source.caption == "Ada speaks in the garden."


def test_a_source_with_a_record_is_not_decoded_again(config, tmp_path) -> None:
    source = Source(str(good_video(tmp_path / "a.mp4")))
    decode = Decode(config)
    (end,) = [item for item in items_of(decode, source) if item.end]
    ledger = Ledger(Path(config.output), config.measure_sha256())
    stopped_by_a_rule = replace(end.clip, reasons=[])
    ledger.add_source(stopped_by_a_rule, [], "")
    stopped = config.filters.model_copy(update={"min_short_side_px": 4000})
    again = outcome(config.model_copy(update={"filters": stopped}), Path(source.uri))
    assert again.end.skipped
    looser = outcome(config, Path(source.uri))  # no rule is against it, and it has no media: measure further
    assert not looser.end.skipped
    assert len(looser.end.clip_ids) == 1


# --- sync, in an actor of its own


def tracked(path: Path, **fields) -> Item:
    """A clip in which a face was tracked, on its way to the sync stage."""
    track = FaceTrack(np.zeros(1), np.array([[0.2, 0.2, 0.6, 0.8]]), np.empty((1, 0, 2)))
    audio = np.zeros(3 * 16_000, np.int16)
    facts = {"start_s": 0.0, "end_s": 3.0, "source_width": 320, "source_height": 256}
    clip = Clip(str(path), "ab" * 32, "0123456789abcdef", **facts, audio=audio, track=track)
    return Item(Source(str(path)), replace(clip, **fields))


def synchronised(config: CurationConfig, *items: Item) -> list[Clip]:
    return [item.clip for item in unpacked(Synchronise(config)(packed(list(items))))]


def test_a_source_that_cannot_be_decoded_again_is_its_clips_outcome_and_no_others(config, tmp_path) -> None:
    good = good_video(tmp_path / "good.mp4")
    broken = good_video(tmp_path / "broken.mp4")
    broken.write_bytes(broken.read_bytes()[:2000])
    lost, damaged, fine = synchronised(config, tracked(tmp_path / "gone.mp4"), tracked(broken), tracked(good))
    assert lost.reasons == [Reason.MISSING]
    assert damaged.reasons == [Reason.CORRUPT]
    assert fine.reasons == []
    assert fine.sync_backend == "lip_correlation"
    assert fine.sync_offset_frames is None  # a pattern has no lips
    assert fine.stage_seconds["sync"] > 0


def test_a_clip_that_a_rule_has_stopped_is_not_decoded_again(config, tmp_path) -> None:
    (stopped,) = synchronised(config, tracked(tmp_path / "gone.mp4", snr_db=1.0))
    assert (stopped.reasons, stopped.sync_backend) == ([], None)


def test_a_decoder_that_dies_under_the_crops_is_the_clips_outcome(config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("data_pipeline.stages.face_crops.face_crops", crashing.dies_by_signal)
    first, second = (tracked(good_video(tmp_path / name)) for name in ("a.mp4", "b.mp4"))
    crashed = synchronised(config, first, second)
    assert [clip.reasons for clip in crashed] == [[Reason.DECODER_CRASH]] * 2


def with_tombstones(config: CurationConfig, *stones: str) -> Decode:
    decode = Decode(config)
    decode.tombstones = Tombstones(stones)
    return decode


def test_a_purged_content_is_not_decoded_under_whatever_name_and_is_no_failure(config, tmp_path) -> None:
    path = good_video(tmp_path / "a.mp4")
    stone = content_tombstone("5a17", file_sha256(path))
    (end,) = items_of(with_tombstones(config, stone), Source(str(path.rename(tmp_path / "b.mp4"))))
    assert end.end.purged
    assert (end.end.clip_ids, end.clip.reasons, end.clip.error) == ([], [], None)


def test_a_purged_name_is_not_even_read(config, tmp_path) -> None:
    gone = tmp_path / "nowhere.mp4"
    (end,) = items_of(with_tombstones(config, uri_tombstone("5a17", str(gone))), Source(str(gone)))
    assert end.end.purged
    assert end.clip.source_sha256 is None


def test_a_purged_stretch_is_left_out_of_a_source_however_it_is_cut(config, tmp_path) -> None:
    path = good_video(tmp_path / "a.mp4")
    sha256 = file_sha256(path)
    (only,) = items_of(with_tombstones(config, clip_tombstone("5a17", sha256, 2.5, 9.0)), Source(str(path)))
    assert only.end.purged  # its one clip overlaps, so nothing is left
    clip, end = items_of(with_tombstones(config, clip_tombstone("5a17", sha256, 3.0, 9.0)), Source(str(path)))
    assert clip.clip.clip_id in end.end.clip_ids
    assert not end.end.purged
