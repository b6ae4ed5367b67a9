"""The colours of the head, painted texel by texel from where each texel lies on the face.

Skin is layered pigment: albedo = base · exp(−melanin·m − haemoglobin·h), after Beer and Lambert
(see Donner and Jensen 2006, Alotaibi and Smith 2017). The mean has the brown of the world's middle;
two standard deviations of melanin reach from very light to very dark.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.draw import polygon
from skimage.transform import downscale_local_mean

from course.head import rig
from course.head.anatomy import topology
from course.head.bulk import smoothstep
from course.head.topology import angles

RESOLUTION, BASIS_RESOLUTION = 512, 256
# component → value of the painter's argument at one standard deviation
COMPONENTS = {
    "melanin": 1.0, "blood": 1.0, "blush": 1.0, "lip colour": 1.0, "brow density": 1.0,
    "brow darkness": 1.0, "hair lightness": 1.0, "hair redness": 1.0, "grey hair": 1.0,
    "freckles": 1.0, "beard shadow": 1.0, "eye shadows": 1.0, "iris colour": 1.0, "make-up": 1.0,
}  # fmt: skip
MEAN_SKIN = np.array([0.955, 0.80, 0.70])
MELANIN, BLOOD = np.array([0.25, 0.31, 0.365]), np.array([0.10, 0.58, 0.50])


class Noise:
    """Smooth random fields over space, the same for the same seed; kept, since painting repeats."""

    def __init__(self, points):
        self.points, self.kept = points.astype(np.float32), {}

    def __call__(self, frequency, seed, octaves=1, points=None, name=None):
        key = (frequency, seed, octaves, name)
        if key not in self.kept:
            rng, total = np.random.default_rng(seed), 0.0
            points = self.points if points is None else points.astype(np.float32)
            for octave in range(octaves):
                waves = (rng.normal(size=(24, 3)) * frequency * 2**octave).astype(np.float32)
                phase = rng.uniform(0, 2 * np.pi, 24).astype(np.float32)
                total = total + np.cos(points @ waves.T + phase).sum(-1) / np.sqrt(12) / 2**octave
            self.kept[key] = total
        return self.kept[key]


class Texels:
    """Where each texel lies: position (n, 3) in mm, part, soft maps, places in eyes and teeth."""

    def __init__(self, head, uv, uv_faces, resolution=RESOLUTION):
        self.resolution = resolution
        face, weights = _rasterize(uv[uv_faces], resolution)
        self.painted = face >= 0
        self.nearest = distance_transform_edt(
            ~self.painted, return_distances=False, return_indices=True
        )
        f, b = face[self.painted], weights[self.painted]
        corners = head.faces[f]
        self.position = (head.vertices[corners] * b[..., None]).sum(1)
        self.part = head.part[corners[:, 0]]
        self.attributes = {
            name: (values[corners] * b).sum(1) for name, values in _attributes(head).items()
        }
        at = (uv[uv_faces[f]] * b[..., None]).sum(1)
        self.angle, self.around = np.zeros(len(f)), np.zeros(len(f))
        for part, centre in rig.EYE_UV.items():
            chosen = self.part == part
            offset = at[chosen] - np.array(centre)
            radius = np.clip(np.linalg.norm(offset, axis=1) / rig.EYE_UV_RADIUS, 0, 1)
            self.angle[chosen] = 2 * np.arcsin(radius ** (1 / 0.6))
            self.around[chosen] = np.arctan2(offset[:, 1], offset[:, 0])
        self.box = np.zeros((len(f), 2))
        for part, (u0, v0, wide, tall) in rig.BOX_UV.items():
            chosen = self.part == part
            self.box[chosen] = (at[chosen] - [u0, v0]) / [wide, tall]
        self.noise = Noise(self.position)

    def image(self, values):
        """Texel values (n, …) as a picture; gaps between islands take the nearest texel."""
        picture = np.zeros(self.painted.shape + values.shape[1:])
        picture[self.painted] = values
        return picture[self.nearest[0], self.nearest[1]]


def _rasterize(triangles, resolution):
    """Triangle number and barycentric weights of every texel (row 0 is v = 1)."""
    face = np.full((resolution, resolution), -1)
    weights = np.zeros((resolution, resolution, 3))
    for number, corners in enumerate(triangles):
        x, y = corners[:, 0] * resolution - 0.5, (1 - corners[:, 1]) * resolution - 0.5
        area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
        if abs(area) < 1e-9:
            continue
        middle_x, middle_y = x.mean(), y.mean()  # grown a little, so that no crack shows
        rows, columns = polygon(middle_y + (y - middle_y) * 1.05, middle_x + (x - middle_x) * 1.05,
                                (resolution, resolution))  # fmt: skip
        w1 = ((columns - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (rows - y[0])) / area
        w2 = ((x[1] - x[0]) * (rows - y[0]) - (columns - x[0]) * (y[1] - y[0])) / area
        face[rows, columns] = number
        weights[rows, columns] = np.stack([1 - w1 - w2, w1, w2], -1)
    return face, weights


def _attributes(head):
    """Soft vertex maps that follow the mesh's loops: lips, lash line, nostrils, lining, ears."""
    t = topology()
    names = ("lip", "lash", "caruncle", "nostril", "lining", "deep", "ear")
    at = {name: np.zeros(len(head.vertices)) for name in names}
    mouth, first = t.rings["mouth"], rig.FIRST_LIP_RING
    at["lip"][mouth[first + 1]] = 0.5
    for ring in mouth[first + 2 : rig.CONTACT_RING + 1]:
        at["lip"][ring] = 1
    for k, ring in enumerate(mouth[rig.CONTACT_RING + 1 :]):
        at["lining"][ring], at["deep"][ring] = 1, min(1, (k + 1) / 3)
    for eye in ("eye_l", "eye_r"):
        rings = t.rings[eye]
        psi = angles(len(rings[0]))
        upper = np.clip(np.sin(psi) * 1.6, 0, 1) * (0.4 + 0.6 * smoothstep(np.cos(psi), -0.9, 0.2))
        at["lash"][rings[-2]] = 0.08 + 0.72 * upper
        at["lash"][rings[-3]] = 0.08 + 0.70 * upper
        at["caruncle"][rings[-1]] = 1
        at["caruncle"][rings[-2]] = np.exp(-(((np.abs(psi) - np.pi) / 0.35) ** 2))
    for side in ("nostril_l", "nostril_r"):
        for k, ring in enumerate(t.rings[side][1:]):
            at["nostril"][ring] = min(1, 0.2 + 0.45 * k)
    for side in ("ear_l", "ear_r"):
        for k, ring in enumerate(t.rings[side]):
            at["ear"][ring] = (0, 0.6)[k] if k < 2 else 1
    return at


def hair_maps(x):
    """Soft masks (n,) of scalp hair, brows and beard on texels ``x``."""
    p, at, noise = x.position, x.attributes, x.noise
    px, py, pz = p.T
    a = np.abs(px)
    skin = x.part == 0
    # scalp: outside a window around the face; strands break up its edge
    window = (np.abs(px / 66) ** 2.6 + np.abs((py - 2) / 72) ** 2.6) ** (1 / 2.6)
    temples = 0.05 * np.exp(-(((a - 40) / 10) ** 2) - ((py - 55) / 14) ** 2)
    strands = noise(0.9, 12, 2, np.stack([np.arctan2(px, py - 20) * 45, 0.12 * py, 0.12 * pz], -1),
                    "strands")  # fmt: skip
    edge = window - temples + 0.016 * noise(0.16, 7, 2) + 0.013 * strands
    top = smoothstep(edge, 0.985, 1.085) * smoothstep(py, 2, 18)
    # from the forehead's corner back over the temple and down in front of the ear
    front = np.interp(py, (-40, -10, 4, 14, 24, 34, 48), (14, 20, 24, 28, 35, 46, 60))
    behind = smoothstep(front - pz + 1.6 * strands, -4, 5) * smoothstep(a, 44, 52)
    side = behind * smoothstep(py + 0.8 * strands, 0, 18)
    sideburn = behind * smoothstep(py + 2 * strands, -30, -4) * smoothstep(pz, 2, 10)
    nape = smoothstep(-pz + 2 * strands, 16, 30) * smoothstep(py + 1.6 * strands, -68, -46)
    hair = np.maximum.reduce([top, side, nape, 0.6 * sideburn])
    hair = np.clip(hair, 0, 1) * (1 - at["ear"]) * skin
    # brows: a tapering band of strokes that lean outwards
    t = np.clip((a - 9) / 44, 0, 1)
    off = py - rig.brow_height(px)
    half = 4.3 * (1 - t**2.2) ** 0.8 * smoothstep(a, 8, 15) + 0.4
    leaning = np.stack([(a - off * (0.9 - 1.3 * t)) * 1.7, off * 0.3, 0 * a], -1)
    strokes = noise(1.0, 5, 1, leaning, "brows")
    brow = np.exp(-(np.abs(off / (half * (1 + 0.05 * strokes))) ** 3.0))
    brow = brow * smoothstep(a, 7.5, 13) * (1 - smoothstep(a, 49, 56)) * smoothstep(pz, 20, 60)
    brow = brow * np.clip(0.78 + 0.24 * strokes, 0.25, 1.0) * skin
    # beard: moustache, chin, jaw and the sides up to the sideburns
    upper = -49.5 - 14 * np.exp(-(((a - 33) / 9) ** 2)) + 0.006 * np.maximum(a - 30, 0) ** 2
    beard = smoothstep(py, -132, -110) * (1 - smoothstep(py, upper - 6, upper + 5))
    beard = beard * smoothstep(pz, 4, 24) * (1 - at["lip"]) * (1 - at["ear"]) * skin
    return hair, brow, np.clip(beard, 0, 1)


def paint(x, **values):
    """sRGB albedo (n, 3) of texels ``x``; ``values`` are components in standard deviations."""
    c = dict.fromkeys(COMPONENTS, 0.0) | values
    p, at, noise = x.position, x.attributes, x.noise
    px, py, pz = p.T
    a = np.abs(px)

    def ball(cx, cy, cz, radius):
        return np.exp(-((a - cx) ** 2 + (py - cy) ** 2 + (pz - cz) ** 2) / (2 * radius**2))

    front = smoothstep(pz, 20, 60)
    rough, fine, pores = noise(0.05, 1, 3), noise(0.35, 2, 2), noise(1.6, 4, 1)
    flush = ball(37, -33, 80, 16) + 1.1 * ball(0, -35, 121, 10)
    blood = 0.20 + 0.13 * flush + 0.12 * ball(14, -41, 108, 7) + 0.05 * ball(0, -101, 100, 12)
    blood = blood + 0.20 * at["ear"] + 0.10 * ball(31, 4, 90, 12) + 0.09 * ball(17, -3, 85, 6)
    blood = blood + 0.018 * rough + 0.020 * fine + 0.04 * front
    blood = blood + 0.075 * c["blood"] + 0.11 * c["blush"] * flush
    melanin = 1.56 + 0.045 * rough + 0.04 * fine + 0.03 * pores * front
    melanin = melanin + (0.12 + 0.20 * c["eye shadows"]) * ball(30, -10, 90, 8)
    melanin = melanin + 0.12 * ball(31, 9, 90, 9) + 0.10 * smoothstep(-py, 105, 130) + c["melanin"]
    spots = np.clip(noise(0.9, 3) - 1.25, 0, 1) * (ball(24, -22, 95, 24) + 0.1 * front)
    melanin = melanin + (0.35 + 0.9 * c["freckles"]) * spots * np.clip(
        1 - 0.35 * c["melanin"], 0, 1
    )
    colour = MEAN_SKIN * np.exp(-np.outer(melanin, MELANIN) - np.outer(np.maximum(blood, 0), BLOOD))

    def over(colour, mask, paint_):
        return colour * (1 - mask[:, None]) + np.asarray(paint_) * mask[:, None]

    hair, brow, beard = hair_maps(x)
    light = np.clip(0.2 * c["hair lightness"] - 0.28 * c["melanin"], -0.7, 1.2)
    hair_colour = np.array([0.20, 0.135, 0.10]) * np.exp(light * np.array([1.0, 1.05, 1.0]))
    hair_colour = hair_colour * np.exp(c["hair redness"] * np.array([0.12, -0.02, -0.12]))
    grey = np.clip(0.10 * (1 + c["grey hair"]), 0, 0.6)
    hair_colour = hair_colour * (1 - grey) + grey * np.array([0.55, 0.54, 0.53])
    shadow = np.clip(0.10 * (1 + c["beard shadow"]), 0, 0.5) * beard * (1 + 0.12 * noise(1.3, 9))
    colour = colour * (1 - shadow[:, None] * np.array([1.0, 0.90, 0.84]))
    # lips: their own blood under thin skin
    lip = at["lip"]
    lip_colour = np.array([0.60, 0.345, 0.32]) * np.exp(
        -c["melanin"] * np.array([0.22, 0.22, 0.22])
        + 0.09 * c["lip colour"] * np.array([-0.2, -0.9, -0.5])
        + 0.09 * c["make-up"] * np.array([-0.1, -1.0, -0.5])
    )
    lines = 1 + 0.05 * np.cos(px * 2.4 + 0.6 * np.cos(py * 1.1) + np.sin(px * 0.7)) * lip
    colour = over(colour, 0.85 * lip, lip_colour) * lines[:, None]
    # make-up: eye shadow and liner
    lids = np.clip(ball(31, 7, 92, 6.5) - 0.2, 0, 1) * front
    colour = colour * np.exp(-0.14 * c["make-up"] * lids[:, None] * np.array([0.8, 1.0, 0.8]))
    # brows, scalp
    strength = np.clip(0.72 + 0.16 * c["brow density"], 0, 1)
    colour = over(colour, np.clip(brow * strength, 0, 0.95),
                  hair_colour * np.exp(-0.16 * c["brow darkness"]))  # fmt: skip
    texture = np.clip(0.95 + 0.10 * noise(1.1, 8, 2), 0.6, 1.25)
    colour = over(colour, 0.93 * hair, hair_colour * texture[:, None])
    colour = over(
        colour, at["lash"] * np.clip(0.7 + 0.08 * c["make-up"], 0, 1), [0.09, 0.065, 0.055]
    )
    colour = over(colour, 0.7 * at["caruncle"], [0.70, 0.42, 0.39])
    colour = colour * (1 - 0.72 * at["nostril"])[:, None]
    inside = np.array([0.52, 0.22, 0.21]) * (1 - 0.5 * at["deep"][:, None])
    colour = over(colour, at["lining"], inside)
    colour = np.where((x.part == 0)[:, None], colour, 0)
    _paint_eyes(x, c, colour)
    _paint_mouth(x, colour)
    return np.clip(colour, 0, 1)


def _paint_eyes(x, c, colour):
    eye = (x.part == 1) | (x.part == 2)
    angle, around = x.angle[eye], x.around[eye]
    iris, pupil = np.radians(29.0), np.radians(11.0)
    white = np.array([0.80, 0.775, 0.75]) - np.outer(
        smoothstep(angle, 0.6, 1.3), [0.02, 0.13, 0.15]
    )
    fibres = 0.78 + 0.22 * np.cos(around * 34 + 3 * np.cos(around * 9)) * np.cos(
        angle * 30 + 2 * np.cos(around * 5)
    )
    shade = np.clip(0.6 * c["iris colour"] - 0.5 * c["melanin"], -1, 2.2)
    iris_colour = np.array([0.30, 0.19, 0.115]) * np.exp(shade * np.array([0.02, 0.33, 0.56]))
    ring = fibres * (0.75 + 0.6 * smoothstep(angle, pupil, iris * 0.7))
    mix = smoothstep(-angle, -iris - 0.03, -iris + 0.03)[:, None]
    eyeball = white * (1 - mix) + np.clip(iris_colour * ring[:, None], 0, 1) * mix
    lid_shadow = np.clip(smoothstep(np.sin(around) * np.sin(angle), 0.18, 0.52), 0, 1)
    eyeball = eyeball * (1 - 0.34 * lid_shadow)[:, None]
    eyeball = eyeball * (1 - 0.55 * np.exp(-(((angle - iris) / 0.05) ** 2)))[:, None]
    dark = smoothstep(-angle, -pupil - 0.03, -pupil + 0.02)[:, None]
    colour[eye] = eyeball * (1 - dark) + 0.02 * dark


def _paint_mouth(x, colour):
    teeth = (x.part == 3) | (x.part == 4)
    u, v = x.box[teeth].T
    within = (u * 14) % 1
    gap = np.abs(within - 0.5) * 2
    gum = smoothstep(v, 0.72 - 0.10 * gap**3, 0.84 - 0.10 * gap**3)
    enamel = np.array([0.84, 0.80, 0.71]) * (1 - 0.34 * gap**10)[:, None]
    enamel = enamel * (1 - 0.4 * np.abs(2 * u - 1) ** 2)[:, None]
    colour[teeth] = enamel * (1 - gum[:, None]) + gum[:, None] * np.array([0.62, 0.31, 0.30])
    tongue = x.part == 5
    u, v = x.box[tongue].T
    rough = 1 + 0.05 * np.cos(60 * u) * np.cos(70 * v)
    colour[tongue] = np.array([0.62, 0.30, 0.29]) * (rough * (0.45 + 0.55 * (1 - v)))[:, None]


def build_albedo(head, uv, uv_faces):
    """The albedo model: mean (512, 512, 3) uint8, log directions (K, 256, 256, 3), masks."""
    x = Texels(head, uv, uv_faces)
    step = RESOLUTION // BASIS_RESOLUTION

    def small(values):
        picture = x.image(values)
        return downscale_local_mean(picture, (step, step) + (1,) * (picture.ndim - 2))

    def density(values):
        return np.log(np.clip(values, 0.02, 1))

    directions = []
    for name, size in COMPONENTS.items():
        # a one-sided step where less than none would be nonsense
        high = paint(x, **{name: size})
        low = paint(x, **{name: -size})
        directions.append(small((density(high) - density(low)) / 2))
    hair, brow, beard = hair_maps(x)
    at = x.attributes
    bare = (x.part == 0) * (1 - at["lip"]) * (1 - at["lining"]) * (1 - at["nostril"]) * (1 - hair)
    uv_masks = {"hair": hair, "brows": brow, "beard": beard, "lips": at["lip"], "skin": bare}
    return {
        "albedo_mean": np.round(x.image(paint(x)) * 255).astype(np.uint8),
        "albedo_dirs": np.stack(directions).astype(np.float16),
        "albedo_names": np.array(list(COMPONENTS)),
        **{f"uv_mask_{k}": np.round(255 * np.clip(small(m * 1.0), 0, 1)).astype(np.uint8)
           for k, m in uv_masks.items()},
    }  # fmt: skip
