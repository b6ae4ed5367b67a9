"""Notebook 09, transfer and animation: exercises and questions."""

import numpy as np
import torch

from course.teach.solutions import solution


def _randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ 9.1 borrow an expression


def _borrow_cases():
    small = torch.arange(15.0)[None]
    return [
        (torch.tensor([[1.0, 0.0]]), small, torch.tensor([[0.0, 2.0]]), small + 100),
        (_randn(0, 1, 5), torch.zeros(1, 15), _randn(1, 1, 5), _randn(2, 1, 15)),
        (_randn(3, 4, 29), _randn(4, 4, 15), _randn(5, 4, 29), _randn(6, 4, 15)),
    ]


@solution(
    "9.1",
    cases=_borrow_cases,
    insight="Two slices, and an actor plays another's part: that is all that transfer is, once the "
    "codes mean what they say.",
    hint="All of the other's expression, and columns 6, 7, 8 of the other's pose, on a copy.",
)
def borrow(expression, pose, other_expression, other_pose):
    pose = pose.clone()
    pose[:, 6:9] = other_pose[:, 6:9]
    return other_expression.clone(), pose


# ------------------------------------------------------------------ 9.2 find the bug: the mirror


def _mirror_cases():
    turn = torch.zeros(1, 15)
    turn[0, 1] = 0.5  # a yaw must change its sign
    nod = torch.zeros(1, 15)
    nod[0, 0] = 0.5  # a nod stays a nod
    gaze = torch.zeros(1, 15)
    gaze[0, 9:11] = torch.tensor([0.1, 0.3])  # the left eye alone
    return [(turn,), (nod,), (gaze,), (_randn(7, 3, 15),)]


def faulty_mirror(pose):
    """The mirror as exercise 9.2 prints it."""
    flip = torch.tensor([-1.0, 1.0, 1.0]).repeat(5)
    pose = pose * flip
    return torch.cat([pose[:, :9], pose[:, 12:15], pose[:, 9:12]], 1)


@solution(
    "9.2",
    cases=_mirror_cases,
    insight="A rotation's axis is no arrow: in the mirror the arrow's x flips, the axis keeps its "
    "x and flips the other two.",
    hint="Before a mirror, nod: the person there nods. Turn your head to your left: to which of "
    "their sides does that person turn? And which eye of theirs follows your left one?",
    bug=faulty_mirror,
)
def mirror(pose):
    flip = torch.tensor([1.0, -1.0, -1.0]).repeat(5)
    pose = pose * flip
    return torch.cat([pose[:, :9], pose[:, 12:15], pose[:, 9:12]], 1)


# ------------------------------------------------------------------ 9.3 slerp


def _turn(axis, degrees):
    """Unit quaternion (x, y, z, w)."""
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    half = np.radians(degrees) / 2
    return np.append(np.sin(half) * axis, np.cos(half))


def _slerp_cases():
    rest, times = _turn([0, 1, 0], 0), np.linspace(0, 1, 5)
    rounded = _turn([0, 0, 1], 65) * (1 + 1e-15)  # a·b is a little more than 1
    return [
        (rest, _turn([0, 1, 0], 90), np.array([0.0, 0.5, 1.0])),
        (rest, _turn([0, 1, 0], 160), times),
        (_turn([0, 1, 0], 40), -_turn([1, 0, 0], 70), times),  # −q is the same turn as q
        (_turn([1, 2, 0], 50), _turn([1, 2, 0], 50), times),  # nothing to turn
        (_turn([1, 0, 3], 20), _turn([1, 0, 3], 20 + 1e-7), times),
        (rounded, rounded, times),
        (_turn([1, 1, 1], 170), _turn([0, 1, 1], -150), np.linspace(0, 1, 9)),
    ]


def _same_turn(function, *case):
    """q and −q are one turn: the sign is chosen so that w, or the first of x, y, z, is positive."""
    found = function(*case)
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.shape[1] != 4:
        return found
    order = found[:, [3, 0, 1, 2]]
    first = np.take_along_axis(order, (np.abs(order) > 1e-9).argmax(1)[:, None], 1)
    return found * np.where(first < 0, -1, 1)


@solution(
    "9.3",
    cases=_slerp_cases,
    run=_same_turn,
    insight="The path is the great circle between two points of a sphere, walked at one speed; of "
    "its two halves the shorter one.",
    hint="If a·b < 0, take −b. With ω = arccos(a·b): (sin((1 − t)ω) a + sin(tω) b) / sin ω; where "
    "ω is next to nothing, the straight line will do.",
    tolerance=1e-6,
)
def slerp(a, b, t):
    dot = float(a @ b)
    if dot < 0:
        b, dot = -b, -dot
    angle, t = np.arccos(min(dot, 1.0)), t[:, None]
    if angle < 1e-6:
        path = (1 - t) * a + t * b
    else:
        path = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    return path / np.linalg.norm(path, axis=1, keepdims=True)


# ------------------------------------------------------------------ 9.4 Whittaker's smoother


def _smooth_cases():
    rng = np.random.default_rng(0)
    line = np.arange(6.0)[:, None] * [1.0, -2.0]
    return [
        (np.array([[0.0], [1.0], [0.0]]), 1.0),
        (line, 50.0),
        (rng.normal(size=(2, 3)), 4.0),  # two frames have no second difference
        (rng.normal(size=(8, 2)), 0.0),
        (rng.normal(size=(25, 4)), 3.0),
        (np.cumsum(rng.normal(size=(40, 1)), 0), 200.0),
    ]


@solution(
    "9.4",
    cases=_smooth_cases,
    insight="One linear system: no window to choose, no lag, and straight lines pass unchanged.",
    hint="Set the derivative to zero: (I + strength · DᵀD) z = y. np.diff(np.eye(K), n=2, axis=0) "
    "is D.",
    tolerance=1e-7,
)
def smooth(values, strength):
    count = len(values)
    second = np.diff(np.eye(count), n=2, axis=0)
    return np.linalg.solve(np.eye(count) + strength * second.T @ second, values)


QUESTIONS = {
    "9.q1": {
        "answer": "b",
        "a": "No: in the model they are added and do not touch each other; the swap is exact.",
        "b": "Yes: one smiling photograph allows several explanations. What the encoder books "
        "under the wrong account, transfer carries along.",
        "c": "No: light has its own code, and the leak was measured on shapes.",
    },
    "9.q2": {
        "answer": "a",
        "a": "Right: three straight averages of angles are no turn that lies between the two.",
        "b": "No: both cost next to nothing, a few products each.",
        "c": "No: the two agree at both ends; they differ on the way.",
    },
    "9.q3": {
        "answer": "c",
        "a": "No: a slow turn is nearly a straight line in time, and those pass unchanged.",
        "b": "No: a smile that is held is a constant for most frames.",
        "c": "Yes: a blink is over in a few frames; to a smoother it looks like trembling.",
    },
    "9.q4": {
        "answer": "b",
        "a": "No: who shows a photograph has not agreed to be made to say something.",
        "b": "Yes: ask, say what for, and take a no. Nothing technical replaces that.",
        "c": "No: a mark tells others that it is made; it does not ask the person.",
    },
}
