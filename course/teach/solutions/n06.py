"""Notebook 06, face alignment and GridMask: exercises and questions."""

import numpy as np
import torch

from course.teach.solutions import solution


def _rng(seed):
    return np.random.default_rng(seed)


def _moved(points, scale, degrees, shift):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return scale * points @ np.array([[c, -s], [s, c]]).T + np.asarray(shift, float)


# ------------------------------------------------------------------ 6.1 Umeyama


def _similarity_cases():
    corner = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    cloud, noise = _rng(0).normal(size=(12, 2)), _rng(1).normal(size=(12, 2)) * 0.1
    return [
        (corner, _moved(corner, 2.0, 90, (3, 1))),
        (corner + 5, _moved(corner, 0.5, -30, (-4, 2))),
        (cloud, _moved(cloud, 1.7, 140, (8, -3)) + noise),
        (cloud, cloud * [-1, 1] + 4),  # a mirror image: still a rotation, never a reflection
        (cloud * [1, 0.2], cloud * [0.2, 1] * 3 + noise),
    ]


@solution(
    "6.1",
    cases=_similarity_cases,
    insight="One SVD of a 2 × 2 matrix places any number of landmarks; the sign keeps mirrors out.",
    hint="Centre both; U, D, Vᵀ = svd(bᵀa / n); the last sign of S is det(U)·det(V); the scale is "
    "tr(D S) over the variance of the source.",
    tolerance=1e-6,
)
def similarity(source, target):
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (d * signs).sum() / (a**2).sum(1).mean()
    return scale, rotation, target_mean - scale * rotation @ source_mean


# ------------------------------------------------------------------ 6.2 find the bug: the loop


def _loop_cases():
    return [
        (np.ones((6, 6)), 1, 1, 2, 1),
        (np.ones((9, 14)), 0, 2, 3, 2),
        (_rng(2).random((12, 7)), 3, 0, 4, 5),
        (np.ones((5, 5)), 6, 1, 2, 2),  # the first square is beside the picture
        (_rng(3).random((40, 33)), 5, 5, 8, 10),
    ]


def faulty_draw_grid(picture, x, y, l, gap):  # noqa: E741 - the tutorial's name
    """The loop as exercise 6.2 prints it."""
    out = picture.copy()
    height, width = out.shape
    while y < height:
        while x < width:
            for v in range(y, min(y + l, height)):
                for u in range(x, min(x + l, width)):
                    out[v, u] = 0
                x += l + gap
        y += l + gap
    return out


@solution(
    "6.2",
    cases=_loop_cases,
    insight="Each loop has its own step, and every new row of squares begins at the left again.",
    hint="After which loop is a square finished, and where does the next row of squares begin?",
    bug=faulty_draw_grid,
)
def draw_grid(picture, x, y, l, gap):  # noqa: E741
    out = picture.copy()
    height, width = out.shape
    while y < height:
        left = x
        while left < width:
            for v in range(y, min(y + l, height)):
                for u in range(left, min(left + l, width)):
                    out[v, u] = 0
            left += l + gap
        y += l + gap
    return out


# ------------------------------------------------------------------ 6.3 the grid without loops


def _grid_cases():
    g = torch.Generator().manual_seed(0)
    d = torch.randint(5, 30, (6,), generator=g)
    x, y = (torch.rand(2, 6, generator=g) * d).floor().long()
    return [
        (4, torch.tensor([1]), torch.tensor([0]), torch.tensor([2]), torch.tensor([4])),
        (8, torch.tensor([1, 6]), torch.tensor([2, 5]), torch.tensor([3, 2]), torch.tensor([5, 7])),
        (7, *(torch.tensor([k]) for k in (3, 3, 4, 4))),  # keeps all
        (48, x, y, (d * 0.6).ceil().long(), d),
    ]


@solution(
    "6.3",
    cases=_grid_cases,
    insight="The remainder of a division repeats by itself: no loop over squares, and none over "
    "pictures.",
    hint="A pixel is hidden where (u − x) mod d and (v − y) mod d are both below d − l.",
)
def grid_keep(size, x, y, l, d):  # noqa: E741
    at = torch.arange(size)
    x, y, l, d = (value[:, None] for value in (x, y, l, d))  # noqa: E741
    across = (at - x) % d < d - l  # (N, size)
    down = (at - y) % d < d - l
    return 1 - (down[:, :, None] & across[:, None, :]).float()


# ------------------------------------------------------------------ 6.4 hidden parts


def _part_cases():
    g = torch.Generator().manual_seed(1)
    parts = torch.zeros(2, 4, 4)
    parts[0, 0, :2], parts[1, 2:, 2:] = 1, 1
    keep = torch.ones(1, 4, 4)
    keep[0, 0, 0] = 0
    some, few = (torch.rand(3, 20, 20, generator=g) > k for k in (0.6, 0.8))
    wide = (torch.rand(4, 9, 16, generator=g) > 0.8).float()
    return [
        (keep, parts),
        (torch.zeros(2, 4, 4), parts),
        ((torch.rand(7, 20, 20, generator=g) > 0.3).float(), (some | few).float()),
        ((torch.rand(1, 9, 16, generator=g) > 0.5).float(), wide),
    ]


@solution(
    "6.4",
    cases=_part_cases,
    insight="One product of two stacks of masks answers for every mask and every part at once.",
    hint="Hidden is 1 − keep. Sum hidden · part over the pixels, divide by the part's area.",
)
def hidden_share(keep, parts):
    hidden = torch.einsum("nhw,phw->np", 1 - keep, parts)
    return hidden / parts.sum((1, 2))


QUESTIONS = {
    "6.q1": {
        "answer": "b",
        "a": "No: more numbers fit the landmarks better, and that is the trouble.",
        "b": "Yes: a stretch would make all faces equally wide; how wide one is says who it is.",
        "c": "No: both are one small linear system; time is no reason.",
    },
    "6.q2": {
        "answer": "c",
        "a": "No: that is the share of one direction. A pixel is hidden only where both say so.",
        "b": "No: that is what is hidden, (1 − ½)².",
        "c": "Right: 1 − (1 − ½)² = ¾. Half of each direction hides only a quarter of the picture.",
    },
    "6.q3": {
        "answer": "a",
        "a": "Yes: hidden squares have side (1 − r)·d. As long as even their diagonal is shorter "
        "than a part is long, some of it shows, wherever the grid lies and however it is turned.",
        "b": "No: r alone says how much is hidden, not in how large pieces.",
        "c": "No: turning the grid changes which piece is hidden, not how large it is.",
    },
    "6.q4": {
        "answer": "b",
        "a": "No: one seed each; whoever runs it again may see the order turned round.",
        "b": "Yes: the same seeds, data and budget, and a difference beyond the seeds' spread. It "
        "says nothing about other budgets.",
        "c": "No: nothing was measured on real photographs.",
    },
}
