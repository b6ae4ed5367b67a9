"""Interpolation, normals and light of ``render.py`` as compiled loops with their own backward.

Plain PyTorch walks over the picture once for every small operation; here one walk does them all.
Gradients are the closed forms: with corners relative to the pixel, barycentric b_k = e_k/A and
e_0 = x₂y₁ − x₁y₂ (and cyclic), so ∂L/∂e_k = (g_k − Σ g·b)/A.
"""

import numpy as np
import torch
from numba import njit, prange
from torch.autograd.function import once_differentiable

from course.rasterize import EPSILON, pixel_centres
from course.rasterize_numba import compiled, run_kernel, threads_for_numba

_EPS = np.float32(EPSILON)
_ZERO, _ONE, _TWO, _SIX = np.float32(0), np.float32(1), np.float32(2), np.float32(6)
_TINY = np.float32(1e-24)  # squared length under which a normal is not made longer


@njit(inline="always")
def _place(p, hit, face, faces, xs, ys, ndc):
    """Picture, corners' rows and corners' x, y relative to the pixel, of covered pixel p."""
    height, width = len(ys), len(xs)
    n = hit[p] // (height * width)
    within = hit[p] - n * height * width
    v = within // width
    px, py = xs[width - 1 - (within - v * width)], ys[height - 1 - v]
    f = face[p] - n * len(faces)
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    x0, x1, x2 = ndc[n, i, 0], ndc[n, j, 0], ndc[n, k, 0]
    y0, y1, y2 = ndc[n, i, 1], ndc[n, j, 1], ndc[n, k, 1]
    # roundings as in ``rasterize.barycentric_at``
    area = (x2 - x0) * (y1 - y0) - (y2 - y0) * (x1 - x0) + _EPS
    w0 = ((px - x1) * (y2 - y1) - (py - y1) * (x2 - x1)) / area
    w1 = ((px - x2) * (y0 - y2) - (py - y2) * (x0 - x2)) / area
    w2 = ((px - x0) * (y1 - y0) - (py - y0) * (x1 - x0)) / area
    x0, x1, x2, y0, y1, y2 = x0 - px, x1 - px, x2 - px, y0 - py, y1 - py, y2 - py
    return n, f, i, j, k, x0, x1, x2, y0, y1, y2, _ONE / area, w0, w1, w2


@compiled()
def _interpolate_part(job, jobs, ndc, table, corner_uv, faces, hit, face, xs, ys, out):
    count, width = len(hit), table.shape[2]
    for p in range(job * count // jobs, (job + 1) * count // jobs):
        n, f, i, j, k, _, _, _, _, _, _, _, w0, w1, w2 = _place(p, hit, face, faces, xs, ys, ndc)
        out[0, p] = w0 * ndc[n, i, 2] + w1 * ndc[n, j, 2] + w2 * ndc[n, k, 2]
        for c in range(2):
            uv = corner_uv[f]
            out[1 + c, p] = w0 * uv[0, c] + w1 * uv[1, c] + w2 * uv[2, c]
        for c in range(width):
            out[3 + c, p] = w0 * table[n, i, c] + w1 * table[n, j, c] + w2 * table[n, k, c]


@compiled()
def _interpolate_serial(jobs, ndc, table, corner_uv, faces, hit, face, xs, ys, out):
    for job in range(jobs):
        _interpolate_part(job, jobs, ndc, table, corner_uv, faces, hit, face, xs, ys, out)


@compiled(parallel=True)
def _interpolate_parallel(jobs, ndc, table, corner_uv, faces, hit, face, xs, ys, out):
    for job in prange(jobs):
        _interpolate_part(job, jobs, ndc, table, corner_uv, faces, hit, face, xs, ys, out)


@compiled()
def _spread_part(
    job, jobs, ndc, table, corner_uv, faces, hit, face, xs, ys, pull, to_ndc, to_table
):
    count, width = len(hit), table.shape[2]
    for p in range(job * count // jobs, (job + 1) * count // jobs):
        n, f, i, j, k, x0, x1, x2, y0, y1, y2, inverse, w0, w1, w2 = _place(
            p, hit, face, faces, xs, ys, ndc
        )
        g = pull[0, p]
        g0, g1, g2 = g * ndc[n, i, 2], g * ndc[n, j, 2], g * ndc[n, k, 2]
        moved = to_ndc[job, n]
        moved[i, 2] += w0 * g
        moved[j, 2] += w1 * g
        moved[k, 2] += w2 * g
        for c in range(2):
            g, uv = pull[1 + c, p], corner_uv[f]
            g0, g1, g2 = g0 + g * uv[0, c], g1 + g * uv[1, c], g2 + g * uv[2, c]
        changed = to_table[job, n]
        for c in range(width):
            g = pull[3 + c, p]
            g0, g1, g2 = g0 + g * table[n, i, c], g1 + g * table[n, j, c], g2 + g * table[n, k, c]
            changed[i, c] += w0 * g
            changed[j, c] += w1 * g
            changed[k, c] += w2 * g
        mean = g0 * w0 + g1 * w1 + g2 * w2
        g0, g1, g2 = (g0 - mean) * inverse, (g1 - mean) * inverse, (g2 - mean) * inverse
        moved[i, 0] += g1 * y2 - g2 * y1
        moved[j, 0] += g2 * y0 - g0 * y2
        moved[k, 0] += g0 * y1 - g1 * y0
        moved[i, 1] += g2 * x1 - g1 * x2
        moved[j, 1] += g0 * x2 - g2 * x0
        moved[k, 1] += g1 * x0 - g0 * x1


@compiled()
def _spread_serial(jobs, ndc, table, uv, faces, hit, face, xs, ys, pull, to_ndc, to_table):
    for job in range(jobs):
        _spread_part(
            job, jobs, ndc, table, uv, faces, hit, face, xs, ys, pull, to_ndc, to_table
        )  # fmt: skip


@compiled(parallel=True)
def _spread_parallel(jobs, ndc, table, uv, faces, hit, face, xs, ys, pull, to_ndc, to_table):
    for job in prange(jobs):
        _spread_part(
            job, jobs, ndc, table, uv, faces, hit, face, xs, ys, pull, to_ndc, to_table
        )  # fmt: skip


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ndc, table, corner_uv, faces, hit, face, height, width):
        ndc, table = ndc.contiguous(), table.contiguous()
        ctx.rest = (pixel_centres(width, height).numpy(), pixel_centres(height, width).numpy())
        ctx.save_for_backward(ndc, table, corner_uv, faces, hit, face)
        out = torch.empty(3 + table.shape[2], len(hit))
        arrays = [t.detach().numpy() for t in (ndc, table, corner_uv, faces, hit, face)]
        run_kernel(_interpolate_serial, _interpolate_parallel, threads_for_numba(), *arrays,
                   *ctx.rest, out.numpy())  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, pull):
        saved = ctx.saved_tensors
        jobs = threads_for_numba()
        to_ndc, to_table = (torch.zeros(jobs, *t.shape) for t in saved[:2])
        run_kernel(_spread_serial, _spread_parallel, jobs, *(t.numpy() for t in saved), *ctx.rest,
                   pull.contiguous().numpy(), to_ndc.numpy(), to_table.numpy())  # fmt: skip
        return (to_ndc.sum(0), to_table.sum(0), *(None,) * 6)


def interpolate(ndc, table, corner_uv, faces, hit, face, height, width):
    """Depth, uv and table columns (1 + 2 + C, P) at covered pixels ``hit`` (P,).

    ndc (N, V, 3), table (N, V, C), corner_uv (F, 3, 2), faces (F, 3), face (P,) counted through the
    batch; float32 on the CPU. Gradients reach ndc and table.
    """
    return _Interpolate.apply(ndc, table, corner_uv, faces, hit, face, height, width)


@compiled()
def _normals_forward(vertices, faces, unit, inverse):
    for n in range(len(vertices)):
        v = vertices[n]
        for f in range(len(faces)):
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            px, py, pz = v[j, 0] - v[i, 0], v[j, 1] - v[i, 1], v[j, 2] - v[i, 2]
            qx, qy, qz = v[k, 0] - v[i, 0], v[k, 1] - v[i, 1], v[k, 2] - v[i, 2]
            x, y, z = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
            for c in (i, j, k):
                unit[n, c, 0] += x
                unit[n, c, 1] += y
                unit[n, c, 2] += z
        for i in range(vertices.shape[1]):
            u = unit[n, i]
            square = u[0] * u[0] + u[1] * u[1] + u[2] * u[2]
            inverse[n, i] = _ONE / np.sqrt(max(square, _TINY))
            u *= inverse[n, i]


@compiled()
def _normals_backward(vertices, faces, unit, inverse, pull, out):
    for n in range(len(vertices)):
        v, g, o = vertices[n], pull[n], out[n]
        for i in range(vertices.shape[1]):
            u = unit[n, i]
            along = u[0] * g[i, 0] + u[1] * g[i, 1] + u[2] * g[i, 2]
            for c in range(3):
                g[i, c] = (g[i, c] - along * u[c]) * inverse[n, i]
        for f in range(len(faces)):
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            px, py, pz = v[j, 0] - v[i, 0], v[j, 1] - v[i, 1], v[j, 2] - v[i, 2]
            qx, qy, qz = v[k, 0] - v[i, 0], v[k, 1] - v[i, 1], v[k, 2] - v[i, 2]
            x = g[i, 0] + g[j, 0] + g[k, 0]
            y = g[i, 1] + g[j, 1] + g[k, 1]
            z = g[i, 2] + g[j, 2] + g[k, 2]
            bx, by, bz = qy * z - qz * y, qz * x - qx * z, qx * y - qy * x  # q × g
            cx, cy, cz = y * pz - z * py, z * px - x * pz, x * py - y * px  # g × p
            o[j, 0] += bx
            o[j, 1] += by
            o[j, 2] += bz
            o[k, 0] += cx
            o[k, 1] += cy
            o[k, 2] += cz
            o[i, 0] -= bx + cx
            o[i, 1] -= by + cy
            o[i, 2] -= bz + cz


class _Normals(torch.autograd.Function):
    @staticmethod
    def forward(ctx, vertices, faces):
        vertices = vertices.contiguous()
        unit, inverse = torch.zeros_like(vertices), torch.empty(vertices.shape[:2])
        _normals_forward(vertices.detach().numpy(), faces.numpy(), unit.numpy(), inverse.numpy())
        ctx.save_for_backward(vertices, faces, unit, inverse)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx, pull):
        vertices, faces, unit, inverse = ctx.saved_tensors
        out, pull = torch.zeros_like(vertices), pull.clone(memory_format=torch.contiguous_format)
        arrays = (vertices, faces, unit.detach(), inverse, pull, out)
        _normals_backward(*(t.detach().numpy() for t in arrays))
        return out, None


def normals(vertices, faces):
    """Unit vertex normals (N, V, 3), weighted by area, of float32 vertices on the CPU."""
    return _Normals.apply(vertices, faces)


@compiled(fastmath=True)
def _light_part(job, jobs, normal, light, picture, constants, unit, shading):
    c, count = constants, normal.shape[1]
    for p in range(job * count // jobs, (job + 1) * count // jobs):
        x, y, z = normal[0, p], normal[1, p], normal[2, p]
        inverse = _ONE / np.sqrt(max(x * x + y * y + z * z, _TINY))
        x, y, z = x * inverse, y * inverse, z * inverse
        unit[0, p], unit[1, p], unit[2, p] = x, y, z
        glow = light[picture[p] % len(light)]
        for k in range(3):
            shading[k, p] = (
                c[0] * glow[0, k] + c[1] * x * glow[1, k] + c[2] * y * glow[2, k]
                + c[3] * z * glow[3, k] + c[4] * x * y * glow[4, k] + c[5] * x * z * glow[5, k]
                + c[6] * y * z * glow[6, k] + c[7] * (x * x - y * y) * glow[7, k]
                + c[8] * (z * z * np.float32(3) - _ONE) * glow[8, k]
            )  # fmt: skip


@compiled(fastmath=True)
def _light_serial(jobs, normal, light, picture, constants, unit, shading):
    for job in range(jobs):
        _light_part(job, jobs, normal, light, picture, constants, unit, shading)


@compiled(parallel=True, fastmath=True)
def _light_parallel(jobs, normal, light, picture, constants, unit, shading):
    for job in prange(jobs):
        _light_part(job, jobs, normal, light, picture, constants, unit, shading)


@compiled(fastmath=True)
def _dim_part(job, jobs, normal, light, picture, constants, to_unit, to_shading, out, to_light):
    c, count = constants, normal.shape[1]
    basis, slope = np.empty(9, np.float32), np.empty(9, np.float32)
    total = np.zeros(light.shape, np.float32)  # of this job alone: threads share no cache line
    for p in range(job * count // jobs, (job + 1) * count // jobs):
        x, y, z = normal[0, p], normal[1, p], normal[2, p]
        inverse = _ONE / np.sqrt(max(x * x + y * y + z * z, _TINY))
        x, y, z = x * inverse, y * inverse, z * inverse
        basis[0], basis[1], basis[2], basis[3] = c[0], c[1] * x, c[2] * y, c[3] * z
        basis[4], basis[5], basis[6] = c[4] * x * y, c[5] * x * z, c[6] * y * z
        basis[7], basis[8] = c[7] * (x * x - y * y), c[8] * (z * z * np.float32(3) - _ONE)
        n = picture[p] % len(light)
        r, g, b = to_shading[0, p], to_shading[1, p], to_shading[2, p]
        for k in range(9):
            slope[k] = c[k] * (r * light[n, k, 0] + g * light[n, k, 1] + b * light[n, k, 2])
            total[n, k, 0] += r * basis[k]
            total[n, k, 1] += g * basis[k]
            total[n, k, 2] += b * basis[k]
        s = slope
        gx = s[1] + s[4] * y + s[5] * z + _TWO * s[7] * x + to_unit[0, p]
        gy = s[2] + s[4] * x + s[6] * z - _TWO * s[7] * y + to_unit[1, p]
        gz = s[3] + s[5] * x + s[6] * y + _SIX * s[8] * z + to_unit[2, p]
        along = gx * x + gy * y + gz * z
        out[0, p] = (gx - along * x) * inverse
        out[1, p] = (gy - along * y) * inverse
        out[2, p] = (gz - along * z) * inverse
    to_light[job] = total


@compiled(fastmath=True)
def _dim_serial(jobs, normal, light, picture, constants, to_unit, to_shading, out, to_light):
    for job in range(jobs):
        _dim_part(
            job, jobs, normal, light, picture, constants, to_unit, to_shading, out, to_light
        )  # fmt: skip


@compiled(parallel=True, fastmath=True)
def _dim_parallel(jobs, normal, light, picture, constants, to_unit, to_shading, out, to_light):
    for job in prange(jobs):
        _dim_part(
            job, jobs, normal, light, picture, constants, to_unit, to_shading, out, to_light
        )  # fmt: skip


class _Light(torch.autograd.Function):
    @staticmethod
    def forward(ctx, normal, light, picture, constants):
        normal, light = normal.contiguous(), light.contiguous()
        ctx.constants = np.array(constants, np.float32)
        ctx.save_for_backward(normal, light, picture)
        unit, shading = torch.empty_like(normal), torch.empty_like(normal)
        arrays = [t.detach().numpy() for t in (normal, light, picture)]
        run_kernel(_light_serial, _light_parallel, threads_for_numba(), *arrays, ctx.constants,
                   unit.numpy(), shading.numpy())  # fmt: skip
        return unit, shading

    @staticmethod
    @once_differentiable
    def backward(ctx, to_unit, to_shading):
        normal, light, picture = ctx.saved_tensors
        jobs = threads_for_numba()
        out, to_light = torch.empty_like(normal), torch.zeros(jobs, *light.shape)
        arrays = [t.detach().numpy() for t in (normal, light, picture)]
        pulls = to_unit.contiguous().numpy(), to_shading.contiguous().numpy()
        run_kernel(_dim_serial, _dim_parallel, jobs, *arrays, ctx.constants, *pulls,
                   out.numpy(), to_light.numpy())  # fmt: skip
        return out, to_light.sum(0), None, None


def lit(normal, light, picture, constants):
    """Unit normals (3, P) and shading (3, P) of normals (3, P) under light (N, 9, 3).

    ``picture`` (P,) says whose light falls on a pixel; float32 on the CPU.
    """
    return _Light.apply(normal, light, picture, constants)


@compiled()
def _collect(pix_to_face, size, hit, face, picture):
    found = 0
    for p in range(len(pix_to_face)):
        if pix_to_face[p] >= 0:
            hit[found], face[found], picture[found] = p, pix_to_face[p], p // size
            found += 1
    return found


def covered_pixels(pix_to_face):
    """Flat indices (P,) of covered pixels, their triangles and pictures (P,)."""
    hit, face, picture = torch.empty(3, pix_to_face.numel(), dtype=torch.int64)
    size = pix_to_face[0].numel()
    arrays = (hit.numpy(), face.numpy(), picture.numpy())
    found = _collect(pix_to_face.reshape(-1).numpy(), size, *arrays)
    return hit[:found], face[:found], picture[:found]


@compiled()
def _put(canvas, colour, hit):
    size = canvas.shape[2]
    for p in range(len(hit)):
        n = hit[p] // size
        at = hit[p] - n * size
        for c in range(3):
            canvas[n, c, at] = colour[c, p]


@compiled()
def _take(canvas, colour, hit, clear):
    size = canvas.shape[2]
    for p in range(len(hit)):
        n = hit[p] // size
        at = hit[p] - n * size
        for c in range(3):
            colour[c, p] = canvas[n, c, at]
            if clear:
                canvas[n, c, at] = _ZERO


class _Paint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, canvas, colour, hit):
        ctx.save_for_backward(hit)
        image = canvas.clone(memory_format=torch.contiguous_format)
        _put(image.flatten(2).numpy(), colour.contiguous().numpy(), hit.numpy())
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx, pull):
        (hit,) = ctx.saved_tensors
        behind = ctx.needs_input_grad[0]
        pull = pull.clone() if behind else pull
        pull = pull.contiguous()
        colour = torch.empty(3, len(hit))
        _take(pull.flatten(2).numpy(), colour.numpy(), hit.numpy(), behind)
        return pull if behind else None, colour, None


def paint(canvas, colour, hit):
    """Pictures (N, 3, H, W): the canvas with ``colour`` (3, P) at covered pixels ``hit`` (P,)."""
    return _Paint.apply(canvas, colour, hit)
