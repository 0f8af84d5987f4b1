"""Videos of a small model with every gate open: their length, their seams, and what the networks see."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from tests.training.small_networks import SIZES, filled_model, sized
from training.clip_pixels import pixels_of
from training.conditions import face_on_black, image_condition
from training.config import ConditionsConfig
from training.diffusion import SeededNoise, seed_of
from training.generate import Begun, Generator, Portrait, Sampling
from training.model.patch_pca import PatchPcaAutoencoder
from training.windows_of_speech import segment_of, segments

SIZE_PX = 64
WINDOW = SIZES.num_frames  # 9 frames, 7 of them new
QUICK = Sampling(steps=2, guidance=None)
BOX = (0.25, 0.2, 0.75, 0.85)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@cache
def autoencoder() -> PatchPcaAutoencoder:
    return PatchPcaAutoencoder.fit([noise(1, 3, 9, SIZE_PX, SIZE_PX).clamp(-1, 1)], channels=16)


@cache
def model(phase: str):
    return filled_model(SIZES if phase == "audio" else sized(audio=None)).eval()


def generator(sampling: Sampling = QUICK, phase: str = "audio", **given) -> Generator:
    return Generator(model(phase), autoencoder(), sampling, **given)


def portrait(size: tuple[int, int] = (SIZE_PX, SIZE_PX)) -> Portrait:
    rows, columns = np.mgrid[: size[0], : size[1]] * 255 // max(size)
    image = np.stack([rows, columns, 255 - rows], axis=-1).astype(np.uint8)
    return Portrait(image, BOX, noise(16, seed=5).numpy())


def speech(frames: int) -> torch.Tensor:
    return noise(frames, 2, 8, seed=3)


def video(made_by: Generator, *given, **more) -> np.ndarray:
    return np.concatenate([*made_by.frames(portrait(), *given, **more)])


@pytest.mark.parametrize(("n_frames", "sizes"), [(1, [1]), (7, [7]), (16, [7, 7, 2])])
def test_a_video_has_as_many_frames_as_asked_and_comes_window_after_window(n_frames, sizes) -> None:
    windows = [*generator().frames(portrait(), speech(20), n_frames)]
    assert [len(window) for window in windows] == sizes
    assert all(window.shape[1:] == (SIZE_PX, SIZE_PX, 3) and window.dtype == np.uint8 for window in windows)


def test_a_video_is_as_long_as_its_speech_unless_told() -> None:
    assert len(video(generator(), speech(9))) == 9


@pytest.mark.parametrize("guidance", [None, 3.5])
def test_the_same_seed_gives_the_same_video_and_another_one_another(guidance) -> None:
    made_by = generator(Sampling(2, guidance))
    first, again, other = (video(made_by, speech(8), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_guidance_changes_what_is_made() -> None:
    free, guided = (video(generator(Sampling(2, scale)), speech(7)) for scale in (None, 3.5))
    assert not np.array_equal(free, guided)


def test_two_passes_of_guidance_make_the_video_of_one_batch() -> None:
    batches: list[int] = []
    made_by = generator(Sampling(2, 3.5, two_passes=True))
    hook = model("audio").denoiser.head.register_forward_hook(lambda *given: batches.append(len(given[2])))
    in_two = video(made_by, speech(14), text=noise(4, 8))
    hook.remove()
    in_one = video(generator(Sampling(2, 3.5)), speech(14), text=noise(4, 8))
    assert set(batches) == {1}
    assert np.abs(in_two.astype(int) - in_one).max() <= 1


def test_guidance_of_one_is_the_conditional_prediction() -> None:
    free, guided = (video(generator(Sampling(2, scale)), speech(7)) for scale in (None, 1.0))
    assert np.abs(free.astype(int) - guided).max() <= 1


def test_a_longer_video_begins_as_the_shorter_one() -> None:
    assert np.array_equal(video(generator(), speech(20), 14)[:7], video(generator(), speech(20), 7))


@pytest.mark.parametrize("guidance", [None, 3.5])
def test_a_video_goes_on_where_it_was_broken_off(guidance) -> None:
    made_by = generator(Sampling(2, guidance))
    whole = video(made_by, speech(25), seed=2)
    for windows in (1, 3):
        there = whole[: 7 * windows]
        rest = video(made_by, speech(25), seed=2, begun=Begun(windows, there[-2:]))
        assert np.array_equal(np.concatenate([there, rest]), whole)


@pytest.mark.parametrize(
    ("sampling", "passes"), [(QUICK, 1), (Sampling(2, 3.5), 1), (Sampling(2, 3.5, two_passes=True), 2)]
)
def test_what_does_not_change_is_computed_once_a_video_or_a_window(sampling, passes) -> None:
    windows, net = 3, model("audio")
    block, passed = net.denoiser.blocks[-1], windows * sampling.steps * passes
    expected = {
        "reference network": (net.reference, 1),
        "its text": (net.reference.text_embed, 1),
        "text": (net.denoiser.text_embed, 1),
        "face tokens": (net.denoiser.face_projector, 1),
        "their keys and values": (block.face_attention.key_value, 1),
        "audio tokens": (net.denoiser.audio_projector, windows),
        "their keys, values": (block.audio_attention.key_value, windows),
        "reference keys and values, and a step's": (block.attention.qkv, 1 + passed),
        "a step": (net.denoiser.head, passed),
    }
    ran: Counter[str] = Counter()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.update([name]))
        for name, (module, _) in expected.items()
    ]
    video(generator(sampling), speech(7 * windows))
    for hook in hooks:
        hook.remove()
    assert ran == {name: times for name, (_, times) in expected.items()}


class Seen(PatchPcaAutoencoder):
    """Keeps what it is given to encode and to decode."""

    def __init__(self) -> None:
        codec = autoencoder()
        super().__init__(codec.mean, codec.components, codec.std)
        self.encoded: list[torch.Tensor] = []
        self.decoded: list[torch.Tensor] = []

    def encode(self, pixels, generator=None):
        self.encoded.append(pixels)
        return super().encode(pixels, generator)

    def decode(self, latents):
        self.decoded.append(latents)
        return super().decode(latents)


def test_the_autoencoder_sees_the_face_once_and_each_window_once() -> None:
    seen = Seen()
    video(Generator(model("audio"), seen, QUICK), speech(21))
    assert [pixels.shape[2] for pixels in seen.encoded] == [1, 3, 3, 3]
    assert [latents.shape[1] for latents in seen.decoded] == [3, 3, 3]


def test_a_window_begins_with_the_last_two_frames_of_the_one_before() -> None:
    seen = Seen()
    made = np.concatenate([*Generator(model("audio"), seen, QUICK).frames(portrait(), speech(14))])
    shown_as = pixels_of(portrait().image[None])[:, 0]
    motion = [shown_as[:, None].expand(-1, 2, -1, -1), pixels_of(made[5:7])]
    conditions = [pixels[0] for pixels in seen.encoded if pixels.shape[2] == 3]
    for condition, wanted in zip(conditions, motion, strict=True):
        assert torch.equal(condition[:, 0], shown_as)
        hidden = (condition[:, 1:] == 0).all(dim=0).all(dim=0)
        assert 0.05 < hidden.float().mean() < 0.15
        assert (condition[:, 1:] - wanted)[..., ~hidden].abs().max() < 1 / 127


def test_pixels_are_hidden_as_the_model_was_trained() -> None:
    nothing_hidden = generator(conditions=ConditionsConfig(masked_pixels=0))
    assert not np.array_equal(video(generator(), speech(7)), video(nothing_hidden, speech(7)))


def test_the_networks_are_given_what_training_gives_them() -> None:
    """One step from pure noise: the frames are the decoded estimate -v, put together here from the parts that
    training uses; the second window, which hears other speech, too."""
    given, heard, text = portrait(), speech(14), noise(4, 8, seed=9)
    made_by, seed = generator(Sampling(1, None)), 4
    made = np.concatenate([*made_by.frames(given, heard, text=text, seed=seed)])
    net, codec = model("audio"), autoencoder()
    picture = pixels_of(given.image[None])[:, 0]
    motion = picture[:, None].expand(-1, 2, -1, -1)
    for number, indices in enumerate(segments(14, WINDOW)):
        key = seed_of("window", seed, number)
        shown = image_condition(picture, motion, ConditionsConfig(), key, training=False)
        condition = torch.cat([codec.encode(shown[None]), torch.zeros(1, 2, 16, 8, 8)], dim=1)
        face = codec.encode(face_on_black(picture, BOX)[None, :, None])
        with torch.no_grad():
            velocity = net.denoiser(
                SeededNoise([seed_of("start", key)])((1, 3, 16, 8, 8)),
                torch.tensor([999.0]),
                text[None],
                image_condition=condition,
                reference=net.reference(face, torch.zeros(1, 4, 8)),
                face=torch.from_numpy(given.identity)[None],
                audio=segment_of(heard, indices, 3)[None],
            )
        frames = codec.decode(-velocity)[0].clamp(-1, 1)
        motion = frames[:, -2:]
        ours = pixels_of(made[7 * number : 7 * number + 7])
        assert (ours - frames[:, 2:]).abs().max() < 1.5 / 127.5


def test_beyond_its_end_the_last_frame_goes_on_hearing_what_it_heard() -> None:
    """As a window is filled up whose speech ends in its midst."""
    longer = video(generator(), speech(5), 16)
    assert len(longer) == 16
    assert np.array_equal(longer[:5], video(generator(), speech(5)))


def test_a_model_without_audio_needs_no_speech_and_nothing_to_guide_it() -> None:
    free, guided = (video(generator(Sampling(2, scale), "identity"), None, 8) for scale in (None, 3.5))
    assert free.shape == (8, SIZE_PX, SIZE_PX, 3)
    assert np.array_equal(free, guided)


def test_a_prompt_changes_what_is_made() -> None:
    prompted = video(generator(), speech(7), text=noise(4, 8))
    assert not np.array_equal(prompted, video(generator(), speech(7)))


def test_a_portrait_of_any_size_is_cut_to_the_models_proportions() -> None:
    wide = portrait((80, 120))
    middle = replace(wide, image=wide.image[:, 20:100], box=((0.25 * 120 - 20) / 80, 0.2, 0.875, 0.85))
    first, second = (np.concatenate([*generator().frames(one, speech(7))]) for one in (wide, middle))
    assert np.array_equal(first, second)


def test_a_bfloat16_model_makes_the_video_of_a_float32_one_roughly() -> None:
    half = filled_model().eval().to(torch.bfloat16)
    sampling = Sampling(2, 2.0)
    made = video(Generator(half, autoencoder(), sampling), speech(7)).astype(float)
    exact = video(generator(sampling), speech(7))
    assert np.abs(made - exact).mean() < 0.05 * exact.std()


def bad_portrait(**changed) -> tuple:
    return (replace(portrait(), **changed), speech(4))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda: bad_portrait(image=np.zeros((64, 64, 4), np.uint8)), r"image: expected \(H, W, 3\) uint8"),
        (lambda: bad_portrait(image=np.zeros((64, 64, 3))), "image: .* float64"),
        (lambda: bad_portrait(image=np.zeros((0, 64, 3), np.uint8)), "image: expected"),
        (lambda: bad_portrait(box=(1.2, 0, 1.5, 1)), "box: .* leaves nothing"),
        (lambda: bad_portrait(box=(float("nan"), 0, 1, 1)), "box: expected"),
        (lambda: bad_portrait(identity=np.zeros(512, np.float32)), r"identity: expected \(16,\)"),
        (lambda: bad_portrait(identity=np.full(16, np.nan, np.float32)), "identity: expected finite"),
        (lambda: (portrait(), speech(4)[:, :1]), r"speech: expected \(4, 2, 8\) .* got \(4, 1, 8\)"),
        (lambda: (portrait(), speech(4)[:0]), "speech: .* at least one frame"),
        (lambda: (portrait(), None, 5), "speech: .* got None"),
        (lambda: (portrait(), speech(4) / 0), "speech: expected finite"),
        (lambda: (portrait(), speech(4), 0), "n_frames: expected at least 1, got 0"),
    ],
)
def test_bad_input_is_refused_in_words_before_anything_is_computed(given, says) -> None:
    with pytest.raises(ValueError, match=says):
        generator().frames(*given())


def test_a_beginning_of_another_size_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"begun: expected at least one window and \(2, 64, 64, 3\)"):
        generator().frames(portrait(), speech(4), begun=Begun(1, np.zeros((2, 32, 64, 3), np.uint8)))


def test_text_of_another_size_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"text: expected \(4, 8\)"):
        generator().frames(portrait(), speech(4), text=noise(5, 8))


@pytest.mark.parametrize(
    ("given", "says"),
    [((speech(4),), "speech: .*phase identity"), ((None,), "n_frames: .* needs its length")],
)
def test_a_model_without_audio_says_what_it_wants(given, says) -> None:
    with pytest.raises(ValueError, match=says):
        generator(phase="identity").frames(portrait(), *given)


def test_a_model_that_predicts_no_numbers_is_told() -> None:
    broken = filled_model().eval()
    torch.nn.init.constant_(broken.denoiser.head.linear.weight, float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite ones in step 0"):
        next(Generator(broken, autoencoder(), QUICK).frames(portrait(), speech(4)))
