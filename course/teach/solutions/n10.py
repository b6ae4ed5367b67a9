"""Notebook 10, your own face: exercises and questions."""

import numpy as np

from course.metrics import apply, rigid_align, scan_to_mesh
from course.teach.solutions import solution


def _rng(seed):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------ 10.1 how blurred?


def _slopes(width, a=1.0, b=2.5):
    """Steepest slopes of a step that was blurred by ``width``, then by a, then (instead) by b."""
    return (1 / np.hypot(width, a), 1 / np.hypot(width, b), a, b)


def _blur_cases():
    return [
        _slopes(2.0),
        _slopes(0.0),
        (1.0, 0.2, 1.0, 2.5),  # falls faster than a sharp edge: noise. Not blurred
        _slopes(_rng(0).uniform(0, 6, 12), 0.5, 3.0),
        (np.array([1.0, 0.5, 0.9]), np.array([0.3, 0.45, 0.5]), 1.5, 2.0),
    ]


@solution(
    "10.1",
    cases=_blur_cases,
    insight="Nobody has to know how sharp the face was: two more blurs of known width tell.",
    hint="The square of the ratio, much / little, is (w² + a²) / (w² + b²); solve for w².",
    tolerance=1e-6,
)
def blur_width(little, much, a, b):
    ratio = (much / little) ** 2
    return np.sqrt(np.maximum(0.0, (ratio * b**2 - a**2) / (1 - ratio)))


# ------------------------------------------------------------------ 10.2 a point and a triangle


def _triangle_cases():
    corner = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    a, b, c = (_rng(k).normal(size=(40, 3)) for k in (1, 2, 3))
    points = ([0.2, 0.2, 0.5], [-1.0, -1.0, 0.0], [2.0, 2.0, 0.0], [0.5, -0.3, 0.4])
    cases = [(np.array(p), *corner.transpose(1, 0, 2)) for p in points]
    return [*cases, (_rng(4).normal(size=3), a, b, c), (a[7] + 1e-3, a, b, c)]


@solution(
    "10.2",
    cases=_triangle_cases,
    insight="Above the triangle the plane is nearest, elsewhere one of three edges: every library "
    "that measures scans has this at its bottom.",
    hint="Project the point into the plane. Inside all three edges: the height. Outside: the "
    "nearest of the three segments, each with its parameter clamped to 0…1.",
    tolerance=1e-6,
)
def distance_to_triangles(p, a, b, c):
    def to_segment(start, end):
        way = end - start
        t = ((p - start) * way).sum(1) / np.maximum((way**2).sum(1), 1e-30)
        return np.linalg.norm(p - start - np.clip(t, 0, 1)[:, None] * way, axis=1)

    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1)  # zero for triangles that are lines, as some heads have
    height = ((p - a) * normal).sum(1) / np.maximum(area, 1e-30)
    pairs = ((a, b), (b, c), (c, a))
    sides = [(np.cross(end - start, p - start) * normal).sum(1) >= 0 for start, end in pairs]
    edges = np.min([to_segment(*pair) for pair in pairs], axis=0)
    return np.where(np.all(sides, axis=0) & (area > 0), np.abs(height), edges)


# ------------------------------------------------------------------ 10.3 find the bug: which way?

_FACES = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])


def _head_cases():
    body = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1.2, 0], [0, 0, 0.8]])
    scan = np.array([[0.3, 0.3, 0.0], [0.4, 0.0, 0.2], [0.1, 0.5, 0.2]])
    g = _rng(6)
    turn = np.linalg.qr(g.normal(size=(3, 3)))[0]
    turn = turn * np.sign(np.linalg.det(turn))
    bent = body + g.normal(size=body.shape) * 0.1
    return [
        (0.5 * bent, body, 0.5 * bent, _FACES, scan),
        (2 * bent @ turn.T + 3, body, 2 * bent @ turn.T + 3, _FACES, scan),
        (0.1 * body @ turn.T, body, 0.1 * bent @ turn.T, _FACES, g.random((30, 3))),
    ]


def faulty_now_errors(found_marks, true_marks, found, faces, scan):
    """The evaluation as exercise 10.3 prints it."""
    transform = rigid_align(true_marks, found_marks)
    return scan_to_mesh(apply(transform, scan), found, faces)


@solution(
    "10.3",
    cases=_head_cases,
    insight="Millimetres are those of the true face. In the found head's own measure a head of "
    "half the size has half the error.",
    hint="What is scaled here, the truth or the guess? In whose millimetres is the result?",
    bug=faulty_now_errors,
    tolerance=1e-6,
)
def now_errors(found_marks, true_marks, found, faces, scan):
    transform = rigid_align(found_marks, true_marks)
    return scan_to_mesh(scan, apply(transform, found), faces)


# ------------------------------------------------------------------ 10.4 the cumulative curve


def _curve_cases():
    g = _rng(5)
    return [
        (np.array([0.5, 1.0, 2.0, 4.0]), np.array([1.0, 3.0])),
        (np.array([1.0]), np.array([0.0, 1.0, 2.0])),
        (g.exponential(size=300), np.linspace(0, 5, 11)),
        (g.exponential(size=(4, 50)).ravel(), np.array([0.25])),
    ]


@solution(
    "10.4",
    cases=_curve_cases,
    insight="The curve holds all: the median is where it crosses 50 %, and its tail is what the "
    "median hides.",
    hint="Compare every error with every limit (a new axis), then take the mean over the errors.",
)
def within(errors, limits):
    return 100 * (errors[:, None] <= limits).mean(0)


QUESTIONS = {
    "10.q1": {
        "answer": "b",
        "a": "No: it shows the same once more. Noise is averaged, what is hidden stays hidden.",
        "b": "Yes: how far the nose stands out is what a frontal view cannot see.",
        "c": "No: a mirror image holds no new numbers; the encoder takes it into account already.",
    },
    "10.q2": {
        "answer": "c",
        "a": "No: the nose is in the scan, and errors there count like all others.",
        "b": "No: both heads are at rest; the expression was taken off before.",
        "c": "Right: the alignment scales. A doll's head of the right shape would get zero.",
    },
    "10.q3": {
        "answer": "c",
        "a": "No: other people, other photographs. Part of the difference may be who was drawn.",
        "b": "No: a mean over more photographs is surer, not fairer.",
        "c": "Right: pair them. The same people and photographs for both, then look at the "
        "differences and their spread.",
    },
    "10.q4": {
        "answer": "b",
        "a": "No: half of the points are within the median for both.",
        "b": "Yes: the same middle, but a heavier tail: some regions are far off.",
        "c": "No: the median would tell nothing of it, but the mean does.",
    },
}
