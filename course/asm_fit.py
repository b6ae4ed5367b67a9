"""Fits of a head at rest: to a scan whose points are known by name, to any scan, to landmarks.

A linear head (FLAME with its first K components) and an adaptive one are fitted by the same lines:
both turn a code of unit variance into vertices. To pictures, ``course.fit.fit`` fits either.
"""

import time
from dataclasses import dataclass

import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import nn
from tqdm import tqdm

from course.asm import ALL, ASM
from course.files import quiet
from course.flame import rodrigues
from course.metrics import rigid_align
from course.render import vertex_normals

RATE = 0.1  # of a code of unit variance
PRIOR = 1e-5  # a point by name says so much, mm², that the prior only decides what is left open


class AdaptiveHead(nn.Module):
    """A FLAME whose identity is bones: ``head(shape, expression, pose)`` with shape (N, n_shape).

    Shape codes are those of ``ASM.code``, with unit variance; expression, pose, landmarks, albedo
    and all else are the linear head's. Fits and the renderer take it for a ``flame``; an encoder's
    codes are the linear head's.
    """

    def __init__(self, flame, asm=None, free=ALL):
        """``free`` names the fields of AsmCode that make a face; the others stay at zero."""
        super().__init__()
        self.flame, self.asm, self.free = flame, asm or ASM(flame), tuple(free)
        self.n_shape = self.asm.size(self.free)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("flame"), name)

    def forward(self, shape=None, expression=None, pose=None, offsets=None):
        """Vertices (N, V, 3) in metres; ``offsets`` as a FLAME's. Raises ValueError as it does."""
        if shape is None:
            return self.flame(None, expression, pose, offsets)
        moved = self._offsets(shape, offsets)
        rows = max(len(shape), len(moved))
        if expression is None and pose is None:
            return (self.v_template + moved).expand(rows, -1, -1)
        if max(len(code) for code in (expression, pose) if code is not None) < rows:
            moved = moved.expand(rows, -1, -1)
        return self.flame(None, expression, pose, moved)

    def joints(self, shape=None, expression=None, offsets=None):
        """Joints (N, 5, 3) of the unposed head, metres."""
        found = self.flame.joints(None, expression, self._offsets(shape, offsets))
        return found if shape is None else found.expand(max(len(found), len(shape)), -1, -1)

    def transforms(self, shape=None, expression=None, pose=None, offsets=None):
        """Each joint's transform [R t] (N, 5, 3, 4) from the unposed to the posed head."""
        found = self.flame.transforms(None, expression, pose, self._offsets(shape, offsets))
        return found if shape is None else found.expand(max(len(found), len(shape)), -1, -1, -1)

    def _offsets(self, shape, offsets=None):
        """What bones and ``offsets`` add to the mean head, metres: (N, V, 3), or one row for a face
        that is expanded to many; None without either."""
        if shape is None:
            return offsets
        if shape.stride(0) == 0:  # the bones move once
            shape = shape[:1]
        moved = self.asm(self.asm.code(shape, self.free)) - self.v_template
        return moved if offsets is None else moved + offsets


@dataclass
class ShapeFit:
    """What a fit found: vertices = rest · Rᵀ + shift.

    shape (1, P) code · vertices (V, 3) where the target is, metres · rest (V, 3) where heads are at
    rest · turn (3,) axis-angle of R · shift (3,) metres · error: root mean square of the data in
    mm, at each step · seconds
    """

    shape: torch.Tensor
    vertices: torch.Tensor
    rest: torch.Tensor
    turn: torch.Tensor
    shift: torch.Tensor
    error: list
    seconds: float


def fit_vertices(head, target, weight=None, steps=300, prior=PRIOR, progress=False):
    """Fit to points known by name: target (V, 3) metres, weight (V,) of each (default: the face).

    Least squares with the prior ½Σz². The head may move as a whole.
    """
    weight = face_weight(head) if weight is None else weight
    weight = weight / weight.sum()

    def residual(vertices, step):
        return (1000 * (vertices - target)).square().sum(1) @ weight

    start = _aligned(head.v_template, target, weight > 0.5 * weight.max())
    return _descend(head, residual, steps, prior, start, progress)


def fit_landmarks(head, marks, steps=200, prior=3e-3, progress=False):
    """Fit to 68 landmarks (68, 3) metres of a face that looks ahead."""
    known, marks = torch.arange(17, 68), marks.to(head.v_template)
    start = _aligned(head.landmarks(head.v_template[None])[0][known], marks[known])

    def residual(vertices, step):
        found = head.landmarks(vertices[None])[0]
        return (1000 * (found - marks)).square().sum(1).mean()

    return _descend(head, residual, steps, prior, start, progress)


def fit_scan(head, points, normals, marks, steps=300, prior=1e-4, reach=0.01, progress=False):
    """Fit to a scan without names: points (P, 3) metres, unit normals (P, 3) outwards.

    marks (68, 3) landmarks on the scan: where to begin. Every tenth step each vertex of the face
    looks for the nearest point of the scan and is drawn to the plane there (*point-to-plane*: along
    the plane it may slide) and a little to the point. Pairs further than ``reach`` apart (metres)
    or with normals over 60° apart do not count.
    """
    points, normals = (torch.as_tensor(p).to(head.v_template) for p in (points, normals))
    if len(points) < 100 or points.shape != normals.shape:
        raise ValueError(f"A scan needs 100 points or more and as many normals, not "
                         f"{tuple(points.shape)} and {tuple(normals.shape)}.")  # fmt: skip
    tree, face = cKDTree(points.cpu().numpy()), head.masks["face"]
    first = fit_landmarks(head, marks, steps=max(1, steps // 4))
    kept = {}

    def residual(vertices, step):
        found = vertices[face]
        if step % 10 == 0:
            with torch.no_grad():
                away, nearest = tree.query(found.cpu().numpy())
                own = vertex_normals(vertices[None], head.faces)[0, face]
                alike = (own * normals[nearest]).sum(1) > 0.5
                kept["point"], kept["normal"] = points[nearest], normals[nearest]
                kept["weight"] = (torch.from_numpy(away < reach).to(alike.device) & alike).float()
        gap = 1000 * (found - kept["point"])
        square = (gap * kept["normal"]).sum(1).square() + 0.05 * gap.square().sum(1)
        marked = head.landmarks(vertices[None])[0][17:] - marks[17:]
        near = 0.02 * (1000 * marked).square().sum(1).mean()
        return (square * kept["weight"]).sum() / kept["weight"].sum().clamp_min(1) + near

    start = first.shape, first.turn, first.shift
    return _descend(head, residual, steps, prior, start, progress)


def face_weight(head):
    """(V,) what a vertex counts: the face 1, the rest of the skin a tenth, the inside little."""
    weight = head.v_template.new_full((len(head.v_template),), 0.1)
    weight[head.masks["face"]] = 1.0
    for name in ("eyes", "teeth", "tongue", "mouth_interior"):
        if name in head.masks:
            weight[head.masks[name]] = 0.02
    return weight


def _aligned(points, target, chosen=slice(None)):
    """Where to begin: no code yet, axis-angle (3,) and shift (3,) in metres."""
    _, rotation, shift = rigid_align(points[chosen].cpu(), target[chosen].cpu(), scale=False)
    turn = Rotation.from_matrix(rotation).as_rotvec()
    return None, torch.as_tensor(turn).to(points), torch.as_tensor(shift).to(points)


def _descend(head, residual, steps, prior, start, progress):
    """Adam on code, turn and shift; ``residual(vertices, step)`` is a mean square in mm²."""
    begin = time.perf_counter()
    code, turn, shift = start
    code = head.v_template.new_zeros(1, head.n_shape) if code is None else code.clone()
    free = [code, turn.clone(), shift.clone()]
    rates = (RATE, 0.01, 0.001)
    groups = [{"params": [p.requires_grad_()], "lr": r, "first": r}
              for p, r in zip(free, rates, strict=True)]  # fmt: skip
    optimizer, history = torch.optim.Adam(groups, betas=(0.9, 0.98)), []
    for step in tqdm(range(steps), "fit", disable=quiet() or not progress):
        for group in optimizer.param_groups:
            group["lr"] = group["first"] * (1 - 0.95 * step / steps)
        rest = head(free[0])[0]
        error = residual(rest @ rodrigues(free[1]).T + free[2], step)
        optimizer.zero_grad(set_to_none=True)
        (error + 0.5 * prior * free[0].square().sum()).backward()
        optimizer.step()
        history.append(error.item() ** 0.5)
    code, turn, shift = (p.detach() for p in free)
    with torch.no_grad():
        rest = head(code)[0]
    vertices = rest @ rodrigues(turn).T + shift
    return ShapeFit(code, vertices, rest, turn, shift, history, time.perf_counter() - begin)
