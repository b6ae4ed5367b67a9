"""The 84 bones of the adaptive skinning model: names, tree, and where they are on a head.

Placed by anatomy on the built-in head, in its millimetres: x to the person's left, y up, z forward,
the origin between the pupils. On another head with 68 landmarks they go where a similarity of the
landmarks puts them. A bone with x > 0 has a twin on the right.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from course.metrics import apply, rigid_align
from course.registration import edges

# name: (parent, place on the skin[, pivot inside the head])
BONES = {
    "root": (None, (0, -165, 45), (0, -170, -15)),
    "neck": ("root", (0, -124, 48), (0, -110, -25)),
    "larynx": ("neck", (0, -145, 45)),
    "neck side": ("neck", (52, -120, -5)),
    "nape": ("neck", (28, -105, -60)),
    "head": ("root", (0, 112, 20), (0, -15, 0)),
    "forehead upper": ("head", (0, 82, 70)),
    "forehead": ("head", (0, 48, 96)),
    "forehead side": ("head", (33, 48, 87)),
    "temple": ("head", (62, 24, 55)),
    "parietal": ("head", (58, 80, -5)),
    "occiput": ("head", (38, 40, -88)),
    "skull base": ("head", (45, -25, -55)),
    "ear": ("head", (74, -12, 0), (66, -12, 8)),
    "glabella": ("head", (0, 17, 100)),
    "brow": ("head", (32, 23, 94)),
    "brow inner": ("brow", (13, 20, 99)),
    "brow outer": ("brow", (50, 21, 83)),
    "eye": ("head", (31, -12, 91), (31, 0, 81)),
    "eye inner corner": ("eye", (16.1, -1.3, 88)),
    "eye outer corner": ("eye", (45.9, 0.3, 81.5)),
    "upper lid inner": ("eye", (24.3, 3.8, 92.5)),
    "upper lid outer": ("eye", (37.6, 4.1, 90.4)),
    "lower lid inner": ("eye", (24.7, -4.1, 92.8)),
    "lower lid outer": ("eye", (37.9, -4.3, 90)),
    "lid fold": ("eye", (31, 11, 92)),
    "nose": ("head", (0, -22, 113), (0, -25, 96)),
    "nose root": ("nose", (0, 3, 102)),
    "nose bridge": ("nose", (0, -11, 107)),
    "nose side": ("nose", (11, -16, 97)),
    "nose tip": ("nose", (0, -34, 121)),
    "nose wing": ("nose", (16, -37, 104)),
    "nostril": ("nose", (8, -46, 106)),
    "nose base": ("nose", (0, -47, 107)),
    "cheekbone": ("head", (50, -18, 74)),
    "zygoma": ("head", (64, -14, 35)),
    "cheek": ("head", (38, -36, 84)),
    "cheek hollow": ("head", (52, -58, 50)),
    "nasolabial": ("head", (27, -50, 92)),
    "mouth": ("head", (0, -54, 107), (0, -69, 95)),
    "upper lip": ("mouth", (0, -62, 109)),
    "upper lip side": ("mouth", (13, -63.5, 106)),
    "mouth corner": ("mouth", (27, -68.5, 94)),
    "lower lip side": ("mouth", (13, -75, 104)),
    "lower lip": ("mouth", (0, -76, 107)),
    "lip to chin": ("mouth", (0, -86, 100)),
    "jaw": ("head", (0, -118, 75), (0, -25, 10)),
    "chin": ("jaw", (0, -102, 102)),
    "chin side": ("jaw", (22, -98, 90)),
    "jaw line": ("jaw", (46, -95, 42)),
    "jaw corner": ("jaw", (58, -78, 20)),
}
SIDES = ("left", "right")
# places of the 51 inner landmarks on the built-in head, mm: what other heads are compared with
RULER = {30: (0, -33.5, 121.2), 33: (0.2, -48, 106.7), 36: (-45.9, 0.3, 81.5),
         39: (-16.1, -1.3, 88), 42: (16.1, -1.3, 88), 45: (45.9, 0.3, 81.5),
         48: (-26.2, -68.5, 94.4), 54: (26.2, -68.5, 94.4)}  # fmt: skip


def tree():
    """Names, parents and twins of all bones: a list and two arrays (J,), parents before children.

    The root's parent is −1. A bone's twin is the one on the other side; one in the middle is its
    own.
    """
    names, parents = [], []
    for name, (parent, place, *_) in BONES.items():
        for side in SIDES if place[0] else ("",):
            names.append(f"{name} {side}".strip())
            own = f"{parent} {side}" if f"{parent} {side}" in names else parent
            parents.append(-1 if own is None else names.index(own))
    other = {"left": "right", "right": "left"}
    twins = [names.index(" ".join(other.get(word, word) for word in name.split()))
             for name in names]  # fmt: skip
    return names, np.array(parents), np.array(twins)


def depths(parents):
    """How many bones are above each, (J,): 0 for the root."""
    found = np.zeros(len(parents), int)
    for bone, parent in enumerate(parents):
        if parent >= 0:
            found[bone] = found[parent] + 1
    return found


@dataclass
class Skeleton:
    """Where the bones are on a head at rest.

    vertex (J,) the skin's vertex that a bone is anchored at · pivot (J, 3) metres · skin (n,) the
    skin's vertices · geodesic (J, n) metres from the anchor along the skin's edges · falloff (J, n)
    in 0…1: how near that is · part (V,) the bone that a vertex of another part (eyeball, teeth,
    tongue) moves with; −1 on the skin
    """

    vertex: np.ndarray
    pivot: np.ndarray
    skin: np.ndarray
    geodesic: np.ndarray
    falloff: np.ndarray
    part: np.ndarray


def place(flame):
    """The Skeleton of a head. Raises ValueError for heads without landmarks."""
    marks = flame.landmarks(flame.v_template[None])[0].cpu().numpy()
    ruler = np.array(list(RULER.values())) / 1000
    moved = rigid_align(ruler, marks[list(RULER)])
    names, parents, _ = tree()
    spots = {}
    for name, (_, on_skin, *inside) in BONES.items():
        for side in SIDES if on_skin[0] else ("",):
            flip = [-1, 1, 1] if side == "right" else [1, 1, 1]
            spots[f"{name} {side}".strip()] = [np.array(p) * flip for p in (on_skin, *inside)]
    v, faces = flame.v_template.cpu().numpy(), flame.faces.cpu().numpy()
    graph = _lengths(v, faces)
    skin, part_of = _largest_part(graph)
    nearest = cKDTree(v[skin])
    vertex = np.array([skin[nearest.query(apply(moved, spots[n][0] / 1000))[1]] for n in names])
    pivot = np.stack([apply(moved, spots[n][1] / 1000) if len(spots[n]) > 1 else v[k]
                      for n, k in zip(names, vertex, strict=True)])  # fmt: skip
    distance = dijkstra(graph, indices=vertex)
    geodesic = distance[:, skin]
    falloff = np.exp(-0.5 * (geodesic / _radius(distance[:, vertex], parents)) ** 2)
    part = _carried(v, skin, part_of, names, pivot)
    return Skeleton(vertex, pivot, skin, geodesic, falloff, part)


def _lengths(v, faces):
    """(V, V) sparse: an edge's length in metres."""
    a, b = edges(faces)[0].astype(np.int32).T  # older SciPy's csgraph reads no other indices
    length = np.linalg.norm(v[a] - v[b], axis=1)
    graph = coo_array((length, (a, b)), (len(v), len(v))).tocsr()
    return graph.maximum(graph.T)


def _largest_part(graph):
    """Vertices of the largest connected part, the skin, and the number (V,) of each one's part."""
    _, label = connected_components(graph)
    return np.flatnonzero(label == np.bincount(label).argmax()), label


def _radius(between, parents):
    """How far a bone reaches, (J, 1) metres: to its neighbours, and a parent to its children."""
    near = np.sort(between, 1)[:, 1:4].mean(1)
    children = [between[bone, parents == bone] for bone in range(len(near))]
    reach = np.array([away.mean() if len(away) else 0.0 for away in children])
    reach[depths(parents) < 2] = 0  # root, head and neck reach as far as others do
    return np.maximum(0.75 * near, 0.6 * reach)[:, None]


def _carried(v, skin, part_of, names, pivot):
    """Eyeballs turn and grow with the eye's bone, teeth and tongue with the mouth's."""
    bones = [names.index(name) for name in ("eye left", "eye right", "mouth")]
    part = np.full(len(v), -1)
    for label in np.setdiff1d(part_of, part_of[skin]):
        inside = part_of == label
        away = np.linalg.norm(pivot[bones] - v[inside].mean(0), axis=1)
        part[inside] = bones[away.argmin()]
    return part
