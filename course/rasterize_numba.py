"""The z-buffer of ``rasterize.py`` as compiled loops: the default on a CPU.

Same arithmetic in the same order, so the same triangle wins every pixel. Bands of rows run side by
side; all constants are float32, because one float64 would promote the whole inner loop.
"""

import os
import threading

import numba
import numpy as np
import torch
from numba import njit, prange

from course.rasterize import EPSILON, MARGIN, pixel_centres

_EPS, _MARGIN = np.float32(EPSILON), np.float32(MARGIN)
_ZERO, _ONE = np.float32(0), np.float32(1)


def compiled(**options):
    """``njit`` whose machine code is kept on disk, or in memory where no folder can be written."""

    def decorate(function):
        try:
            return njit(cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # numba found no folder for its cache
            return njit(error_model="numpy", **options)(function)

    return decorate


@njit(inline="always")
def _edge(px, py, ax, ay, bx, by):
    return (px - ax) * (by - ay) - (py - ay) * (bx - ax)


@compiled()
def _band(job, vertices, faces, xs, ys, bands, cull, zbuf, nearest, weights):
    """Fill one band of rows of one picture."""
    count, height, width = len(faces), zbuf.shape[1], zbuf.shape[2]
    per_x, per_y = np.float32(1), np.float32(1)
    if width > 1:
        per_x = np.float32(1) / (xs[1] - xs[0])
    if height > 1:
        per_y = np.float32(1) / (ys[1] - ys[0])
    rows = (height + bands - 1) // bands
    n, first = job // bands, (job % bands) * rows
    last = min(height, first + rows)
    for v in range(first, last):
        zbuf[n, height - 1 - v, :] = np.float32(np.inf)
        nearest[n, height - 1 - v, :] = -1
    for f in range(count):
        a, b, c = vertices[n, faces[f, 0]], vertices[n, faces[f, 1]], vertices[n, faces[f, 2]]
        x0, y0, z0 = a[0], a[1], a[2]
        x1, y1, z1 = b[0], b[1], b[2]
        x2, y2, z2 = c[0], c[1], c[2]
        low = max(first, int(np.ceil((min(y0, y1, y2) - ys[0]) * per_y - _MARGIN)))
        high = min(last - 1, int(np.floor((max(y0, y1, y2) - ys[0]) * per_y + _MARGIN)))
        if high < low or min(z0, z1, z2) < _EPS:
            continue
        left = max(0, int(np.ceil((min(x0, x1, x2) - xs[0]) * per_x - _MARGIN)))
        right = min(width - 1, int(np.floor((max(x0, x1, x2) - xs[0]) * per_x + _MARGIN)))
        area = _edge(x2, y2, x0, y0, x1, y1)
        if right < left or abs(area) <= _EPS or (cull and area < _ZERO):
            continue
        area += _EPS
        # edges turned so that all three are positive inside, whichever way the triangle winds
        side = _ONE if area > _ZERO else -_ONE
        dx0, dx1, dx2 = side * (x2 - x1), side * (x0 - x2), side * (x1 - x0)
        dy0, dy1, dy2 = side * (y2 - y1), side * (y0 - y2), side * (y1 - y0)
        area *= side
        for v in range(low, high + 1):
            py = ys[v]
            row0, row1, row2 = (py - y1) * dx0, (py - y2) * dx1, (py - y0) * dx2
            for u in range(left, right + 1):
                px = xs[u]
                e0, e1, e2 = (px - x1) * dy0 - row0, (px - x2) * dy1 - row1, (px - x0) * dy2 - row2
                if min(e0, e1, e2) > _ZERO:
                    z = e0 / area * z0 + e1 / area * z1 + e2 / area * z2
                    if z < zbuf[n, height - 1 - v, width - 1 - u]:
                        zbuf[n, height - 1 - v, width - 1 - u] = z
                        nearest[n, height - 1 - v, width - 1 - u] = n * count + f
                        if weights.shape[0]:
                            w = weights[n, height - 1 - v, width - 1 - u]
                            w[0], w[1], w[2] = e0 / area, e1 / area, e2 / area
    for v in range(first, last):
        for u in range(width):
            if nearest[n, height - 1 - v, u] < 0:
                zbuf[n, height - 1 - v, u] = np.float32(-1)
                if weights.shape[0]:
                    weights[n, height - 1 - v, u, :] = np.float32(-1)


@compiled()
def _one_by_one(vertices, faces, xs, ys, bands, cull, zbuf, nearest, weights):
    for job in range(len(vertices) * bands):
        _band(job, vertices, faces, xs, ys, bands, cull, zbuf, nearest, weights)


@compiled(parallel=True)
def _side_by_side(vertices, faces, xs, ys, bands, cull, zbuf, nearest, weights):
    for job in prange(len(vertices) * bands):
        _band(job, vertices, faces, xs, ys, bands, cull, zbuf, nearest, weights)


_TURN = threading.Lock()  # one of numba's threading layers dies when two threads enter it
_forked = False


def _note_fork():
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def threads_for_numba():
    """How many threads a kernel may use: torch's number, but 1 in a forked process.

    GNU OpenMP ends a forked process that enters it, such as a DataLoader's worker.
    """
    return 1 if _forked else torch.get_num_threads()


def run_kernel(serial, parallel, *arguments):
    """Call the serial or the parallel form of a kernel, whichever is right for this process."""
    if threads_for_numba() == 1:
        serial(*arguments)
        return
    with _TURN:
        match_threads()
        parallel(*arguments)


def match_threads():
    """Let numba use as many threads as torch, whose own count numba's call would change."""
    threads = torch.get_num_threads()
    wanted = min(threads, numba.config.NUMBA_NUM_THREADS)
    if numba.get_num_threads() != wanted:
        numba.set_num_threads(wanted)
        torch.set_num_threads(threads)


def zbuffer_numba(vertices, faces, height, width, cull_backfaces=False, barycentric=False):
    """Nearest triangle and depth (N, H, W) of vertices (N, V, 3) and faces (F, 3), on the CPU.

    With ``barycentric`` also the weights (N, H, W, 3), which cost nothing here.
    """
    threads, batch = threads_for_numba(), len(vertices)
    bands = 1 if batch % threads == 0 else 2 * threads
    zbuf = torch.empty(batch, height, width)
    nearest = torch.empty(batch, height, width, dtype=torch.int64)
    weights = torch.empty(batch if barycentric else 0, height, width, 3)
    run_kernel(
        _one_by_one,
        _side_by_side,
        vertices.detach().float().contiguous().numpy(),
        faces.to(torch.int64).contiguous().numpy(),
        pixel_centres(width, height).numpy(),
        pixel_centres(height, width).numpy(),
        bands,
        cull_backfaces,
        zbuf.numpy(),
        nearest.numpy(),
        weights.numpy(),
    )
    return (nearest, zbuf, weights) if barycentric else (nearest, zbuf)
