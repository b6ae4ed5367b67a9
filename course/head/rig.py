"""What makes the sculpture a FLAME-like model: texture coordinates, joints, skinning, landmarks.

Works on the mean head in millimetres; ``build.py`` turns it into metres.
"""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
import trimesh
from scipy.optimize import nnls

from course.head import bulk, loops
from course.head.anatomy import topology
from course.head.bulk import smoothstep
from course.head.topology import HALF, MOUTH, ROWS, angles

KINTREE = np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]])
FIRST_LIP_RING = MOUTH.rings + 2 - 11  # the first of the mouth's loops placed by formula
CONTACT_RING = FIRST_LIP_RING + loops.LIP_RINGS - 1
MAX_YAW = 39


# ------------------------------------------------------------------ texture coordinates


def skin_uv(v):
    """Texture coordinates of the skin: uv (m, 2) and triangles into them (F, 3).

    The face is a cylinder's unrolled front, so it has no seam and little stretch; the rest is
    spread evenly (Tutte 1963) out to the seam, which runs up the back of the head.
    """
    t = topology()
    seam = [t.index["grid", HALF, j] for j in range(ROWS - 6)]
    twin = {vertex: t.n + k for k, vertex in enumerate(seam[:-1])}
    faces = t.triangles.copy()
    right = v[faces].mean(1)[:, 0] < 0
    cut = right[:, None] & np.isin(faces, seam[:-1])
    faces[cut] = [twin[vertex] for vertex in faces[cut]]
    count = t.n + len(twin)
    points = np.concatenate([v, v[seam[:-1]]])

    rim = [t.index["grid", i, 0] for i in range(HALF - 1, -HALF, -1)]
    border = np.array(seam[::-1] + rim + [twin[vertex] for vertex in seam[:-1]])
    uv, fixed = np.zeros((count, 2)), np.zeros(count, bool)
    uv[border] = _rounded_square(points[border], len(seam), len(rim))
    fixed[border] = True

    i, j = np.abs(t.grid_ij[:, 0]), t.grid_ij[:, 1]
    front = [t.grid[(i <= 15) & (j >= 9) & (j <= 43)]]
    front += [ring for eye in ("eye_l", "eye_r") for ring in t.rings[eye][:-1]]
    front += t.rings["mouth"][1 : FIRST_LIP_RING + 2]
    front = np.concatenate(front)
    x, y, z = points[front].T
    uv[front] = np.stack([0.5 + 0.365 * np.arctan2(x, z + 38), 0.51 + (y + 25) / 268], -1)
    fixed[front] = True
    for eye in ("eye_l", "eye_r"):  # the tuck behind the lid margin would fold back
        margin = uv[t.rings[eye][-2]]
        uv[t.rings[eye][-1]] = margin.mean(0) + 0.85 * (margin - margin.mean(0))
        fixed[t.rings[eye][-1]] = True

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    links = sp.coo_matrix((np.ones(len(edges)), edges.T), (count, count)).tocsr()
    links = ((links + links.T) > 0).astype(float)
    mean = sp.diags(1 / np.asarray(links.sum(1)).ravel()) @ links
    system = (sp.identity(count) - mean).tocsr()
    free, known = np.flatnonzero(~fixed), np.flatnonzero(fixed)
    uv[free] = spl.spsolve(system[free][:, free].tocsc(), -(system[free][:, known] @ uv[known]))
    still = np.zeros(count, bool)
    still[border] = True
    lids = [ring for eye in ("eye_l", "eye_r") for ring in t.rings[eye][4:]]
    still[np.concatenate(lids)] = True
    for _ in range(6):  # open up the sides of the nose and the ears
        uv = np.where(still[:, None], uv, 0.5 * uv + 0.5 * (mean @ uv))
    return uv, faces


def _rounded_square(points, seam, rim):
    """Places on a rounded square for the seam up one side, the neck's rim, the seam again."""
    around = np.linalg.norm(np.diff(np.concatenate([points, points[:1]]), axis=0), axis=1)
    length = np.concatenate([[0], np.cumsum(around)])
    marks = [0, length[seam - 1], length[seam + rim], length[-1]]
    turn = np.pi / 2 - 2 * np.pi * np.interp(length[:-1], marks, [0, 0.365, 0.635, 1])
    c, s = np.cos(turn), np.sin(turn)
    corner = lambda q: np.sign(q) * np.abs(q) ** (2 / 3)  # noqa: E731
    return 0.5 + 0.495 * np.stack([corner(c), corner(s)], -1)


EYE_UV = {1: (0.95, 0.05), 2: (0.05, 0.05)}  # centres of the eyes' discs, radius below
EYE_UV_RADIUS = 0.047
BOX_UV = {3: (0.006, 0.955, 0.09, 0.04), 4: (0.904, 0.955, 0.09, 0.04), 5: (0.93, 0.87, 0.06, 0.07)}


def part_uv(part):
    """Texture coordinates of eyeball (1, 2), teeth (3, 4) or tongue (5)."""
    if part in EYE_UV:
        points, _ = loops.eyeball(np.zeros(3), 1 if part == 1 else -1)
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
        angle = np.arccos(np.clip(points[:, 2], -1, 1))
        radius = EYE_UV_RADIUS * np.sin(angle / 2) ** 0.6
        around = np.arctan2(points[:, 1], points[:, 0])
        return (
            np.array(EYE_UV[part])
            + np.stack([np.cos(around), np.sin(around)], -1) * radius[:, None]
        )
    u0, v0, wide, tall = BOX_UV[part]
    rows, columns = (
        (loops.TONGUE_SHAPE[1], loops.TONGUE_SHAPE[0])
        if part == 5
        else (loops.TEETH_ROWS, loops.TEETH_COLUMNS)
    )
    s, t = np.meshgrid(np.linspace(0, 1, columns), np.linspace(1, 0, rows))
    s = s if part == 3 else 1 - s  # seen from outside, the others run the other way
    return np.stack([u0 + wide * s.ravel(), v0 + tall * t.ravel()], -1)


def texture_coordinates(head):
    """uv (T, 2) and triangles (F, 3) of the whole head."""
    t = topology()
    uv, faces = skin_uv(head.vertices[: t.n])
    coordinates, triangles = [uv], [faces]
    first_face, shift = len(faces), len(uv) - t.n
    for part in range(1, 6):
        coordinates.append(part_uv(part))
    triangles.append(head.faces[first_face:] + shift)
    return np.concatenate(coordinates), np.concatenate(triangles)


# ------------------------------------------------------------------ joints and skinning


def joint_places(g):
    eye = loops.eye_centre(g)
    return np.array([[0, -165, -20], [0, -118, -18], [0, -26, 6], eye, eye * [-1, 1, 1]], float)


def joint_regressor(head, joints):
    """J_regressor (5, V): each joint as a non-negative mean of vertices around it."""
    v, n = head.vertices, topology().n
    mirror = topology().mirror
    regressor = np.zeros((5, len(v)))
    for k in (3, 4):
        ball = head.part == k - 2
        regressor[k, ball] = 1 / ball.sum()
        # the cornea's bulge pulls the mean forward: weigh the back of the globe a little more
        index = np.flatnonzero(ball)
        weights, _ = nnls(
            _balance(v[index]), np.r_[joints[k], 300, np.full(len(index), 3 / len(index))]
        )
        regressor[k, index] = weights / weights.sum()
    for k in range(3):
        joint = joints[k]
        if k == 2:
            near = (np.abs(v[:n, 1] - joint[1]) < 9) & (np.abs(v[:n, 2] - joint[2] - 14) < 20)
            index = np.flatnonzero(near & (np.abs(v[:n, 0]) > 40))
        else:
            index = np.argsort(np.linalg.norm(v[:n] - joint, axis=1))[:160]
        index = np.unique(np.r_[index, mirror[index]])
        weights, _ = nnls(
            _balance(v[index]), np.r_[joint, 300, np.full(len(index), 3 / len(index))]
        )
        regressor[k, index] = weights / weights.sum()
    return regressor


def _balance(points):
    """Rows of the least-squares system: place, sum of weights, even spread."""
    n = len(points)
    return np.concatenate([points.T, np.full((1, n), 300.0), 3 * np.eye(n)])


def skinning_weights(head):
    """lbs_weights (V, 5) of root, neck, jaw, left eye, right eye; rows sum to 1."""
    t = topology()
    n, v = t.n, head.vertices
    x, y, z = v[:n].T
    rings = t.rings["mouth"]
    s = np.sin(angles(len(rings[0])))
    reach = np.abs(s) ** 0.75
    lips = np.where(s < 0, 0.40 + 0.60 * reach, 0.40 * (1 - reach) ** 1.3)
    handles = [*rings[FIRST_LIP_RING + 1 : MOUTH.rings + 1], rings[-1]]
    values = [lips] * (len(handles) - 1) + [np.array([0.5])]
    inner = np.isin(np.arange(n), np.concatenate(rings[FIRST_LIP_RING:]))
    chin = (y < -86) & (y > -120) & (z > 62) & ~inner
    handles.append(np.flatnonzero(chin))
    values.append(np.ones(chin.sum()))
    handles, values = np.concatenate(handles), np.concatenate(values)
    still = (y > -46) | (z < -2) | (y < -129) | ((np.abs(x) > 40) & (z < 12) & (y > -60))
    still = np.setdiff1d(np.flatnonzero(still), handles)
    jaw = np.clip(t.spread(handles, values[:, None], still)[:, 0], 0, 1)
    neck = smoothstep(y - 0.25 * z, -165, -85)
    neck = np.where(y > -100, np.maximum(neck, smoothstep(y, -118, -96)), neck)
    weights = np.zeros((len(v), 5))
    weights[:n] = np.stack([(1 - jaw) * (1 - neck), (1 - jaw) * neck, jaw, 0 * jaw, 0 * jaw], -1)
    for part, joint in ((1, 3), (2, 4), (3, 1), (4, 2), (5, 2)):
        weights[head.part == part, joint] = 1
    back = smoothstep(-(z.max() - v[head.part == 5, 2]), -95, -55)  # the tongue's root stays
    weights[head.part == 5, 2] = 1 - 0.5 * back
    weights[head.part == 5, 1] = 0.5 * back
    return weights


# ------------------------------------------------------------------ landmarks


def brow_height(x):
    """Height of the brow's midline at |x| mm from the middle."""
    a = np.abs(x)
    rise = np.sin(np.clip((a - 10) / 42, 0, 1) * np.pi * 0.72)
    return 18.3 + 3.4 * rise - 1.5 * np.clip((a - 44) / 12, 0, 1)


def landmark_embedding(head):
    """The 68 iBUG landmarks as triangles and barycentric weights, contour by yaw −39…39°.

    Lids and lips are indices of the mesh's own loops; brows and bridge are cast from the front;
    the contour is where the cheek turns away from the viewer at that yaw.
    """
    t = topology()
    mesh = trimesh.Trimesh(head.vertices[: t.n], t.triangles, process=False)
    g = bulk.Sculpt()
    points = {}
    for k, x in enumerate((53, 44, 34, 23, 12)):
        y = brow_height(x) + 0.8
        points[17 + k], points[26 - k] = _from_front(-x, y, g), _from_front(x, y, g)
    for k, y in enumerate((4, -8.5, -21, -33.5)):
        points[27 + k] = _from_front(0, y, g)
    base = [(12.0, -46, 104.5), (6.3, -47.5, 105), (0, -47.5, 106.5)]
    for k, (x, y, z) in enumerate(base):
        points[31 + k], points[35 - k] = (-x, y, z), (x, y, z)
    vertices = _loop_landmarks(t)

    faces, weights = np.zeros(68, int), np.zeros((68, 3))
    _fill(mesh, points, faces, weights)
    for k, vertex in vertices.items():
        face, corner = np.argwhere(t.triangles == vertex)[0]
        faces[k], weights[k, corner] = face, 1
    rows = [_contour(mesh, yaw) for yaw in range(-MAX_YAW, MAX_YAW + 1)]
    dynamic_faces = np.stack([r[0] for r in rows])
    dynamic_weights = np.stack([r[1] for r in rows])
    full_faces = np.concatenate([dynamic_faces[MAX_YAW], faces[17:]])
    full_weights = np.concatenate([dynamic_weights[MAX_YAW], weights[17:]])
    return {
        "static_lmk_faces_idx": faces[17:],
        "static_lmk_bary_coords": weights[17:],
        "dynamic_lmk_faces_idx": dynamic_faces,
        "dynamic_lmk_bary_coords": dynamic_weights,
        "full_lmk_faces_idx": full_faces,
        "full_lmk_bary_coords": full_weights,
    }


def _from_front(x, y, g):
    origin, forward = np.array([[x, y, 80.0]]), np.array([[0, 0, 1.0]])
    return bulk.outermost(origin, forward, g, -60, 60, 121)[0]


def _loop_landmarks(t):
    """Landmark number → vertex for lids and lips."""
    left, right = t.rings["eye_l"][-2], t.rings["eye_r"][-2]
    n = len(left)
    upper, lower = (5, n // 2 - 5), (n // 2 + 5, n - 5)
    found = {36: right[n // 2], 37: right[upper[1]], 38: right[upper[0]], 39: right[0],
             40: right[lower[1]], 41: right[lower[0]], 42: left[0], 43: left[upper[0]],
             44: left[upper[1]], 45: left[n // 2], 46: left[lower[0]],
             47: left[lower[1]]}  # fmt: skip
    border, contact = t.rings["mouth"][FIRST_LIP_RING + 1], t.rings["mouth"][CONTACT_RING]
    spokes = len(border)
    # angles (in 1/52 turns, right corner first) of iBUG's points along the lips
    outer = (0, 4.3, 9, 13, 17, 21.7, 26, 31, 36, 39, 42, 47)
    inner = (1, 8, 13, 18, 25, 34, 39, 44)
    for k, turn in enumerate(outer):
        found[48 + k] = border[round(turn * spokes / 52) % spokes]
    for k, turn in enumerate(inner):
        found[60 + k] = contact[round(turn * spokes / 52) % spokes]
    return found


def _fill(mesh, points, faces, weights):
    keys = list(points)
    place = np.array([points[k] for k in keys], float)
    near, _, face = mesh.nearest.on_surface(place)
    weights[keys] = trimesh.triangles.points_to_barycentric(mesh.triangles[face], near)
    faces[keys] = face


# the jaw line at rest, from the ear to the chin, millimetres
_JAW = np.array([(-71, -6, 14), (-70, -22, 14), (-67, -41, 14), (-61, -60, 17), (-54, -79, 22),
                 (-44.5, -94, 38), (-31.5, -105, 58), (-16.5, -112, 79),
                 (0, -114, 88)])  # fmt: skip


def _contour(mesh, yaw):
    """The 17 contour points at one yaw: (17,) triangles and (17, 3) weights.

    Turned away from the viewer, the side that is hidden shows its silhouette instead: there each
    point slides forward, along its height, to where the surface turns edge-on.
    """
    rest = np.concatenate([_JAW, _JAW[-2::-1] * [-1, 1, 1]])
    turn = np.radians(yaw)
    right = np.array([np.cos(turn), 0, np.sin(turn)])  # picture x = right·point
    points = rest.copy()
    # yaw > 0: the face looks to picture right, so its right-hand side (x > 0) turns away
    for k, point in enumerate(rest):
        side = np.sign(point[0])
        if side * yaw <= 0 or k == 8:
            continue
        ring = _slice(mesh, point[1], side, point[2])
        if len(ring):
            points[k] = ring[np.argmax(side * (ring @ right))]
    faces, weights = np.zeros(17, int), np.zeros((17, 3))
    _fill(mesh, dict(enumerate(points)), faces, weights)
    return faces, weights


def _slice(mesh, height, side, back):
    """Surface points near a height, on one side, from the jaw line forwards."""
    key = (round(height, 3), int(side))
    cache = mesh.metadata.setdefault("slices", {})
    if key not in cache:
        section = mesh.section(plane_origin=[0, height, 0], plane_normal=[0, 1, 0])
        points = section.vertices if section is not None else np.zeros((0, 3))
        keep = (side * points[:, 0] > 4) & (points[:, 2] >= back - 2)
        keep &= (np.abs(points[:, 0]) < 78) & (points[:, 2] > 10)
        cache[key] = np.asarray(points[keep])
    return cache[key]


# ------------------------------------------------------------------ masks


def masks(head):
    """Named vertex masks (V,), as FLAME users know them."""
    t = topology()
    v, part = head.vertices, head.part
    x, y, z = v.T
    is_skin = part == 0

    def ring_mask(names, first, last=None):
        chosen = np.zeros(len(v), bool)
        for name in names:
            chosen[np.concatenate(t.rings[name][first:last])] = True
        return chosen

    lining = ring_mask(["mouth"], CONTACT_RING + 1)
    lips = ring_mask(["mouth"], FIRST_LIP_RING + 1, CONTACT_RING + 1)
    ears = ring_mask(["ear_l", "ear_r"], 1)
    nostrils = ring_mask(["nostril_l", "nostril_r"], 2)
    front = np.hypot(x / 1.02, (y + 22) * 0.80) < 74
    face = is_skin & front & (z > 18) & (y > -121) & (y < 58) & ~lining & ~ears
    hair = (y > 58 - 0.012 * x**2) | ((z < 2) & (y > -62))
    eyes = (part == 1) | (part == 2)
    return {
        "face": face,
        "eyes": eyes,
        "left_eyeball": part == 1,
        "right_eyeball": part == 2,
        "lips": lips,
        "skin": face & ~lips & ~nostrils,
        "mouth_interior": lining | (part >= 3),
        "teeth": (part == 3) | (part == 4),
        "tongue": part == 5,
        "ears": ears,
        "neck": is_skin & (y < -112) & ~face,
        "scalp": is_skin & hair & ~ears & ~face & (y > -80),
        "nose": is_skin & (np.abs(x) < 19) & (y < 8) & (y > -51) & (z > 84),
    }
