"""GridMask and its relatives: pictures hidden in parts, so that a network looks everywhere.

All of them are called alike, on batches, and hand back the same three things:

    images, targets, keep = GridMask()(images, generator, targets, step)

images (N, 3, H, W) · generator a torch.Generator (on the CPU) · targets whatever belongs to the
pictures (a tensor, or a tuple, dict or FaceCode of tensors with N rows), or None · step counts the
training's steps, for the ramp · keep (N, 1, H, W) is each pixel's share of its own picture.
Those that hide (GridMask, Cutout, RandomErasing) leave the targets alone; those that mix (Mixup,
CutMix) mix them too.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from course.rasterize_numba import compiled

TURN = 1 << 16  # steps of a 16-bit number until it is back where it began


class Augmented(NamedTuple):
    images: torch.Tensor
    targets: Any
    keep: torch.Tensor


# ------------------------------------------------------------------ masks


def keep_ratio(r):
    """Share of an endless picture that a grid keeps: k = 1 − (1 − r)²."""
    return 1 - (1 - r) ** 2


def measured_ratio(keep):
    """Share (N,) of each picture that its mask (N, 1, H, W) keeps."""
    return keep.mean((1, 2, 3))


def band(d, r):
    """Width l = ⌈d·r⌉ of the bands between a grid's squares, pixels."""
    # 180 · (100/180) is 100.00000000000001
    return torch.ceil(torch.as_tensor(d, dtype=torch.float64) * r - 1e-6)


def grid_mask(size, x, y, r, d, angle=0.0):
    """Masks (N, 1, H, W) of 0 in squares and 1 in the bands between them (Chen et al. 2020).

    size   H or (H, W) · the others are numbers or tensors (N,)
    d      from one square to the next, pixels · r  the share of d that is band, see ``band``
    x, y   upper left corner of a square, of any, before the grid is turned
    angle  degrees by which the grid is turned about the picture's middle, clockwise as seen

    How far a pixel is into its unit of the grid is a 16-bit number with d = 65,536 steps: what
    overflows begins anew, so that the remainder of the division by d costs nothing.
    """
    height, width = (size, size) if isinstance(size, int) else size
    values = [torch.as_tensor(v, dtype=torch.float64).reshape(-1) for v in (x, y, r, d, angle)]
    x, y, r, d, angle = (v.view(-1, 1) for v in torch.broadcast_tensors(*values))
    length = band(d, r)
    if not ((d > 0) & (length >= 0) & (length <= d)).all():
        raise ValueError("A grid needs d > 0 and r from 0 to 1.")
    cos, sin = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    u = torch.arange(width, dtype=torch.float64) + 0.5 - width / 2
    v = torch.arange(height, dtype=torch.float64) + 0.5 - height / 2
    # across the grid and down it: a pixel's place is the sum of its column's and its row's
    columns = _steps(torch.stack([cos, -sin]) * u / d)
    rows = torch.stack([sin * v + width / 2 - x, cos * v + height / 2 - y])
    rows = _steps(rows / d - 0.5)  # −0.5: counted from −32,768 on
    # hidden where both are at most ``low``; at least 1 step of a square, so that it exists
    low = ((1 - length / d) * TURN).round().clamp(1, TURN - 1) - TURN // 2 - 1
    keep = torch.empty(len(d), height, width)
    _fill(columns.numpy(), rows.numpy(), low[:, 0].short().numpy(), keep.numpy())
    for value, which in ((1.0, length >= d), (0.0, length <= 0)):
        if which.any():
            keep[which[:, 0]] = value
    return keep.unsqueeze(1)


@compiled()
def _fill(columns, rows, low, keep):
    """1 in ``keep`` (N, H, W) where a column's (2, N, W) and a row's (2, N, H) steps add up to more
    than ``low`` (N,) across the grid or down it, else 0; sums are cut off to 16 bits."""
    for n in range(keep.shape[0]):
        for v in range(keep.shape[1]):
            across, down = rows[0, n, v], rows[1, n, v]
            for u in range(keep.shape[2]):
                into = np.int16(columns[0, n, u] + across)
                further = np.int16(columns[1, n, u] + down)
                keep[n, v, u] = np.float32(max(into, further) > low[n])


def _steps(units):
    """Units of the grid modulo 1 as 16-bit numbers."""
    return (units * TURN).round().to(torch.int64).to(torch.int16)


def rectangle_mask(size, left, top, right, bottom):
    """Masks (N, 1, H, W) of 0 in a rectangle and 1 around it; edges (N,) in pixels."""
    height, width = (size, size) if isinstance(size, int) else size
    edges = (torch.as_tensor(e, dtype=torch.float32).reshape(-1, 1)
             for e in (left, top, right, bottom))  # fmt: skip
    left, top, right, bottom = edges
    u, v = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    beside = ((u <= left) | (u >= right)).float()
    above = ((v <= top) | (v >= bottom)).float()
    return torch.maximum(above.unsqueeze(2), beside.unsqueeze(1)).unsqueeze(1)


def tutorial_mask(size):
    """The fixed grid of the tutorial that this course retraces: squares of 80 pixels from (50, 50)
    on, 100 pixels between them; so d = 180, r = 0.556."""
    return grid_mask(size, x=50, y=50, r=100 / 180, d=180)


# ------------------------------------------------------------------ augmentations


@dataclass
class Augmentation:
    """What all have in common.

    probability  with which a picture is changed at all
    ramp         steps over which that probability grows from zero: p·min(1, step/ramp);
                 0, or a call without ``step``: it is p from the start
    """

    probability: float = 1.0
    ramp: int = 0

    def chance(self, step=None):
        """The probability at a step."""
        early = self.ramp > 0 and step is not None
        return self.probability * (min(1.0, step / self.ramp) if early else 1.0)

    def chosen(self, count, generator, step=None):
        """Which (N,) of the pictures are changed."""
        return torch.rand(count, generator=generator) < self.chance(step)

    def __call__(self, images, generator, targets=None, step=None, out=None):
        """Augmented(images, targets, keep); what was given stays as it is.

        ``out`` is where the pictures go: with ``out=images`` no memory is asked for, which takes
        longer than the masks do.
        """
        raise NotImplementedError


@dataclass
class _Hiding(Augmentation):
    """Masks that are multiplied with pictures. ``fill`` is what shows instead: a grey, or "noise",
    a random colour in every pixel (drawn once for a batch: drawing it takes most of the time)."""

    fill: float | str = 0.0

    def mask(self, count, size, generator):
        """Masks (N, 1, H, W) of pictures of size (H, W)."""
        raise NotImplementedError

    def __call__(self, images, generator, targets=None, step=None, out=None):
        size = tuple(images.shape[-2:])
        chosen = self.chosen(len(images), generator, step)
        keep = _where(chosen, self.mask(len(images), size, generator)).to(images)
        if not self.fill:
            shown = _multiplied(images, keep, out)
        else:
            behind = torch.full((3, 1, 1), 0.0 if self.fill == "noise" else self.fill)
            if self.fill == "noise":
                behind = torch.rand(3, *size, generator=generator)
            shown = torch.lerp(behind.to(images).expand_as(images), images, keep, out=out)
        return Augmented(shown, targets, keep)


@dataclass
class GridMask(_Hiding):
    """Squares on a turned grid (Chen et al. 2020).

    d       (low, high): pixels from square to square; whole numbers, both included. None: from 96
            to 224 of 224 pixels, as in the paper, and in proportion for other pictures
    r       share of d that is kept in each direction; 0.6 keeps 84 %
    rotate  the grid is turned by up to so many degrees
    """

    probability: float = 0.8
    d: tuple | None = None
    r: float = 0.6
    rotate: float = 360.0

    def mask(self, count, size, generator):
        low, high = self.d or (96 / 224 * min(size), min(size))
        d, x, y, angle = torch.rand(4, count, generator=generator, dtype=torch.float64)
        d = torch.floor(round(low) + d * (round(high) + 1 - round(low)))
        return grid_mask(size, (x * d).floor(), (y * d).floor(), self.r, d, angle * self.rotate)


@dataclass
class Cutout(_Hiding):
    """One square around a random point, cut off at the picture's edges (DeVries, Taylor 2017).

    ``side`` is a share of the picture's shorter side.
    """

    side: float = 0.5

    def mask(self, count, size, generator):
        x, y = torch.rand(2, count, generator=generator)
        half = self.side * min(size) / 2
        x, y = x * size[1], y * size[0]
        return rectangle_mask(size, x - half, y - half, x + half, y + half)


@dataclass
class RandomErasing(_Hiding):
    """One rectangle of random area and form inside the picture, full of noise (Zhong et al. 2020).

    area    (low, high) share of the picture · aspect  (low, high) height over width, drawn evenly
            in its logarithm
    """

    probability: float = 0.5
    fill: float | str = "noise"
    area: tuple = (0.02, 0.33)
    aspect: tuple = (0.3, 3.3)

    def mask(self, count, size, generator):
        share, form, x, y = torch.rand(4, count, generator=generator)
        area = (self.area[0] + share * (self.area[1] - self.area[0])) * size[0] * size[1]
        low, high = (math.log(a) for a in self.aspect)
        form = torch.exp(low + form * (high - low))
        high = (area * form).sqrt().clamp(max=size[0])
        wide = (area / form).sqrt().clamp(max=size[1])
        left, top = x * (size[1] - wide), y * (size[0] - high)
        return rectangle_mask(size, left, top, left + wide, top + high)


@dataclass
class _Mixing(Augmentation):
    """Pictures mixed with others of the batch; λ ~ Beta(α, α) is a picture's own share."""

    alpha: float = 1.0

    def share(self, count, generator):
        """λ (N,)."""
        # torch's Beta takes no generator
        seed = int(torch.randint(2**62, (1,), generator=generator))
        values = np.random.default_rng(seed).beta(self.alpha, self.alpha, count)
        return torch.from_numpy(values).float()

    def mask(self, count, size, generator):
        """Each pixel's own share (N, 1, H, W)."""
        raise NotImplementedError

    def __call__(self, images, generator, targets=None, step=None, out=None):
        count = len(images)
        chosen = self.chosen(count, generator, step)
        keep = _where(chosen, self.mask(count, tuple(images.shape[-2:]), generator)).to(images)
        other = torch.randperm(count, generator=generator).to(images.device)
        mixed = torch.lerp(images[other], images, keep, out=out)
        return Augmented(mixed, _mixed(targets, other, measured_ratio(keep)), keep)


@dataclass
class Mixup(_Mixing):
    """Two pictures laid over each other: λ·own + (1 − λ)·other, targets too (Zhang et al. 2018)."""

    alpha: float = 0.2

    def mask(self, count, size, generator):
        return self.share(count, generator).view(-1, 1, 1, 1).repeat(1, 1, *size)


@dataclass
class CutMix(_Mixing):
    """A rectangle from another picture, and targets mixed by area (Yun et al. 2019).

    The rectangle has the share 1 − λ of the picture before it is cut off at the edges; targets are
    mixed by what is left of it.
    """

    def mask(self, count, size, generator):
        half = (1 - self.share(count, generator)).sqrt() / 2
        x, y = torch.rand(2, count, generator=generator)
        (high, wide), tall, broad = size, half * size[0], half * size[1]
        return rectangle_mask(
            size, x * wide - broad, y * high - tall, x * wide + broad, y * high + tall
        )


def _where(chosen, keep):
    """Masks (N, 1, H, W), and ones for the pictures that are not chosen (N,)."""
    return keep.index_fill_(0, (~chosen).nonzero()[:, 0], 1.0)


def _multiplied(images, keep, out=None):
    """Pictures times masks (N, 1, H, W); in place where ``out`` is the pictures.

    That goes by a compiled loop: PyTorch's threads take longer to wake than it runs.
    """
    plain = images.device.type == "cpu" and images.dtype == torch.float32
    if out is not images or not plain or images.requires_grad:
        return torch.mul(images, keep, out=out)
    _multiply(images.numpy(), keep.numpy())
    return images


@compiled()
def _multiply(images, keep):
    for n in range(images.shape[0]):
        for v in range(images.shape[2]):
            for c in range(images.shape[1]):
                for u in range(images.shape[3]):
                    images[n, c, v, u] *= keep[n, 0, v, u]


def _mixed(targets, other, share):
    """Every tensor with N rows among the targets: share·own + (1 − share)·other's."""
    if targets is None:
        return None
    if isinstance(targets, dict):
        return {k: _mixed(v, other, share) for k, v in targets.items()}
    if isinstance(targets, (tuple, list)):
        parts = [_mixed(v, other, share) for v in targets]
        return type(targets)(*parts) if hasattr(targets, "_fields") else type(targets)(parts)
    if dataclasses.is_dataclass(targets):
        names = [field.name for field in dataclasses.fields(targets)]
        parts = {name: _mixed(getattr(targets, name), other, share) for name in names}
        return dataclasses.replace(targets, **parts)
    if not targets.is_floating_point():
        raise ValueError("Whole numbers cannot be mixed; give classes as one-hot floats.")
    share = share.to(targets).view(-1, *[1] * (targets.ndim - 1))
    return share * targets + (1 - share) * targets[other]
