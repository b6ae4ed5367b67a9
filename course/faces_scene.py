"""What a photographed person wears: hair, hats, glasses and a shirt, as simple meshes.

Millimetres in the unposed head's frame (origin between the pupils), so that everything can be
posed with the head. Every part is (points, triangles, material); texture runs along ``uv``.
"""

from dataclasses import dataclass

import numpy as np

SKIN, HAIR, FRAME, CLOTH, HAT, HAND, MASK = range(7)
COLUMNS, CAP_ROWS, FALL_ROWS = 128, 14, 14
HAIR_STYLES = {
    "none": 0.06, "painted": 0.10, "short": 0.26, "fringe": 0.12, "long": 0.18, "long fringe": 0.08,
    "big": 0.07, "brimmed hat": 0.07, "beanie": 0.06,
}  # fmt: skip


@dataclass
class Part:
    """points (n, 3) mm · triangles (f, 3) · material · uv (n, 2) for its texture."""

    points: np.ndarray
    triangles: np.ndarray
    material: int
    uv: np.ndarray


def grid(rows, columns):
    """Triangles of a grid of points."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3),
                           np.stack([b, c, d], -1).reshape(-1, 3)])  # fmt: skip


def _ragged(rng, amplitudes):
    """A jagged line over the azimuth: noise at several spacings, (COLUMNS + 1,)."""
    at, total = np.arange(COLUMNS + 1), np.zeros(COLUMNS + 1)
    for step, amplitude in amplitudes:
        knots = np.arange(0, COLUMNS + step, step)
        values = rng.normal(size=len(knots)) * amplitude
        values[-1] = values[0]
        total += np.interp(at, knots, values)
    return total


def hair_or_hat(rng, style, skull):
    """A sheet around the skull that ends at a ragged line; hats end at a smooth one.

    ``skull`` is (half width, half height, half depth, centre y, centre z) of the head in mm.
    """
    width, height, depth, centre_y, centre_z = skull
    hat = style in ("brimmed hat", "beanie")
    low, high = {"short": (4, 18), "fringe": (6, 22), "long": (7, 26), "long fringe": (8, 26),
                 "big": (22, 60), "brimmed hat": (7, 18), "beanie": (5, 22)}[style]  # fmt: skip
    volume = rng.uniform(low, high)
    a, b, c = width + volume, height + volume * rng.uniform(0.8, 1.4), depth + volume
    turn = np.linspace(-np.pi, np.pi, COLUMNS + 1)
    azimuth = np.abs(np.degrees(turn))
    length = {"short": (0, 40), "fringe": (10, 70), "long": (90, 260), "long fringe": (90, 260),
              "big": (10, 120), "brimmed hat": (8, 14), "beanie": (15, 30)}[style]  # fmt: skip
    fall = rng.uniform(*length)
    end = _hairline(rng, style, azimuth, centre_y, fall)
    if not hat:
        end = end + rng.normal() * 9 * np.sin(turn * 1.5) * (azimuth < 75)
        end = end + _ragged(
            rng, ((1, rng.uniform(0.5, 4)), (3, rng.uniform(1, 6)), (9, rng.uniform(1, 7)))
        )

    # from the crown along the ellipsoid to its equator, then straight down, as far as ``end``
    arc = np.linspace(0, 1, CAP_ROWS + FALL_ROWS)[:, None]
    top = centre_y + b
    y = top - (top - end) * arc**1.15
    above = np.clip((y - centre_y) / b, 0, 1)
    reach = np.sqrt(np.clip(1 - above**2, 0, 1))
    below = np.clip((centre_y - y) / 200, 0, 1)
    flare = rng.uniform(-0.25, 0.35) if fall > 80 else rng.uniform(-0.3, 0.05)
    x = a * np.sin(turn) * reach * (1 + flare * below)
    z = centre_z + c * np.cos(turn) * reach * (1 + (flare - 0.12) * below)
    points = np.stack([x, y + 0 * turn, z], -1)
    bumps = _ragged(rng, ((4, 1.0), (12, 1.0))) * (0.6 if hat else rng.uniform(0.5, 3.0))
    out = points - np.array([0, centre_y, centre_z])
    out /= np.linalg.norm(out, axis=-1, keepdims=True) + 1e-6
    points = points + out * (bumps * np.sin(np.pi * np.clip(arc * 1.2, 0, 1)))[..., None]
    u, v = np.broadcast_arrays(turn / (2 * np.pi) + 0.5, (top - y) / 300)
    uv = np.stack([u, v], -1).reshape(-1, 2)
    rows = CAP_ROWS + FALL_ROWS
    material = HAT if hat else HAIR
    parts = [Part(points.reshape(-1, 3), grid(rows, COLUMNS + 1), material, uv)]
    if style == "brimmed hat":
        parts.append(_brim(rng, turn, azimuth, end, (a, b, c, centre_y, centre_z)))
    return parts


def _hairline(rng, style, azimuth, centre_y, fall):
    """Height at which hair or hat ends, by azimuth (0 is the front)."""
    low = centre_y - fall
    if style in ("brimmed hat", "beanie"):
        front = rng.uniform(38, 72)
        heights = [front, front, front - rng.uniform(0, 15), front - rng.uniform(10, 35),
                   front - rng.uniform(20, 50)]  # fmt: skip
    else:
        bare = style in ("short", "long", "big")
        front = rng.uniform(60, 88) if bare else rng.uniform(14, 55)
        if style == "short" and rng.random() < 0.12:
            front = rng.uniform(80, 108)  # receding
        temple = rng.uniform(20, 62) if style in ("short", "big") else rng.uniform(0, 50)
        side = rng.uniform(-5, 25) if style == "short" else low
        heights = [front, front - rng.uniform(-8, 12), temple, side, min(low, side)]
    opening = rng.uniform(48, 78)
    return np.interp(azimuth, [0, 32, opening, opening + rng.uniform(8, 22), 180], heights)


def _brim(rng, turn, azimuth, end, skull):
    a, b, c, centre_y, centre_z = skull
    wide = rng.uniform(30, 85)
    around = rng.random() < 0.4
    share = np.ones_like(turn)
    if not around:
        share = np.clip(np.cos(turn * rng.uniform(1.2, 1.6)) * (azimuth < 75), 0, 1) ** 0.6
    reach = np.sqrt(np.clip(1 - ((end - centre_y) / b) ** 2, 0.05, 1))
    step = np.linspace(0, 1, 4)[:, None] * wide * share
    droop = rng.uniform(-0.1, 0.5)
    x = (a * reach + step) * np.sin(turn)
    z = centre_z + (c * reach + step) * np.cos(turn)
    y = end - step * droop * np.cos(turn * (0 if around else 1))
    uv = np.stack(np.broadcast_arrays(turn / (2 * np.pi) + 0.5, step / 300), -1).reshape(-1, 2)
    return Part(np.stack([x, y, z], -1).reshape(-1, 3), grid(4, len(turn)), HAT, uv)


def glasses(rng, eyes, bridge, head_half_width, dark):
    """Frames around the eyes (2, 3): the frame's parts and the lenses' outlines (2, 33, 3)."""
    segments = 32
    half_w = rng.uniform(20, 28) + 4 * dark
    half_h = half_w * rng.uniform(0.6, 0.95)
    power = rng.uniform(2, 6)
    thick = rng.uniform(0.8, 5.0) if rng.random() < 0.6 else rng.uniform(0.6, 1.5)
    middle = eyes.mean(0)
    front = max(bridge[2] + rng.uniform(0, 3), eyes[0, 2] + 17)
    lower = rng.uniform(-5, 1) - 2 * dark
    wrap = rng.uniform(0.002, 0.006)
    t = np.linspace(0, 2 * np.pi, segments + 1)
    c, s = np.cos(t), np.sin(t)
    round_ = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)

    def depth(x):
        return front - wrap * (x - middle[0]) ** 2

    parts, lenses = [], []
    for side, eye in ((1, eyes[0]), (-1, eyes[1])):
        x0 = middle[0] + side * max(half_w + 7, abs(eye[0] - middle[0]))
        y0 = middle[1] + lower
        loops = []
        for grown in (0, thick):
            x = x0 + (half_w + grown) * round_ * c
            y = y0 + (half_h + grown) * round_ * s
            loops.append(np.stack([x, y, depth(x)], -1))
        parts.append(_flat(np.concatenate(loops), grid(2, segments + 1)))
        lenses.append(np.concatenate([loops[0][:-1], [[x0, y0, depth(x0) + 1]]]))
        edge = middle[0] + side * (2 * half_w + 7 + thick)
        bar = max(thick, 1.5)
        high, ear = y0 + half_h * 0.5, side * (head_half_width + 5)
        temple = np.array([[edge, high, depth(edge)], [edge, high + bar, depth(edge)],
                           [ear, high + 3, 2], [ear, high + 3 + bar, 2]])  # fmt: skip
        parts.append(_flat(temple, np.array([[0, 1, 2], [2, 1, 3]])))
    bar = max(thick, 1.5)
    y0 = middle[1] + lower + 6
    bridge_points = np.array(
        [[middle[0] + dx, y0 + dy, front + 0.5] for dx in (-9, 9) for dy in (0, bar)]
    )
    parts.append(_flat(bridge_points, np.array([[0, 1, 2], [2, 1, 3]])))
    return parts, np.stack(lenses)


def _flat(points, triangles):
    return Part(points, triangles, FRAME, np.zeros((len(points), 2)))


LENS_TRIANGLES = np.array([[32, k, (k + 1) % 32] for k in range(32)])


def shirt(rng, neck):
    """Shoulders below the neck joint (3,): a squashed ball."""
    rows, columns = 16, 33
    theta = np.linspace(0, np.pi, rows)[:, None]
    phi = np.linspace(0, 2 * np.pi, columns)
    radii = np.array([rng.uniform(170, 240), rng.uniform(95, 150), rng.uniform(85, 120)])
    axes = (np.sin(theta) * np.sin(phi), np.cos(theta) + 0 * phi, np.sin(theta) * np.cos(phi))
    unit = np.stack(np.broadcast_arrays(*axes), -1).reshape(-1, 3)
    points = np.sign(unit) * np.abs(unit) ** 0.8 * radii
    points = points + neck + [0, -radii[1] * rng.uniform(0.78, 1.02) - 8, -10]
    uv = np.stack(np.broadcast_arrays(phi / (2 * np.pi), theta / np.pi), -1).reshape(-1, 2)
    return Part(points, grid(rows, columns), CLOTH, uv)


def choose_style(rng, among=None):
    """A hair style, of all or of those named."""
    styles = {k: v for k, v in HAIR_STYLES.items() if among is None or k in among}
    names, weights = zip(*styles.items(), strict=True)
    return str(rng.choice(names, p=np.array(weights) / sum(weights)))
