"""What stands for a frozen model in the name of what it computed: one hash of its weights and settings."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor


def digest_of(tensors: Mapping[str, Tensor], **settings: object) -> str:
    """The first 16 hex digits of the SHA-256 over `settings` and every tensor's name, dtype, shape and bytes.

    The order of the tensors and the device that they are on change nothing."""
    sha256 = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha256.update(flat.view(torch.uint8).numpy().data)
    return sha256.hexdigest()[:16]
