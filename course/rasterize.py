"""Which triangle is in each pixel: a z-buffer whose cost follows the covered pixels.

Conventions are pytorch3d's: +X left, +Y up, Z into the picture, pixel (0, 0) at the top left.
``rasterize`` gives every backend's answer in the same form: ``torch`` (below, plain PyTorch, CPU
and GPU), ``numba`` (the same on compiled loops, CPU) and ``pytorch3d`` (when installed).
"""

import functools
import importlib.util
from dataclasses import dataclass

import torch

from course.camera import _size

EPSILON = 1e-8  # pytorch3d adds it to every triangle's area
EMPTY = torch.iinfo(torch.int64).max
MARGIN = 1e-3  # pixels added to each bounding box, so that rounding never loses one
BACKENDS = ("torch", "numba", "pytorch3d")


@dataclass
class Fragments:
    """What a rasterizer found in each of N·H·W pixels.

    pix_to_face  (N, H, W)     triangle, counted through the batch (n·F + f), −1 where empty
    barycentric  (N, H, W, 3)  weights of its corners at the pixel's centre, −1 where empty
    zbuf         (N, H, W)     depth there, −1 where empty
    """

    pix_to_face: torch.Tensor
    barycentric: torch.Tensor
    zbuf: torch.Tensor


def pixel_centres(size, other, device=None):
    """Coordinate of each pixel centre along a side of ``size`` pixels, first pixel last.

    The longer side reaches beyond −1…1; the arithmetic is pytorch3d's, rounding for rounding.
    """
    extent = 2.0 if size <= other else 2.0 * size / other
    index = torch.arange(size, device=device, dtype=torch.float32)
    return -extent / 2 + (extent * index + extent / 2) / size


def _pixel_index(x, size, other):
    """The inverse of ``pixel_centres``: fractional pixel index of a coordinate."""
    extent = 2.0 if size <= other else 2.0 * size / other
    return (x + extent / 2) * (size / extent) - 0.5


def zbuffer_torch(vertices, faces, height, width, cull_backfaces=False):
    """Nearest triangle and depth of every pixel: vertices (N, V, 3), faces (F, 3), plain PyTorch.

    Returns pix_to_face and zbuf, both (N, H, W). In words: box every triangle, list all
    (triangle, pixel) pairs inside the boxes, keep those inside the three edges, and let the
    smallest depth win each pixel with one scatter.
    """
    batch, count, device = len(vertices), len(faces), vertices.device
    x, y, z = face_corners(vertices, faces).view(-1, 3, 3).permute(2, 1, 0)  # (3 corners, N·F)
    area = (x[2] - x[0]) * (y[1] - y[0]) - (y[2] - y[0]) * (x[1] - x[0])

    # 1. bounding boxes in whole pixels, clipped to the picture
    left = torch.ceil(_pixel_index(x.amin(0), width, height) - MARGIN).clamp_min(0)
    right = torch.floor(_pixel_index(x.amax(0), width, height) + MARGIN).clamp_max(width - 1)
    low = torch.ceil(_pixel_index(y.amin(0), height, width) - MARGIN).clamp_min(0)
    high = torch.floor(_pixel_index(y.amax(0), height, width) + MARGIN).clamp_max(height - 1)
    wide, tall = (right - left + 1).long(), (high - low + 1).long()
    visible = (wide > 0) & (tall > 0) & (z.amin(0) >= EPSILON)
    visible &= (area > EPSILON) if cull_backfaces else (area.abs() > EPSILON)
    face = visible.nonzero()[:, 0]
    if not len(face):
        empty = torch.full((batch, height, width), -1, device=device)
        return empty, empty.float()
    x, y, z, area = x[:, face], y[:, face], z[:, face], area[face] + EPSILON
    wide, tall, left, low = wide[face], tall[face], left[face].long(), low[face].long()

    # 2. edge functions e = (px − xa)·Δy − (py − ya)·Δx, positive inside; the second term once a row
    side = area.sign()
    xa, ya = x[[1, 2, 0]], y[[1, 2, 0]]
    dx, dy = (x[[2, 0, 1]] - xa) * side, (y[[2, 0, 1]] - ya) * side
    row, step = _enumerate(tall)  # triangle of each row
    v = _take(low, row) + step
    ys = pixel_centres(height, width, device)
    row_term = (_take(ys, v) - _take(ya, row)) * _take(dx, row)
    pair, step = _enumerate(_take(wide, row))  # row of each (triangle, pixel) pair
    triangle = _take(row, pair)
    u = _take(left, triangle) + step
    xs = pixel_centres(width, height, device)
    edges = (_take(xs, u) - _take(xa, triangle)) * _take(dy, triangle) - _take(row_term, pair)
    inside = (edges.amin(0) > 0).nonzero()[:, 0]

    # 3. depth, and the nearest triangle: positive floats sort like their bits
    edges, triangle, pair, u = (_take(t, inside) for t in (edges, triangle, pair, u))
    share = edges / _take(area * side, triangle) * _take(z, triangle)
    depth = share[0] + share[1] + share[2]
    face, v = _take(face, triangle), _take(v, pair)
    key = (depth.view(torch.int32).long() << 32) | face
    pixel = (face // count + 1) * height * width - 1 - (v * width + u)
    nearest = torch.full((batch * height * width,), EMPTY, device=device)
    nearest.scatter_reduce_(0, pixel, key, "amin")
    hit = nearest != EMPTY
    pix_to_face = torch.where(hit, nearest & 0xFFFFFFFF, -1).view(batch, height, width)
    zbuf = (nearest >> 32).int().view(torch.float32)
    return pix_to_face, torch.where(hit, zbuf, -1.0).view(batch, height, width)


def _take(table, index):
    """table[..., index], three times faster."""
    return table.index_select(-1, index)


def _enumerate(counts):
    """For counts (2, 3): owners (0, 0, 1, 1, 1) and positions (0, 1, 0, 1, 2)."""
    owner = torch.repeat_interleave(counts)
    start = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner), device=counts.device) - _take(start, owner)


def barycentric_at(corners, px, py):
    """Barycentric weights (P, 3) of points (P,) in triangles with corners (P, 3, ≥2).

    Closed form and differentiable; roundings as in pytorch3d.
    """
    x, y = corners[..., 0], corners[..., 1]
    area = (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0]) - (y[:, 2] - y[:, 0]) * (x[:, 1] - x[:, 0])
    edges = [
        (px - x[:, a]) * (y[:, b] - y[:, a]) - (py - y[:, a]) * (x[:, b] - x[:, a])
        for a, b in ((1, 2), (2, 0), (0, 1))
    ]
    return torch.stack(edges, -1) / (area + EPSILON).unsqueeze(-1)


def covered(pix_to_face, height, width):
    """Flat indices (P,) of covered pixels, their triangles (P,) and centres px, py (P,)."""
    flat = pix_to_face.reshape(-1)
    hit = (flat >= 0).nonzero()[:, 0]
    within = hit % (height * width)
    px = pixel_centres(width, height, flat.device)[width - 1 - within % width]
    py = pixel_centres(height, width, flat.device)[height - 1 - within // width]
    return hit, flat[hit], px, py


def rasterize(vertices, faces, image_size, backend="auto", cull_backfaces=False):
    """Rasterize meshes: vertices (N, V, 3) in pytorch3d's coordinates, faces (F, 3) → Fragments.

    ``barycentric`` and ``zbuf`` carry gradients to ``vertices``; ``pix_to_face`` is a choice and
    has none. Raises ValueError for NaN vertices, an empty mesh, faces out of range, a picture
    without pixels, or a backend that is unknown or not installed.
    """
    height, width = _size(image_size)
    faces = check_mesh(vertices, faces)
    zbuffer = zbuffer_of(backend, vertices.device)
    batch, count = len(vertices), len(faces)
    with torch.no_grad():
        points = vertices.detach().float()
        if zbuffer.__name__ == "zbuffer_numba" and not vertices.requires_grad:
            pix_to_face, zbuf, weights = zbuffer(points, faces, height, width, cull_backfaces, True)
            return Fragments(pix_to_face, weights.to(vertices.dtype), zbuf.to(vertices.dtype))
        pix_to_face, _ = zbuffer(points, faces, height, width, cull_backfaces)
    hit, face, px, py = covered(pix_to_face, height, width)
    flat = vertices.reshape(-1, 3)
    corners = flat[faces[face % count] + (face // count).unsqueeze(1) * vertices.shape[1]]
    weights = barycentric_at(corners, px.to(flat.dtype), py.to(flat.dtype))
    share = weights * corners[..., 2]
    depth = share[:, 0] + share[:, 1] + share[:, 2]
    empty = flat.new_full((batch * height * width, 4), -1.0)
    filled = empty.index_copy(0, hit, torch.cat([weights, depth.unsqueeze(1)], 1))
    filled = filled.view(batch, height, width, 4)
    return Fragments(pix_to_face, filled[..., :3], filled[..., 3])


def face_corners(vertices, faces):
    """Corners (N, F, 3, 3) of every triangle."""
    flat = vertices.index_select(1, faces.reshape(-1))
    return flat.view(len(vertices), len(faces), 3, 3)


def check_mesh(vertices, faces, within=None):
    """Faces as int64 on the vertices' device; raises ValueError with one sentence otherwise.

    ``within`` says that these faces are known to be good for so many vertices.
    """
    if vertices.ndim != 3 or vertices.shape[-1] != 3:
        raise ValueError(f"vertices have shape {tuple(vertices.shape)}; (N, V, 3) is needed.")
    if faces.ndim != 2 or faces.shape[-1] != 3:
        raise ValueError(f"faces have shape {tuple(faces.shape)}; (F, 3) is needed.")
    if len(vertices) == 0:
        raise ValueError("There is no head to draw: the batch is empty.")
    if vertices.numel() == 0 or faces.numel() == 0:
        raise ValueError("The mesh is empty: it needs at least one vertex and one triangle.")
    if within != vertices.shape[1]:
        low, high = torch.stack(faces.aminmax()).tolist()
        if low < 0 or high >= vertices.shape[1]:
            raise ValueError(
                f"faces name vertices {low}…{high}, but the mesh has 0…{vertices.shape[1] - 1}."
            )
    if not torch.isfinite(vertices.detach().sum()):  # one cheap pass; look closer only if needed
        bad = int((~torch.isfinite(vertices.detach())).any(-1).sum())
        raise ValueError(f"{bad} vertices are NaN or infinite; look at the step that made them.")
    return faces.to(vertices.device, torch.int64)


@functools.cache
def _installed(package):
    return importlib.util.find_spec(package) is not None  # a search of the disk: once is enough


def available_backends(device="cpu"):
    """Names of the backends that run here, the preferred one first."""
    on_cpu = torch.device(device).type == "cpu"
    names = ["numba"] if on_cpu and _installed("numba") else []
    names.append("torch")
    if _installed("pytorch3d"):
        names.append("pytorch3d")
    return names


def zbuffer_of(backend, device):
    """The z-buffer function of a backend; ``auto`` is numba on a CPU and torch elsewhere."""
    there = available_backends(device)
    backend = there[0] if backend == "auto" else backend
    if backend not in BACKENDS:
        raise ValueError(f"There is no rasterizer '{backend}'; choose auto, {', '.join(BACKENDS)}.")
    if backend not in there:
        why = "runs on a CPU only" if backend == "numba" else "is not installed"
        raise ValueError(f"The rasterizer {backend} {why}; here there are: {', '.join(there)}.")
    if backend == "numba":
        from course.rasterize_numba import zbuffer_numba as zbuffer
    elif backend == "pytorch3d":
        from course.rasterize_pytorch3d import zbuffer_pytorch3d as zbuffer
    else:
        zbuffer = zbuffer_torch
    return zbuffer
