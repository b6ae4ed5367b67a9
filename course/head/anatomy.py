"""The head in one call: bulk, loops, eyeballs, teeth and tongue joined to one mesh."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp

from course.head import bulk, loops
from course.head.bulk import Sculpt
from course.head.topology import ROWS, Topology, angles

PARTS = ("skin", "left eye", "right eye", "upper teeth", "lower teeth", "tongue")
LEFT = np.array([1, 1, 1])
RIGHT = np.array([-1, 1, 1])
RIM = (-178.5, -0.125)  # height of the neck's cut at z = 0, mm, and its slope towards the front


@lru_cache(maxsize=1)
def topology():
    return Topology()


@dataclass
class Head:
    """vertices (V, 3) in millimetres, faces (F, 3), part (V,) index into PARTS."""

    vertices: np.ndarray
    faces: np.ndarray
    part: np.ndarray


def sculpt(g, relax=12, smooth=4):
    """The whole head sculpted by ``g``."""
    pieces = [(skin(g, relax, smooth), topology().triangles)]
    centre = loops.eye_centre(g)
    pieces += [loops.eyeball(centre, 1), loops.eyeball(centre * RIGHT, -1)]
    pieces += [loops.teeth(g, True), loops.teeth(g, False), loops.tongue(g)]
    faces, part, count = [], [], 0
    for number, (points, triangles) in enumerate(pieces):
        faces.append(triangles + count)
        part.append(np.full(len(points), number))
        count += len(points)
    vertices = np.concatenate([points for points, _ in pieces])
    return Head(vertices, np.concatenate(faces), np.concatenate(part))


def skin(g, relax=12, smooth=4):
    """The skin's vertices (n, 3): cast the grid onto the bulk, insert loops, join and smooth."""
    t = topology()
    v = np.zeros((t.n, 3))
    _cast(v, t, g)
    _relax(v, t, g, relax)
    v = t.symmetric(v)
    free = _insert_loops(v, t, g)
    t.solve(v, free, smooth=False)
    t.solve(v, free, smooth=True)
    return _smooth(t.symmetric(v), t, smooth)


def _cast(v, t, g):
    """Send the cage out along its normals to the surface."""
    i, j = t.grid_ij.T
    step = 1e-2
    point = bulk.cage(i, j + 0.0)
    along_i = bulk.cage(np.abs(i) + step, j + 0.0) - bulk.cage(
        np.maximum(np.abs(i) - step, 0), j + 0.0
    )
    along_j = bulk.cage(np.abs(i) + 0.0, np.minimum(j + step, ROWS - 1)) - bulk.cage(
        np.abs(i) + 0.0, np.maximum(j - step, 0)
    )
    middle = (i == 0) | (i == i.max())
    along_i[middle] = np.array([1, 0, 0]) * np.where(i[middle] == 0, 1, -1)[:, None]
    out = np.cross(along_i, along_j)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    out[middle, 0] = 0
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    left = i >= 0
    v[t.grid[left]] = bulk.outermost(point[left], out[left], g)
    rim = t.grid[left & (j == 0)]
    v[rim, 1] = RIM[0] + RIM[1] * v[rim, 2]  # the neck is cut along a plane
    right = t.grid[~left]
    v[right] = v[t.mirror[right]] * RIGHT
    t.solve(v, t.crown, smooth=False)
    centre = np.array([0, 30.0, -5])
    ray = v[t.crown] - centre
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    v[t.crown] = bulk.outermost(v[t.crown], ray, g, -10, 90)


def _relax(v, t, g, steps):
    """Even out the grid on the surface; the borders of mouth, eyes and ears stay where they are."""
    grid_and_crown = np.r_[t.grid, t.crown]
    still = np.zeros(t.n, bool)
    still[t.grid[t.grid_ij[:, 1] == 0]] = True  # the neck's rim
    for name, rings in t.rings.items():
        if not name.startswith("nostril"):
            still[rings[0]] = True
    moving = grid_and_crown[~still[grid_and_crown] & (v[grid_and_crown, 0] > -1e-3)]
    right = grid_and_crown[v[grid_and_crown, 0] <= -1e-3]
    keep = np.zeros(t.n)
    keep[grid_and_crown] = 1
    links = sp.diags(keep) @ t.adjacency @ sp.diags(keep)
    mean = (sp.diags(1 / np.maximum(np.asarray(links.sum(1)).ravel(), 1)) @ links)[moving]
    middle = t.mirror[moving] == moving
    for _ in range(steps):
        x = v[moving]
        n = bulk.normal(x, g)
        pull = mean @ v - x
        x = x + 0.5 * (pull - (pull * n).sum(1, keepdims=True) * n)
        x = x - (0.9 * bulk.distance(x, g))[:, None] * n
        x[middle, 0] = 0
        v[moving] = x
        v[right] = v[t.mirror[right]] * RIGHT


def _insert_loops(v, t, g):
    """Place lids, lips, ears and nostrils; returns the vertices between them and the grid."""
    free = []
    for name, side in (("eye_l", LEFT), ("eye_r", RIGHT)):
        rings = t.rings[name]
        count, psi = len(rings) - 1, angles(len(rings[0]))
        placed = loops.eye_loops(g, len(rings[0]))
        for k, loop in enumerate(placed):
            v[rings[count - k]] = loop * side
        free += rings[1 : count - len(placed) + 1]
        lower = np.sin(psi) <= 0.45  # below the eye the cheek decides
        free += [rings[count - k][lower] for k in (4, 5, 6)]
    rings = t.rings["mouth"]
    placed = loops.mouth_loops(g, len(rings[0]))
    inner = rings[len(rings) - len(placed) :]
    for ring, loop in zip(inner, placed, strict=True):
        v[ring] = loop
    free += rings[1 : len(rings) - len(placed)]

    def on_head(y, z):
        origin = np.stack([np.full_like(y, 70.0), y, z], -1)
        outwards = np.tile([1.0, 0, 0], (len(y), 1))
        return bulk.outermost(origin, outwards, g, -45, 15, 16)[:, 0]

    for name, side in (("ear_l", LEFT), ("ear_r", RIGHT)):
        rings = t.rings[name]
        for ring, loop in zip(rings[1:], loops.ear_loops(g, len(rings[0]), on_head), strict=True):
            v[ring] = loop * side
    for name, side in (("nostril_l", LEFT), ("nostril_r", RIGHT)):
        rings = t.rings[name]
        for ring, loop in zip(rings[1:], loops.nostril_loops(g, len(rings[0])), strict=True):
            v[ring] = loop * side
    return np.unique(np.concatenate(free))


def _smooth(v, t, steps):
    """Taubin smoothing (1995), gentle at the crisp rims; then lids and ears melt into the face."""
    mobility = np.ones(t.n)
    mobility[t.grid[t.grid_ij[:, 1] == 0]] = 0
    for name, rings in t.rings.items():
        last = len(rings) - 1
        for k, ring in enumerate(rings):
            if name.startswith("eye"):
                mobility[ring] = [0, 0, 0, 0, 0.5, 0.5][last - k] if last - k < 6 else 1
            elif name == "mouth":
                mobility[ring] = 1 if k < 3 else 0.6 if k == 3 else 0
            elif name.startswith("ear"):
                mobility[ring] = 1 if k < 2 else 0.5 if k < 3 else 0.12
            else:
                mobility[ring] = 0.6 if k == 0 else 0.1
    soft = np.zeros(t.n)
    for name in ("eye_l", "eye_r"):
        soft[np.concatenate(t.rings[name][:3])] = 1
    soft = np.maximum(soft, 0.6 * np.minimum(1, t.adjacency @ soft)) * mobility
    for _ in range(4):
        v = v - 0.4 * soft[:, None] * (t.laplacian @ v)
    for _ in range(steps):
        for weight in (0.5, -0.52):
            v = v - weight * mobility[:, None] * (t.laplacian @ v)
    return t.symmetric(v)


def blink_field(g, left=0.0, right=0.0, wide_left=0.0, wide_right=0.0):
    """Displacement (n, 3) of the skin when lids close (0…1) or open wide, mm."""
    t = topology()
    field, handles = np.zeros((t.n, 3)), []
    still = np.ones(t.n, bool)
    for name, side, blink, wide in (
        ("eye_l", LEFT, left, wide_left),
        ("eye_r", RIGHT, right, wide_right),
    ):
        rings = t.rings[name]
        count, spokes = len(rings) - 1, len(rings[0])
        still[np.concatenate(rings[1:])] = False
        rest, moved = loops.eye_loops(g, spokes), loops.eye_loops(g, spokes, blink, wide)
        above = np.sin(angles(spokes)) > 0.45
        for k in range(3):
            moved[k] = _over_the_globe(rest[k], moved[k], loops.eye_centre(g))
        for k in range(7):
            chosen = np.ones(spokes, bool) if k < 4 else above
            ring = rings[count - k][chosen]
            field[ring] = ((moved[k] - rest[k]) * side)[chosen]
            handles.append(ring)
    handles = np.concatenate(handles)
    return t.spread(handles, field[handles], np.setdiff1d(np.flatnonzero(still), handles))


def _over_the_globe(start, end, centre, clearance=0.4):
    """``end`` (n, 3), moved outwards until the straight way there from ``start`` clears the eye.

    A blendshape is a straight line, and the chord of a closing lid would cut through the globe.
    """
    out = (end - centre) / np.linalg.norm(end - centre, axis=1, keepdims=True)
    lift = np.zeros(len(start))
    for share in np.linspace(0.1, 1, 10):
        way = start + share * (end - start) - centre
        short = loops.globe(way) + clearance - np.linalg.norm(way, axis=1)
        lift = np.maximum(lift, short / share)
    return end + lift[:, None] * out


__all__ = ["PARTS", "Head", "Sculpt", "blink_field", "sculpt", "skin", "topology"]
