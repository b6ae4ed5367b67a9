"""Gaussian mixtures over the texture plane: how the adaptive skinning model writes its weights."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

LEAST = 0.006  # standard deviation that a bone's mixture begins with at least, texture sides
MIDDLE = 0.5  # coordinates are taken from the texture's middle: float32 keeps more of them


def factors(spread):
    """L (…, 2, 2) of raw numbers (…, 3): softplus of the first two is the diagonal, above it 0."""
    diagonal = F.softplus(spread[..., :2])
    zero = torch.zeros_like(diagonal[..., 0])
    rows = [diagonal[..., 0], zero, spread[..., 2], diagonal[..., 1]]
    return torch.stack(rows, -1).unflatten(-1, (2, 2))


def raw_factors(factor):
    """The raw numbers (…, 3) of L (…, 2, 2): what ``factors`` takes."""
    diagonal = torch.stack([factor[..., 0, 0], factor[..., 1, 1]], -1)
    return torch.cat([diagonal + torch.log(-torch.expm1(-diagonal)), factor[..., 1, :1]], -1)


def polynomials(middle, factor, amplitude):
    """log(π N(u; m, LLᵀ)) as coefficients (…, 6) of x², xy, y², x, y, 1, with (x, y) = u − ½.

    middle (…, 2) · factor L (…, 2, 2) · amplitude (…) = log π
    """
    a, b, c = factor[..., 0, 0], factor[..., 1, 0], factor[..., 1, 1]
    # (LLᵀ)⁻¹ = [[p, q], [q, r]]
    p, q, r = (1 + (b / c) ** 2) / a**2, -b / (a * c**2), 1 / c**2
    x, y = (middle - MIDDLE).unbind(-1)
    along_x, along_y = p * x + q * y, q * x + r * y
    constant = amplitude - np.log(2 * np.pi) - (a * c).log() - 0.5 * (x * along_x + y * along_y)
    return torch.stack([-0.5 * p, -q, -0.5 * r, along_x, along_y, constant], -1)


def monomials(uv):
    """x², xy, y², x, y, 1 (6, n) of texture coordinates (n, 2), with (x, y) = u − ½."""
    x, y = (uv - MIDDLE).T
    return torch.stack([x * x, x * y, y * y, x, y, torch.ones_like(x)])


def mixtures(uv, falloff, area, count, twins, steps=20):
    """Means (J, K, 2), factors L (J, K, 2, 2) and log π (J, K) that begin like ``falloff``.

    uv (n, 2) · falloff (J, n) ≥ 0 · area (n,) of texture around each point · twins (J,)
    Expectation maximisation (Dempster, Laird and Rubin 1977) of K Gaussians a bone: its falloff,
    times area, is a cloud of weighted points. The π of a bone sum to its cloud's weight, so that
    Σ_k π_k N_k is the falloff itself, roughly. The right side mirrors the left.
    """
    weight = torch.as_tensor(falloff * area, dtype=torch.float32)
    uv = torch.as_tensor(uv, dtype=torch.float32)
    twins = torch.as_tensor(twins)
    mass = weight.sum(1)
    share = weight / mass[:, None]
    centre = share @ uv
    offset = uv - centre[:, None]
    cloud = torch.einsum("jn,jna,jnb->jab", share, offset, offset)
    own = twins == torch.arange(len(twins))
    # begin side by side along the cloud; in the middle of the face along u, to stay symmetric
    axis = torch.linalg.eigh(cloud)[1][..., 1]
    axis[own] = torch.tensor([1.0, 0.0])
    wide = (axis.unsqueeze(1) @ cloud @ axis.unsqueeze(2))[:, 0].sqrt()
    mean = centre[:, None] + (torch.linspace(-1, 1, count)[:, None] * axis[:, None]
                              * wide[:, None] if count > 1 else 0)  # fmt: skip
    least = LEAST**2 * torch.eye(2)
    covariance = (cloud[:, None] / count + least).expand(-1, count, -1, -1)
    part = torch.full((len(mass), count), 1 / count)
    features = monomials(uv)
    for _ in range(steps):
        factor = torch.linalg.cholesky(covariance)
        near = torch.softmax(polynomials(mean, factor, part.log()) @ features, 1)  # (J, K, n)
        near = near * share[:, None]
        part = near.sum(2).clamp_min(1e-6)
        mean = near @ uv / part[..., None]
        second = (near @ features[:3].T) / part[..., None]  # means of x², xy, y²
        x, y = (mean - MIDDLE).unbind(-1)
        xx, xy, yy = (second - torch.stack([x * x, x * y, y * y], -1)).unbind(-1)
        covariance = torch.stack([xx, xy, xy, yy], -1).unflatten(-1, (2, 2)) + least
    return _symmetric(mean, torch.linalg.cholesky(covariance), (mass[:, None] * part).log(), twins)


def _symmetric(mean, factor, amplitude, twins):
    """Mixtures of the left side mirrored to the right; those in the middle made their own twins."""
    bones = torch.arange(len(twins))
    flip, turn = torch.tensor([-1.0, 1.0]), torch.tensor([[1.0, 1.0], [-1.0, 1.0]])

    def mirrored(k):
        return 2 * MIDDLE * (1 - flip) / 2 + mean[k] * flip, factor[k] * turn, amplitude[k]

    right, middle = bones[twins < bones], bones[twins == bones]
    for value, new in zip((mean, factor, amplitude), mirrored(twins[right]), strict=True):
        value[right] = new
    for value, new in zip((mean, factor, amplitude), mirrored(middle), strict=True):
        value[middle] = (value[middle] + new.flip(1)) / 2
    return mean, factor, amplitude


def skin_coordinates(flame, skin):
    """Texture coordinates of the skin's vertices, and how much of the texture each stands for.

    Returns uv (n + m, 2), again (m,), area (n + m,). A vertex on the seam has two places: the
    second ones come last, and ``again`` says whose they are, as positions in ``skin``.
    """
    faces, corners = flame.faces.cpu().numpy(), flame.ft.cpu().numpy()
    vt = flame.vt.cpu().numpy()
    pairs = np.unique(np.stack([faces.ravel(), corners.ravel()], 1), axis=0)
    pairs = pairs[np.isin(pairs[:, 0], skin)]
    vertex, first = np.unique(pairs[:, 0], return_index=True)
    second = np.setdiff1d(np.arange(len(pairs)), first)
    a, b = vt[corners[:, 1]] - vt[corners[:, 0]], vt[corners[:, 2]] - vt[corners[:, 0]]
    size = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 6
    area = np.bincount(corners.ravel(), np.repeat(size, 3), len(vt))
    rows = pairs[np.r_[first, second], 1]
    return vt[rows], np.searchsorted(vertex, pairs[second, 0]), area[rows]


def position_map(uv, points, size):
    """The surface over the texture plane, (3, size, size): points (n, 3) at uv (n, 2), and between.

    Holes (the eyes) are bridged, what is outside takes the nearest point: every place of the
    texture leads somewhere.
    """
    ticks = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(ticks, ticks[::-1])
    found = LinearNDInterpolator(uv, points)(u, v)
    empty = np.isnan(found[..., 0])
    found[empty] = NearestNDInterpolator(uv, points)(u[empty], v[empty])
    return found.transpose(2, 0, 1)
