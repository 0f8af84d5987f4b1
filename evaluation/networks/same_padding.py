"""TensorFlow's "same" padding, which networks that were converted from it depend on."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pad


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """(B, C, *sizes) -> with zeros around, so that windows of `kernel` at `stride` give ceil(size / stride).

    The smaller half comes first: at a stride of 2 an even size is padded at its end only, which no
    `padding=` of torch's does. Formula: TensorFlow's documentation of `tf.nn.convolution`.
    """
    halves: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(k - s if size % s == 0 else k - size % s, 0)
        halves += [total // 2, total - total // 2]
    return pad(x, halves) if any(halves) else x
