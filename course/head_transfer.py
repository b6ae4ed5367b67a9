"""What a head file lacks is carried over from the built-in head, once: landmarks, texture places
(UV), albedo, masks, and for other heads joints and skinning weights.

The built-in head is registered to the other one (``course.registration``). Then every vertex and
triangle of the other head knows its place on ours, and every landmark of ours its place on theirs.
"""

from dataclasses import dataclass

import numpy as np
import trimesh
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from course import registration
from course.other_heads import placed
from course.registration import Similarity, Surface

SKIN, LEFT_EYE, RIGHT_EYE, UPPER_TEETH, LOWER_TEETH, TONGUE = range(6)  # of ``part``
KINDS = ("static", "dynamic")  # of landmarks: inner points, and the contour by yaw
SMALLEST = 500  # vertices; a mesh of fewer is no head
SHARE = {"mouth_interior": 0.0, "scalp": 0.5, "neck": 0.3, "ears": 0.3}  # of a vertex's say
EDGE_FACING = 2.0  # mm; many landmarks are on edges of lids and lips, where normals say little
JUMP = 4.0  # corners further apart in UV than their place on the head explains: a seam between


@dataclass
class Correspondence:
    """Places of another head's vertices on ours, and ours laid over it.

    ours: model dict of the built-in head · part (V,) of the other's vertices · moved (V', 3) mm:
    our vertices on the other head · move: the similarity among its steps · surfaces: ours by part,
    as ``Surface`` with the triangles' numbers · faces (V,), bary (V, 3): each vertex's place
    """

    ours: dict
    part: np.ndarray
    moved: np.ndarray
    move: Similarity
    surfaces: dict
    faces: np.ndarray
    bary: np.ndarray

    def carried(self, values):
        """Values (V', …) of our vertices at the places of the other head's (V, …)."""
        corners = np.asarray(values, float)[self.ours["f"][self.faces]]
        return np.einsum("nk,nk...->n...", self.bary, corners)


def parts(model):
    """Skin, eyes, teeth and tongue (V,) by the mesh's pieces: the widest piece is the skin, and
    an eye is a piece around its joint. Other pieces are taken for teeth."""
    vertices, faces = np.asarray(model["v_template"], float), np.asarray(model["f"], np.int64)
    pairs, _ = registration.edges(faces)
    graph = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), (len(vertices),) * 2)
    count, piece = connected_components(graph, directed=False)
    size = np.array([np.linalg.norm(np.ptp(vertices[piece == k], axis=0)) for k in range(count)])
    skin = int(size.argmax())
    found = np.where(piece == skin, SKIN, UPPER_TEETH)
    joints = np.asarray(model["J_regressor"] @ vertices)
    for k in range(count):
        inside = vertices[piece == k]
        away = np.linalg.norm(joints[3:] - (inside.min(0) + inside.max(0)) / 2, axis=1)
        if k != skin and away.min() < 0.25 * size[k] and size[k] > 0.04 * size[skin]:
            found[piece == k] = LEFT_EYE + away.argmin()
    return found


def correspond(model, ours, progress=False):
    """Register the built-in head ``ours`` to another ``model`` (dicts of arrays, FLAME's keys).

    Raises ValueError when the other mesh does not look like a head.
    """
    if len(model["v_template"]) < SMALLEST:
        raise ValueError(f"it does not look like a head: {len(model['v_template'])} vertices")
    part = np.asarray(model["part"]) if "part" in model else parts(model)
    theirs = 1000 * np.asarray(model["v_template"], float)
    faces = np.asarray(model["f"], np.int64)
    target = Surface(theirs, faces[(part == SKIN)[faces].all(1)])
    rest, own_part = 1000 * ours["v_template"].astype(float), ours["part"]
    skin = np.flatnonzero(own_part == SKIN)
    numbers = np.full(len(rest), -1)
    numbers[skin] = np.arange(len(skin))
    triangles = ours["f"][(own_part == SKIN)[ours["f"]].all(1)]
    surface = Surface(rest[skin], numbers[triangles])
    weight = np.ones(len(skin))
    for name, share in SHARE.items():
        weight[ours[f"mask_{name}"][skin].astype(bool)] = share
    basis = 1000 * ours["shapedirs"].astype(float)
    move = registration.align(surface, weight, target, _by_joints(ours, model))
    codes, _, move = registration.fit_blendshapes(surface, basis[skin], weight, target, move)
    moved = move(rest + basis @ codes)
    start = Surface(moved[skin], surface.faces)
    pulled = registration.nonrigid_icp(start, weight, target, progress)
    # teeth and tongue go along with the skin that is nearest to them
    near = cKDTree(moved[skin]).query(moved, 8)[1]
    moved += (pulled - start.vertices)[near].mean(1)
    moved[skin] = pulled
    for eye in (LEFT_EYE, RIGHT_EYE):
        own = own_part == eye
        turned = rest[own] @ move.rotation.T
        moved[own] = _on_sphere(turned, theirs[part == eye], moved[own])
    return _places(ours, part, theirs, faces, moved, move)


def _by_joints(ours, model):
    """A first guess: the similarity between the joints that both heads have."""
    if "J_regressor" not in model:
        return []
    both = np.flatnonzero(np.abs(model["J_regressor"]).sum(1) > 0)
    joints = [1000 * (m["J_regressor"] @ m["v_template"])[both] for m in (ours, model)]
    return [Similarity.between(*joints)]


def sphere(points):
    """Centre and radius of the sphere through points (n, 3), by least squares."""
    left = np.c_[2 * points, np.ones(len(points))]
    solution = np.linalg.lstsq(left, (points * points).sum(1), rcond=None)[0]
    return solution[:3], np.sqrt(solution[3] + solution[:3] @ solution[:3])


def _on_sphere(points, target, instead):
    """Our eyeball, sized and placed as the other one; ``instead`` when there is none."""
    if len(target) < 4:
        return instead
    (centre, radius), (new, wide) = sphere(points), sphere(target)
    return new + (points - centre) * wide / radius


def _places(ours, part, theirs, faces, moved, move):
    """The nearest place of ours for each vertex of theirs, on the same part."""
    normals = registration.vertex_normals(theirs, faces)
    surfaces, found = {}, np.zeros(len(theirs), np.int64)
    bary = np.tile([1.0, 0, 0], (len(theirs), 1))
    for number in (SKIN, LEFT_EYE, RIGHT_EYE, UPPER_TEETH, LOWER_TEETH, TONGUE):
        chosen = part == number
        triangles = np.flatnonzero((ours["part"] == number)[ours["f"]].all(1))
        surfaces[number] = Surface(moved, ours["f"][triangles]), triangles
        if chosen.any():
            where, bary[chosen] = surfaces[number][0].closest(theirs[chosen], normals[chosen])
            found[chosen] = triangles[where]
    return Correspondence(ours, part, moved, move, surfaces, found, bary)


def landmarks(link, model):
    """The 68 landmarks' triangles and weights on the other head, with FLAME's keys."""
    faces = np.asarray(model["f"], np.int64)
    skin = np.flatnonzero((link.part == SKIN)[faces].all(1))
    target = Surface(1000 * np.asarray(model["v_template"], float), faces[skin], EDGE_FACING)
    ours = Surface(link.moved, link.ours["f"])
    found = {}
    for part in KINDS:
        where = link.ours[f"{part}_lmk_faces_idx"], link.ours[f"{part}_lmk_bary_coords"]
        flat = where[0].ravel(), where[1].reshape(-1, 3)
        normals = ours.at(ours.normals, flat)
        triangles, bary = target.closest(ours.at(ours.vertices, flat), normals)
        found[f"{part}_lmk_faces_idx"] = skin[triangles].reshape(where[0].shape)
        found[f"{part}_lmk_bary_coords"] = bary.reshape(where[1].shape)
    return found


def texture_places(link, model):
    """vt (T, 2) and ft (F, 3): the other head's triangles in the built-in head's texture.

    A vertex has one place, but where the three of a triangle lie on two sides of a seam: there the
    corners get places of their own, on the side of the triangle's middle.
    """
    ours, faces = link.ours, np.asarray(model["f"], np.int64)
    uv = ours["vt"].astype(float)[ours["ft"]]
    at_vertices = np.einsum("nk,nkc->nc", link.bary, uv[link.faces])
    theirs = 1000 * np.asarray(model["v_template"], float)
    corners = theirs[faces]
    normals = registration.vertex_normals(theirs, faces)[faces].mean(1)
    middle = np.zeros(len(faces), np.int64)
    for number, (surface, triangles) in link.surfaces.items():
        chosen = (link.part[faces] == number).all(1)
        if chosen.any():
            where, _ = surface.closest(corners[chosen].mean(1), normals[chosen])
            middle[chosen] = triangles[where]
    centre = uv[middle].mean(1)
    away = np.linalg.norm(at_vertices[faces] - centre[:, None], axis=2).max(1)
    moved = link.moved[ours["f"]]
    stretch = np.sqrt(
        _areas(np.pad(uv, ((0, 0), (0, 0), (0, 1)))) / np.maximum(_areas(moved), 1e-9)
    )
    span = np.linalg.norm(corners - corners.mean(1, keepdims=True), axis=2).max(1)
    span += np.linalg.norm(moved - moved.mean(1, keepdims=True), axis=2).max(1)[middle]
    reach = JUMP * stretch[middle] * span
    torn = np.flatnonzero(away > reach)
    chart = _charts(ours["ft"])
    own = np.empty((len(torn), 3, 2))
    for row, triangle in enumerate(torn):
        home = middle[triangle]
        near = np.linalg.norm(uv.mean(1) - centre[triangle], axis=1) <= max(reach[triangle], 1e-3)
        near = np.flatnonzero((near & (chart == chart[home])) | (np.arange(len(uv)) == home))
        own[row] = _nearest_uv(moved[near], uv[near], corners[triangle])
    ft = faces.copy()
    ft[torn] = len(theirs) + np.arange(3 * len(torn)).reshape(-1, 3)
    return np.concatenate([at_vertices, own.reshape(-1, 2)]), ft


def _areas(corners):
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]),
                          axis=1) / 2  # fmt: skip


def _charts(ft):
    """The connected piece of texture (F,) that each triangle belongs to."""
    pairs, _ = registration.edges(np.asarray(ft, np.int64))
    size = int(ft.max()) + 1
    graph = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), (size, size))
    return connected_components(graph, directed=False)[1][ft[:, 0]]


def _nearest_uv(triangles, uv, points):
    """UV (3, 2) of the places on triangles (n, 3, 3) that are nearest to three points."""
    count = len(triangles)
    again, asked = np.tile(triangles, (3, 1, 1)), np.repeat(points, count, 0)
    near = trimesh.triangles.closest_point(again, asked)
    best = ((near - asked) ** 2).sum(1).reshape(3, count).argmin(1)
    place = near.reshape(3, count, 3)[np.arange(3), best]
    bary = registration.barycentric(triangles[best], place)
    return np.einsum("nk,nkc->nc", bary, uv[best])


def masks(link):
    """Booleans (V,) by the built-in head's names; eyes, teeth and tongue by the pieces."""
    found = {}
    for name in (k for k in link.ours if k.startswith("mask_")):
        found[name] = link.carried(link.ours[name]) > 0.5
    return found


def rig(link, model):
    """Skinning weights (V, 5), J_regressor (5, V) and posedirs (V, 3, 36) like the built-in head's.

    A joint of the other head is where our registered joint is: the vertices that are nearest to
    those that hold ours, with the least change of weights that puts it there. Eyes turn about the
    middle of their own balls.
    """
    ours, theirs = link.ours, np.asarray(model["v_template"], float)
    weights = np.clip(link.carried(ours["weights"]), 0, None)
    regressor = np.zeros((5, len(theirs)))
    tree = cKDTree(1000 * theirs)
    for joint in range(5):
        ball = link.part == joint - 2
        if joint > 2 and ball.any():
            weights[ball] = np.eye(5)[joint]
            goal = sphere(theirs[ball])[0]
            near, first = np.flatnonzero(ball), np.full(ball.sum(), 1 / ball.sum())
        else:
            own = np.flatnonzero(ours["J_regressor"][joint])
            first = np.zeros(len(theirs))
            np.add.at(first, tree.query(link.moved[own])[1], ours["J_regressor"][joint, own])
            goal = ours["J_regressor"][joint] @ link.moved / 1000
            near = np.flatnonzero(first)
            first = first[near]
        regressor[joint, near] = placed(first, theirs[near], goal)
    turned = np.einsum("ij,vjk->vik", link.move.scale * link.move.rotation,
                       link.carried(ours["posedirs"]))  # fmt: skip
    return {"weights": weights / weights.sum(1, keepdims=True), "J_regressor": regressor,
            "posedirs": turned}  # fmt: skip


def carry(model, ours, progress=False):
    """What ``model`` may lack and depends on its mesh, as a dict with the built-in head's keys."""
    link = correspond(model, ours, progress)
    vt, ft = texture_places(link, model)
    found = {"vt": vt.astype(np.float32), "ft": ft.astype(np.int32), "ao": link.carried(ours["ao"])}
    found |= landmarks(link, model) | masks(link)
    return found | {key: value.astype(np.float32) for key, value in rig(link, model).items()}
