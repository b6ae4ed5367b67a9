"""A head of FLAME's form that is not the built-in one: another person, other vertices and other
triangles, with the truth about which point of it is which point of the built-in head."""

import numpy as np
import trimesh
from scipy.spatial import Delaunay, cKDTree

from course import flame_files, head_transfer, other_heads, registration
from course.registration import Surface


def built_in():
    """The built-in head's arrays."""
    return flame_files.read(flame_files.BUILT_IN)


def flame_like(seed=0, spacing=1.1, scale=1.03, eyeballs=True, turn=0.1):
    """A model dict of FLAME's keys, and where its vertices are on the built-in head.

    Skin: the built-in head's texture plane is strewn with points, ``spacing`` times as far apart as
    our own vertices there, and triangulated anew; no teeth, no tongue, no inside of the mouth. The
    person has random codes and a wave that no code of ours makes. Returns (model, person (V', 3)
    mm: our vertices as this person, faces (V,), bary (V, 3)).
    """
    ours, rng = built_in(), np.random.default_rng(seed)
    codes = np.r_[rng.normal(size=80), np.zeros(29)]
    person = 1000 * (ours["v_template"] + ours["shapedirs"] @ codes).astype(float)
    person += 2.5 * np.sin(person[:, [1, 2, 0]] / 35 + rng.uniform(0, 6, 3)) * [0.6, 1, 1]
    matrix = trimesh.transformations.rotation_matrix(turn, [1, 0.5, 0.2])[:3, :3]
    person = scale * person @ matrix.T + [5, -20, 8]
    faces, bary, triangles = _strewn(ours, person, spacing, rng)
    vertices = np.einsum("nk,nkc->nc", bary, person[ours["f"][faces]])
    if eyeballs:
        for part in (1, 2):
            vertices, triangles, faces, bary = _with_ball(
                ours, person, part, vertices, triangles, faces, bary
            )
    order = rng.permutation(len(vertices))
    place = np.argsort(order)
    vertices, faces, bary, triangles = vertices[order], faces[order], bary[order], place[triangles]
    at = lambda values: np.einsum("nk,nk...->n...", bary, values[ours["f"][faces]])  # noqa: E731
    regressor = np.zeros((5, len(vertices)))
    joints = ours["J_regressor"] @ person
    for joint, goal in enumerate(joints):
        near = np.argsort(np.linalg.norm(vertices - goal, axis=1))[:60]
        regressor[joint, near] = other_heads.placed(np.full(60, 1 / 60), vertices[near], goal)
    shapes = rng.normal(size=(80, 300)) / 10 @ np.diag(np.exp(-np.arange(300) / 40))
    basis = np.concatenate([at(ours["shapedirs"])[:, :, :80] @ shapes,
                            np.pad(at(ours["shapedirs"])[:, :, 80:], ((0, 0), (0, 0), (0, 71)))],
                           2)  # fmt: skip
    weights = at(ours["weights"])
    model = {"v_template": vertices / 1000, "f": triangles.astype(np.uint32), "shapedirs": basis,
             "posedirs": at(ours["posedirs"]), "J_regressor": regressor,
             "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.int64),
             "weights": weights / weights.sum(1, keepdims=True)}  # fmt: skip
    return model, person, faces, bary


def _strewn(ours, person, spacing, rng):
    """New vertices (triangles, weights on ours) and triangles, one of each point in space."""
    skin = (ours["part"] == 0) & ~ours["mask_mouth_interior"].astype(bool)
    kept = np.flatnonzero(skin[ours["f"]].all(1))
    uv, corners = ours["vt"].astype(float)[ours["ft"][kept]], person[ours["f"][kept]]
    pairs, count = registration.edges(ours["ft"][kept].astype(np.int64))
    border = np.unique(pairs[count == 1])
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]),
                          axis=1)  # fmt: skip
    drawn = rng.choice(len(kept), 40000, p=np.sqrt(area) / np.sqrt(area).sum())
    mix = rng.dirichlet(np.ones(3), len(drawn))
    points = np.einsum("nk,nkc->nc", mix, corners[drawn])
    chosen, free = [], np.ones(len(points), bool)
    edge = np.isin(ours["ft"][kept], border)
    apart = spacing * np.sqrt(1.15 * area[drawn])  # a side, were the triangle equilateral
    free[cKDTree(corners[edge]).query(points)[0] < 0.6 * apart] = False
    near = cKDTree(points).query_ball_point(points, apart)
    for k in range(len(points)):
        if free[k]:
            chosen.append(k)
            free[near[k]] = False
    row, corner = np.nonzero(edge)
    first = np.unique(ours["ft"][kept][row, corner], return_index=True)[1]
    row, corner = row[first], corner[first]
    faces = np.r_[row, drawn[chosen]]
    bary = np.r_[np.eye(3)[corner], mix[chosen]]
    plane = np.einsum("nk,nkc->nc", bary, uv[faces])
    triangles = Delaunay(plane).simplices
    # what lies in a hole of the texture is no surface
    middle = plane[triangles].mean(1)
    guess = cKDTree(uv.mean(1)).query(middle, 40)[1]
    inside = np.zeros(len(middle), bool)
    for k in range(guess.shape[1]):
        a, b, c = (uv[guess[:, k], j] for j in range(3))
        u, v, w = b - a, c - a, middle - a
        det = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
        s = (w[:, 0] * v[:, 1] - w[:, 1] * v[:, 0]) / det
        t = (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0]) / det
        inside |= (s >= 0) & (t >= 0) & (s + t <= 1)
    triangles = triangles[inside]
    place = np.einsum("nk,nkc->nc", bary, corners[faces])
    turned = place[triangles]
    # the two sides of the seam are one
    same = np.r_[ours["f"][kept][row, corner], -1 - np.arange(len(chosen))]
    _, first, number = np.unique(same, return_index=True, return_inverse=True)
    span = np.linalg.norm(turned - np.roll(turned, 1, axis=1), axis=2).max(1)
    triangles = number[triangles[span < 60]]
    own = registration.vertex_normals(person, ours["f"])[ours["f"][kept][faces[first]]].mean(1)
    cross = np.cross(*(place[first][triangles][:, [k]] - place[first][triangles][:, [0]]
                       for k in (1, 2)))[:, 0]  # fmt: skip
    wrong = (cross * own[triangles[:, 0]]).sum(1) < 0
    triangles[wrong] = triangles[wrong][:, ::-1]
    used = np.unique(triangles)
    triangles = np.searchsorted(used, triangles)
    return kept[faces[first][used]], bary[first][used], triangles


def _with_ball(ours, person, part, vertices, triangles, faces, bary):
    """Another eyeball, as a sphere cut otherwise."""
    own = np.flatnonzero((ours["part"] == part)[ours["f"]].all(1))
    ball = trimesh.creation.uv_sphere(count=[20, 26])
    centre, radius = head_transfer.sphere(person[ours["part"] == part])
    surface = Surface(person, ours["f"][own])
    where, mix = surface.closest(centre + radius * ball.vertices, np.array(ball.vertex_normals))
    return (np.r_[vertices, np.einsum("nk,nkc->nc", mix, person[ours["f"][own[where]]])],
            np.r_[triangles, len(vertices) + ball.faces], np.r_[faces, own[where]],
            np.r_[bary, mix])  # fmt: skip
