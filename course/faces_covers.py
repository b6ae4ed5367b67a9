"""What hides a photographed face on purpose: a surgical mask, and a hand held before it.

As everything that people wear (``faces_scene``): meshes in millimetres in the unposed head's frame.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from course.faces_scene import HAND, MASK, Part, grid

# fingers from the index on, then the thumb: where they begin on the palm, which way they point
# (degrees from straight, towards the little finger), length and radius
FINGERS = (
    (-30, 46, -7, 72, 9.2),
    (-10, 50, -2, 80, 9.6),
    (10, 48, 3, 75, 9.2),
    (29, 41, 9, 59, 8.2),
)
THUMB = (-36, -14, -42, 62, 11.0)
PLACES = {"mouth": 62, "nose": 30, "eye": 37, "cheek": 48, "brow": 24}  # landmarks to be covered


def surgical_mask(rng, points, marks):
    """A pleated mask over nose, mouth and chin, with its loops: parts.

    points (n, 3) of the head without its pose, with its expression; marks (68, 3) its landmarks.
    """
    columns, rows, axis = 49, 15, np.array([0.0, 0.0, marks[30, 2] - 95.0])
    turn = np.radians(np.linspace(-68, 68, columns))
    side = np.abs(np.linspace(-1, 1, columns))
    bridge = marks[28, 1] + rng.uniform(-9, 3)
    top = bridge - (bridge - marks[30, 1] + rng.uniform(-8, 6)) * side**1.3
    chin = marks[8, 1] - rng.uniform(0, 8)
    bottom = chin + (marks[3, 1] - chin) * 0.55 * side**1.6
    share = np.linspace(0, 1, rows)[:, None]
    height = top + (bottom - top) * share
    reach = _envelope(points - axis, turn, height) + rng.uniform(2.0, 4.5)
    pleats = np.sin(share * np.pi * rng.integers(3, 5) * 2) * 0.7 * (1 - side**4)
    reach = reach + pleats * (share > 0.2) * (share < 0.8)
    sheet = np.stack([reach * np.sin(turn), height, reach * np.cos(turn)], -1) + axis
    uv = np.stack(np.broadcast_arrays(np.linspace(0, 1, columns), share), -1).reshape(-1, 2)
    parts = [Part(sheet.reshape(-1, 3), grid(rows, columns), MASK, uv)]
    for end in (0, -1):  # a loop from both corners to behind the ear
        ear = np.array([np.sign(sheet[0, end, 0]) * (np.abs(marks[[0, 16], 0]).mean() + 7),
                        marks[0, 1] + 6, marks[0, 2] - 12])  # fmt: skip
        for corner, drop in ((sheet[0, end], 9), (sheet[-1, end], -24)):
            goal = ear + np.array([0, drop, 0])
            band = np.array([corner, corner - [0, 2.4, 0], goal, goal - [0, 2.4, 0]])
            out = np.array([np.sign(ear[0]) * 2.5, 0, 0])
            parts.append(Part(band + out, np.array([[0, 1, 2], [2, 1, 3]]), MASK, np.zeros((4, 2))))
    return parts


def _envelope(points, turn, height):
    """Radius (rows, columns) of a cloth stretched over points around a vertical axis."""
    azimuth, radius = np.arctan2(points[:, 0], points[:, 2]), np.hypot(points[:, 0], points[:, 2])
    found = np.empty_like(height)
    for column, angle in enumerate(turn):
        near = np.abs(azimuth - angle) < np.radians(4)
        y, r = points[near, 1], radius[near]
        inside = (y < height[:, column].max() + 6) & (y > height[:, column].min() - 12)
        corners = _upper_hull(y[inside], r[inside])
        found[:, column] = np.interp(height[:, column], corners[:, 0], corners[:, 1])
    return np.maximum(gaussian_filter1d(found, 1.5, axis=1, mode="nearest"), found - 1)


def _upper_hull(x, y):
    """Corners (k, 2) of the upper convex hull of points, from small x to large."""
    hull = []
    for p in sorted(zip(x, y, strict=True)):
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2:]
            if (bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax) < 0:
                break
            hull.pop()
        hull.append(p)
    return np.array(hull)


def hand(rng, points, marks):
    """A hand before the face, palm towards it, with a piece of forearm: parts."""
    mirror, spread = rng.choice([-1, 1]), rng.uniform(0.4, 1.5)
    size = rng.uniform(0.88, 1.08)
    parts, curl = [], rng.uniform(0.0, 0.5)
    for x, y, lean, length, radius in FINGERS:
        parts.append(_finger(rng, x, y, lean * spread, length, radius, curl))
    x, y, lean, length, radius = THUMB
    parts.append(_finger(rng, x, y, lean - rng.uniform(-8, 22), length, radius, 0.25 * curl))
    parts.append(_ball((0, 4, 0), (43, 53, 13), 3.2))  # the palm
    parts.append(_tube([(0, -36, 0), (0, -75, 0), (0, -150, 0), (0, -290, 0)],
                       [(27, 15), (25, 17), (31, 23), (38, 31)]))  # fmt: skip
    # the middle of palm and fingers comes before the place that is to be covered
    target = marks[PLACES[str(rng.choice(list(PLACES)))]] * [rng.choice([-1, 1]), 1, 1]
    angle = np.radians(mirror * rng.uniform(5, 75))
    c, s = np.cos(angle), np.sin(angle)
    placed = []
    for points_, triangles in parts:
        p = (points_ - [0, 48, 0]) * [mirror * size, size, size]
        p = np.stack([c * p[:, 0] - s * p[:, 1], s * p[:, 0] + c * p[:, 1], p[:, 2]], -1)
        placed.append((p + target * [1, 1, 0], triangles))
    depth = _before(np.concatenate([p for p, _ in placed]), points, rng)
    turned = slice(None, None, -1) if mirror < 0 else slice(None)  # a mirrored mesh is inside out
    return [Part(p + [0, 0, 1] * _bend(p[:, :1]) + [0, 0, depth], t[:, turned], HAND,
                 np.zeros((len(p), 2))) for p, t in placed]  # fmt: skip


def _bend(x):
    """How far a hand around a face goes back at x mm beside its middle."""
    near = np.clip(np.abs(x), 0, 80)
    return -(near**2) / 190 - 0.4 * (np.abs(x) - near)


def _before(hand_points, points, rng):
    """z that brings a hand just before the face: a thirtieth of it may sink in."""
    low = hand_points[:, :2] - 4
    front = points[points[:, 2] > 0]
    cell = ((front[:, :2] + 200) // 8).astype(int)
    surface = np.full((60, 60), -1e3)
    inside = ((cell >= 0) & (cell < 60)).all(1)
    np.maximum.at(surface, tuple(cell[inside].T), front[inside, 2])
    at = np.clip(((low + 200) // 8).astype(int), 0, 59)
    need = surface[at[:, 0], at[:, 1]] - (hand_points[:, 2] + _bend(hand_points[:, 0]))
    return np.quantile(need[need > -500], 0.97) + rng.uniform(0, 8) if (need > -500).any() else 120


def _finger(rng, x, y, lean, length, radius, curl):
    """A finger that begins at (x, y) on the palm and curls towards the face."""
    steps = np.linspace(-0.25, 1, 12)
    bend = curl * np.clip(steps, 0, 1) ** 1.5 * rng.uniform(0.7, 1.2)
    way = np.radians(lean)
    along = steps * length
    path = np.stack([x + np.sin(way) * along, y + np.cos(way) * along * np.cos(bend),
                     -np.sin(bend) * along * 0.5], -1)  # fmt: skip
    knuckles = 1 + 0.06 * np.cos((steps - 0.45) * 2 * np.pi / 0.36)
    thick = radius * (1.05 - 0.22 * np.clip(steps, 0, 1)) * knuckles
    # round tip: the last steps shrink along a half circle
    tip = path[-1] + (path[-1] - path[-2]) / np.linalg.norm(path[-1] - path[-2]) * radius * 0.7
    ends = [path[-1] + (tip - path[-1]) * q for q in (0.5, 0.85, 1.0)]
    path = np.concatenate([path, ends])
    thick = np.concatenate([thick, thick[-1] * np.array([0.87, 0.52, 0.05])])
    return _tube(path, np.stack([thick, thick * 0.92], -1))


def _tube(path, radii, around=14):
    """Points and triangles of a tube along path (n, 3) with half axes (n, 2), x and z."""
    path, radii = np.asarray(path, float), np.asarray(radii, float)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    first = np.cross(along, [0, 0, 1.0])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(first, along)
    t = np.linspace(0, 2 * np.pi, around + 1)[None, :, None]
    rings = (path[:, None] + radii[:, None, :1] * np.cos(t) * first[:, None]
             + radii[:, None, 1:] * np.sin(t) * second[:, None])  # fmt: skip
    return rings.reshape(-1, 3), grid(len(path), around + 1)


def _ball(middle, half, power, rows=13, around=25):
    """A squashed ball with flat sides (a superellipsoid)."""
    theta = np.linspace(0, np.pi, rows)[:, None]
    phi = np.linspace(0, 2 * np.pi, around)
    axes = (np.sin(theta) * np.cos(phi), np.cos(theta) + 0 * phi, np.sin(theta) * np.sin(phi))
    unit = np.stack(np.broadcast_arrays(*axes), -1).reshape(-1, 3)
    unit = unit / (np.abs(unit) ** power).sum(1, keepdims=True) ** (1 / power)
    return unit * half + middle, grid(rows, around)
