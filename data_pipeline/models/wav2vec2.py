"""wav2vec 2.0: what a face needs to know of a sound, one row of features a video frame.

    wav (S,) of -1..1 -> zero mean, unit variance over the whole file
      -> convolutions           (C, T), 50 a second
      -> linear interpolation   (F, C), one a video frame: before the transformer, not after it
      -> transformer            (F, L, hidden): the outputs of its L layers

Model: Baevski et al., "wav2vec 2.0", 2020 (arXiv:2006.11477), by transformers' Wav2Vec2Model, through its
public parts; the interpolation and the layers are those of Hallo3 (arXiv:2412.00733), whose weights were
trained on them. A long file can be done in chunks: the convolutions are then still exact, as their one
sum over all time, the group norm of the first layer, is taken over the file; only the transformer sees
no further than the chunk's context.
"""

import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from data_pipeline.clip import ANALYSIS_RATE

if TYPE_CHECKING:
    from transformers import Wav2Vec2Model

WEIGHTS = "wav2vec2-base-960h"
CLIP_FRAMES = 49
"""The video frames of one of Hallo3's clips: its features are padded to whole ones."""
MIN_CONTEXT_S = 4.0
MIN_SAMPLES = 400

_VARIANCE_EPSILON = 1e-7  # of transformers' Wav2Vec2FeatureExtractor


def load(path: Path | str) -> "Wav2Vec2Model":
    """The model in a local folder (config.json with model.safetensors or pytorch_model.bin) or file.

    The official names (prefix `wav2vec2.`, `weight_g`, `weight_v`) and transformers' own are understood;
    heads are left out. A file without a config.json beside it is taken for the base size. Raises
    FileNotFoundError, and ValueError, saying which weight does not fit."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    path = _weights_file(Path(path))
    config_path = path.with_name("config.json")
    config = Wav2Vec2Config.from_json_file(config_path) if config_path.is_file() else Wav2Vec2Config()
    model = Wav2Vec2Model(config)
    state = {name: value for name, value in _own_names(_read_state(path)) if name in model.state_dict()}
    for name, expected in model.state_dict().items():
        # The mask is for training; the published files of wav2vec2-base-960h have none.
        if name == "masked_spec_embed" and name not in state:
            continue
        if name not in state:
            raise ValueError(f"{path} is not the weights of a wav2vec 2.0 model: it has no {name}")
        if state[name].shape != expected.shape:
            sizes = f"{tuple(state[name].shape)}, not {tuple(expected.shape)}"
            raise ValueError(f"{path} does not fit its config.json: {name} is {sizes}")
    model.load_state_dict(state, strict=False)
    return model.eval()


def count_frames(n_samples: int, fps: float = 25) -> int:
    """Video frames of a sound at 16 kHz; the last may be begun only."""
    return math.ceil(Fraction(fps) * n_samples / ANALYSIS_RATE)


def speech_features(
    model: "Wav2Vec2Model",
    wav: np.ndarray | Tensor,
    fps: float = 25,
    *,
    clip_frames: int | None = None,
    chunk_s: float | None = None,
    context_s: float = MIN_CONTEXT_S,
) -> np.ndarray:
    """The outputs of all the encoder's layers, resampled to video frames.

    wav: (S,) float of -1..1, mono at 16 kHz, S >= 400.
    clip_frames: append silence until the frames are a multiple of it (Hallo3: 49). The frames of the
        sound itself stay `count_frames(S)`, and cut what is generated in the end.
    chunk_s: bound the memory: convolve and transform so many seconds at a time, the transformer with
        `context_s` (at least 4) of the sound on either side. None: the whole at once.

    Returns (F, L, C) float32, F = count_frames(S, fps) or the next multiple of `clip_frames`.
    Raises ValueError for a sound that is too short, has another shape, or holds more than numbers."""
    values = torch.as_tensor(normalised(_checked(wav)))
    n_frames = count_frames(len(values), fps)
    if clip_frames is not None and n_frames % clip_frames:
        n_missing = clip_frames - n_frames % clip_frames
        values = torch.cat([values, values.new_zeros(round(n_missing * ANALYSIS_RATE / fps))])
        n_frames += n_missing
    if chunk_s is not None and (chunk_s <= 0 or context_s < MIN_CONTEXT_S):
        raise ValueError(
            f"chunks of {chunk_s} s with {context_s} s around: more than 0, and at least 4, please"
        )
    with torch.inference_mode(), _evaluating(model):
        features = conv_features(model, values, chunk_s)
        resampled = at_video_frames(features, n_frames)
        projected, _ = model.feature_projection(resampled.transpose(1, 2))
        if chunk_s is None:
            return _layers(model, projected)
        return _layers_by_chunk(model, projected, max(1, round(chunk_s * fps)), round(context_s * fps))


def normalised(wav: np.ndarray) -> np.ndarray:
    """(S,) -> (S,) float32 of zero mean and unit variance, over all of it."""
    samples = wav.astype(np.float32)
    return (samples - samples.mean()) / np.sqrt(samples.var() + _VARIANCE_EPSILON)


def at_video_frames(features: Tensor, n_frames: int) -> Tensor:
    """(1, C, T) -> (1, C, F): the first and the last stay what they are."""
    return interpolate(features, size=n_frames, mode="linear", align_corners=True)


def conv_features(model: "Wav2Vec2Model", values: Tensor, chunk_s: float | None = None) -> Tensor:
    """(S,) normalised -> (1, C, T), 50 a second; the same by chunks as at once, to rounding."""
    parameter = model.feature_projection.projection.weight
    values = values.to(parameter.device, parameter.dtype)
    if chunk_s is None:
        return model.feature_extractor(values[None])
    layers: list[Any] = list(model.feature_extractor.conv_layers)
    first = _local(layers[0], values, chunk_s)
    parts = []
    for samples in _pieces(layers, values, chunk_s):
        x = first(samples)
        for layer in layers[1:]:
            x = layer(x)
        parts.append(x)
    return torch.cat(parts, dim=2)


def _local(layer: Any, values: Tensor, chunk_s: float) -> Callable[[Tensor], Tensor]:
    """The first layer as a function of a piece: a norm over all time (base models) is computed before."""
    norm = getattr(layer, "layer_norm", None)
    if not isinstance(norm, nn.GroupNorm):
        return layer
    n, total, squares = 0, torch.zeros(()), torch.zeros(())
    for samples in _pieces([layer], values, chunk_s):
        x = layer.conv(samples)[0].double()
        n, total, squares = n + x.shape[1], total + x.sum(dim=1), squares + x.square().sum(dim=1)
    mean = total / n
    scale = norm.weight / torch.sqrt(squares / n - mean.square() + norm.eps)
    shift = norm.bias - mean * scale
    scale, shift = (each[:, None].to(values.dtype) for each in (scale, shift))
    return lambda samples: layer.activation(layer.conv(samples) * scale + shift)


def _pieces(layers: list[Any], values: Tensor, chunk_s: float) -> Iterator[Tensor]:
    """(1, 1, s) stretches of the sound whose convolutions, set side by side, are those of the whole."""
    kernels = [layer.conv.kernel_size[0] for layer in layers]
    strides = [layer.conv.stride[0] for layer in layers]
    step = math.prod(strides)
    reach = 1 + sum(
        (k - 1) * math.prod(strides[:i]) for i, k in enumerate(kernels)
    )  # samples behind one output
    n_outputs = (len(values) - reach) // step + 1
    n_each = max(1, round(chunk_s * ANALYSIS_RATE / step))
    for start in range(0, n_outputs, n_each):
        stop = min(start + n_each, n_outputs)
        yield values[None, None, start * step : (stop - 1) * step + reach]


def _layers_by_chunk(model: "Wav2Vec2Model", projected: Tensor, n_each: int, n_context: int) -> np.ndarray:
    n_frames = projected.shape[1]
    parts = []
    for start in range(0, n_frames, n_each):
        begin, stop = max(0, start - n_context), min(start + n_each, n_frames)
        around = _layers(model, projected[:, begin : stop + n_context])
        parts.append(around[start - begin : stop - begin])
    return np.concatenate(parts)


def _layers(model: "Wav2Vec2Model", projected: Tensor) -> np.ndarray:
    """(1, F, hidden) -> (F, L, hidden) float32: the outputs of the encoder's layers.

    Collected by hooks, as transformers' releases differ in how they hand out hidden states."""
    outputs: list[Tensor] = []

    def collect(_module: nn.Module, _arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    hooks = [layer.register_forward_hook(collect) for layer in model.encoder.layers]
    try:
        last = model.encoder(projected).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    outputs[-1] = last  # large models normalise it once more
    return torch.stack(outputs, dim=2)[0].float().cpu().numpy()


def _checked(wav: np.ndarray | Tensor) -> np.ndarray:
    samples = wav.detach().cpu().numpy() if isinstance(wav, Tensor) else np.asarray(wav)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"the sound is {samples.dtype} {samples.shape}, not (S,) float of -1..1")
    if len(samples) < MIN_SAMPLES:
        raise ValueError(
            f"a sound of {len(samples)} samples; wav2vec 2.0 hears {MIN_SAMPLES} (25 ms) at a time"
        )
    if not np.isfinite(samples).all():
        raise ValueError("the sound has samples that are not finite numbers")
    return samples


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout, whatever the model is in the middle of."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"no wav2vec 2.0 model at {path}: neither a folder nor a file")
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path} holds neither model.safetensors nor pytorch_model.bin")


def _read_state(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise ValueError(f"{path} cannot be read as weights: {reason}") from error


def _own_names(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights by the names of transformers' module."""
    for name, value in state.items():
        name = name.removeprefix("wav2vec2.")
        name = name.replace("conv.weight_g", "conv.parametrizations.weight.original0")
        yield name.replace("conv.weight_v", "conv.parametrizations.weight.original1"), value
