"""PortraitModel: Hallo3's two networks under one roof."""

import torch.distributed as dist
from torch import nn

from training.model.backbone import Recompute
from training.model.config import ModelConfig
from training.model.denoiser import Denoiser
from training.model.initialise import initialise
from training.model.reference import ReferenceNetwork
from training.model.sequence_parallel import SequenceParallel


class PortraitModel(nn.Module):
    """`reference` looks at the portrait once, `denoiser` makes it move. (Hallo3, Cui et al., CVPR 2025.)"""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.denoiser = Denoiser(config)
        self.reference = ReferenceNetwork(config)
        initialise(self)

    def recompute_in_backward(self, what: Recompute) -> None:
        """Activations that the backward pass computes again instead of holding them: "nothing",
        "all_but_attention" (every block's but attention's outputs) or "blocks" (all of a block's).
        """
        self.denoiser.recompute = self.reference.recompute = what

    def compile_blocks(self, **options: object) -> None:
        """torch.compile each block, whole (a graph break is an error); `options` go to torch.compile."""
        for block in [*self.denoiser.blocks, *self.reference.blocks]:
            block.compile(fullgraph=True, **options)

    def share_samples(self, group: dist.ProcessGroup | None = None) -> None:
        """The ranks of `group` (None: all) work on each sample together; see `sequence_parallel.py`.

        Inputs and outputs stay whole on every rank; the reference network's bank is this rank's share.

        Raises:
            ValueError: the number of ranks does not divide the number of heads.
        """
        parallel = SequenceParallel(group)
        if self.config.num_heads % parallel.ranks:
            raise ValueError(
                f"{parallel.ranks} ranks cannot share the {self.config.num_heads} heads of this model: "
                "choose a number of ranks that divides num_heads"
            )
        self.denoiser.parallel = self.reference.parallel = parallel
