"""One thread for torch: sums in one order, and tests that run side by side do not take each other's cores."""

import torch

from tests.data_pipeline.conftest import store, store_server  # noqa: F401 - fixtures of an object store

torch.set_num_threads(1)
