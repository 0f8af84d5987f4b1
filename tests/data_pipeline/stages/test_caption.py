"""Where a clip's text prompt comes from."""

import pytest

from data_pipeline.clip import Clip
from data_pipeline.config import CaptionConfig
from data_pipeline.stages.caption import SIDECAR_BYTES, Caption, sidecar_caption


@pytest.fixture
def video(tmp_path):
    return tmp_path / "a talk.part 1.mp4"


def test_a_clip_without_a_caption_gets_the_template():
    stage = Caption(CaptionConfig(template="Somebody talks."))
    stage.setup()
    assert stage(Clip("a.mp4")).caption == "Somebody talks."


def test_a_caption_of_its_own_stays():
    assert Caption(CaptionConfig())(Clip("a.mp4", caption="A judge reads.")).caption == "A judge reads."


def test_the_text_beside_a_video_is_its_caption(video):
    video.with_name("a talk.part 1.txt").write_text(
        "\ufeffUna mujer\n  habla de sus años.\n", encoding="utf-8"
    )
    assert sidecar_caption(video) == "Una mujer habla de sus años."


def test_a_video_without_text_has_no_caption(video):
    assert sidecar_caption(video) is None


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\x00bad", b"x" * (SIDECAR_BYTES + 1)])
def test_what_is_not_a_caption_is_not_used(video, content):
    video.with_suffix(".txt").write_bytes(content)
    assert sidecar_caption(video) is None


def test_the_longest_caption_is_used_whole(video):
    video.with_suffix(".txt").write_bytes(b"x" * SIDECAR_BYTES)
    assert sidecar_caption(video) == "x" * SIDECAR_BYTES


def test_a_folder_that_is_named_like_a_caption_is_none(video):
    video.with_suffix(".txt").mkdir()
    assert sidecar_caption(video) is None
