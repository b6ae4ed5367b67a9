"""Answers to notebook 08's exercises that a learner could give, and that are wrong."""

import torch

from course.flame import rodrigues

# ------------------------------------------------------------------ 8.1 one bone


def pivot_forgotten(pivot, scale, rotation, translation):
    return torch.cat([rodrigues(rotation) * scale, translation[:, None]], 1)


def scaled_after_the_turn(pivot, scale, rotation, translation):
    linear = scale[:, None] * rodrigues(rotation)
    return torch.cat([linear, (pivot + translation - linear @ pivot)[:, None]], 1)


def shift_before_the_turn(pivot, scale, rotation, translation):
    linear = rodrigues(rotation) * scale
    return torch.cat([linear, (pivot + linear @ (translation - pivot))[:, None]], 1)


def turned_the_other_way(pivot, scale, rotation, translation):
    linear = rodrigues(-rotation) * scale
    return torch.cat([linear, (pivot + translation - linear @ pivot)[:, None]], 1)


def pivot_not_put_back(pivot, scale, rotation, translation):
    linear = rodrigues(rotation) * scale
    return torch.cat([linear, (translation - linear @ pivot)[:, None]], 1)


# ------------------------------------------------------------------ 8.2 Gaussian weights


def _log(uv, middle, factor, amplitude, size=True, half=0.5, upper=False):
    offset = uv - middle.unsqueeze(2)
    y = torch.linalg.solve_triangular(factor.mT if upper else factor, offset.mT, upper=upper)
    log = amplitude[..., None] - half * y.square().sum(2)
    return log - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)[..., None] if size else log


def _shares(log):
    return torch.softmax(log.flatten(0, 1), 0).view_as(log).sum(1)


def without_logarithms(uv, middle, factor, amplitude):
    density = _log(uv, middle, factor, amplitude).exp().sum(1)
    return density / density.sum(0)


def height_forgotten(uv, middle, factor, amplitude):
    return _shares(_log(uv, middle, factor, amplitude, size=False))


def half_forgotten(uv, middle, factor, amplitude):
    return _shares(_log(uv, middle, factor, amplitude, half=1.0))


def transposed_factor(uv, middle, factor, amplitude):
    return _shares(_log(uv, middle, factor, amplitude, upper=True))


def amplitude_taken_for_pi(uv, middle, factor, amplitude):
    return _shares(_log(uv, middle, factor, amplitude.exp()))


def normalised_over_points(uv, middle, factor, amplitude):
    return torch.softmax(_log(uv, middle, factor, amplitude).logsumexp(1), 1)


def softmax_of_each_bone(uv, middle, factor, amplitude):
    """Every bone's Gaussians share among themselves."""
    return torch.softmax(_log(uv, middle, factor, amplitude), 1).sum(1)


# ------------------------------------------------------------------ 8.3 find the bug


def _blended(weights, vertices, transforms):
    moved = torch.einsum("jab,nb->jna", transforms[:, :, :3], vertices) + transforms[:, None, :, 3]
    return (weights[..., None] * moved).sum(0)


def not_normalised(vertices, transforms, density):
    return _blended(density, vertices, transforms)


def normalised_over_vertices(vertices, transforms, density):
    return _blended(density / density.sum(1, keepdim=True), vertices, transforms)


def normalised_over_all(vertices, transforms, density):
    return _blended(density / density.sum(), vertices, transforms)


def softmax_of_densities(vertices, transforms, density):
    return _blended(torch.softmax(density, 0), vertices, transforms)


def the_strongest_bone_alone(vertices, transforms, density):
    strongest = (density == density.amax(0)).to(density)
    return _blended(strongest / strongest.sum(0), vertices, transforms)


# ------------------------------------------------------------------ 8.4 the mirror

TURN, WAY = torch.tensor([1.0, -1, -1]), torch.tensor([-1.0, 1, 1])


def turned_like_an_arrow(scale, rotation, translation, twins):
    return scale[twins], rotation[twins] * WAY, translation[twins] * WAY


def turn_kept(scale, rotation, translation, twins):
    return scale[twins], rotation[twins], translation[twins] * WAY


def turned_back(scale, rotation, translation, twins):
    return scale[twins], -rotation[twins], translation[twins] * WAY


def twins_forgotten(scale, rotation, translation, twins):
    return scale, rotation * TURN, translation * WAY


def scale_flipped(scale, rotation, translation, twins):
    return scale[twins] * WAY, rotation[twins] * TURN, translation[twins] * WAY


def shift_kept(scale, rotation, translation, twins):
    return scale[twins], rotation[twins] * TURN, translation[twins]


# ------------------------------------------------------------------ 8.5 point to plane


def _near(points, nearest, reach):
    return ((points - nearest).norm(dim=1) <= reach).to(points)


def point_to_point(points, nearest, normals, reach):
    near = _near(points, nearest, reach)
    return (near * (points - nearest).square().sum(1)).sum() / near.sum().clamp_min(1)


def reach_forgotten(points, nearest, normals, reach):
    return ((points - nearest) * normals).sum(1).square().mean()


def mean_over_all_pairs(points, nearest, normals, reach):
    near = _near(points, nearest, reach)
    return (near * ((points - nearest) * normals).sum(1).square()).mean()


def not_squared(points, nearest, normals, reach):
    near = _near(points, nearest, reach)
    gap = ((points - nearest) * normals).sum(1).abs()
    return (near * gap).sum() / near.sum().clamp_min(1)


def nothing_near_is_nan(points, nearest, normals, reach):
    near = _near(points, nearest, reach)
    return (near * ((points - nearest) * normals).sum(1).square()).sum() / near.sum()


def reach_along_the_normal(points, nearest, normals, reach):
    gap = ((points - nearest) * normals).sum(1)
    near = (gap.abs() <= reach).to(gap)
    return (near * gap.square()).sum() / near.sum().clamp_min(1)


WRONG = {
    "8.1": [pivot_forgotten, scaled_after_the_turn, shift_before_the_turn, turned_the_other_way,
            pivot_not_put_back],
    "8.2": [without_logarithms, height_forgotten, half_forgotten, transposed_factor,
            amplitude_taken_for_pi, normalised_over_points, softmax_of_each_bone],
    "8.3": [not_normalised, normalised_over_vertices, normalised_over_all, softmax_of_densities,
            the_strongest_bone_alone],
    "8.4": [turned_like_an_arrow, turn_kept, turned_back, twins_forgotten, scale_flipped,
            shift_kept],
    "8.5": [point_to_point, reach_forgotten, mean_over_all_pairs, not_squared,
            nothing_near_is_nan, reach_along_the_normal],
}  # fmt: skip
