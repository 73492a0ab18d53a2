"""The device of the tests beside this file: a graphics card. PRIVSET_REHEARSE=1 runs them on the CPU where there is none, which
shows that they work themselves."""

import os

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def card():
    """Skips without a card; products in float32, as the tests compare them."""
    if DEVICE.type == "cpu" and os.environ.get("PRIVSET_REHEARSE") != "1":
        pytest.skip("no GPU (PRIVSET_REHEARSE=1 runs the test on the CPU)")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return DEVICE
