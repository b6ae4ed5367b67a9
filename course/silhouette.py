"""A silhouette with gradients: every triangle near a pixel covers it a little.

The soft rasterizer (Liu, Li, Chen and Li, ICCV 2019) in pytorch3d's form: a triangle covers a pixel
with probability sigmoid(−d/σ), where d is the squared distance to it, negative inside, and
alpha = 1 − Π(1 − probability) over all triangles near the pixel.
"""

import math

import torch
import torch.nn.functional as F

from course.camera import _size
from course.rasterize import (
    EPSILON,
    MARGIN,
    _enumerate,
    _pixel_index,
    check_mesh,
    face_corners,
    pixel_centres,
)

NEGLIGIBLE = 1e-4  # triangles that cover a pixel less than this are left out, as in pytorch3d
OPAQUE = -16.0  # below this log-transparency a pixel passes on no gradient worth computing


def soft_silhouette(ndc, faces, image_size, sigma=1e-4, backend="auto"):
    """Alpha (N, H, W) in 0…1 of vertices (N, V, 3) in pytorch3d's coordinates.

    ``sigma`` is in squared picture units (the shorter side is 2 wide); ``backend`` is auto, torch
    (below) or numba (the same in compiled loops, CPU). Raises ValueError for
    sigma ≤ 0 and for meshes that ``rasterize`` refuses.
    """
    height, width = _size(image_size)
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; the soft silhouette needs a positive one.")
    faces = check_mesh(ndc, faces)
    batch = len(ndc)
    on_cpu = ndc.device.type == "cpu" and ndc.dtype == torch.float32
    if backend == "numba" or (backend == "auto" and on_cpu):
        from course.silhouette_numba import log_transparency

        corners = face_corners(ndc, faces)
        return 1 - log_transparency(corners, height, width, sigma, NEGLIGIBLE).exp()
    plane = ndc[..., :2]
    with torch.no_grad():
        pixel, face, px, py = _near_pairs(ndc, faces, height, width, sigma)
        corners = _corners(plane, faces, face)
        log_clear = F.logsigmoid(_signed_square_distance(corners, px, py) / sigma)
        total = ndc.new_zeros(batch * height * width).index_add_(0, pixel, log_clear)
    if ndc.requires_grad and len(pixel):
        # opaque pixels have no gradient: go through the rest once more, with autograd on
        alive = ((total > OPAQUE)[pixel] & (log_clear > -30)).nonzero()[:, 0]
        corners = _corners(plane, faces, face[alive])
        again = F.logsigmoid(_signed_square_distance(corners, px[alive], py[alive]) / sigma)
        total = total + _with_gradient_only(again, pixel[alive], len(total))
    return (1 - total.exp()).view(batch, height, width)


def _with_gradient_only(values, index, length):
    """Zeros (length,) whose gradient is that of the sums of ``values`` by ``index``."""
    sums = values.new_zeros(length).index_add(0, index, values)
    return sums - sums.detach()


def _corners(plane, faces, face):
    """Corner planes: x (3, P) and y (3, P) of triangles counted through the batch."""
    rows = faces.T[:, face % len(faces)] + face // len(faces) * plane.shape[1]
    flat = plane.reshape(-1, 2)
    return flat[:, 0][rows], flat[:, 1][rows]


def _near_pairs(ndc, faces, height, width, sigma):
    """Pixels and triangles at most √(blur radius) apart: pixel, face (P,), centres px, py (P,)."""
    radius = math.sqrt(math.log(1 / NEGLIGIBLE - 1) * sigma)
    corners = ndc.detach()[:, faces].reshape(-1, 3, 3)
    x, y, z = corners.permute(2, 1, 0)
    area = (x[2] - x[0]) * (y[1] - y[0]) - (y[2] - y[0]) * (x[1] - x[0])
    left = torch.ceil(_pixel_index(x.amin(0) - radius, width, height) - MARGIN).clamp_min(0)
    right = _pixel_index(x.amax(0) + radius, width, height) + MARGIN
    low = torch.ceil(_pixel_index(y.amin(0) - radius, height, width) - MARGIN).clamp_min(0)
    high = _pixel_index(y.amax(0) + radius, height, width) + MARGIN
    wide = (right.floor().clamp_max(width - 1) - left + 1).long()
    tall = (high.floor().clamp_max(height - 1) - low + 1).long()
    keep = (wide > 0) & (tall > 0) & (z.amin(0) >= EPSILON) & (area.abs() > EPSILON)
    chosen = keep.nonzero()[:, 0]
    wide, tall = wide[chosen], tall[chosen]
    owner, step = _enumerate(wide * tall)
    across = wide[owner]
    u = left[chosen].long()[owner] + step % across
    v = low[chosen].long()[owner] + step // across
    face = chosen[owner]
    px = pixel_centres(width, height, ndc.device)[u].to(ndc.dtype)
    py = pixel_centres(height, width, ndc.device)[v].to(ndc.dtype)
    pixel = (face // len(faces) + 1) * height * width - 1 - (v * width + u)
    with torch.no_grad():
        near = _signed_square_distance(_corners(ndc.detach()[..., :2], faces, face), px, py)
    kept = (near < radius * radius).nonzero()[:, 0]
    return pixel[kept], face[kept], px[kept], py[kept]


def _signed_square_distance(corners, px, py):
    """Squared distance (P,) from points to triangles, negative inside."""
    x, y = corners
    ax, ay = x, y
    bx, by = x.roll(-1, 0), y.roll(-1, 0)
    dx, dy = bx - ax, by - ay
    length = (dx * dx + dy * dy).clamp_min(EPSILON)
    t = (((px - ax) * dx + (py - ay) * dy) / length).clamp(0, 1)
    ex, ey = px - ax - t * dx, py - ay - t * dy
    nearest = (ex * ex + ey * ey).amin(0)
    with torch.no_grad():
        cross = (px - ax) * dy - (py - ay) * dx
        inside = (cross.amin(0) > 0) | (cross.amax(0) < 0)
    return torch.where(inside, -nearest, nearest)
