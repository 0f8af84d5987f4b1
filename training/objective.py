"""What is minimised: the error of the predicted velocity, given all that Hallo3 conditions on.

clean latents, noise, index -> noised latents
reference latent, text -> reference network -> bank
noised latents, index, text, image condition, bank, face, audio -> denoiser -> velocity
velocity against the true one, weighted -> (B,) losses
"""

from torch import Tensor, nn

from training.batch import Batch
from training.conditions import beside_window
from training.diffusion import ZeroSnrSchedule, velocity_loss
from training.model.portrait import PortraitModel


class TrainingObjective(nn.Module):
    """Both networks and the loss as one module with one forward, which is what DeepSpeed wraps.

    Args:
        mouth_weight: of latents where the mouth is, against 1 elsewhere (`Batch.mouth` must be there).
        channel_weights: (C,) of the latents' channels; None: all the same.
    """

    channel_weights: Tensor | None

    def __init__(
        self,
        model: PortraitModel,
        schedule: ZeroSnrSchedule,
        mouth_weight: float = 1.0,
        channel_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.schedule = schedule
        self.mouth_weight = mouth_weight
        self.register_buffer("channel_weights", channel_weights, persistent=False)

    def forward(self, batch: Batch, index: Tensor, noise: Tensor) -> Tensor:
        """The loss of each sample, (B,) float32.

        Args:
            index: (B,) int64, each sample's place in the noise schedule.
            noise: as `batch.latents`, normal numbers.
        """
        noisy = self.schedule.add_noise(batch.latents, noise, index).to(batch.text.dtype)
        bank = self.model.reference(batch.reference_latent, batch.text)
        velocity = self.model.denoiser(
            noisy,
            index.float(),  # bfloat16 would make 1000 of 999
            batch.text,
            image_condition=beside_window(batch.image_condition, noisy.shape[1], self.model.config),
            reference=bank,
            face=batch.face,
            audio=batch.audio,
        )
        return velocity_loss(velocity, batch.latents, noise, index, self.schedule, self._weight(batch))

    def _weight(self, batch: Batch) -> Tensor | None:
        """What each element of the error weighs, to be broadcast: mouth (B, T, 1, H, W) times channel (C)."""
        weight = None
        if self.mouth_weight != 1:
            if batch.mouth is None:
                raise ValueError(
                    f"mouth_weight is {self.mouth_weight}, but the batch does not say where it is"
                )
            weight = 1 + (self.mouth_weight - 1) * batch.mouth
        if self.channel_weights is None:
            return weight
        channels = self.channel_weights.view(1, 1, -1, 1, 1)
        return channels if weight is None else weight * channels
