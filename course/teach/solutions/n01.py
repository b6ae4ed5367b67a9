"""Notebook 01: FLAME."""

import math

import torch

from course.teach.solutions import solution


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _turn(vectors):
    """Rotation matrices (N, 3, 3) of axis-angle vectors (N, 3), for the cases below."""
    vectors = torch.as_tensor(vectors, dtype=torch.float32)
    return torch.matrix_exp(torch.stack([_cross(v) for v in vectors]))


def _cross(v):
    x, y, z = v.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])


# ------------------------------------------------------------------ 1.1


def _pca_cases():
    four = torch.tensor([[134.0, 112], [146, 128], [138, 121.5], [142, 118.5]])
    wide = _random(6, 40, seed=1) * torch.linspace(3, 0.2, 40) + 5
    return [(four, 1), (four, 2), (_random(30, 4, seed=2) * torch.tensor([1.0, 3, 9, 2]), 3),
            (wide, 4)]  # fmt: skip


def _pca_run(function, data, k):
    """Directions have no sign: the largest entry of each row is made positive."""
    mean, basis = function(data, k)
    if torch.is_tensor(basis) and basis.ndim == 2:
        largest = basis.abs().argmax(1, keepdim=True)
        basis = basis * basis.gather(1, largest).sign()
    return mean, basis


@solution(
    "1.1",
    cases=_pca_cases,
    run=_pca_run,
    tolerance=1e-3,
    insight="That is a whole morphable model: a mean, and directions that are one σ long.",
    hint="Return both, mean and directions. Subtract the mean before the SVD; σ is a singular "
    "value over √(n − 1); each direction, a row, is as long as its own σ.",
)
def pca(data, k):
    mean = data.mean(0)
    _, singular, directions = torch.linalg.svd(data - mean, full_matrices=False)
    sigma = singular[:k] / math.sqrt(len(data) - 1)
    return mean, sigma[:, None] * directions[:k]


# ------------------------------------------------------------------ 1.2


def _rodrigues_cases():
    return [(torch.tensor([[0, 0, math.pi / 2]]),), (torch.tensor([[0.3, -0.2, 0.6]]),),
            (torch.tensor([[0, 0, 0], [0, 2.0, 0]]),), (_random(7, 3, seed=3),),
            (1e-5 * _random(3, 3, seed=4),)]  # fmt: skip


@solution(
    "1.2",
    cases=_rodrigues_cases,
    insight="And at the zero vector you get the identity, not 0/0.",
    hint="K is made of the unit axis, vector / θ; K² is a matrix product, K @ K; a zero vector "
    "must not be divided by zero.",
)
def rodrigues(vectors):
    angle = vectors.norm(dim=-1).clamp_min(1e-12)[:, None, None]
    x, y, z = (vectors / angle[:, 0]).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


# ------------------------------------------------------------------ 1.3


def _chain_cases():
    quarter, flame = math.pi / 2, (-1, 0, 1, 1, 1)
    arm = torch.tensor([[0.0, 0, 0], [0, 1, 0]])
    return [(_turn([[0, 0, quarter], [quarter, 0, 0]]), arm, (-1, 0)),
            (_turn(_random(3, 3, seed=5)), _random(3, 3, seed=6), (-1, 0, 1)),
            (_turn(0.6 * _random(5, 3, seed=7)), _random(5, 3, seed=8), flame),
            (torch.eye(3).repeat(5, 1, 1), _random(5, 3, seed=9), flame)]  # fmt: skip


def chain_with_bug(rotations, joints, parents):
    world = []
    for k, parent in enumerate(parents):
        local = torch.eye(4)
        local[:3, :3] = rotations[k]
        local[:3, 3] = joints[k] - (joints[parent] if parent >= 0 else 0)
        world.append(local @ world[parent] if parent >= 0 else local)
    back = torch.eye(4).repeat(len(joints), 1, 1)
    back[:, :3, 3] = -joints
    return torch.stack(world) @ back


@solution(
    "1.3",
    cases=_chain_cases,
    bug=chain_with_bug,
    insight="The parent stands on the left: the child moves first, then everything above it.",
    hint="Only one line is wrong. A point is a column on the right of the product: "
    "which matrix reaches it first? The hand of the arm in the text should go to (−1, 0, 1).",
)
def chain(rotations, joints, parents):
    world = []
    for k, parent in enumerate(parents):
        local = torch.eye(4)
        local[:3, :3] = rotations[k]
        local[:3, 3] = joints[k] - (joints[parent] if parent >= 0 else 0)
        world.append(world[parent] @ local if parent >= 0 else local)
    back = torch.eye(4).repeat(len(joints), 1, 1)
    back[:, :3, 3] = -joints
    return torch.stack(world) @ back


# ------------------------------------------------------------------ 1.4


def _transforms(count, seed):
    out = torch.eye(4).repeat(count, 1, 1)
    out[:, :3, :3] = _turn(_random(count, 3, seed=seed))
    out[:, :3, 3] = _random(count, 3, seed=seed + 50)
    return out


def _skinning_cases():
    weights = _random(20, 5, seed=11).softmax(1)
    lift = torch.eye(4).repeat(2, 1, 1)
    lift[1, 1, 3] = 1.0  # the second joint rises by one
    return [(torch.tensor([[1.0, 0, 0]]), lift, torch.tensor([[0.5, 0.5]])),
            (torch.tensor([[1.0, 0, 0]]), _transforms(2, 12), torch.tensor([[0.25, 0.75]])),
            (_random(20, 3, seed=13), _transforms(5, 14), weights),
            (_random(4, 3, seed=15), _transforms(5, 16), torch.eye(5)[:4])]  # fmt: skip


@solution(
    "1.4",
    cases=_skinning_cases,
    insight="Blend the matrices first and you multiply each vertex once, however many joints.",
    hint="Give every vertex a 1 as fourth number, and one blended 4×4 matrix of its own, which "
    "stands on the vertex's left.",
)
def skin(vertices, transforms, weights):
    blended = torch.einsum("vj,jab->vab", weights, transforms)
    return (blended[:, :3, :3] @ vertices[:, :, None])[:, :, 0] + blended[:, :3, 3]


# ------------------------------------------------------------------ 1.5


def _triangle_cases():
    one = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 2, 0]])
    faces = torch.tensor([[2, 0, 1], [4, 3, 2], [1, 3, 4], [0, 2, 4]])
    return [(one, torch.tensor([[0, 1, 2]]), torch.tensor([0]), torch.tensor([[0.5, 0.25, 0.25]])),
            (_random(5, 3, seed=20), faces, torch.tensor([3, 0, 0]),
             _random(3, 3, seed=21).softmax(1)),
            (_random(5, 3, seed=22), faces, torch.tensor([1, 2]), torch.eye(3)[:2]),
            (_random(9, 3, seed=23), torch.randint(0, 9, (30, 3), generator=torch.Generator()
             .manual_seed(24)), torch.arange(30), _random(30, 3, seed=25).softmax(1))]  # fmt: skip


@solution(
    "1.5",
    cases=_triangle_cases,
    insight="Written so, landmarks are differentiable in the vertices: fitting lives on that.",
    hint="Look up twice: the triangle's three vertex numbers, then their places. The point is the "
    "sum of the three, each times its own weight.",
)
def on_triangles(vertices, faces, triangles, weights):
    corners = vertices[faces[triangles]]
    return (corners * weights[:, :, None]).sum(1)


QUESTIONS = {
    "1.q1": {
        "answer": "b",
        "a": "Not yet: look at the curve where it crosses one millimetre.",
        "b": "Yes: in our head features come together (we built it so), so few directions hold "
        "most of it.",
        "c": "That many are needed for the last tenths of a millimetre, not for the first.",
    },
    "1.q2": {
        "answer": "c",
        "a": "The two agree only at the ends, where the blendshape was made.",
        "b": "The straight line runs inside the arc, so the chin comes nearer to the hinge.",
        "c": "Yes: the chord runs inside the arc; the loss is 1 − cos of half the angle.",
    },
    "1.q3": {
        "answer": "b",
        "a": "R has nine numbers and the axis-angle three: it is not about saving.",
        "b": "Yes: 0° and 360° are one R but two vectors. (R alone would not be zero at rest.)",
        "c": "Rotations do have gradients; R − I has the same ones as R.",
    },
    "1.q4": {
        "answer": "a",
        "a": "Yes: what folds is steep, and σ/ℓ is how steep the field is.",
        "b": "Long waves move whole regions together; neighbours stay neighbours.",
        "c": "Size alone folds nothing: a head moved by a metre has no fold.",
    },
    "1.q5": {
        "answer": "c",
        "a": "Its own 50 it knows better; the question is about the others.",
        "b": "Unseen heads differ from the seen ones wherever 50 heads do not reach.",
        "c": "Yes: what no training head did, the model cannot do. More heads help, not more K.",
    },
}
