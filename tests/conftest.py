"""Shared by the tests: the head, loaded once, on two threads."""

import os

import pytest
import torch

from course.flame import FLAME


@pytest.fixture(scope="session", autouse=True)
def at_most_two_threads():
    torch.set_num_threads(min(2, int(os.environ.get("OMP_NUM_THREADS", "2"))))


@pytest.fixture(scope="session")
def flame():
    return FLAME.load(device="cpu")
