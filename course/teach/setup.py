"""What the first cell of every notebook calls: seeds, device, how much work this machine can do."""

import os
import random
import sys
import warnings

import numpy as np
import torch

from course.facecode import resolve_device


def start(seed=0):
    """Seed everything and say, in one line, what the notebook runs on."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries still use the global one
    torch.manual_seed(seed)
    if on_colab():
        from google.colab import output

        output.enable_custom_widget_manager()
    print("Ready.")


def on_colab():
    return "google.colab" in sys.modules


def device():
    """CUDA where there is one, else the CPU."""
    return resolve_device()


def budget(cpu, gpu):
    """How much work a cell does: ``cpu`` on a CPU, ``gpu`` on a GPU."""
    return gpu if device().type == "cuda" else cpu


def quiet():
    """Progress bars are off in tests."""
    return bool(os.environ.get("COURSE_QUIET") or os.environ.get("CI"))
