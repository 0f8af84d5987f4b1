"""One thread for torch: sums in one order, and tests that run side by side do not take each other's cores."""

import torch

torch.set_num_threads(1)
