"""The soft silhouette of ``silhouette.py`` as compiled loops: the default on a CPU."""

import math

import numpy as np
import torch
from numba import njit, prange
from torch.autograd.function import once_differentiable

from course.rasterize import EPSILON, MARGIN, pixel_centres
from course.rasterize_numba import compiled, run_kernel, threads_for_numba

OPAQUE = -16.0  # below this log-transparency a pixel passes on no gradient worth computing

_EPS, _MARGIN = np.float32(EPSILON), np.float32(MARGIN)
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(inline="always")
def _to_edge(px, py, ax, ay, bx, by):
    """Vector from the nearest point of a segment to (px, py), and that point's place along it."""
    dx, dy = bx - ax, by - ay
    t = ((px - ax) * dx + (py - ay) * dy) / max(dx * dx + dy * dy, _EPS)
    t = min(_ONE, max(_ZERO, t))
    return px - ax - t * dx, py - ay - t * dy, t


@njit(inline="always")
def _log_clear(x):
    """log(1 − sigmoid(−d/σ)) = log sigmoid(x) for x = d/σ, without overflow."""
    if x > _ZERO:
        return -np.log1p(np.exp(-x))
    return x - np.log1p(np.exp(x))


@njit(inline="always")
def _near(corner, px, py):
    """Signed squared distance, the nearest edge and the vector to it."""
    x0, y0, x1, y1, x2, y2 = (
        corner[0, 0], corner[0, 1], corner[1, 0], corner[1, 1], corner[2, 0], corner[2, 1],
    )  # fmt: skip
    ex, ey, t = _to_edge(px, py, x0, y0, x1, y1)
    best, edge = ex * ex + ey * ey, 0
    fx, fy, u = _to_edge(px, py, x1, y1, x2, y2)
    if fx * fx + fy * fy < best:
        best, edge, ex, ey, t = fx * fx + fy * fy, 1, fx, fy, u
    fx, fy, u = _to_edge(px, py, x2, y2, x0, y0)
    if fx * fx + fy * fy < best:
        best, edge, ex, ey, t = fx * fx + fy * fy, 2, fx, fy, u
    c0 = (px - x0) * (y1 - y0) - (py - y0) * (x1 - x0)
    c1 = (px - x1) * (y2 - y1) - (py - y1) * (x2 - x1)
    c2 = (px - x2) * (y0 - y2) - (py - y2) * (x0 - x2)
    inside = (c0 > 0 and c1 > 0 and c2 > 0) or (c0 < 0 and c1 < 0 and c2 < 0)
    return (-best if inside else best), edge, ex, ey, t


@njit(inline="always")
def _box(corner, xs, ys, per_x, per_y, radius, first, last, width):
    x0, x1, x2 = corner[0, 0], corner[1, 0], corner[2, 0]
    y0, y1, y2 = corner[0, 1], corner[1, 1], corner[2, 1]
    area = (x2 - x0) * (y1 - y0) - (y2 - y0) * (x1 - x0)
    if abs(area) <= _EPS or min(corner[0, 2], corner[1, 2], corner[2, 2]) < _EPS:
        return 0, -1, 0, -1
    low = max(first, int(np.ceil((min(y0, y1, y2) - radius - ys[0]) * per_y - _MARGIN)))
    high = min(last - 1, int(np.floor((max(y0, y1, y2) + radius - ys[0]) * per_y + _MARGIN)))
    left = max(0, int(np.ceil((min(x0, x1, x2) - radius - xs[0]) * per_x - _MARGIN)))
    right = min(width - 1, int(np.floor((max(x0, x1, x2) + radius - xs[0]) * per_x + _MARGIN)))
    return left, right, low, high


@compiled(fastmath=True)
def _forward_band(job, corners, xs, ys, per_x, per_y, sigma, radius, bands, total):
    count = corners.shape[1]
    height, width = total.shape[1], total.shape[2]
    rows = (height + bands - 1) // bands
    n, first = job // bands, (job % bands) * rows
    last = min(height, first + rows)
    for f in range(count):
        corner = corners[n, f]
        left, right, low, high = _box(corner, xs, ys, per_x, per_y, radius, first, last, width)
        for v in range(low, high + 1):
            for u in range(left, right + 1):
                near, _, _, _, _ = _near(corner, xs[u], ys[v])
                if near < radius * radius:
                    total[n, height - 1 - v, width - 1 - u] += _log_clear(near / sigma)


@compiled(fastmath=True)
def _forward_serial(corners, xs, ys, per_x, per_y, sigma, radius, bands, total):
    for job in range(len(corners) * bands):
        _forward_band(job, corners, xs, ys, per_x, per_y, sigma, radius, bands, total)


@compiled(parallel=True, fastmath=True)
def _forward_parallel(corners, xs, ys, per_x, per_y, sigma, radius, bands, total):
    for job in prange(len(corners) * bands):
        _forward_band(job, corners, xs, ys, per_x, per_y, sigma, radius, bands, total)


@compiled(fastmath=True)
def _backward_band(job, corners, xs, ys, per_x, per_y, sigma, radius, bands, pull, out):
    count = corners.shape[1]
    height, width = pull.shape[1], pull.shape[2]
    rows = (height + bands - 1) // bands
    n, band = job // bands, job % bands
    first = band * rows
    last = min(height, first + rows)
    for f in range(count):
        corner = corners[n, f]
        left, right, low, high = _box(corner, xs, ys, per_x, per_y, radius, first, last, width)
        for v in range(low, high + 1):
            for u in range(left, right + 1):
                weight = pull[n, height - 1 - v, width - 1 - u]
                if weight == _ZERO:
                    continue
                near, edge, ex, ey, t = _near(corner, xs[u], ys[v])
                if near >= radius * radius:
                    continue
                # d log sigmoid(x)/dx = sigmoid(−x); d|e|²/d(ends) = −2e·(1−t), −2e·t
                slope = weight / (_ONE + np.exp(min(near / sigma, np.float32(80)))) / sigma
                if near < _ZERO:
                    slope = -slope
                a, b = edge, (edge + 1) % 3
                gx, gy = np.float32(-2) * slope * ex, np.float32(-2) * slope * ey
                out[band, n, f, a, 0] += gx * (_ONE - t)
                out[band, n, f, a, 1] += gy * (_ONE - t)
                out[band, n, f, b, 0] += gx * t
                out[band, n, f, b, 1] += gy * t


@compiled(fastmath=True)
def _backward_serial(corners, xs, ys, per_x, per_y, sigma, radius, bands, pull, out):
    for job in range(len(corners) * bands):
        _backward_band(job, corners, xs, ys, per_x, per_y, sigma, radius, bands, pull, out)


@compiled(parallel=True, fastmath=True)
def _backward_parallel(corners, xs, ys, per_x, per_y, sigma, radius, bands, pull, out):
    for job in prange(len(corners) * bands):
        _backward_band(job, corners, xs, ys, per_x, per_y, sigma, radius, bands, pull, out)


class SoftSilhouette(torch.autograd.Function):
    """Log-transparency (N, H, W) of corners (N, F, 3, 3), with gradients to their x and y."""

    @staticmethod
    def forward(ctx, corners, height, width, sigma, radius):
        xs, ys = pixel_centres(width, height).numpy(), pixel_centres(height, width).numpy()
        per_x = np.float32(1 / (xs[1] - xs[0])) if width > 1 else _ONE
        per_y = np.float32(1 / (ys[1] - ys[0])) if height > 1 else _ONE
        threads = threads_for_numba()
        bands = 1 if len(corners) % threads == 0 else threads
        ctx.setup = (xs, ys, per_x, per_y, np.float32(sigma), np.float32(radius), bands)
        total = torch.zeros(len(corners), height, width)
        run_kernel(_forward_serial, _forward_parallel, corners.numpy(), *ctx.setup, total.numpy())
        ctx.save_for_backward(corners, total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        corners, total = ctx.saved_tensors
        out = torch.zeros(ctx.setup[-1], *corners.shape)
        # opaque pixels pass on nothing: exp(total) multiplies every gradient of alpha
        pull = torch.where(total > OPAQUE, gradient, 0.0).contiguous()
        arrays = pull.numpy(), out.numpy()
        run_kernel(_backward_serial, _backward_parallel, corners.numpy(), *ctx.setup, *arrays)
        return out.sum(0), None, None, None, None


def log_transparency(corners, height, width, sigma, negligible):
    """Σ log(1 − coverage) over the triangles near each pixel, (N, H, W)."""
    radius = math.sqrt(math.log(1 / negligible - 1) * sigma)
    return SoftSilhouette.apply(corners.contiguous(), height, width, sigma, radius)
