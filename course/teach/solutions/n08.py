"""Notebook 08, adaptive skinning: exercises and questions."""

import numpy as np
import torch

from course.asm_weights import factors
from course.flame import rodrigues
from course.teach.solutions import solution


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _randn(seed, *size):
    return torch.randn(*size, generator=_generator(seed))


# ------------------------------------------------------------------ 8.1 one bone


def _bone_cases():
    zero, one = torch.zeros(3), torch.ones(3)
    return [
        (torch.tensor([1.0, 0, 0]), torch.tensor([2.0, 2, 2]), zero, zero),
        (torch.tensor([1.0, 2, 3]), one, zero, torch.tensor([0.0, 0, 1])),
        (torch.tensor([1.0, 2, 0]), one, torch.tensor([0.0, 0, np.pi / 2]), zero),
        (_randn(0, 3), _randn(1, 3).exp(), _randn(2, 3), _randn(3, 3)),
    ]


@solution(
    "8.1",
    cases=_bone_cases,
    insight="At scale 1, no turn and no shift this is the identity, wherever the pivot is.",
    hint="A = R · diag(scale). The pivot itself must land on pivot + translation: that fixes the "
    "last column.",
)
def bone_matrix(pivot, scale, rotation, translation):
    linear = rodrigues(rotation) * scale
    shift = pivot + translation - linear @ pivot
    return torch.cat([linear, shift[:, None]], 1)


# ------------------------------------------------------------------ 8.2 Gaussian weights


def _mixture(seed, bones, count, points):
    middle = 0.5 + 0.2 * _randn(seed, bones, count, 2)
    factor = factors(_randn(seed + 1, bones, count, 3) * 0.4 + torch.tensor([-2.5, -2.5, 0.0]))
    uv = torch.rand(points, 2, generator=_generator(seed + 2))
    return uv, middle, factor, 0.5 * _randn(seed + 3, bones, count)


def _mixture_cases():
    two = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]])
    round_ones = torch.eye(2).expand(2, 1, 2, 2).clone()
    uv, *rest = _mixture(20, 4, 3, 5)
    return [
        (torch.tensor([[0.5, 0.0], [0.0, 0.0]]), two, round_ones, torch.zeros(2, 1)),
        (torch.tensor([[0.5, 0.3]]), two, round_ones * torch.tensor([1.0, 2]).view(2, 1, 1, 1),
         torch.tensor([[0.0], [1.0]])),
        _mixture(10, 5, 3, 20),
        (uv + 9, *rest),  # so far away that every density is zero in float32
    ]  # fmt: skip


@solution(
    "8.2",
    cases=_mixture_cases,
    insight="In logarithms nothing is too small: even far from every bone the weights sum to one.",
    hint="Far away every density is 0 in float32, and 0/0 is nan: stay in logarithms. With "
    "y = L⁻¹(u − m), log N = −½|y|² − log(L₁₁ L₂₂) − log 2π; then torch.softmax over all bones and "
    "Gaussians together, and a sum over each bone's own.",
    tolerance=1e-4,
)
def mixture_weights(uv, middle, factor, amplitude):
    offset = uv - middle.unsqueeze(2)  # (J, K, n, 2)
    y = torch.linalg.solve_triangular(factor, offset.mT, upper=False)
    size = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log = amplitude[..., None] - size[..., None] - 0.5 * y.square().sum(2)
    return torch.softmax(log.flatten(0, 1), 0).view_as(log).sum(1)


# ------------------------------------------------------------------ 8.3 find the bug


def _blend_cases():
    still = torch.eye(3, 4).expand(2, 3, 4).clone()
    moved = still.clone()
    moved[1, :, 3] = torch.tensor([0.0, 0.0, 1.0])
    return [
        (torch.tensor([[1.0, 2, 3]]), still, torch.tensor([[2.0], [2.0]])),
        (torch.tensor([[0.0, 0, 0], [1, 1, 1]]), moved, torch.tensor([[1.0, 0], [3.0, 5]])),
        (_randn(30, 8, 3), _randn(31, 5, 3, 4), _randn(32, 5, 8).exp()),
    ]


def faulty_blend(vertices, transforms, density):
    """The loop as exercise 8.3 prints it."""
    weights = density / density.sum(0).max()
    moved = torch.einsum("jab,nb->jna", transforms[:, :, :3], vertices) + transforms[:, None, :, 3]
    return (weights[..., None] * moved).sum(0)


@solution(
    "8.3",
    cases=_blend_cases,
    insight="Weights of a vertex sum to one, or the vertex shrinks towards the origin.",
    hint="Let every bone stand still: what comes back? At which vertices is it wrong, and what do "
    "the weights of such a vertex add up to?",
    bug=faulty_blend,
)
def blend(vertices, transforms, density):
    weights = density / density.sum(0)
    moved = torch.einsum("jab,nb->jna", transforms[:, :, :3], vertices) + transforms[:, None, :, 3]
    return (weights[..., None] * moved).sum(0)


# ------------------------------------------------------------------ 8.4 the mirror


def _mirror_cases():
    alone = torch.tensor([0])
    pair = torch.tensor([0, 2, 1])
    return [
        (torch.ones(1, 3), torch.zeros(1, 3), torch.tensor([[1.0, 2, 3]]), alone),
        (torch.ones(1, 3), torch.tensor([[1.0, 2, 3]]), torch.zeros(1, 3), alone),
        (torch.ones(3, 3), torch.zeros(3, 3), _randn(40, 3, 3), pair),
        (_randn(41, 3, 3), _randn(42, 3, 3), _randn(43, 3, 3), pair),
    ]


@solution(
    "8.4",
    cases=_mirror_cases,
    insight="A turn is no arrow: in the mirror its axis flips where an arrow's would stay.",
    hint="Left becomes right (index with twins). A shift flips x. Nodding (about x) looks the same "
    "in a mirror; shaking the head (about y) and tilting it (about z) go the other way.",
)
def mirrored_motion(scale, rotation, translation, twins):
    turn, way = torch.tensor([1.0, -1, -1]), torch.tensor([-1.0, 1, 1])
    return scale[twins], rotation[twins] * turn, translation[twins] * way


# ------------------------------------------------------------------ 8.5 point to plane


def _plane_cases():
    up = torch.tensor([[0.0, 0, 1]])
    normals = torch.nn.functional.normalize(_randn(52, 30, 3), dim=1)
    points = _randn(50, 30, 3)
    return [
        (torch.tensor([[5.0, 7, 2]]), torch.zeros(1, 3), up, 100.0),
        (torch.tensor([[0.0, 0, 1], [0, 0, 9]]), torch.zeros(2, 3), up.expand(2, 3), 4.0),
        (points, points + 0.3 * _randn(51, 30, 3), normals, 0.5),
        (torch.tensor([[0.0, 0, 9]]), torch.zeros(1, 3), up, 4.0),  # no pair is near enough
    ]


def _plane_run(function, *case):
    """A learner's plain number is as good as a tensor of it."""
    found = function(*case)
    return torch.tensor(float(found)) if isinstance(found, (int, float)) else found


@solution(
    "8.5",
    cases=_plane_cases,
    run=_plane_run,
    insight="Along the surface a point may slide for free: nobody knows which point of a cheek is "
    "which.",
    hint="The gap's part along the normal is its dot product with it. Pairs with |gap| > reach are "
    "left out of the mean; without any pair the answer is 0.",
)
def point_to_plane(points, nearest, normals, reach):
    gap = points - nearest
    near = (gap.norm(dim=1) <= reach).to(gap)
    square = (gap * normals).sum(1).square()
    return (near * square).sum() / near.sum().clamp_min(1)


QUESTIONS = {
    "8.q1": {
        "answer": "b",
        "a": "No: both hang on the mouth. The tree says who goes along, not who carries what.",
        "b": "Right: the weights fall off along the skin, where the way leads round the mouth's "
        "corner, and over the texture, where the mouth's inside lies between the lips.",
        "c": "No: the prior keeps motions small; it says nothing about neighbours.",
    },
    "8.q2": {
        "answer": "b",
        "a": "No: nothing pulls at it, so it stays where it began.",
        "b": "Right: at rest every M·B⁻¹ is the identity, and a mean of identities, however "
        "weighted, is the identity. Weights decide what a motion does.",
        "c": "No: smoother would mean that points move, and none does.",
    },
    "8.q3": {
        "answer": "b",
        "a": "No: with enough numbers anything fits. Capacity counts per number, or for its use.",
        "b": "Right: compare at equal counts, and with something else that needs no data. The "
        "harmonics in 8.11 are such a rival.",
        "c": "No: a faster machine changes the seconds, not the millimetres.",
    },
    "8.q4": {
        "answer": "b",
        "a": "No: bones do not know that a long nose often comes with a long face, or what a skull "
        "looks like from the side. What no pixel shows stays at rest.",
        "b": "Yes: if the stranger resembles the people behind the basis, components carry "
        "what is seen over to what is not. If not, they carry over something wrong.",
        "c": "No: then the profile is anything at all.",
    },
}
