"""The mesh's pattern: a cylinder of quads with a crown, rings around mouth, eyes, ears, nose.

Columns run around the head (0 is the front, positive towards the person's left), rows from the neck
(0) to the crown. Rectangles of the grid are cut out and filled with concentric rings, whose spokes
start at the mouth corner or the inner corner of the eye: so lip and lid points are plain indices.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl

HALF = 31  # columns on each side: 0–4 nose bridge, 4–13 eye, 13–19 temple, 19–24 ear, 24–31 back
ROWS = 49
CROWN = (14, HALF - 14)  # the crown is closed by a patch of quads, so there is no pole


@dataclass(frozen=True)
class Block:
    """A rectangle of the grid (columns i0…i1, rows j0…j1) filled with ``rings`` rings."""

    i0: int
    i1: int
    j0: int
    j1: int
    rings: int
    closed: bool  # whether a fan closes the middle

    def perimeter(self):
        """Grid points around the block: from the middle of the i0 side up, across and down."""
        i0, i1, j0, j1 = self.i0, self.i1, self.j0, self.j1
        middle = (j0 + j1) // 2
        return (
            [(i0, j) for j in range(middle, j1)]
            + [(i, j1) for i in range(i0, i1)]
            + [(i1, j) for j in range(j1, j0, -1)]
            + [(i, j0) for i in range(i1, i0, -1)]
            + [(i0, j) for j in range(j0, middle)]
        )


MOUTH = Block(-11, 11, 14, 22, 13, True)
EYE = Block(4, 13, 32, 38, 9, False)
EAR = Block(19, 24, 18, 32, 9, True)
NOSTRIL = Block(1, 4, 22, 24, 3, True)
BLOCKS = {"mouth": MOUTH, "eye_l": EYE, "eye_r": EYE, "ear_l": EAR, "ear_r": EAR,
          "nostril_l": NOSTRIL, "nostril_r": NOSTRIL}  # fmt: skip


def _wrap(i):
    """Column numbers run −30…31."""
    return i - 2 * HALF if i > HALF else i + 2 * HALF if i <= -HALF else i


class Topology:
    """Vertices' names, quads, triangles, rings and the mirror image of every vertex.

    index   (kind, …) → vertex number; kinds are "grid" (i, j), "crown" (a, b), block names (k, q)
    rings   block → list of index arrays, ring 0 on the grid, inwards
    mirror  (n,) number of the vertex on the other side
    """

    def __init__(self):
        self.index, self.keys = {}, []
        self.quads, self.fans, self.rings = [], [], {}
        self._grid()
        self._crown()
        for name, block in BLOCKS.items():
            self._fill(name, block)
        self.n = len(self.keys)
        self.mirror = self._mirrored()
        self.triangles = self._split()
        is_grid = [key[0] == "grid" for key in self.keys]
        self.grid = np.flatnonzero(is_grid)
        self.grid_ij = np.array([self.keys[v][1:] for v in self.grid])
        self.crown = np.array([v for v, key in enumerate(self.keys) if key[0] == "crown"])

    def _new(self, *key):
        self.index[key] = len(self.keys)
        self.keys.append(key)
        return self.index[key]

    def _grid(self):
        columns = range(-HALF + 1, HALF + 1)
        for j in range(ROWS):
            for i in columns:
                if not any(_inside(name, i, j, 1) for name in BLOCKS):
                    self._new("grid", i, j)
        for j in range(ROWS - 1):
            for i in columns:
                if not any(_inside(name, i, j, 0) for name in BLOCKS):
                    corners = ((i, j), (_wrap(i + 1), j), (_wrap(i + 1), j + 1), (i, j + 1))
                    self.quads.append([self.index["grid", *c] for c in corners])

    def _crown(self):
        wide, deep = CROWN
        patch = {}
        for n in range(HALF + 1):  # the last row of the grid is the patch's border
            if n <= wide // 2:
                a, b = wide // 2 + n, 0
            elif n <= wide // 2 + deep:
                a, b = wide, n - wide // 2
            else:
                a, b = wide - (n - wide // 2 - deep), deep
            patch[a, b] = self.index["grid", n, ROWS - 1]
            if 0 < n < HALF:
                patch[wide - a, b] = self.index["grid", -n, ROWS - 1]
        for a in range(1, wide):
            for b in range(1, deep):
                patch[a, b] = self._new("crown", a, b)
        for a in range(wide):
            for b in range(deep):
                self.quads.append(
                    [patch[a, b], patch[a + 1, b], patch[a + 1, b + 1], patch[a, b + 1]]
                )

    def _fill(self, name, block):
        side = -1 if name.endswith("_r") else 1
        first = [self.index["grid", side * i, j] for i, j in block.perimeter()]
        spokes = len(first)
        rings = [first]
        rings += [[self._new(name, k, q) for q in range(spokes)] for k in range(1, block.rings + 1)]
        turn = 1 if side == -1 else -1  # keep the outside of every triangle outside
        for outer, inner in pairwise(rings):
            for q in range(spokes):
                p = (q + 1) % spokes
                self.quads.append([outer[q], outer[p], inner[p], inner[q]][::turn])
        if block.closed:
            centre = self._new(name, block.rings + 1, 0)
            last = rings[-1]
            for q in range(spokes):
                self.fans.append([last[q], last[(q + 1) % spokes], centre][::turn])
            rings.append([centre])
        self.rings[name] = [np.array(ring) for ring in rings]

    def _mirrored(self):
        swap = {"_l": "_r", "_r": "_l"}
        spokes = len(self.rings["mouth"][0])
        mirror = np.zeros(self.n, int)
        for vertex, key in enumerate(self.keys):
            kind, k, q = key
            if kind == "grid":
                other = (kind, _wrap(-k), q)
            elif kind == "crown":
                other = (kind, CROWN[0] - k, q)
            elif kind == "mouth":
                other = (kind, k, (spokes // 2 - q) % spokes) if k <= MOUTH.rings else key
            else:
                other = (kind[:-2] + swap[kind[-2:]], k, q)
            mirror[vertex] = self.index[other]
        return mirror

    def _split(self):
        """Two triangles a quad, cut along the mirrored diagonal on the other side."""
        triangles, cut = [], {}
        for quad in np.array(self.quads):
            twin = self.mirror[quad]
            key, twin_key = tuple(sorted(quad)), tuple(sorted(twin))
            start = 0
            if twin_key in cut and twin_key != key:
                diagonal = {self.mirror[v] for v in cut[twin_key]}
                start = 0 if {quad[0], quad[2]} == diagonal else 1
            quad = np.roll(quad, -start)
            cut[key] = (quad[0], quad[2])
            triangles += [quad[[0, 1, 2]], quad[[0, 2, 3]]]
        return np.array([*triangles, *np.array(self.fans)])

    @cached_property
    def adjacency(self):
        """(n, n) sparse, 1 where two vertices share an edge of the quad mesh."""
        quads, fans = np.array(self.quads), np.array(self.fans)
        edges = [quads[:, [a, (a + 1) % 4]] for a in range(4)]
        edges += [fans[:, [a, (a + 1) % 3]] for a in range(3)]
        edges = np.unique(np.sort(np.concatenate(edges), 1), axis=0)
        a, b = edges.T
        ones = np.ones(2 * len(edges))
        return sp.coo_matrix((ones, (np.r_[a, b], np.r_[b, a])), (self.n, self.n)).tocsr()

    @cached_property
    def laplacian(self):
        """Identity minus the mean of the neighbours."""
        degree = np.asarray(self.adjacency.sum(1)).ravel()
        return (sp.identity(self.n) - sp.diags(1 / degree) @ self.adjacency).tocsr()

    @cached_property
    def bilaplacian(self):
        return (self.laplacian.T @ self.laplacian).tocsr()

    def solve(self, values, free, smooth=True):
        """Fill ``values`` (n, c) at ``free``: harmonic, or biharmonic (``smooth``), in place.

        Factorisations are kept, because sculpting solves the same systems for every parameter.
        """
        key = (smooth, free.tobytes())
        cache = self.__dict__.setdefault("_factors", {})
        if key not in cache:
            matrix = self.bilaplacian if smooth else self.laplacian
            rows = matrix[free]
            fixed = np.setdiff1d(np.arange(self.n), free)
            cache[key] = (spl.splu(rows[:, free].tocsc()), rows[:, fixed], fixed)
        factor, coupling, fixed = cache[key]
        values[free] = factor.solve(-(coupling @ values[fixed]))
        return values

    def spread(self, handles, displacement, still, smooth=True):
        """A displacement field (n, c): given at ``handles``, zero at ``still``, smooth between."""
        field = np.zeros((self.n, displacement.shape[1]))
        field[handles] = displacement
        known = np.zeros(self.n, bool)
        known[handles] = True
        known[still] = True
        return self.solve(field, np.flatnonzero(~known), smooth)

    def symmetric(self, vertices):
        """The mean of the vertices and their mirror image."""
        return (vertices + vertices[self.mirror] * [-1, 1, 1]) / 2


def _inside(name, i, j, border):
    """Whether grid point (border 1) or cell (border 0) i, j is inside a block."""
    block = BLOCKS[name]
    if border:
        i = -i if name.endswith("_r") else i
        return block.i0 < i < block.i1 and block.j0 < j < block.j1
    i = -i - 1 if name.endswith("_r") else i
    return block.i0 <= i < block.i1 and block.j0 <= j < block.j1


def angles(spokes):
    """Angle of each spoke seen from the front: π at spoke 0, π/2 at the top, clockwise."""
    return np.pi - 2 * np.pi * np.arange(spokes) / spokes
