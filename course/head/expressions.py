"""Expressions: lips and lids move along their loops, brows and cheeks as soft fields, skin folds.

Every field is a displacement of the skin in millimetres at full strength. Names follow the
actions of the Facial Action Coding System (Ekman and Friesen 1978) where one fits.
"""

import numpy as np

from course.head import loops
from course.head.anatomy import blink_field, topology
from course.head.bulk import Sculpt, smoothstep
from course.head.rig import FIRST_LIP_RING
from course.head.topology import angles


def vertex_normals(v, faces):
    """Unit normals (n, 3), by area."""
    face = np.cross(v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]])
    total = np.zeros_like(v)
    for k in range(3):
        np.add.at(total, faces[:, k], face)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


class Face:
    """The mean skin with the handles that expressions pull on."""

    def __init__(self, v):
        t = topology()
        self.v, self.t = v, t
        self.x, self.y, self.z = v.T
        self.a = np.abs(self.x)
        self.normals = vertex_normals(v, t.triangles)
        rings = t.rings["mouth"]
        self.spokes = len(rings[0])
        self.lips = np.concatenate(rings[FIRST_LIP_RING:])
        self.sculpt = Sculpt()
        self.rest = np.concatenate(loops.mouth_loops(self.sculpt, self.spokes))
        height = np.sin(angles(self.spokes))
        rows = [height] * (len(rings) - FIRST_LIP_RING - 1)
        height = np.concatenate([*rows, [0.0]])
        self.above, self.below = np.clip(height, 0, None) ** 0.7, np.clip(-height, 0, None) ** 0.7
        self.nose_base = np.flatnonzero((self.y > -46) & (self.a < 15) & (self.z > 95))
        self.upper_face = np.flatnonzero((self.y > -22) | (self.z < 20) | (self.y < -121))
        self.lid_free = self._lid_mask()

    def near(self, x, y, z, radius):
        """Soft ball around a point and its mirror image, (n,)."""
        square = (self.a - x) ** 2 + (self.y - y) ** 2 + (self.z - z) ** 2
        return np.exp(-square / (2 * radius**2))

    def mouth(self, shift=None, pull=(), still=None, **changes):
        """The skin's displacement (n, 3) when the lips take another sculpt.

        ``shift`` is added to the lips' loops, ``pull`` lists (place, radius, displacement) of
        extra handles on both sides, ``still`` the vertices that do not move.
        """
        sculpt = Sculpt(**{k: self.sculpt[k] + d for k, d in changes.items()})
        moved = np.concatenate(loops.mouth_loops(sculpt, self.spokes)) - self.rest
        if shift is not None:
            moved = moved + shift
        handles, values = [self.lips], [moved]
        for place, radius, displacement in pull:
            for side in (1, -1):
                offset = self.v - np.array(place) * [side, 1, 1]
                disc = np.flatnonzero((offset**2).sum(1) < radius**2)
                disc = np.setdiff1d(disc, np.concatenate(handles))
                handles.append(disc)
                values.append(np.tile(np.array(displacement) * [side, 1, 1], (len(disc), 1)))
        handles = np.concatenate(handles)
        still = self.upper_face if still is None else still
        still = np.setdiff1d(np.r_[still, self.nose_base], handles)
        return self.t.spread(handles, np.concatenate(values), still)

    def half(self, side):
        """1 on one side of the face, 0 on the other, soft in the middle, (n, 1)."""
        return smoothstep(side * self.x, -8, 8)[:, None]

    def vector(self, x=0.0, y=0.0, z=0.0):
        return np.stack(np.broadcast_arrays(x + 0 * self.x, y + 0 * self.x, z + 0 * self.x), -1)

    def _lid_mask(self):
        """1 away from the lids, 0 on their margins: brows do not drag the eyes, (n, 1)."""
        free = np.ones(self.t.n)
        for name in ("eye_l", "eye_r"):
            for k, value in enumerate((0, 0, 0, 0.05, 0.15, 0.3)):
                free[self.t.rings[name][-1 - k]] = value
        return free[:, None]


def lip_modes(v, sizes):
    """Identity modes of the lips, spread softly into the face: name → field (n, 3)."""
    face = Face(v)
    still = np.flatnonzero((face.y > -26) | (face.z < 8) | (face.y < -125))
    return {name: face.mouth(still=still, **{name: size}) for name, size in sizes.items()}


def expressions(v):
    """Name → displacement (n, 3) of the skin at full strength, mm."""
    f = Face(v)
    x, y, z, a = f.x, f.y, f.z, f.a
    sign = np.sign(x)
    out = {}
    lower_face = np.flatnonzero((y > 2) | (z < 15) | (y < -121) | ((a < 12) & (y > -34)))

    # the nasolabial fold runs from the wing of the nose past the corner of the mouth
    fold = np.maximum.reduce([
        f.near(16.5 + 17 * t, -37 - 33 * t, 103.5 - 16 * t, 2.8) * np.sin(np.pi * (0.12 + 0.8 * t))
        for t in np.linspace(0, 1, 14)
    ])  # fmt: skip
    cheek = np.maximum.reduce([
        f.near(24 + 14 * t, -34 - 25 * t, 99.5 - 14 * t, 6.5) * np.sin(np.pi * (0.15 + 0.75 * t))
        for t in np.linspace(0, 1, 9)
    ])  # fmt: skip
    crease = f.normals * (2.0 * cheek - 1.7 * fold)[:, None]

    smile = f.mouth(pull=[((40, -30, 84), 7, (1.5, 4.5, 2.5))], still=lower_face, mouth_w=6,
                    corner_y=8, corner_z=-5, lip_u=-1.4, lip_l=-1.2, mouth_z=-1)  # fmt: skip
    smile = smile + crease
    frown = f.mouth(pull=[((24, -86, 88), 5, (0.5, -2.5, 0))], mouth_w=0.5, corner_y=-8,
                    corner_z=-1, lip_l=0.3)  # fmt: skip
    frown = frown - f.normals * (1.0 * fold)[:, None]
    stretch = f.mouth(mouth_w=6, corner_y=-1.5, corner_z=-4, lip_u=-1.5, lip_l=-1.5)
    for side, letter in ((1, "left"), (-1, "right")):
        out[f"smile {letter}"] = smile * f.half(side)
        out[f"mouth corner down {letter}"] = frown * f.half(side)
        out[f"lip stretch {letter}"] = stretch * f.half(side)
    out["pucker"] = f.mouth(mouth_w=-8, mouth_z=5.5, corner_z=3.5, lip_full=1.4, lip_u=1.2,
                            lip_l=1.0, bow=-0.5)  # fmt: skip
    out["funnel"] = f.mouth(mouth_w=-7, mouth_z=4.5, corner_z=2.5, gap=8, lip_full=0.9, lip_u=3,
                            lip_l=3.4)  # fmt: skip
    out["lips pressed"] = f.mouth(lip_u=-3.6, lip_l=-3.9, lip_full=-2.2, mouth_z=-0.8)
    raised = np.stack([0 * f.above, 4.4 * f.above, 0.8 * f.above], -1)
    upper_lip = f.mouth(shift=raised) + f.normals * (0.9 * cheek - 0.7 * fold)[:, None]
    out["upper lip raised"] = upper_lip
    out["lower lip down"] = f.mouth(
        shift=np.stack([0 * f.below, -4.8 * f.below, 0.6 * f.below], -1)
    )
    out["lips part"] = f.mouth(gap=7)
    for side, letter in ((1, "left"), (-1, "right")):
        along = np.stack([7.0 * side + 0 * f.above, 0 * f.above, -0.084 * side * f.rest[:, 0]], -1)
        out[f"mouth {letter}"] = f.mouth(shift=along)
    lift = np.maximum(f.below, f.above)  # the lower lip pushes the upper one up
    chin = np.stack([0 * f.below, 1.8 + 1.4 * lift, 1.2 * lift], -1)
    out["chin raised"] = f.mouth(pull=[((8, -99, 102), 8, (0, 3.5, 1.2))], shift=chin)

    puff = f.vector(sign * 7 * f.near(44, -57, 62, 17) * smoothstep(a, 5, 25), 0,
                    4.5 * f.near(38, -57, 78, 16))  # fmt: skip
    puff[np.concatenate(f.t.rings["mouth"][FIRST_LIP_RING + 1 :])] *= 0.35
    out["cheeks puffed"] = puff
    out["nostrils flared"] = f.vector(sign * 2.2 * f.near(14.5, -39.5, 103.5, 6),
                                      0.4 * f.near(14.5, -39.5, 103.5, 6))  # fmt: skip
    wrinkle = np.sin((y + 2) * 1.15) * f.near(8, -3, 97, 8) * 0.5
    out["nose wrinkled"] = (
        f.vector(sign * f.near(14.5, -35, 103.5, 6),
                 3.0 * f.near(13.5, -35, 105.5, 9) + 1.1 * f.near(8, -7, 98, 8))
        + f.normals * (wrinkle + 0.3 * cheek - 0.25 * fold)[:, None]
    )  # fmt: skip
    _brows_and_lids(f, out)
    return out


def _brows_and_lids(f, out):
    x, y, z, a = f.x, f.y, f.z, f.a
    folds = np.sin((y - 40) * 0.62) * np.exp(-(((y - 48) / 13) ** 2)) * np.exp(-((x / 36) ** 4))
    folds = 0.5 * folds * smoothstep(z, 40, 70)  # lines across the forehead
    inner = f.vector(0, 6.0 * f.near(13, 24, 97, 13), 0.6 * f.near(13, 24, 97, 12)) * f.lid_free
    out["inner brows up"] = inner + f.normals * (folds * np.exp(-((x / 22) ** 2)))[:, None]
    outer = f.vector(0, 6.0 * f.near(42, 24, 80, 14)) * f.lid_free
    outer = outer + f.normals * (0.7 * folds * smoothstep(a, 8, 28))[:, None]
    down = (
        f.vector(
            -np.sign(x) * 3.0 * f.near(13, 20, 96, 10) * smoothstep(a, 0, 8),
            -4.6 * f.near(16, 21, 96, 14) - 2.0 * f.near(38, 24, 84, 11),
            1.0 * f.near(12, 19, 97, 9),
        )
        * f.lid_free
    )
    frown_line = np.exp(-(((a - 5) / 1.9) ** 2)) * np.exp(-(((y - 20) / 8) ** 2))
    down = down - f.normals * (0.9 * frown_line * smoothstep(z, 70, 90))[:, None]
    squint = f.vector(0, 2.6 * f.near(32, -17, 86, 9) - 0.6 * f.near(32, 16, 90, 8),
                      1.2 * f.near(32, -16, 88, 8)) * f.lid_free  # fmt: skip
    for side, letter in ((1, "left"), (-1, "right")):
        out[f"outer brow up {letter}"] = outer * f.half(side)
        out[f"brow down {letter}"] = down * f.half(side)
        blink = blink_field(f.sculpt, **{letter: 1.0})
        out[f"blink {letter}"] = blink
        out[f"eye wide {letter}"] = blink_field(f.sculpt, **{f"wide_{letter}": 1.0})
        out[f"squint {letter}"] = squint * f.half(side) + 0.32 * blink


def jaw_narrowing(v):
    """How the lips narrow when the jaw drops: a pose corrective, (n, 3)."""
    return Face(v).mouth(mouth_w=-2.0, corner_z=0.5)
