"""The identity reference network: what each of its blocks sees of a portrait is handed to the denoiser's."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from training.model import positions
from training.model.backbone import Backbone
from training.model.block import BlockConditions
from training.model.checks import check_tensor
from training.model.config import ModelConfig


class ReferenceNetwork(Backbone):
    """A second copy of the backbone that looks once, at t = 0, at one frame: the face on black.

    Its last block gives its feature before it attends, so nothing behind that is ever used; those weights
    are in the published checkpoint all the same.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)

    def forward(self, reference_latent: Tensor, text: Tensor) -> list[Tensor]:
        """Latent (B, 1, C, H, W) and text (B, L, text_dim) -> the bank: num_layers features (B, n, D),
        or this rank's share of n where ranks share a sample.

        Upstream gives it the sample's text in training and the unconditional one (zeros) in sampling.

        Raises:
            ValueError: an argument of another shape, dtype or device than the model's.
        """
        self._check(reference_latent, text)
        latents = torch.cat([reference_latent, reference_latent], dim=2)
        grid = positions.checked_grid(self.config, latents)
        time = silu(self.embed_time(latents.new_zeros(1)))
        text, video, layout = self.shared_out(self.embed_text(text), self.embed_video(latents, grid), grid)
        bank: list[Tensor] = []
        for block in self.blocks:
            bank.append(block.reference_feature(video, time))
            if len(bank) < len(self.blocks):
                text, video = self.run_block(block, text, video, time, layout, BlockConditions())
        return bank

    def _check(self, reference_latent: Tensor, text: Tensor) -> None:
        config, batch = self.config, len(reference_latent)
        shapes = {
            "reference_latent": (reference_latent, ("batch", 1, config.out_channels, "height", "width")),
            "text": (text, (batch, config.text_length, config.text_dim)),
        }
        for name, (tensor, shape) in shapes.items():
            check_tensor(name, tensor, shape, like=self.positions, finite=config.check_finite)
