"""Notebook 03, differentiable rendering: exercises and questions."""

from functools import partial

import torch

from course.rasterize import barycentric_at
from course.render import spherical_harmonics
from course.teach.solutions import solution, with_slope


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ 3.1 barycentric coordinates


def _barycentric_cases():
    one = torch.tensor([[[1.0, 1.0], [5.0, 1.0], [1.0, 5.0]]])
    g = _generator()
    corners = torch.rand(40, 3, 2, generator=g) * 20
    wide = (corners[:, 1] - corners[:, 0])[:, None] * (corners[:, 2] - corners[:, 0])[:, None]
    corners = corners[wide.abs().sum((1, 2)) > 1]
    points = torch.rand(len(corners), 2, generator=g) * 20
    return [
        (torch.tensor([[2.0, 2.0]]), one),
        (torch.tensor([[1.0, 1.0], [3.0, 1.0], [6.0, 6.0]]), one.expand(3, 3, 2).clone()),
        (torch.tensor([[2.0, 2.0]]), one.flip(1)),  # the other way round: area < 0
        (points.double(), corners.double()),
    ]


@solution(
    "3.1",
    cases=_barycentric_cases,
    insight="The three weights are three areas over one area; their sum is 1 inside and outside.",
    hint="Each weight is the edge function of the opposite side over the whole triangle's. The "
    "`edge` above wants (2, P), u and v first: transpose.",
    tolerance=1e-4,
)
def barycentric(points, corners):
    a, b, c = corners.unbind(1)

    def edge(p, q, r):
        return (r[:, 0] - p[:, 0]) * (q[:, 1] - p[:, 1]) - (r[:, 1] - p[:, 1]) * (q[:, 0] - p[:, 0])

    opposite = [edge(b, c, points), edge(c, a, points), edge(a, b, points)]
    return torch.stack(opposite, 1) / edge(a, b, c)[:, None]


# ------------------------------------------------------------------ 3.2 find the bug: z-buffer


def _zbuffer_cases():
    near = torch.tensor([[0.0, 0.0, 2.0], [6.0, 0.0, 2.0], [0.0, 6.0, 2.0]])
    far = torch.tensor([[0.0, 0.0, 5.0], [6.0, 0.0, 5.0], [6.0, 6.0, 5.0]])
    through = torch.tensor([[0.0, 0.0, 1.0], [6.0, 0.0, 9.0], [0.0, 6.0, 1.0]])
    hills = torch.tensor([0.0, 0.0, 1e9])  # deeper than any number one would start from
    before = torch.tensor([0.0, 0.0, 8.0])  # depths below zero, as of a nose before the origin
    crowd = torch.rand(30, 3, 3, generator=_generator(1)) * torch.tensor([12.0, 12.0, 3.0]) + 1
    return [
        (near[None] / 2, 3),  # one triangle, small enough to be told number by number
        (torch.stack([near, far]), 6),
        (torch.stack([far, near]), 6),
        (torch.stack([through, far]), 6),
        (torch.stack([far + hills]), 6),
        (torch.stack([near - before, far - before]), 6),
        (crowd, 12),
    ]


def faulty_zbuffer(triangles, size):
    """The z-buffer as exercise 3.2 prints it."""
    centres = torch.arange(size) + 0.5
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    v, u = v.reshape(-1), u.reshape(-1)
    ids, nearest = torch.full((size * size,), -1), torch.zeros(size * size)
    for f, corners in enumerate(triangles):
        weights = barycentric_at(corners.expand(len(u), 3, 3), u, v)
        depth = weights @ corners[:, 2]
        wins = (weights > 0).all(1) & (depth > nearest)
        ids[wins] = f
        nearest[wins] = depth[wins]
    return ids.view(size, size)


@solution(
    "3.2",
    cases=_zbuffer_cases,
    insight="Empty pixels start infinitely far away, and the smaller depth wins each pixel.",
    hint="Which depth should win, and how far away is an empty pixel? Where −1 comes for every "
    "pixel, one of the two is still open.",
    bug=faulty_zbuffer,
)
def zbuffer(triangles, size):
    centres = torch.arange(size) + 0.5
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    v, u = v.reshape(-1), u.reshape(-1)
    ids, nearest = torch.full((size * size,), -1), torch.full((size * size,), torch.inf)
    for f, corners in enumerate(triangles):
        weights = barycentric_at(corners.expand(len(u), 3, 3), u, v)
        depth = weights @ corners[:, 2]
        wins = (weights > 0).all(1) & (depth < nearest)
        ids[wins] = f
        nearest[wins] = depth[wins]
    return ids.view(size, size)


# ------------------------------------------------------------------ 3.3 light by least squares


def _light_cases():
    g = _generator(2)

    def scene(pixels, grey):
        normals = torch.nn.functional.normalize(torch.randn(pixels, 3, generator=g), dim=1)
        basis = spherical_harmonics(normals)
        albedo = torch.full((pixels, 3), 0.5) if grey else torch.rand(pixels, 3, generator=g) + 0.1
        light = torch.randn(9, 3, generator=g)
        colour = albedo * (basis @ light)
        return basis, albedo, colour + 0.02 * torch.randn(pixels, 3, generator=g)

    return [scene(40, True), scene(60, False), scene(400, False)]


@solution(
    "3.3",
    cases=_light_cases,
    insight="Light enters the picture linearly, so it needs no descent: one solve per colour.",
    hint="For one colour the picture is (albedo · basis) @ light: that is a linear system. (Divide "
    "by the albedo instead, and the noise of dark pixels counts most.)",
    tolerance=1e-3,
)
def solve_light(basis, albedo, colour):
    columns = []
    for c in range(3):
        rows = basis * albedo[:, c : c + 1]
        columns.append(torch.linalg.lstsq(rows, colour[:, c : c + 1]).solution)
    return torch.cat(columns, 1)


# ------------------------------------------------------------------ 3.4 finite differences


def _square(x):
    return (x * x).sum()


def _many(x):
    return torch.stack([x[0].sin() * x[1], x[1].exp(), x[0] + 2 * x[1]])


def _precise(x):
    """A tiny step, as the renderer's check takes it: only double precision sees it."""
    return x.square()


def _picture(x):
    return torch.outer(torch.linspace(-1, 1, 4).double() + x[0], torch.arange(5) * x[2] ** 3)


def _difference_cases():
    return [
        (_square, torch.tensor([3.0, 1.0], dtype=torch.float64), 0, 0.5),
        (_many, torch.tensor([0.3, -0.7], dtype=torch.float64), 1, 0.2),
        (_picture, torch.tensor([0.1, 0.2, 0.9], dtype=torch.float64), 2, 0.1),
        (_precise, torch.tensor([3.0, 1.0], dtype=torch.float64), 0, 1e-6),
    ]


@solution(
    "3.4",
    cases=_difference_cases,
    insight="Two pictures for one number: the error falls with h², but a face has 80 numbers.",
    hint="Move x[k] up by h in one copy and down by h in another, in x's own dtype; divide by 2h.",
)
def central_difference(function, x, k, h):
    step = torch.zeros_like(x)
    step[k] = h
    return (function(x + step) - function(x - step)) / (2 * h)


# ------------------------------------------------------------------ 3.5 soft coverage


def _coverage_cases():
    g = _generator(3)
    return [
        (torch.tensor([[0.0, -4.0, 4.0]]), 1.0),
        (torch.tensor([[0.0, -1.0], [0.0, 2.0]]), 0.5),
        (torch.randn(6, 50, generator=g) * 0.01, 0.003),
        (torch.tensor([[-30.0, 30.0]]), 0.1),
    ]


@solution(
    "3.5",
    cases=_coverage_cases,
    run=partial(with_slope, needed=True),
    insight="A pixel stays clear only if every triangle misses it: so the misses are multiplied.",
    hint="One triangle covers with sigmoid(−d/σ); alpha is 1 − the product of all misses.",
)
def soft_coverage(distances, sigma):
    covers = torch.sigmoid(-distances / sigma)
    return 1 - (1 - covers).prod(0)


QUESTIONS = {
    "3.q1": {
        "answer": "b",
        "a": "No: both cameras draw a turned head; the rotation happens before the camera.",
        "b": "Yes: divided by its own depth, the near nose grows. s·(X + t) has no depth in it.",
        "c": "No: s is just that, how large the whole face is drawn.",
    },
    "3.q2": {
        "answer": "c",
        "a": "No: colours inside are weighted sums of corner values, and the weights are smooth.",
        "b": "No: the light enters linearly, the simplest gradient there is.",
        "c": "Yes: which triangle wins is a whole number. Its gradient is zero or does not exist.",
    },
    "3.q3": {
        "answer": "a",
        "a": "Right: each pixel is still a mean of steps; the mean of zero gradients is zero.",
        "b": "No: it looks smooth, but a mean of 16 yes-or-no answers is still made of steps.",
        "c": "No: supersampling multiplies the work by 16; it makes nothing cheaper.",
    },
    "3.q4": {
        "answer": "b",
        "a": "No: with all pairs of pixels and triangles it would be; boxes leave most pairs out.",
        "b": "Yes: tiny triangles' boxes hold a pixel or none; what each costs anyway rules.",
        "c": "No: every triangle has at least to be looked at once.",
    },
}
