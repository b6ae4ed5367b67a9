"""Registration: one head's mesh is laid over another's, of any topology, size, place and turn.

In three steps: a similarity (iterative closest points, Besl and McKay 1992, from many starts), the
head's own blendshapes as far as they go, then non-rigid ICP for the rest (Amberg, Romdhani and
Vetter 2007: an affine map per vertex, neighbours alike, ever less so).
"""

import functools
from dataclasses import dataclass

import numpy as np
import trimesh
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from course.files import quiet

UNIT = 100.0  # mm; stiffness is in these
STIFFNESS = (10.0, 5.0, 2.5)  # of non-rigid ICP, from nearly rigid to supple
ROUNDS = 2  # pairings at each stiffness
RIM = 3.0  # mm: what is nearest to the rim of the other mesh and further away has no partner
SAMPLES = np.array([[2, 2, 2], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / 6  # weights of corners
NOT_A_HEAD = 4.0  # mm: the median distance after the blendshapes that no head leaves


class Surface:
    """Triangles of a mesh, for the question which of their points is nearest and faces alike.

    vertices (V, 3) mm · faces (F, 3) · normals (V, 3) of length one · facing: mm that normals 60°
    apart count for
    """

    def __init__(self, vertices, faces, facing=10.0):
        self.facing = facing
        self.vertices, self.faces = np.asarray(vertices, float), np.asarray(faces, np.int64)
        self.normals = vertex_normals(self.vertices, self.faces)

    @functools.cached_property
    def _tree(self):
        """Of four samples a triangle, each its place and its normal."""
        both = np.concatenate([self.vertices, self.facing * self.normals], 1)[self.faces]
        return cKDTree(np.einsum("sk,fkc->fsc", SAMPLES, both).reshape(-1, 6))

    def closest(self, points, normals, candidates=8):
        """Of points (n, 3) with normals (n, 3): triangles (n,) and barycentric weights (n, 3)."""
        query = np.concatenate([points, self.facing * normals], 1)
        candidates = min(candidates, self._tree.n)
        found = self._tree.query(query, candidates)[1].reshape(len(points), -1) // len(SAMPLES)
        corners = self.vertices[self.faces[found.ravel()]]
        again = np.repeat(points, candidates, 0)
        near = trimesh.triangles.closest_point(corners, again)
        bary = barycentric(corners, near)
        turned = np.einsum("nk,nkc->nc", bary, self.normals[self.faces[found.ravel()]])
        cost = ((near - again) ** 2).sum(1)
        cost += self.facing**2 * ((turned - np.repeat(normals, candidates, 0)) ** 2).sum(1)
        best = cost.reshape(len(points), candidates).argmin(1)
        best += np.arange(len(points)) * candidates
        return found.ravel()[best], bary[best]

    def at(self, values, where):
        """Values of vertices (V, …), mixed at (triangles, weights) as ``closest`` gives them."""
        faces, bary = where
        values = np.asarray(values, float)[self.faces[faces]]
        return np.einsum("nk,nk...->n...", bary, values)


def vertex_normals(vertices, faces):
    """Unit normals (V, 3), weighted by the triangles' areas; zero where no triangle is."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    owner, parts = faces.T.ravel(), np.tile(cross, (3, 1)).T
    normals = np.stack([np.bincount(owner, part, len(vertices)) for part in parts], 1)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def barycentric(corners, points):
    """Weights (n, 3) of points in their triangles (n, 3, 3); slivers too give weights in 0…1."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = points - corners[:, 0]
    aa, ab, bb = (a * a).sum(1), (a * b).sum(1), (b * b).sum(1)
    ap, bp = (a * p).sum(1), (b * p).sum(1)
    determinant = np.maximum(aa * bb - ab * ab, 1e-12 * np.maximum(aa, bb) ** 2 + 1e-30)
    v = np.clip((bb * ap - ab * bp) / determinant, 0, 1)
    w = np.clip((aa * bp - ab * ap) / determinant, 0, 1 - v)
    return np.stack([1 - v - w, v, w], 1)


def edges(faces):
    """Edges (E, 2) of triangles (F, 3), each once, and how many triangles share each."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(pairs, 1), axis=0, return_counts=True)


def rim(faces, vertices):
    """(vertices,) booleans: where the mesh ends."""
    pairs, count = edges(faces)
    return np.isin(np.arange(vertices), pairs[count == 1])


@dataclass
class Similarity:
    """x → scale · x · rotationᵀ + shift."""

    scale: float
    rotation: np.ndarray
    shift: np.ndarray

    def __call__(self, points):
        return self.scale * points @ self.rotation.T + self.shift

    def inverse(self, points):
        return (points - self.shift) @ self.rotation / self.scale

    @classmethod
    def between(cls, source, target, weight=None):
        """Least squares for points (n, 3) by name (Umeyama 1991)."""
        matrix = trimesh.registration.procrustes(source, target, weight, reflection=False)[0]
        scale = np.cbrt(np.linalg.det(matrix[:3, :3]))
        return cls(scale, matrix[:3, :3] / scale, matrix[:3, 3])


def align(source, weight, target, guesses=()):
    """The similarity from a Surface to another's place; ``weight`` (V,) says what counts.

    Starts: the 24 ways to put a cube into its place, and ``guesses``. The winner is the start after
    whose refinement both meshes lie closest to each other, in the source's own millimetres.
    """
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(weight), 1000, p=weight / weight.sum())
    other = rng.choice(len(target.vertices), 1000)
    points, normals = source.vertices[chosen], source.normals[chosen]
    size = np.sqrt(target.vertices.var(0).sum() / source.vertices.var(0).sum())
    starts = list(guesses)
    for turn in Rotation.create_group("O").as_matrix():
        shift = target.vertices.mean(0) - size * turn @ source.vertices.mean(0)
        starts.append(Similarity(size, turn, shift))
    results = [_closest_points(points[::5], normals[::5], target, s, 8) for s in starts]

    def apart(move):
        there, _ = _pair(points, normals, target, move)
        back = move.inverse(target.vertices[other])
        found = source.closest(back, target.normals[other] @ move.rotation, 4)
        gap = np.linalg.norm(source.at(source.vertices, found) - back, axis=1)
        return _trimmed(np.linalg.norm(there - move(points), axis=1) / move.scale) + _trimmed(gap)

    return _closest_points(points, normals, target, min(results, key=apart), 15)


def _trimmed(distances, share=0.7):
    return np.sort(distances)[: int(share * len(distances))].mean()


def _pair(points, normals, target, move):
    """The target's nearest points (n, 3) that face alike, and by how much they do (n,)."""
    turned = normals @ move.rotation.T
    found = target.closest(move(points), turned, 4)
    return target.at(target.vertices, found), (target.at(target.normals, found) * turned).sum(1)


def _closest_points(points, normals, target, move, rounds):
    """Trimmed iterative closest points: the worst fifth of the pairs does not count."""
    for _ in range(rounds):
        there, alike = _pair(points, normals, target, move)
        away = np.linalg.norm(there - move(points), axis=1)
        weight = (away <= np.quantile(away, 0.8)) * np.clip(alike, 0.05, 1)
        move = Similarity.between(points, there, weight)
    return move


def _pairs(surface, weight, target, reach):
    """Partners on the target for every vertex: points (V, 3), normals (V, 3) and weights (V,).

    No partner: further than ``reach`` mm, facing away by over 60°, or at the target's rim.
    """
    where = target.closest(surface.vertices, surface.normals)
    there, facing = target.at(target.vertices, where), target.at(target.normals, where)
    away = np.linalg.norm(there - surface.vertices, axis=1)
    alike = (facing * surface.normals).sum(1) > 0.5
    ends = rim(target.faces, len(target.vertices))[target.faces[where[0]]].any(1)
    return there, facing, weight * (alike & (away < reach) & ~(ends & (away > RIM)))


def fit_blendshapes(surface, basis, weight, target, move, rounds=12, prior=0.03):
    """The head's own shapes as near to the target as they go: codes (K,), vertices, similarity.

    basis (V, 3, K) mm of codes with unit variance. Point to plane, with a little point to point;
    prior in mm² per vertex and code. Raises ValueError when the target is no head.
    """
    codes, rest, vertices = np.zeros(basis.shape[2]), surface.vertices, surface.vertices
    for k in range(rounds):
        here = Surface(move(vertices), surface.faces)
        there, facing, trust = _pairs(here, weight, target, 30.0 if k < rounds // 2 else 15.0)
        chosen = np.flatnonzero(trust > 0)
        if len(chosen) < 0.5 * (weight > 0).sum():
            raise ValueError("it does not look like a head: half of ours finds nothing near it")
        there, trust = there[chosen], trust[chosen]
        gap, facing = move.inverse(there) - rest[chosen], facing[chosen] @ move.rotation
        moves = basis[chosen]
        rows = [np.einsum("nck,nc->nk", moves, facing), *moves.transpose(1, 0, 2)]
        gaps = [(gap * facing).sum(1), *gap.T]
        left = prior * trust.sum() * np.eye(len(codes))
        right = np.zeros(len(codes))
        for row, wanted, share in zip(rows, gaps, (1.0, 0.1, 0.1, 0.1), strict=True):
            weighted = share * trust[:, None] * row
            left += weighted.T @ row
            right += weighted.T @ wanted
        codes = np.linalg.solve(left, right)
        vertices = rest + basis @ codes
        move = Similarity.between(vertices[chosen], there, trust)
    away = np.median(np.linalg.norm(there - move(vertices[chosen]), axis=1)) / move.scale
    if away > NOT_A_HEAD:
        raise ValueError(f"it does not look like a head: ours stays {away:.1f} mm away from it")
    return codes, vertices, move


def nonrigid_icp(surface, weight, target, progress=False):
    """Vertices (V, 3) of the source, pulled onto the target (both in mm, roughly in place).

    Minimises Σ w |X x − y|² + α² Σ_edges |X_i − X_j|² over an affine 3×4 map X per vertex, where y
    are the partners of the moment; α runs through STIFFNESS.
    """
    n = len(surface.vertices)
    pairs, _ = edges(surface.faces)
    rows = np.tile(np.arange(len(pairs)), 2)
    signs = np.repeat([1.0, -1.0], len(pairs))
    incidence = sparse.csr_matrix((signs, (rows, pairs.T.ravel())), (len(pairs), n))
    smooth = sparse.kron(incidence.T @ incidence, sparse.eye(4))
    loose = np.setdiff1d(np.arange(n), pairs)
    places = np.c_[surface.vertices / UNIT, np.ones(n)]
    corner = (np.repeat(np.arange(n), 4), np.arange(4 * n))
    data = sparse.csr_matrix((places.ravel(), corner), (n, 4 * n))
    hold = np.zeros(n)
    hold[loose] = 1e-3  # vertices of no triangle stay where they are
    moved = surface
    with tqdm(total=len(STIFFNESS) * ROUNDS, desc="registration",
              disable=quiet() or not progress) as bar:  # fmt: skip
        for stiffness in STIFFNESS:
            for _ in range(ROUNDS):
                there, _, trust = _pairs(moved, weight, target, 12.0)
                there[loose] = surface.vertices[loose]
                weights = sparse.diags(trust + hold)
                left = stiffness**2 * smooth + data.T @ weights @ data + 1e-9 * sparse.eye(4 * n)
                solver = splu(left.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
                              options={"SymmetricMode": True})  # fmt: skip
                maps = solver.solve(data.T @ (weights @ (there / UNIT)))
                moved = Surface(UNIT * (data @ maps), surface.faces)
                bar.update()
    return moved.vertices
