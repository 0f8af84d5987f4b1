"""Which weights a phase trains; the rest stays as it was.

identity  attention of both networks, with the norm before the feed-forward, and everything about the face:
          the model learns who the person is, without sound. 844 tensors, 4.23 B of the full model's weights.
audio     everything about the audio: 346 tensors, 2.24 B.
joint     both: for tuning a model that has been through both phases.

Upstream chooses by substrings of its names, and two things follow that are kept, as published weights were
trained so: `post_attention_layernorm` (our `feed_forward_norm`) contains "attention", the query and key norms
do not (they lie elsewhere in its tree). The reference network's last attention is trained on paper only: its
feature is taken before it, and no gradient reaches it.
"""

import re
from collections.abc import Iterable

from torch import nn

from training.config import Phase, TrainConfig

IDENTITY = re.compile(
    r"(denoiser|reference)\.blocks\.\d+\.(attention\.(qkv|out)|feed_forward_norm)\.|denoiser\..*face_"
)
AUDIO = re.compile(r"denoiser\..*audio_")
RULES: dict[Phase, tuple[re.Pattern[str], ...]] = {
    "identity": (IDENTITY,),
    "audio": (AUDIO,),
    "joint": (IDENTITY, AUDIO),
}


def trained_names(names: Iterable[str], phase: Phase) -> list[str]:
    """Those of PortraitModel's parameter names that upstream's rule trains in a phase."""
    return [name for name in names if any(rule.match(name) for rule in RULES[phase])]


def choose_trained(model: nn.Module, config: TrainConfig) -> list[str]:
    """Let gradients reach what the run trains and nothing else; returns its names, in the model's order.

    LoRA is not chosen here: its layers come with `lora.add_lora`, which freezes the rest.
    """
    names = [name for name, _ in model.named_parameters()]
    trained = names if config.trainable == "all" else trained_names(names, config.phase)
    chosen = set(trained)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return trained
