"""The crisp parts that a smooth solid cannot give: lids, lips, ears, nostrils, eyeballs, teeth.

Each is a family of closed loops, given by formulas in the angle of the spokes (see
``topology.angles``). Millimetres, the person's left side; the right one is its mirror image.
"""

import numpy as np

from course.head.bulk import normal, project, smoothstep
from course.head.topology import angles

EYE_RADIUS, CORNEA = 12.0, 0.9
LIP_RINGS = 6  # border, body, contact line: the rest of the mouth's loops line the mouth
TEETH_COLUMNS, TEETH_ROWS, TEETH = 43, 4, 14
TONGUE_SHAPE = (9, 11)  # across, along


def globe(points):
    """Distance (n,) of the eyeball's surface from its centre, towards ``points`` (n, 3).

    The cornea stands a little proud of the globe.
    """
    way = points / np.linalg.norm(points, axis=-1, keepdims=True)
    beside = EYE_RADIUS * np.hypot(way[..., 0], way[..., 1])
    return EYE_RADIUS + CORNEA * np.exp(-((beside / 4.5) ** 2)) * (way[..., 2] > 0)


def eye_centre(g):
    return np.array([31.0 + g.eye_x, g.eye_y, 80.5 + g.eye_z])


def eye_loops(g, spokes, blink=0.0, wide=0.0):
    """Loops of the left lids, from the tuck on the eyeball outwards: a list of (spokes, 3).

    ``blink`` 0…1 closes them, ``wide`` opens the upper lid further.
    """
    psi = angles(spokes)
    half = 14.9 + g.eye_w
    tilt = np.radians(3 + g.eye_tilt)
    u = np.cos(psi)
    u = 0.62 * u + 0.38 * (2 / np.pi * np.arcsin(u))
    t = (u + 1) / 2  # 0 at the inner corner, 1 at the outer
    upper = np.sin(psi) >= 0
    height_u = (5.3 + g.eye_up) * np.sin(np.pi * t**0.88) ** 0.82 + 1.5 * wide * np.sin(np.pi * t)
    height_l = (4.7 + g.eye_lo) * np.sin(np.pi * t**1.15) ** 0.88
    closed = -0.72 * height_l
    margin = np.where(upper, height_u, -height_l)
    margin_now = margin + (np.where(upper, closed, closed) - margin) * blink

    arch = np.sin(np.pi * np.clip(t, 0, 1)) ** 0.7
    cos, sin = np.cos(psi), np.sin(psi)
    crease = 7.2 + g.crease
    # distance from the margin at mid-lid and corners, height over the lid, share of the blink
    upper_rows = [(0.8, -0.6, -3.0, 1), (0, 0, -0.2, 1), (1.1, 0.6, 1.3, 1),
                  (crease * 0.52, 1.6, 1.8, 0.72), (crease * 0.86, 2.5, 1.9, 0.42),
                  (crease, 3.1, 1.6, 0.3), (crease + 2.0, 4.1, 4.3, 0.15)]  # fmt: skip
    lower_rows = [(0.8, -0.6, -3.0, 1), (0, 0, -0.2, 1), (1.0, 0.6, 1.0, 1),
                  (3.2, 1.6, 1.5, 0.72), (5.6, 2.5, 1.9, 0.42), (7.6, 3.1, 2.3, 0.3),
                  (10.0, 4.1, 4.2, 0.15)]  # fmt: skip
    loops = []
    for k, (row_u, row_l) in enumerate(zip(upper_rows, lower_rows, strict=True)):
        middle, corner, lift, follow = (
            np.where(upper, a, b) for a, b in zip(row_u, row_l, strict=True)
        )
        out = corner + (middle - corner) * arch
        y = margin + (margin_now - margin) * follow
        x = half * u + 0.9 * out * cos
        y = y + out * np.where(upper, 1, -1) * np.abs(sin) ** 0.5
        # the lid follows the eyeball, flatter below and towards the temple
        z = 13.2 - x**2 / 25 - y**2 / np.where(y > 0, 30, 24) - 0.22 * x
        z = z + lift * np.clip(arch + 0.25, 0, 1)
        point = np.stack([x * np.cos(tilt) - y * np.sin(tilt),
                          x * np.sin(tilt) + y * np.cos(tilt) - 0.5, z], -1)  # fmt: skip
        radius = np.linalg.norm(point, axis=1)
        clearance = globe(point) + (0.45 if k == 0 else 0.5 if k == 1 else 1.1 if k == 2 else 1.5)
        if k == 0:
            point *= (clearance / radius)[:, None]
        else:
            point *= (1 + np.clip(clearance - radius, 0, None) / radius)[:, None]
        loops.append(eye_centre(g) + point)
    return loops


def mouth_level(g):
    """Height of the closed lips and depth of the lips' border at the middle."""
    return -68.3 + g.mouth_y, 108.8 + 0.9 * g.muzzle_z + 0.7 * g.midface_z + g.mouth_z


def mouth_loops(g, spokes):
    """Loops from the lips' border to the contact line, then the lining, then its end point."""
    psi = angles(spokes)
    u = 0.5 * np.cos(psi) + 0.5 * (2 / np.pi * np.arcsin(np.cos(psi)))
    upper = np.sin(psi) >= -1e-9
    a = np.abs(u)
    open_ = 1 - a**2
    level, front = mouth_level(g)
    half = 25.0 + g.mouth_w
    corner = (-0.2 + g.corner_y) * a**2.2

    def arch(x):  # the dental arch pulls the corners back
        return -(x**2) / (2 * 26) - (np.abs(x) / 30) ** 4 * 1.5 + g.corner_z * a**3

    full = 1 + 0.25 * g.lip_full
    bow = g.bow * (1.3 * np.exp(-(((a - 0.2) / 0.13) ** 2)) - 1.1 * np.exp(-((a / 0.11) ** 2)))
    border_u = (8.8 + g.lip_u) * (1 - a**1.35) ** 0.95 + bow
    border_l = -(9.8 + g.lip_l) * np.maximum(1 - a**2.3, 0) ** 0.95
    border = np.where(upper, border_u, border_l)
    contact = -1.0 * np.exp(-((a / 0.2) ** 2))
    contact = contact + 0.7 * np.exp(-(((a - 0.42) / 0.2) ** 2)) * (1 - a**4)  # tubercle
    # a hair's breadth apart, a little more at the corners, where upper and lower lip turn over
    rest = 0.02 + 0.14 * smoothstep(a, 0.75, 0.95)
    contact = contact + (g.gap + rest) * np.where(upper, 0.5, -0.5) * np.sqrt(open_)
    loops = []
    # share of the way from border to contact, bulge of the upper and lower lip, extra half width
    for share, bulge_u, bulge_l, extra in (
        (-0.12, -0.4, -1.0, 1.9), (0.05, 0.7, 0.1, 1.2), (0.34, 2.5, 2.7, 0.9),
        (0.68, 2.9, 4.1, 0.5), (0.93, 0.4, 1.4, 0.15), (1.0, -3.0, -2.6, 0.0),
    ):  # fmt: skip
        y = border * (1 - share) + contact * share + corner
        x = (half + extra) * u
        bulge = np.where(upper, bulge_u, bulge_l)
        bulge = np.where(bulge > 0, bulge * full, bulge)
        z = (
            front
            + arch(x)
            + bulge * open_**0.55
            - (0.3 + 1.2 * max(share, 0) ** 2) * (1 - open_**0.5)
        )
        z = z - np.where(upper, 0, 2.0) * open_**0.7 * (1 if share < 0.5 else 0.8)
        loops.append(np.stack([x, level + y, z], -1))
    side = np.where(upper, 1.0, -1.0) * np.sqrt(open_)
    # the lining opens fast behind the lips: room for teeth and tongue
    for back, room, width in (
        (-2.4, 2.4, 0.99),
        (-5.5, 9.5, 1.02),
        (-16, 15.5, 1.06),
        (-38, 15, 0.95),
    ):
        x = half * u * width
        y = contact * 0.6 + corner + side * room
        loops.append(np.stack([x, level + y, front - 3 + 0.92 * arch(x) + back], -1))
    loops.append(np.array([[0, level, front - 54.0]]))
    return loops


def ear_loops(g, spokes, on_head):
    """Loops 1… of the left ear and its end point; ``on_head(y, z)`` is x on the head there."""
    s = g.ear_s
    origin = np.array([0.0, -22 + g.ear_y, -5.0])
    x_head = on_head(origin[1:2], origin[2:3])[0] - 1.5
    psi = angles(spokes)
    back, up = np.cos(psi), np.sin(psi)
    outline_up = 31 * s * up
    outline_back = 16.5 * s * back * (1 + 0.16 * up) + 1.5 * up - 1.2 * (up < 0) * up**2
    lower = smoothstep(-up, 0.35, 1.0)
    free = np.clip((1 + back) / 2 + 0.12 * np.abs(up) ** 2, 0, 1)
    free = smoothstep(free, 0.06, 0.6) * (1 - 0.6 * lower)  # how far the rim stands off the head
    height = (5 + 0.5 * g.ear_out + (10 + g.ear_out) * (1 + back) / 2) * free
    height = height * (1 - 0.45 * smoothstep(-up, 0.2, 1.0))
    tied = 1 - free
    lobe = np.exp(-(((psi + np.pi / 2) / 0.55) ** 2))
    tragus = np.exp(-((((psi - np.pi + np.pi) % (2 * np.pi) - np.pi) / 0.38) ** 2))
    antihelix = smoothstep(up, -1.0, -0.2)
    lean = np.radians(14)  # the top leans back
    loops = []

    def ring(radius, out, shift_back=0.0, shift_up=0.0, tie=0.0):
        a, b = outline_back * radius + shift_back, outline_up * radius + shift_up
        backwards = a * np.cos(lean) + b * np.sin(lean)
        upwards = -a * np.sin(lean) + b * np.cos(lean)
        y, z = origin[1] + upwards, origin[2] - backwards
        x = x_head + out - 0.10 * backwards
        head = on_head(y, z) + 0.8 * out
        loops.append(np.stack([x * (1 - tie) + head * tie, y, z], -1))

    ring(0.72 * free + 1.12 * tied, 0.5 * tied, tie=1.0)  # groove behind the ear
    ring(0.80 * free + 1.03 * tied, 0.5 * height + 0.8 * tied, tie=0.55 + 0.45 * tied)
    ring(0.965, 0.85 * height + 1.0 * tied, tie=tied)  # back of the rim
    ring(1.0 * free + 0.94 * tied, height + 1.4 * free + 1.2 * tied, tie=tied)  # front of the rim
    ring(0.83, height + 1.5 * free + 1.5 * tied - 0.8 * lobe)  # inner edge of the helix
    ring(0.74, height - 2.4 * free * antihelix + 1.2 * tied + 0.6 * lobe + 1.5 * tragus, -0.5)
    ring(0.56, height + 0.2 * free * antihelix + 1.5 * tied + 4.0 * tragus, -2.5, -1.0)
    ring(0.40, 0.45 * height - 3 * free + 1.8 * tragus, -4.0, -2.5)  # wall of the concha
    ring(0.20, np.full(spokes, -1.5), -6.0, -2.0)
    end = loops[-1].mean(0) + np.array([-5.0, 0, 0])
    return [*loops, end[None]]


def nostril_loops(g, spokes):
    """Loops 1… of the left nostril and its end point."""
    psi = angles(spokes)
    base = -33.5 - g.nose_len
    across, along = np.array([0.96, 0.05, -0.27]), np.array([-0.30, 0.36, 0.88])
    inwards = np.array([0.05, 0.9, -0.43])
    centre = np.array([6.5 + 0.4 * g.nose_w, base - 11.4 + 0.4 * g.nose_up,
                       106.2 + g.midface_z + 0.6 * g.nose_tip])  # fmt: skip
    ellipse = (2.9 + 0.2 * g.nose_w) * np.cos(psi)[:, None] * across
    rim = project(centre + ellipse + 4.6 * np.sin(psi)[:, None] * along, g, 5)
    out = normal(rim, g).mean(0)
    middle = rim.mean(0)
    loops = [rim]
    for scale, depth in ((0.86, 2.6), (0.55, 6)):
        loops.append((rim - middle) * scale + middle + (0.45 * inwards - 0.55 * out) * depth * 1.2)
    return [*loops, (middle + (0.45 * inwards - 0.55 * out) * 8.4)[None]]


def eyeball(centre, side, around=20, along=12):
    """A globe with its pole at the pupil: vertices (222, 3), triangles."""
    latitude = np.linspace(0, np.pi, along + 1)[1:-1]
    longitude = 2 * np.pi * np.arange(around) / around
    t, a = np.meshgrid(latitude, longitude, indexing="ij")
    body = np.stack([side * np.sin(t) * np.cos(a), np.sin(t) * np.sin(a), np.cos(t)], -1)
    points = np.concatenate([[[0, 0, 1]], body.reshape(-1, 3), [[0, 0, -1]]]) * EYE_RADIUS
    beside = np.hypot(points[:, 0], points[:, 1])
    points[:, 2] += CORNEA * np.exp(-((beside / 4.5) ** 2)) * (points[:, 2] > 0)
    ring = 1 + np.arange((along - 1) * around).reshape(along - 1, around)
    following = np.roll(ring, -1, 1)
    last = len(points) - 1
    faces = [np.stack([np.zeros(around, int), ring[0], following[0]], 1),
             np.stack([np.full(around, last), following[-1], ring[-1]], 1)]  # fmt: skip
    upper, lower = (ring[:-1], following[:-1]), (ring[1:], following[1:])
    faces.append(np.stack([upper[0], lower[0], lower[1]], -1).reshape(-1, 3))
    faces.append(np.stack([upper[0], lower[1], upper[1]], -1).reshape(-1, 3))
    faces = np.concatenate(faces)
    return points + centre, faces if side > 0 else faces[:, ::-1]


def strip(rows, columns):
    """Triangles of a grid of points, row after row."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, c, d], -1).reshape(-1, 3),
                           np.stack([a, d, b], -1).reshape(-1, 3)])  # fmt: skip


def teeth(g, upper):
    """One row of fourteen teeth with gum: vertices (4·43, 3), triangles."""
    u = np.linspace(-1, 1, TEETH_COLUMNS)
    level, front = mouth_level(g)
    front = front - (8.0 if upper else 9.8)
    level = level + (-1.6 if upper else -2.0)
    side = 1 if upper else -1
    half = (24.0 if upper else 22.0) * (1 + 0.008 * g.mouth_w)
    within = (u * TEETH / 2) % 1  # 0…1 across each tooth
    round_ = 0.55 * np.sin(np.pi * within) ** 0.6
    edge = 0.5 * np.abs(u) ** 2 - 0.35 * np.sin(np.pi * within) ** 0.5  # the biting edge
    points = []
    for height, out, width in (
        (10.0, -1.6, 1.0),
        (7.0, 0.0, 1.0),
        (3.0, 0.5, 1.0),
        (0.0, 0.0, 1.0),
    ):
        x = half * np.sin(1.35 * u) / np.sin(1.35) * width
        z = front + out - 30 * (1 - np.cos(1.25 * u)) / (1 - np.cos(1.25))
        z = z + round_ * (1 if height < 8 else 0.3) * np.cos(u)
        y = level + side * (height + (edge if height == 0 else 0.3 * u**2))
        points.append(np.stack([x, y, z], -1))
    faces = strip(TEETH_ROWS, TEETH_COLUMNS)
    return np.concatenate(points), faces if upper else faces[:, ::-1]


def tongue(g):
    """A tongue that rests behind the lower teeth: vertices (99, 3), triangles."""
    across, along = TONGUE_SHAPE
    u, t = np.meshgrid(np.linspace(-1, 1, across), np.linspace(0, 1, along), indexing="xy")
    level, front = mouth_level(g)
    width = 17 * np.sqrt(np.clip(1 - np.clip((t - 0.45) / 0.56, 0, 1) ** 2.4, 0.02, 1))
    x = width * u
    z = front - 52 + 39.5 * t
    crown = 1 - np.abs(u) ** 2.2
    y = level - 12.0 + (6.5 * np.sin(np.pi * (0.15 + 0.62 * t)) + 1.0) * crown
    y = y - 0.9 * np.exp(-((u / 0.13) ** 2)) * np.sin(np.pi * np.clip(t, 0, 1))  # middle groove
    points = np.stack([x, y, z], -1).reshape(-1, 3)
    return points, strip(along, across)[:, ::-1]
