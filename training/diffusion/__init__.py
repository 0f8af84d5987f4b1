"""Diffusion: how latents are noised for training, what the network is judged by, and how a clip is sampled.

    training   stratified_indices -> ZeroSnrSchedule.add_noise -> network -> velocity_loss
    sampling   SeededNoise -> DpmSolverSde (network, guidance, estimate, step; 50 times) -> clean latent

Latents are (B, T, C, H, W); nothing here knows what the network is.
"""

from training.diffusion.guidance import (
    ConfiguredGuidance,
    ConstantGuidance,
    Denoise,
    GuidanceRule,
    RisingGuidance,
    in_two_passes,
)
from training.diffusion.loss import velocity_loss
from training.diffusion.noise import SeededNoise, seed_of
from training.diffusion.sampler import DpmSolverSde, SamplingStep
from training.diffusion.schedule import SamplerTable, ZeroSnrSchedule
from training.diffusion.timesteps import stratified_indices, stratified_range

__all__ = [
    "ConfiguredGuidance",
    "ConstantGuidance",
    "Denoise",
    "DpmSolverSde",
    "GuidanceRule",
    "RisingGuidance",
    "SamplerTable",
    "SamplingStep",
    "SeededNoise",
    "ZeroSnrSchedule",
    "in_two_passes",
    "seed_of",
    "stratified_indices",
    "stratified_range",
    "velocity_loss",
]
