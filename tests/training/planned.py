"""Small models as a phase trains them, inputs for them, and what a step of theirs holds."""

from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.training.small_networks import filled_model
from training.flops import Trained
from training.model.config import ModelConfig
from training.model.portrait import PortraitModel
from training.phases import trained_names


def sizes_of(config: ModelConfig, what: str) -> ModelConfig:
    return config.model_copy(update={"audio": None}) if what == "identity" else config


def model_of(
    config: ModelConfig, what: str, dtype: torch.dtype = torch.float32
) -> tuple[PortraitModel, Trained]:
    """`what`: a phase, or all."""
    model = filled_model(config).to(dtype)
    names = [name for name, _ in model.named_parameters()]
    trained = set(names if what == "all" else trained_names(names, what))
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in trained)
    return model, Trained(trained)


def given_to(config: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """One sample."""
    frame = (config.out_channels, config.latent_height, config.latent_width)
    shapes = {
        "noisy": (1, config.latent_frames, *frame),
        "image_condition": (1, config.latent_frames, *frame),
        "portrait": (1, 1, *frame),
        "text": (1, config.text_length, config.text_dim),
        "face": (1, config.face.embedding_dim),
    }
    if audio := config.audio:
        shapes["audio"] = (1, config.num_frames, audio.window, audio.layers, audio.channels)
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


class PeakOfLive(TorchDispatchMode):
    """The most bytes of tensors made inside that live at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, object] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        outside = {
            s.data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) for s in [_of(t)]
        }
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and _of(tensor).data_ptr() not in outside:
                self._count(_of(tensor))
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone(_: object) -> None:
            self.live -= size
            self.known.pop(key, None)

        self.known[key] = ref(storage, gone)


def _of(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
