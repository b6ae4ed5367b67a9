"""One training on several processes: what ``torchrun`` starts, gloo on CPUs and NCCL on GPUs.

The same batch, cut into equal parts, gives the same losses on one process and on many: gradients
are averaged, and BatchNorm looks at the whole batch.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from course.facecode import resolve_device


@dataclass
class World:
    """This process among ``size``: its number ``rank`` and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def chief(self):
        """Whether this process prints and writes files."""
        return self.rank == 0

    def share(self, items):
        """This process's part of a list or array. Raises ValueError if it cannot be cut evenly."""
        if len(items) % self.size:
            raise ValueError(f"{len(items)} photographs a step cannot be shared by {self.size} "
                             "processes; change --batch.")  # fmt: skip
        each = len(items) // self.size
        return items[self.rank * each : (self.rank + 1) * each]

    def mean(self, value):
        """The mean of a tensor over the processes, without a gradient."""
        value = value.detach().clone()
        if self.size > 1:
            dist.all_reduce(value)
        return value / self.size

    def wait(self):
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()


def start(device=None):
    """The World of this process, as the environment that torchrun makes describes it."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return World(0, 1, resolve_device(device))
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0))
    device = resolve_device(device)
    if device.type == "cuda":
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(rank, size, device)


def stop():
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _SumOverAll(torch.autograd.Function):
    """Σ over processes; the gradient of a sum that everybody uses is everybody's summed."""

    @staticmethod
    def forward(ctx, value):
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad


class SyncedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose mean and variance are those of all processes' pictures together.

    PyTorch has one of its own, for GPUs only.
    """

    def forward(self, x):
        alone = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
        if alone or not self.training:
            return super().forward(x)
        count = x.shape[0] * x.shape[2] * x.shape[3] * dist.get_world_size()
        mean = _SumOverAll.apply(x.float().sum((0, 2, 3))) / count
        centred = x.float() - mean[:, None, None]
        variance = _SumOverAll.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synced(model):
    """``model`` with every BatchNorm2d made a SyncedBatchNorm, in place."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
    return model
