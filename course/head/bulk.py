"""The bulk of the head as a signed distance: bones and soft tissue as smoothly joined solids.

Millimetres; x to the person's left, y up, z forward; origin between the pupils, z = 0 at the ear
canals. Distances from anthropometric tables (Farkas, Anthropometry of the Head and Face, 1994):
pupils 62, fissure 30, pupil line to nose base 46, to mouth 68, to chin 113.
"""

import numpy as np
from scipy.interpolate import PchipInterpolator

# What can be sculpted, with its value on the mean head. Sizes and shifts in mm, scales around 1.
PARAMETERS = {
    "head_w": 1.0, "head_l": 1.0, "head_h": 1.0, "face_w": 0.0, "jaw_w": 0.0, "jaw_y": 0.0,
    "chin_y": 0.0, "chin_z": 0.0, "chin_w": 0.0, "cheek": 0.0, "cheekbone": 0.0, "zygoma": 0.0,
    "forehead_z": 0.0, "brow_z": 0.0, "brow_y": 0.0, "temple": 0.0, "muzzle_z": 0.0,
    "midface_z": 0.0, "fat": 0.0, "neck_w": 0.0,
    "nose_len": 0.0, "nose_w": 0.0, "nose_tip": 0.0, "nose_bridge": 0.0, "nose_root": 0.0,
    "nose_up": 0.0, "nose_root_w": 0.0,
    "eye_x": 0.0, "eye_y": 0.0, "eye_z": 0.0, "eye_w": 0.0, "eye_up": 0.0, "eye_lo": 0.0,
    "eye_tilt": 0.0, "crease": 0.0,
    "mouth_y": 0.0, "mouth_w": 0.0, "mouth_z": 0.0, "lip_u": 0.0, "lip_l": 0.0, "lip_full": 0.0,
    "corner_y": 0.0, "corner_z": 0.0, "bow": 1.0, "gap": 0.0,
    "ear_s": 1.0, "ear_out": 0.0, "ear_y": 0.0,
}  # fmt: skip


class Sculpt(dict):
    """Sculpting parameters by name: ``Sculpt(nose_w=2).nose_w``."""

    __getattr__ = dict.__getitem__

    def __init__(self, **changes):
        unknown = set(changes) - set(PARAMETERS)
        if unknown:
            raise ValueError(f"There is no sculpting parameter {', '.join(sorted(unknown))}.")
        super().__init__(PARAMETERS | changes)


def smoothstep(x, start, end):
    t = np.clip((x - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def ellipsoid(p, centre, radii, turn_x=0.0, turn_y=0.0):
    """Approximate distance to an ellipsoid, turned by degrees about y, then x."""
    q = p - np.asarray(centre, float)
    x, y, z = q[..., 0], q[..., 1], q[..., 2]
    if turn_y:
        c, s = np.cos(np.radians(turn_y)), np.sin(np.radians(turn_y))
        x, z = x * c - z * s, x * s + z * c
    if turn_x:
        c, s = np.cos(np.radians(turn_x)), np.sin(np.radians(turn_x))
        y, z = y * c + z * s, -y * s + z * c
    rx, ry, rz = radii
    near = np.sqrt((x / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2)
    slope = np.sqrt((x / rx**2) ** 2 + (y / ry**2) ** 2 + (z / rz**2) ** 2)
    return near * (near - 1) / np.maximum(slope, 1e-6)


def capsule(p, a, b, radius_a, radius_b):
    """Distance to a rod from a to b with a radius at each end."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    axis = b - a
    t = np.clip(((p - a) @ axis) / (axis @ axis), 0, 1)
    off = p - a - t[..., None] * axis
    return np.sqrt((off * off).sum(-1)) - (radius_a + (radius_b - radius_a) * t)


def smooth_min(a, b, k):
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * k / 4


def smooth_max(a, b, k):
    return -smooth_min(-a, -b, k)


def distance(p, g):
    """Signed distance (negative inside) from points p (…, 3) to the head sculpted by ``g``."""
    other = p * np.array([-1, 1, 1])
    x, y, z = p[..., 0], p[..., 1], p[..., 2]

    def add(d, solid, k):  # a pair of solids, left and right
        for q in (p, other):
            d = smooth_min(d, solid(q), k)
        return d

    def carve(d, solid, k):
        for q in (p, other):
            d = smooth_max(d, -solid(q), k)
        return d

    wide, fat, mid = g.face_w, g.fat, g.midface_z
    hw, hl, hh = g.head_w, g.head_l, g.head_h
    jaw_y, jaw_x, chin_y = -82 + g.jaw_y, 41.5 + g.jaw_w + wide * 0.5, -100.5 + g.chin_y

    # skull: cranium, parietal bones, forehead
    d = ellipsoid(p, (0, 34, -2), (74 * hw, 83 * hh, 92 * hl))
    d = add(d, lambda q: ellipsoid(q, (19 * hw, 48 * hh, -26), (54 * hw, 56 * hh, 62 * hl)), 24)
    d = smooth_min(d, ellipsoid(p, (0, 41, 35.5 + g.forehead_z), (61 * hw, 54 * hh, 61)), 24)
    # midface, cheekbones, mandible, muzzle over the teeth, cheeks, chin
    d = smooth_min(d, ellipsoid(p, (0, -29, 34 + mid), (60.5 + wide + fat, 66, 60.5)), 26)
    d = add(d, lambda q: capsule(q, (35 + wide * 0.6, -24, 76.5 + mid + g.cheekbone),
                                 (58.5 + wide + g.zygoma, -18, 32), 11.5, 8), 18)  # fmt: skip
    d = add(d, lambda q: capsule(q, (jaw_x, jaw_y, 20),
                                 (10 + g.chin_w * 0.5, chin_y + 1, 75.5 + g.chin_z),
                                 10 + fat * 0.5, 12.5), 24)  # fmt: skip
    d = add(d, lambda q: capsule(q, (jaw_x, jaw_y, 18), (56.5 + wide, -22, 8),
                                 10 + fat * 0.5, 11), 20)  # fmt: skip
    d = smooth_min(d, ellipsoid(p, (0, chin_y + 8, 44),
                                (39 + g.jaw_w * 0.5, 26 + fat, 46 + g.chin_z)), 20)  # fmt: skip
    d = smooth_min(d, ellipsoid(p, (0, -67 + g.mouth_y * 0.5, 69.5 + g.muzzle_z + mid * 0.7),
                                (33, 31, 35.5)), 22)  # fmt: skip
    d = add(d, lambda q: ellipsoid(q, (34 + wide * 0.5, -51, 58.5 + mid * 0.6),
                                   (24 + fat + g.cheek, 30, 27 + fat + g.cheek)), 26)  # fmt: skip
    d = add(d, lambda q: ellipsoid(q, (6 + g.chin_w * 0.4, chin_y, 82 + g.chin_z),
                                   (13 + g.chin_w * 0.5, 13.5, 19.5)), 14)  # fmt: skip
    d = _neck(d, add, p, x, y, z, g)
    # brow ridge, orbits, temples
    by = g.brow_y
    ridge = (37, 25.5 + by, 76 + g.brow_z * 0.9)
    d = add(d, lambda q: capsule(q, (9, 20 + by, 83.5 + g.brow_z), ridge, 8, 7), 28)
    d = add(d, lambda q: capsule(q, ridge, (55, 9 + by * 0.5, 59), 7, 7), 26)
    d = carve(d, lambda q: ellipsoid(q, (32.5 + g.eye_x, 3.5 + g.eye_y, 105), (19, 10.5, 15.5),
                                     turn_y=18), 22)  # fmt: skip
    d = carve(d, lambda q: ellipsoid(q, (88.5 + g.temple, 22, 48), (18, 34, 34)), 24)
    return _nose(d, add, p, g)


def _neck(d, add, p, x, y, z, g):
    """A column that leans back, narrow under the jaw and wide at the shoulders."""
    lean = -21 + 0.13 * (y + 150)
    flare = 1 + 0.16 * smoothstep(-y, 150, 215) + 0.05 * smoothstep(y, -120, -85)
    half = 46 + g.neck_w + g.fat
    deep = 47 + g.neck_w * 0.6 + g.fat
    column = (np.sqrt((x / (half * flare)) ** 2 + ((z - lean) / (deep * flare)) ** 2) - 1) * 48
    d = smooth_min(d, smooth_max(column, y + 35, 40), 28)
    # sternomastoid, larynx
    d = add(d, lambda q: capsule(q, (50, -54, -22), (15, -192, 36), 8, 7), 24)
    return smooth_min(d, capsule(p, (0, -134, 33), (0, -150, 33), 7.5, 6.5), 16)


def _nose(d, add, p, g):
    mid, root_w = g.midface_z, g.nose_root_w
    base = -33.5 - g.nose_len  # height of the tip
    tip = 111 + g.nose_tip + mid
    middle = (0, -18 - g.nose_len * 0.4, 97.5 + g.nose_bridge + mid * 0.7)
    d = smooth_min(d, capsule(p, (0, 6, 87 + g.nose_root), middle, 8 + root_w, 7.8 + root_w), 12)
    d = smooth_min(d, capsule(p, middle, (0, base + 2 + g.nose_up, tip - 3), 7.8 + root_w, 9), 9)
    flank = (10.5 + g.nose_w * 0.5, base, 95 + mid)
    d = add(d, lambda q: capsule(q, (6 + root_w, -3, 85 + mid * 0.3), flank, 6.5, 8.5), 16)
    d = smooth_min(d, ellipsoid(p, (0, base + g.nose_up, tip), (9 + g.nose_w * 0.25, 8.4, 10.2),
                                turn_x=-15), 7)  # fmt: skip
    wing = 11.8 + g.nose_w * 0.8
    d = add(d, lambda q: ellipsoid(q, (wing, base - 4.5, 101 + mid + 0.4 * g.nose_tip),
                                   (5.8, 7, 9.2), turn_y=20), 4.5)  # fmt: skip
    column = (0, base - 7.5 + g.nose_up * 0.5, tip - 1)
    return smooth_min(d, capsule(p, (0, base - 11, 98.5 + mid), column, 4, 4.5), 6)


def normal(p, g, step=0.25):
    """Outward unit normals of the distance at p (…, 3), by central differences."""
    offsets = np.eye(3) * step
    slope = np.stack([distance(p + o, g) - distance(p - o, g) for o in offsets], -1)
    return slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-9)


def project(p, g, steps=6):
    """Walk points onto the surface."""
    for _ in range(steps):
        p = p - (0.9 * distance(p, g))[:, None] * normal(p, g)
    return p


def outermost(origin, direction, g, start=-36, end=44, samples=44):
    """Where rays leave the head for good: origin + t·direction, t in start…end (n, 3)."""
    t = np.linspace(end, start, samples)
    inside = np.stack([distance(origin + s * direction, g) for s in t]) < 0
    k = np.clip(np.argmax(inside, 0), 1, samples - 1)
    outer, inner = t[k - 1], t[k]
    for _ in range(12):
        middle = (outer + inner) / 2
        out = distance(origin + middle[:, None] * direction, g) > 0
        outer, inner = np.where(out, middle, outer), np.where(out, inner, middle)
    return origin + ((outer + inner) / 2)[:, None] * direction


# The cage that the rays start from. Row: front (y, z), side (x, y, z), back (y, z).
_CAGE = {
    0: (-178, 48, 60, -172, -24, -160, -86), 3: (-153, 40, 52, -145, -21, -136, -75),
    6: (-128, 40, 49, -118, -16, -108, -72), 8: (-121, 64, 52, -104, -6, -93, -73),
    10: (-115, 87, 54, -92, 0, -76, -76), 14: (-94, 101, 60, -74, 3, -50, -84),
    18: (-69, 105, 65, -55, 2, -28, -90), 22: (-48, 105, 69, -39, 0, -10, -94),
    32: (-19, 101, 74, 12, -3, 26, -94), 38: (20, 100, 75, 36, -5, 54, -88),
    42: (36, 99, 73, 52, -6, 70, -78), 48: (80, 79, 55, 96, -8, 98, -46),
}  # fmt: skip
_COLUMN_ANGLE = PchipInterpolator([0, 4, 9, 13, 16, 19, 24, 27, 31],
                                  [0, 8.2, 29, 47, 62, 79, 109, 137, 180])  # fmt: skip


def cage(i, j):
    """Points (n, 3) of the starting cage at columns i and rows j (fractions allowed)."""
    rows = np.array(sorted(_CAGE))
    table = PchipInterpolator(rows, np.array([_CAGE[r] for r in rows], float))
    front_y, front_z, side_x, side_y, side_z, back_y, back_z = table(j).T
    angle = np.radians(_COLUMN_ANGLE(np.abs(i)))
    s, c = np.maximum(np.sin(angle), 0), np.cos(angle)
    reach = np.abs(c)
    end_y, end_z = np.where(c > 0, front_y, back_y), np.where(c > 0, front_z, back_z)
    x = side_x * s**0.96 * np.sign(i)
    y = side_y + (end_y - side_y) * reach**1.3
    z = side_z + (end_z - side_z) * reach
    return np.stack([x, y, z], -1)
