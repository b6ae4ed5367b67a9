"""Answers to notebook 03's exercises that a learner could give, and that are wrong."""

import torch

from course.rasterize import barycentric_at


def _edge(p, q, r):
    return (r[:, 0] - p[:, 0]) * (q[:, 1] - p[:, 1]) - (r[:, 1] - p[:, 1]) * (q[:, 0] - p[:, 0])


def own_edge(points, corners):
    """Each weight from an edge that touches its corner."""
    a, b, c = corners.unbind(1)
    parts = [_edge(a, b, points), _edge(b, c, points), _edge(c, a, points)]
    return torch.stack(parts, 1) / _edge(a, b, c)[:, None]


def not_divided(points, corners):
    a, b, c = corners.unbind(1)
    return torch.stack([_edge(b, c, points), _edge(c, a, points), _edge(a, b, points)], 1)


def absolute(points, corners):
    """Areas without their sign: everything is inside."""
    a, b, c = corners.unbind(1)
    parts = [_edge(b, c, points), _edge(c, a, points), _edge(a, b, points)]
    return torch.stack(parts, 1).abs() / _edge(a, b, c).abs()[:, None]


def weights_in_rows(points, corners):
    a, b, c = corners.unbind(1)
    parts = [_edge(b, c, points), _edge(c, a, points), _edge(a, b, points)]
    return torch.stack(parts) / _edge(a, b, c)


def not_transposed(points, corners):
    """The notebook's edge function, which reads u and v first, on (P, 2)."""
    a, b, c = corners.unbind(1)

    def edge(a, b, p):
        return (p[0] - a[0]) * (b[1] - a[1]) - (p[1] - a[1]) * (b[0] - a[0])

    parts = [edge(b, c, points), edge(c, a, points), edge(a, b, points)]
    return torch.stack(parts, 1) / edge(a, b, c)[:, None]


def _zbuffer(triangles, size, start, wins_over):
    centres = torch.arange(size) + 0.5
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    v, u = v.reshape(-1), u.reshape(-1)
    ids, nearest = torch.full((size * size,), -1), torch.full((size * size,), start)
    for f, corners in enumerate(triangles):
        weights = barycentric_at(corners.expand(len(u), 3, 3), u, v)
        depth = weights @ corners[:, 2]
        wins = (weights > 0).all(1) & wins_over(depth, nearest)
        ids[wins] = f
        nearest[wins] = depth[wins]
    return ids.view(size, size)


def only_the_sign(triangles, size):
    """The comparison mended, the start not: nothing is ever nearer than zero."""
    return _zbuffer(triangles, size, 0.0, torch.lt)


def only_the_start(triangles, size):
    return _zbuffer(triangles, size, torch.inf, torch.gt)


def painter(triangles, size):
    """The last one painted wins."""
    return _zbuffer(triangles, size, torch.inf, lambda depth, _: depth < torch.inf)


def far_enough(triangles, size):
    """A start that looks large."""
    return _zbuffer(triangles, size, 1000.0, torch.lt)


def as_far_as_the_picture(triangles, size):
    return _zbuffer(triangles, size, float(size), torch.lt)


def behind_the_last(triangles, size):
    return _zbuffer(triangles, size, float(triangles[..., 2].max() + 1), torch.lt)


def depth_without_sign(triangles, size):
    return _zbuffer(triangles, size, torch.inf, lambda depth, nearest: depth.abs() < nearest.abs())


def without_albedo(basis, albedo, colour):
    return torch.linalg.lstsq(basis, colour).solution


def divided_by_albedo(basis, albedo, colour):
    """Right without noise; with it, dark pixels count too much."""
    return torch.linalg.lstsq(basis, colour / albedo).solution


def grey_albedo(basis, albedo, colour):
    return torch.linalg.lstsq(basis * albedo.mean(1, keepdim=True), colour).solution


def light_transposed(basis, albedo, colour):
    columns = [
        torch.linalg.lstsq(basis * albedo[:, c : c + 1], colour[:, c : c + 1]).solution
        for c in range(3)
    ]
    return torch.cat(columns, 1).T


def forward_difference(function, x, k, h):
    step = torch.zeros_like(x)
    step[k] = h
    return (function(x + step) - function(x)) / h


def twice_too_much(function, x, k, h):
    step = torch.zeros_like(x)
    step[k] = h
    return (function(x + step) - function(x - step)) / h


def everything_moves(function, x, k, h):
    return (function(x + h) - function(x - h)) / (2 * h)


def moves_its_input(function, x, k, h):
    x[k] += h
    up = function(x)
    x[k] -= 2 * h
    return (up - function(x)) / (2 * h)


def single_precision(function, x, k, h):
    """Right for a large step; a tiny one drowns in rounding."""
    step = torch.zeros(len(x))
    step[k] = h
    return (function(x.float() + step) - function(x.float() - step)) / (2 * h)


def covers_summed(distances, sigma):
    return torch.sigmoid(-distances / sigma).sum(0)


def sign_forgotten(distances, sigma):
    return 1 - (1 - torch.sigmoid(distances / sigma)).prod(0)


def product_of_covers(distances, sigma):
    return torch.sigmoid(-distances / sigma).prod(0)


def nearest_only(distances, sigma):
    return torch.sigmoid(-distances.amin(0) / sigma)


def by_logarithms(distances, sigma):
    """The right values; their gradient is NaN where a triangle covers wholly."""
    return 1 - torch.log(1 - torch.sigmoid(-distances / sigma)).sum(0).exp()


def by_exponentials(distances, sigma):
    """The right values; their gradient is NaN far outside."""
    return 1 - (1 - 1 / (1 + torch.exp(distances / sigma))).prod(0)


def cut_off(distances, sigma):
    """The right values without any gradient."""
    return 1 - (1 - torch.sigmoid(-distances.detach() / sigma)).prod(0)


WRONG = {
    "3.1": [own_edge, not_divided, absolute, weights_in_rows, not_transposed],
    "3.2": [
        only_the_sign,
        only_the_start,
        painter,
        far_enough,
        as_far_as_the_picture,
        behind_the_last,
        depth_without_sign,
    ],
    "3.3": [without_albedo, divided_by_albedo, grey_albedo, light_transposed],
    "3.4": [
        forward_difference,
        twice_too_much,
        everything_moves,
        moves_its_input,
        single_precision,
    ],
    "3.5": [
        covers_summed,
        sign_forgotten,
        product_of_covers,
        nearest_only,
        by_logarithms,
        by_exponentials,
        cut_off,
    ],
}
