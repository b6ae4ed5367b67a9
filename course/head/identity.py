"""Who a head can be: a population of people as one linear Gaussian basis.

Three sources are added up as covariances and then diagonalised: *builds* (sex, weight, age,
ancestries: many features that change together), single features on their own, and a smooth
Gaussian process for everything without a name (Lüthi et al. 2017, Sutherland et al. 2020).
"""

from functools import lru_cache

import numpy as np
from scipy.linalg import eigh
from tqdm import tqdm

from course.head import rig
from course.head.anatomy import sculpt, topology
from course.head.bulk import PARAMETERS, Sculpt, smoothstep
from course.head.expressions import lip_modes, vertex_normals
from course.workers import spread

# one standard deviation of each feature on its own, in the parameter's unit
FEATURES = {
    "head_w": 0.022, "head_l": 0.022, "head_h": 0.02, "face_w": 1.8, "jaw_w": 2.2, "jaw_y": 2.4,
    "chin_y": 2.6, "chin_z": 2.4, "chin_w": 2.2, "cheek": 1.1, "cheekbone": 1.2, "zygoma": 1.1,
    "forehead_z": 1.7, "brow_z": 1.3, "brow_y": 1.2, "temple": 1.2, "muzzle_z": 1.6,
    "midface_z": 1.7, "fat": 1.2, "neck_w": 1.6,
    "nose_len": 1.7, "nose_w": 1.5, "nose_tip": 1.7, "nose_bridge": 1.5, "nose_root": 1.4,
    "nose_up": 0.8, "nose_root_w": 0.6,
    "eye_x": 1.2, "eye_y": 0.6, "eye_z": 1.1, "eye_w": 0.7, "eye_up": 0.5, "eye_lo": 0.35,
    "eye_tilt": 1.6, "crease": 0.9,
    "mouth_y": 0.9, "mouth_w": 1.8, "mouth_z": 0.9, "lip_u": 1.1, "lip_l": 1.1, "lip_full": 0.5,
    "corner_y": 0.7, "corner_z": 0.6, "bow": 0.25,
    "ear_s": 0.045, "ear_out": 1.7, "ear_y": 1.5,
}  # fmt: skip
# builds: features that come together; one standard deviation of people along each
BUILDS = {
    "sex": {"jaw_w": 2.4, "chin_w": 2.2, "chin_y": -2.2, "chin_z": 0.8, "brow_z": 2.0,
            "brow_y": -1.3, "forehead_z": -1.4, "nose_len": 1.1, "nose_w": 1.0, "nose_tip": 1.0,
            "nose_root": 0.8, "lip_full": -0.35, "lip_u": -0.7, "lip_l": -0.5, "eye_up": -0.45,
            "neck_w": 2.8, "head_w": 0.014, "head_l": 0.016, "head_h": 0.012, "cheek": -0.7,
            "mouth_w": 1.0, "ear_s": 0.025, "face_w": 0.8},
    "weight": {"fat": 2.2, "cheek": 1.7, "neck_w": 2.2, "jaw_w": 1.4, "cheekbone": -0.5},
    "age": {"lip_full": -0.45, "lip_u": -0.9, "lip_l": -0.8, "nose_len": 1.3, "nose_tip": 0.6,
            "nose_w": 0.6, "ear_s": 0.04, "ear_out": 0.6, "corner_y": -0.7, "cheek": -1.1,
            "eye_up": -0.5, "crease": -0.8, "brow_y": -0.9, "jaw_y": -1.2, "temple": -0.8,
            "mouth_w": 0.6, "head_h": -0.006},
    "africa": {"nose_w": 3.0, "nose_bridge": -1.6, "nose_root": -1.5, "nose_tip": -1.0,
               "nose_root_w": 0.5, "lip_u": 1.7, "lip_l": 1.5, "lip_full": 0.65, "muzzle_z": 2.2,
               "mouth_w": 1.3, "chin_z": -0.9, "head_l": 0.012, "forehead_z": 0.5},
    "east asia": {"nose_root": -1.9, "nose_bridge": -1.1, "nose_tip": -1.1, "face_w": 1.8,
                  "zygoma": 1.7, "cheekbone": 0.8, "eye_tilt": 2.0, "crease": -1.9,
                  "eye_up": -0.6, "brow_z": -1.6, "eye_z": 1.2, "nose_w": 0.6, "head_l": -0.012,
                  "midface_z": -0.6},
    "south asia": {"nose_len": 1.1, "nose_bridge": 1.6, "nose_tip": 1.3, "eye_up": 0.45,
                   "eye_w": 0.4, "lip_l": 0.6, "brow_z": 0.5, "head_w": -0.01},
}  # fmt: skip
LIPS = (
    "mouth_y",
    "mouth_w",
    "mouth_z",
    "lip_u",
    "lip_l",
    "lip_full",
    "corner_y",
    "corner_z",
    "bow",
)
# Gaussian process: (length scale, standard deviation) in mm
KERNEL = ((100, 1.6), (50, 1.1), (25, 0.55), (14, 0.2))
ASYMMETRY = 0.2


@lru_cache(maxsize=1)
def _mean_vertices():
    return sculpt(Sculpt()).vertices


def _derivative(name, size):
    """The head's change (V, 3) for one standard deviation of one feature."""
    step = 0.5 * size
    changed = sculpt(Sculpt(**{name: PARAMETERS[name] + step})).vertices
    return (changed - _mean_vertices()) / 0.5


def feature_modes(head, workers=2, quiet=False):
    """Feature → displacement (V, 3) at one standard deviation, mm."""
    n = topology().n
    bones = [(k, s) for k, s in FEATURES.items() if k not in LIPS]
    made = spread(_derivative, bones, workers, ordered=True)
    results = list(tqdm(made, "features", len(bones), disable=quiet))
    modes = {
        name: without_sliding(head, result)
        for (name, _), result in zip(bones, results, strict=True)
    }
    lips = lip_modes(head.vertices[:n], {k: FEATURES[k] for k in LIPS})
    contact = topology().rings["mouth"][rig.CONTACT_RING]
    middle = contact[len(contact) // 4]
    for name, field in lips.items():
        modes[name] = np.zeros_like(head.vertices)
        modes[name][:n] = field
        modes[name][head.part >= 3] = field[middle] * [0, 1, 1]  # teeth go with the lips
    # a longer nose pushes the lips down, a tilted one lets them up
    drop = modes["mouth_y"] / FEATURES["mouth_y"]
    modes["nose_len"] -= 0.9 * FEATURES["nose_len"] * drop
    modes["nose_up"] += 0.35 * FEATURES["nose_up"] * drop
    return modes


def without_sliding(head, field):
    """``field`` (V, 3) whose part along the surface is made smooth around the nose's base.

    There the sculptor's grid stays while the nose grows past it, so that a vertex slides off the
    nose; stretched to 2 σ, that would dig a pit. The nostrils' loops do move with the nose: their
    way along the surface is spread to the grid (harmonically), the way out of it is kept.
    """
    t = topology()
    v = head.vertices[: t.n]
    x, y, z = v.T
    near = (np.abs(x) < 20) & (y > -56) & (y < -24) & (z > 88)
    near[np.concatenate(t.rings["mouth"][1:])] = False
    for side in ("nostril_l", "nostril_r"):
        near[np.concatenate(t.rings[side][1:])] = False
    free = np.flatnonzero(near)
    normals = vertex_normals(v, t.triangles)[free]
    smooth = t.solve(field[: t.n].copy(), free, smooth=False)[free]
    out, along = field[free], smooth
    changed = field.copy()
    changed[free] = along + ((out - along) * normals).sum(1, keepdims=True) * normals
    return changed


def build_modes(modes):
    """Build → displacement (V, 3) at one standard deviation."""
    return {
        build: sum(size / FEATURES[name] * modes[name] for name, size in parts.items())
        for build, parts in BUILDS.items()
    }


def gaussian_process(head, weight, rank=60):
    """Columns B (V, 3, c) with B·Bᵀ the covariance of a smooth, nearly symmetric random field.

    Symmetric: K(x, y) = ½[k(x, y) ± k(x, My)], M the mirror; the eyes move as rigid balls, lids,
    lining and teeth with what they touch (the kernel sees their coordinates warped there).
    """
    t = topology()
    v, part, n = head.vertices, head.part, t.n
    places = v.copy()
    left, right = np.flatnonzero(part == 1), np.flatnonzero(part == 2)
    centre = v[left].mean(0)
    places[left], places[right] = centre, centre * [-1, 1, 1]
    for name, eye in (("eye_l", centre), ("eye_r", centre * [-1, 1, 1])):
        for k, pull in enumerate((0.92, 0.85, 0.75, 0.6, 0.4, 0.25, 0.12)):
            ring = t.rings[name][-1 - k]
            places[ring] = (1 - pull) * places[ring] + pull * eye
    mouth = t.rings["mouth"]
    contact = places[mouth[rig.CONTACT_RING]]
    for ring in mouth[rig.CONTACT_RING + 1 :]:
        places[ring] = contact if len(ring) > 1 else contact.mean(0)
    for side in ("nostril_l", "nostril_r"):
        rim = places[t.rings[side][1]]
        for ring in t.rings[side][2:]:
            places[ring] = rim if len(ring) > 1 else rim.mean(0)

    # unknowns: the left half of the skin and one node for the left eye
    half = np.r_[np.flatnonzero(v[:n, 0] >= -1e-6), left[0]]
    p = places[half]
    mirrored = p * [-1, 1, 1]
    w = weight[half].copy()
    w[-1] = weight[left].sum()
    root = np.sqrt(np.maximum(w, 1e-4 * w.mean()))

    def kernel(a, b):
        square = np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0)
        return sum(s * s * np.exp(-square / (2 * length**2)) for length, s in KERNEL)

    same, across = kernel(p, p), kernel(p, mirrored)
    middle = mouth[rig.CONTACT_RING][len(contact) // 4]
    fields = {}
    for sign in (1, -1):
        covariance = (same + sign * across) / 2 * root[:, None] * root
        size = len(covariance)
        values, vectors = eigh(covariance, subset_by_index=[size - rank, size - 1])
        node = vectors * np.sqrt(np.maximum(values, 0)) / root[:, None]
        field = np.zeros((len(v), rank))
        field[half[:-1]] = node[:-1]
        field[left], field[right] = node[-1], sign * node[-1]
        other = np.flatnonzero(v[:n, 0] < -1e-6)
        field[other] = sign * field[t.mirror[other]]
        field[part >= 3] = field[middle]
        fields[sign] = field
    columns = []
    for scale, x_sign, other_sign in ((1.0, -1, 1), (ASYMMETRY, 1, -1)):
        for axis in range(3):
            block = np.zeros((len(v), 3, rank))
            block[:, axis] = scale * fields[x_sign if axis == 0 else other_sign]
            columns.append(block)
    return np.concatenate(columns, -1)


def importance(head):
    """Weight (V,) of each vertex: its area, most on the face."""
    t = topology()
    v, faces = head.vertices, head.faces
    edges = v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]]
    area = np.linalg.norm(np.cross(*edges), axis=1) / 6
    weight = np.zeros(len(v))
    for k in range(3):
        np.add.at(weight, faces[:, k], area)
    _, y, z = v.T
    face = smoothstep(z, -5, 45) * smoothstep(y, -132, -112) * (1 - 0.7 * smoothstep(y, 40, 85))
    weight *= 0.12 + 0.88 * face
    for ring in t.rings["mouth"][rig.CONTACT_RING + 1 :]:
        weight[ring] *= 0.03
    for eye in ("eye_l", "eye_r"):
        weight[t.rings[eye][-1]] *= 0.1
    weight[head.part > 0] *= 0.15
    return weight


def without_rigid(columns, v, weight):
    """Take translation and rotation (weighted least squares) out of every column."""
    offset = v - (v * weight[:, None]).sum(0) / weight.sum()
    rigid = np.zeros((len(v), 3, 6))
    for k in range(3):
        rigid[:, k, k] = 1
        rigid[:, :, 3 + k] = np.cross(np.eye(3)[k], offset)
    w = np.repeat(weight, 3)
    rigid, flat = rigid.reshape(-1, 6), columns.reshape(len(w), -1)
    share = np.linalg.solve(rigid.T @ (w[:, None] * rigid), rigid.T @ (w[:, None] * flat))
    return (flat - rigid @ share).reshape(columns.shape)


def principal(columns, weight, count):
    """The ``count`` largest directions (V, 3, count) of the covariance, unit variance each.

    Also their eigenvalues and the total. Signs are fixed: the largest entry is positive.
    """
    root = np.sqrt(np.repeat(weight, 3))
    flat = columns.reshape(len(root), -1)
    weighted = flat * root[:, None]
    values, vectors = np.linalg.eigh(weighted.T @ weighted)
    order = np.argsort(-values)[:count]
    basis = flat @ vectors[:, order]
    largest = np.argmax(np.abs(basis), 0)
    basis *= np.sign(basis[largest, np.arange(count)])
    return basis.reshape(-1, 3, count), values[order], values.sum()


def identity_basis(head, count=80, workers=2, quiet=False):
    """shapedirs (V, 3, count) in mm and the share of the population's variance they keep."""
    modes = feature_modes(head, workers, quiet)
    weight = importance(head)
    columns = np.stack([*build_modes(modes).values(), *modes.values()], -1)
    columns = np.concatenate([columns, gaussian_process(head, weight)], -1)
    columns = without_rigid(columns, head.vertices, weight)
    for side in ("nostril_l", "nostril_r"):  # the inside of a nostril goes where its rim goes
        rim = columns[topology().rings[side][1]]
        for ring in topology().rings[side][2:]:
            columns[ring] = rim if len(ring) > 1 else rim.mean(0)
    basis, values, total = principal(columns, weight, count)
    return basis, float(values.sum() / total)
