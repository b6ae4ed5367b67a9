"""Shared by the tests: the head, loaded once, on two threads."""

import pytest
import torch

from course.flame import FLAME


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def flame():
    return FLAME.load(device="cpu")
