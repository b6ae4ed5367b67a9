"""Synthetic skin: wrinkles, pores, moles and freckles with their truth, a person a seed.

Folds lie where faces fold (across the forehead, between the brows, beside the eyes, from the nose
to the mouth) and deepen when the muscles that made them work: each fold is a curve on the skin,
each group of folds has one strength from age and one from the expression and the jaw.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from course.facecode import JAW
from course.relief import WINDOW, Relief

FINE = 512  # texels a side of the truth, two for one of the model's
MELANIN, BLOOD = np.array([0.25, 0.31, 0.365]), np.array([0.10, 0.58, 0.50])  # see head/skin.py
JAW_OPEN = 0.35  # radians of jaw at which folds have changed as much as by one action

# Folds of the right half of the face (the picture's left), by curves of (u, v):
# group: depth and half width in mm, where it goes
CURVES = {
    "nasolabial": [(0.85, 2.0, [(0.453, 0.456), (0.428, 0.422), (0.407, 0.383), (0.396, 0.346),
                                (0.399, 0.316)])],
    "cheek": [(0.35, 1.7, [(0.380, 0.395), (0.365, 0.365), (0.360, 0.330), (0.366, 0.300)])],
    "mouth corner": [(0.5, 1.7, [(0.419, 0.338), (0.409, 0.310), (0.408, 0.272)])],
    "under eye": [(0.28, 1.1, [(0.448, 0.583), (0.414, 0.569), (0.376, 0.580)]),
                  (0.45, 2.4, [(0.458, 0.580), (0.437, 0.556), (0.404, 0.548)])],
}  # fmt: skip
CENTRE_CURVES = {
    "chin": [(0.6, 2.4, [(0.466, 0.281), (0.5, 0.274), (0.534, 0.281)])],
    "nose": [(0.3, 1.0, [(0.484, 0.610), (0.5, 0.607), (0.516, 0.610)]),
             (0.24, 0.9, [(0.487, 0.599), (0.5, 0.596), (0.513, 0.599)]),
             (0.3, 0.9, [(0.477, 0.588), (0.469, 0.566)]),
             (0.3, 0.9, [(0.523, 0.588), (0.531, 0.566)])],
}  # fmt: skip
# group: actions that deepen it at full strength, and the jaw's part; {} are left and right
ACTIONS = {
    "nasolabial": ({"smile {}": 0.6, "nose wrinkled": 0.35, "upper lip raised": 0.3}, 0.35),
    "cheek": ({"smile {}": 0.5, "lip stretch {}": 0.3}, 0.2),
    "mouth corner": ({"mouth corner down {}": 0.5, "lip stretch {}": 0.2}, -0.2),
    "under eye": ({"squint {}": 0.5, "smile {}": 0.25}, 0.0),
    "crow's feet": ({"squint {}": 0.45, "smile {}": 0.4, "blink {}": 0.05}, 0.0),
    "forehead": ({"outer brow up {}": 0.5, "inner brows up": 0.3}, 0.0),
    "forehead middle": ({"inner brows up": 0.55}, 0.0),
    "frown": ({"brow down left": 0.35, "brow down right": 0.35}, 0.0),
    "chin": ({"chin raised": 0.4, "lips pressed": 0.15}, -0.5),
    "dimpled chin": ({"chin raised": 0.5}, -0.5),
    "nose": ({"nose wrinkled": 0.55}, 0.0),
    "lip lines": ({"pucker": 0.5, "lips pressed": 0.2}, -0.3),
}
SIDED = ("nasolabial", "cheek", "mouth corner", "under eye", "crow's feet", "forehead")
AGED = {"nasolabial": 0.5, "cheek": 0.2, "mouth corner": 0.6, "under eye": 0.8, "crow's feet": 0.5,
        "forehead": 0.55, "forehead middle": 0.55, "frown": 0.5, "chin": 0.6, "dimpled chin": 0.1,
        "nose": 0.1, "lip lines": 0.7}  # fmt: skip
KNOTS = 16  # of a fold's curve
MOST = 1.5  # strength of a fold that cannot get deeper


@dataclass
class Skin:
    """One person's skin: ``maps = skin(expression, pose)``.

    groups (G, R, R) displacement in metres of each group of folds at strength 1 · names of them ·
    rest (G,) strengths of the face at rest · reach (G,) how far actions deepen them · grain
    (R, R) metres, what never moves · tint (3, R, R) change of log albedo · age 0…1
    """

    groups: torch.Tensor
    names: list
    rest: torch.Tensor
    reach: torch.Tensor
    grain: torch.Tensor
    tint: torch.Tensor
    age: float
    actions: torch.Tensor  # (G, E + 1): what each expression component and the jaw do

    def strengths(self, expression, pose):
        """Strengths (N, G) of the folds for expressions (N, E) and poses (N, 15)."""
        jaw = pose[:, JAW][:, :1].clamp_min(0) / JAW_OPEN
        acting = torch.cat([expression.clamp_min(0), jaw], 1) @ self.actions.T
        return (self.rest + self.reach * acting).clamp(0, MOST)

    def __call__(self, expression, pose, resolution=None):
        """Detail maps (N, 4, R, R): displacement in metres, change of log albedo.

        ``resolution`` shrinks them by averaging.
        """
        folds = torch.einsum("ng,gij->nij", self.strengths(expression, pose), self.groups)
        # blood and shade gather in the creases
        depth = (-folds).clamp_min(0)[:, None] / 1e-3
        crease = -0.22 * depth / (0.5 + depth) * torch.tensor([0.6, 1.15, 1.1]).view(1, 3, 1, 1)
        maps = torch.cat([(folds + self.grain)[:, None], self.tint + crease], 1)
        if resolution is None or resolution == maps.shape[-1]:
            return maps
        return torch.nn.functional.interpolate(maps, (resolution, resolution), mode="area")


class SkinMaker:
    """Draws people's skins on one head: ``skin = maker(seed)``.

    Raises ValueError for a head whose expressions have other names than the built-in one's.
    """

    def __init__(self, flame, resolution=FINE):
        self.flame, self.relief = flame, Relief(flame, resolution)
        self.resolution = resolution
        if "smile left" not in flame.expression_names:
            raise ValueError(f"Wrinkles are made for the built-in head's expressions; {flame.name} "
                             "has others.")  # fmt: skip
        self.place = self.relief.texels(1000 * flame.v_template[None])[0].permute(1, 2, 0)
        self.place = self.place.contiguous().numpy()
        self.mask = self.relief.mask[0, 0].numpy()
        # which side of the picture "left" is: where that smile moves the skin
        moved = flame.expressiondirs[:, :, flame.expression_names.index("smile left")].norm(dim=1)
        self.left_is_right = float((moved * flame.v_template[:, 0]).sum()) > 0

    def __call__(self, seed, age=None):
        """The Skin of the person with this seed; ``age`` 0 (smooth) … 1 (old) instead of a drawn
        one."""
        rng = np.random.default_rng([71, seed])
        drawn = rng.beta(1.3, 1.5)
        age = float(drawn if age is None else age)
        folds = {}
        for side in ("left", "right"):
            for name in SIDED:
                folds[f"{name} {side}"] = self._folds(rng, name, side)
        for name in ("forehead middle", "frown", "chin", "dimpled chin", "nose", "lip lines"):
            folds[name] = self._folds(rng, name, None)
        names = list(folds)
        base = [_base(name) for name in names]
        taste = {name: np.exp(0.35 * rng.normal()) for name in AGED}  # everybody's own
        rest = [1.25 * age**1.3 * AGED[b] * taste[b] for b in base]
        reach = [(0.45 + 0.6 * age**0.7) * np.exp(0.2 * rng.normal()) for _ in base]
        mask = torch.from_numpy(self.mask)
        groups = torch.from_numpy(np.stack([folds[n] for n in names])).float() * mask / 1000
        grain = torch.from_numpy(self._grain(rng, age)).float() * mask / 1000
        tint = torch.from_numpy(self._tint(rng, age)).float() * mask
        return Skin(groups, names, torch.tensor(rest).float(), torch.tensor(reach).float(), grain,
                    tint, age, self._actions(names))  # fmt: skip

    def _actions(self, names):
        known = self.flame.expression_names
        table = torch.zeros(len(names), len(known) + 1)
        for row, name in enumerate(names):
            side = name.split()[-1]
            actions, jaw = ACTIONS[_base(name)]
            for action, strength in actions.items():
                table[row, known.index(action.format(side))] += strength
            table[row, -1] = jaw
        return table

    # ------------------------------------------------------------------ folds, mm

    def _folds(self, rng, name, side):
        """Displacement (R, R) in mm of one group of folds at full strength."""
        if name == "dimpled chin":
            return self._dimples(rng)
        flip = side is not None and (side == "left") == self.left_is_right
        total = np.zeros((self.resolution, self.resolution), np.float32)
        for depth, width, points in self._curves(rng, name):
            points = np.array(points, float)
            if flip:
                points[:, 0] = 1 - points[:, 0]
            lip = 0.45 if name in ("nasolabial", "cheek") else 0.25
            self._carve(total, rng, points, depth * rng.uniform(0.8, 1.2), width, lip)
        return total

    def _curves(self, rng, name):
        """[(depth mm, half width mm, [(u, v) …])]: the fixed ones, or drawn for this person."""
        known = CURVES | CENTRE_CURVES
        if name in known:
            return known[name]
        if name == "crow's feet":
            found = []
            for angle in np.linspace(-38, 34, rng.integers(3, 6)) + rng.normal(size=1) * 6:
                way = np.radians(angle + rng.normal() * 5)
                start, end = rng.uniform(0.010, 0.016), rng.uniform(0.040, 0.058)
                bend = rng.normal() * 0.004
                radii = ((start, 0), ((start + end) / 2, bend), (end, 0))
                points = [
                    (0.362 - r * np.cos(way), 0.606 + r * np.sin(way) * 1.1 + b) for r, b in radii
                ]
                found.append((rng.uniform(0.2, 0.36), rng.uniform(0.8, 1.1), points))
            return found
        if name in ("forehead", "forehead middle"):
            middle = name == "forehead middle"
            found = []
            for v in np.linspace(0.708, 0.768, rng.integers(3, 6)) + rng.normal() * 0.003:
                ends = (0.445, 0.555) if middle else (0.375, 0.475)
                u = np.linspace(ends[0] + rng.normal() * 0.012, ends[1] + rng.normal() * 0.012, 6)
                wave = v + 0.0035 * np.sin((u - 0.5) * 60) + np.cumsum(rng.normal(size=6)) * 0.0014
                arch = 0.006 * (1 - ((u - 0.5) / 0.12) ** 2)
                found.append((rng.uniform(0.2, 0.38), rng.uniform(1.0, 1.4),
                              list(zip(u, wave + arch, strict=True))))  # fmt: skip
            return found
        if name == "frown":
            found = []
            for u in ((0.487, 0.512), (0.486,), (0.49, 0.5, 0.511))[rng.integers(3)]:
                lean = (u - 0.5) * 0.5
                top, foot = rng.uniform(0.69, 0.705), rng.uniform(0.645, 0.655)
                points = [(u - lean * 0.3, foot), (u + rng.normal() * 0.001, (top + foot) / 2),
                          (u + lean, top)]  # fmt: skip
                found.append((rng.uniform(0.35, 0.55), rng.uniform(1.0, 1.4), points))
            return found
        # lip lines
        return [(rng.uniform(0.08, 0.14), 0.7,
                 [(u, 0.381 - abs(u - 0.5) * 0.16), (u + (u - 0.5) * 0.06, 0.404)])
                for u in np.linspace(0.468, 0.532, 11) + rng.normal(size=11) * 0.002]  # fmt: skip

    def _carve(self, total, rng, points, depth, width, lip):
        """Press a crease along a curve of (u, v) points into ``total``, raised beside it.

        −depth·taper(t)·(e^{−(d/w)²} − lip·e^{−(d/2.6w)²}), d in mm over the mean head.
        """
        t = np.linspace(0, 1, KNOTS)
        knots = np.linspace(0, 1, len(points))
        smooth = np.stack([np.interp(t, knots, points[:, k]) for k in (0, 1)], 1)
        padded = np.pad(smooth, [(4, 4), (0, 0)], mode="reflect", reflect_type="odd")
        smooth = gaussian_filter(padded, (1.6, 0))[4:-4]
        wobble = gaussian_filter(rng.normal(size=(KNOTS, 2)), (1.4, 0), mode="nearest") * 0.0032
        smooth = smooth + wobble
        column, row = self._pixel(smooth)
        curve = np.stack([map_coordinates(self.place[..., k], [row, column], order=1,
                                          mode="nearest") for k in range(3)], 1)  # fmt: skip
        far = int(np.ceil(8 * width + 6))
        top, bottom = max(0, int(row.min()) - far), min(self.resolution, int(row.max()) + far)
        left, right = max(0, int(column.min()) - far), min(self.resolution, int(column.max()) + far)
        if top >= bottom or left >= right:
            return
        place = self.place[top:bottom, left:right]
        near = np.full(place.shape[:2], np.inf, np.float32)
        where = np.zeros(place.shape[:2], np.float32)
        for k in range(len(curve) - 1):
            a, along = curve[k], curve[k + 1] - curve[k]
            s = np.clip(((place - a) @ along) / max(along @ along, 1e-9), 0, 1)
            d = ((place - a - s[..., None] * along) ** 2).sum(-1)
            closer = d < near
            near[closer], where[closer] = d[closer], (k + s[closer]) / (len(curve) - 1)
        uneven = 1 + 0.45 * gaussian_filter(rng.normal(size=KNOTS), 1.1)
        bulge = np.sin(np.pi * where).clip(0)
        taper = bulge**0.7 * np.interp(where, t, uneven)
        width = width * (0.65 + 0.35 * bulge)
        shape = np.exp(-near / width**2) - lip * np.exp(-near / (2.6 * width) ** 2)
        total[top:bottom, left:right] -= depth * taper * shape

    def _pixel(self, points):
        left, bottom, side = WINDOW
        column = (points[:, 0] - left) / side * self.resolution - 0.5
        row = (bottom + side - points[:, 1]) / side * self.resolution - 0.5
        return column, row

    def _dimples(self, rng):
        """A chin raised is a chin of small dents."""
        noise = self._noise(rng, 2.6)
        ball = self._ball(0.5, 0.235, 11)
        return (-0.22 * np.maximum(noise - 0.3, 0) * ball).astype(np.float32)

    # ------------------------------------------------------------------ what never moves

    def _noise(self, rng, millimetres):
        """Smooth noise (R, R) of unit variance whose bumps are about so wide on the cheek."""
        texels = millimetres / 2.2 * self.resolution / 256
        white = rng.standard_normal((self.resolution, self.resolution), np.float32)
        field = cv2.GaussianBlur(white, (0, 0), texels, sigmaY=1.3 * texels)
        return field / field.std()

    def _ball(self, u, v, radius):
        """Soft disc (R, R) around a place in UV; radius in mm."""
        column, row = self._pixel(np.array([[u, v]]))
        at = self.place[int(row[0].round()), int(column[0].round())]
        away = self.place - at
        return np.exp(np.einsum("ijk,ijk->ij", away, away) / (-2 * radius**2))

    def _grain(self, rng, age):
        """Pores, fine lines that cross and unevenness (R, R), mm."""
        nose = self._ball(0.5, 0.50, 17)
        cheeks = self._ball(0.43, 0.49, 17) + self._ball(0.57, 0.49, 17)
        coarse = np.clip(
            0.30 + 0.8 * nose + 0.6 * cheeks + 0.15 * self._ball(0.5, 0.74, 30), 0, 1.1
        )
        strength = np.exp(0.3 * rng.normal())
        pores = np.maximum(self._noise(rng, 1.1) - 0.9, 0)  # separate pits, not a sine wave
        fine = self._noise(rng, 1.5)
        uneven = self._noise(rng, 4.5)
        weather = 0.5 + 0.8 * age
        return (-0.055 * strength * coarse * pores + 0.016 * weather * fine
                + 0.040 * weather * uneven)  # fmt: skip

    def _tint(self, rng, age):
        """Change of log albedo (3, R, R): freckles, moles, veins, redness."""
        melanin = 0.05 * self._noise(rng, 7) + 0.07 * self._noise(rng, 2.2)
        blood = 0.04 * self._noise(rng, 9) + 0.06 * self._noise(rng, 3.0)
        flush = sum(self._ball(u, 0.49, 16) for u in (0.42, 0.58)) + 0.8 * self._ball(0.5, 0.48, 10)
        blood = blood + rng.uniform(-0.05, 0.16) * flush
        freckled = max(0, rng.normal() * 1.0 - 0.1)
        across = 0.25 + sum(self._ball(u, 0.52, 18) for u in (0.42, 0.58))
        across = across + self._ball(0.5, 0.55, 14)
        melanin = melanin + 0.9 * freckled * across * np.maximum(self._noise(rng, 1.9) - 1.5, 0)
        sun = np.maximum(self._noise(rng, 5.5) - 1.9, 0) * max(0, age - 0.5) * 0.9
        melanin = melanin + sun
        # moles: not on the brows
        for _ in range(rng.poisson(3.0)):
            u, v = rng.uniform(0.30, 0.70), rng.uniform(0.24, 0.77)
            spot = self._ball(u, v, rng.uniform(0.55, 1.25))
            melanin = melanin + rng.uniform(0.9, 2.0) * np.minimum(1, 1.5 * spot**1.5)
        # a blue vein or two at the temples and under the eyes: less red comes back
        veins = np.zeros_like(melanin)
        for side in (-1, 1):
            path = np.cumsum(rng.normal(size=(4, 2)) * [0.006, 0.004] + [side * 0.010, 0.012], 0)
            points = np.array([0.5 + side * 0.115, 0.615]) + path
            line = np.zeros((self.resolution,) * 2, np.float32)
            self._carve(line, rng, points, 1.0, 1.3, 0.0)
            veins += -line * rng.uniform(0, 0.05)
        pale = np.array([1.0, 0.45, 0.25])
        red = -np.multiply.outer(MELANIN, melanin) - np.multiply.outer(BLOOD, blood)
        return red - np.multiply.outer(pale, veins)


def _base(name):
    """A group's name without its side."""
    return name.removesuffix(" left").removesuffix(" right")
