"""Cameras: the one place where an axis is flipped.

Model space has y up and z towards the viewer; pictures have v down and depth away from the viewer.
"""

from numbers import Integral

import torch

DEPTH_OFFSET = 10.0  # puts every head well in front of the picture plane


def _size(image_size):
    """(height, width) of ``image_size``, an int or a pair. Raises ValueError when empty."""
    if isinstance(image_size, Integral):
        image_size = (image_size, image_size)
    height, width = (int(side) for side in image_size)
    if height < 1 or width < 1:
        raise ValueError(f"A picture of {height}×{width} pixels cannot be drawn.")
    return height, width


def project(vertices, camera, image_size):
    """Weak perspective as in DECA: points (N, V, 3) to pixels (N, V, 3) = (u, v, depth).

    ``camera`` (N, 3) is (s, tx, ty); x = s·(X + tx) and y = s·(Y + ty) span −1…1 over the shorter
    side of the picture. u points right and v down; the middle of the first pixel is at 0.5. Depth
    is in the same unit as x and y, grows away from the viewer and stays positive.
    """
    height, width = _size(image_size)
    half = min(height, width) / 2
    scale, shift = camera[:, None, :1], camera[:, None, 1:]
    plane = scale * (vertices[..., :2] + shift)
    return torch.stack(
        [
            width / 2 + half * plane[..., 0],
            height / 2 - half * plane[..., 1],
            DEPTH_OFFSET - (scale * vertices[..., 2:])[..., 0],
        ],
        -1,
    )


def perspective(vertices, distance, focal, image_size):
    """A pinhole camera on the z axis: points (N, V, 3) to pixels (N, V, 3) = (u, v, depth).

    ``distance`` (N,) is from the pinhole to the model's origin (metres), ``focal`` (N,) the focal
    length in units of half the shorter side: a point at depth d and height y lands focal·y/d from
    the middle. Depth is metres from the pinhole; points behind it have a negative depth.
    """
    height, width = _size(image_size)
    half = min(height, width) / 2
    depth = distance.reshape(-1, 1) - vertices[..., 2]
    zoom = half * focal.reshape(-1, 1) / depth
    u = width / 2 + zoom * vertices[..., 0]
    v = height / 2 - zoom * vertices[..., 1]
    return torch.stack([u, v, depth], -1)


def foreshortened(vertices, distance):
    """Vertices (N, V, 3) moved to where a pinhole at ``distance`` (N, 1) metres sees them, for
    ``project``: x, y ↦ x, y · d / (d − z); depth stays."""
    grow = distance[:, :, None] / (distance[:, :, None] - vertices[..., 2:]).clamp_min(0.05)
    return torch.cat([vertices[..., :2] * grow, vertices[..., 2:]], -1)


def to_ndc(pixels, image_size):
    """Pixels (N, V, 3) to pytorch3d's normalised coordinates: +X left, +Y up, shorter side −1…1."""
    height, width = _size(image_size)
    half = min(height, width) / 2
    x = (width / 2 - pixels[..., 0]) / half
    y = (height / 2 - pixels[..., 1]) / half
    return torch.stack([x, y, pixels[..., 2]], -1)


def fit_camera(points, pixels, image_size, weights=None):
    """Scale and shift (N, 3) that best project points (N, L, 3) to pixels (N, L, 2).

    Closed-form least squares over s and s·t, weighted by ``weights`` (N, L) if given; the points
    keep their rotation.
    """
    height, width = _size(image_size)
    half = min(height, width) / 2
    target = torch.stack([pixels[..., 0] - width / 2, height / 2 - pixels[..., 1]], -1) / half
    weights = torch.ones_like(target[..., :1]) if weights is None else weights[..., None]
    weights = weights / weights.sum(1, keepdim=True)
    plane = points[..., :2]
    plane_mean, target_mean = ((weights * q).sum(1) for q in (plane, target))
    centred = plane - plane_mean[:, None]
    spread = (weights * centred * centred).sum((1, 2)).clamp_min(1e-12)
    scale = (weights * centred * (target - target_mean[:, None])).sum((1, 2)) / spread
    scale = scale.clamp_min(1e-3)[:, None]
    return torch.cat([scale, target_mean / scale - plane_mean], 1)
