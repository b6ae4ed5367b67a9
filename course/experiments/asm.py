"""``python -m course experiment asm``: how many numbers make a face, as bones or as components?

Heads that the linear model cannot make (sculpted anew, two halves of two people, caricatures; and,
to compare, heads that it can) are fitted by the linear model, by bones, and by harmonics of the
mesh, with few numbers and with many. Then the same from one, two, four and eight pictures, where
nobody tells the depth, beside the encoder.
"""

import math
import time
from functools import lru_cache

import numpy as np
import torch
from scipy.sparse import coo_array, csgraph
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from course import encode, metrics
from course.asm import ALL, ASM, BINDING, MOTION, WEIGHTS
from course.asm_fit import AdaptiveHead, face_weight, fit_vertices
from course.camera import foreshortened, project
from course.encoder import FaceModel
from course.experiments import COMMON, run_grid, write
from course.facecode import ROOT, FaceCode
from course.files import DATA
from course.fit import CREASES, fit
from course.flame import FLAME
from course.head.anatomy import sculpt
from course.head.bulk import PARAMETERS, Sculpt
from course.head.identity import FEATURES
from course.photo import Detection
from course.registration import edges
from course.render import Renderer

SEEDS = 3
KINDS = ("in the span", "sculpted", "asymmetric", "exaggerated")
VIEWS = (1, 2, 4, 8)
COMPONENTS = (5, 10, 18, 20, 40, 72, 80)  # 18 and 72: as many numbers as bones have
HARMONICS = (6, 24, 60, 120, 252, 812)  # three numbers each
# what of the 84 bones moves: a few that matter most, then all but the third level, then all
COARSE = ("neck", "nose", "mouth", "jaw", "eye left")
MIDDLE = (*COARSE, "cheek left", "cheekbone left", "forehead", "temple left", "chin", "brow left",
          "jaw corner left")  # fmt: skip
FREE = {"motion": MOTION, "motion, binding": MOTION + BINDING, "motion, weights": MOTION + WEIGHTS,
        "all": ALL}  # fmt: skip
# (bones or None for all, what is free, Gaussians of each)
LADDER = (
    (("head",), "motion", 3), (COARSE, "motion", 3), (MIDDLE, "motion", 3),
    *((None, free, 3) for free in FREE), (None, "all", 1),
)  # fmt: skip
YAWS = (0, 40, -40, 20, -20, 60, -60, 10)  # degrees, of the views one after another
PITCHES = (0, 0, 0, -15, 15, 10, -10, -25)
DISTANCE = 0.9  # metres from the camera

COLUMNS = {
    "part": str,  # "capacity": fitted to points known by name · "pictures": to photographs
    "target": str,  # one of KINDS
    "model": str,  # "components", "bones", "harmonics", "encoder"
    "free": str,  # of bones, one of FREE; else empty
    "bones": int,  # that move
    "gaussians": int,  # K, of each bone
    "parameters": int,  # numbers that make the face at rest
    "views": int,  # photographs, 0 for none
    "surface_mm": float,  # mean distance of the true face's points from the surface that was found
    "point_mm": float,  # and from the same points of it
    "start_mm": float,  # surface_mm of the mean head
    "cpu_seconds": float,  # of the processor, for the fit
}


def add_arguments(parser):
    parser.add_argument("--steps", type=int, default=1000, help="steps of each fit to points")
    parser.add_argument("--picture-seeds", type=int, default=2, help="heads of a kind in pictures")
    parser.add_argument("--picture-steps", type=int, default=100,
                        help="steps at each resolution of a fit to pictures")  # fmt: skip


def run(args):
    rows = experiment(args.folder, args.seeds, args.steps, args.picture_seeds, args.picture_steps,
                      workers=args.workers, threads=args.threads)  # fmt: skip
    print(f"wrote {write(args.output, rows, COLUMNS | COMMON)}")
    return 0


def experiment(folder, seeds=SEEDS, steps=1000, picture_seeds=2, picture_steps=100, kinds=KINDS,
               views=VIEWS, workers=1, threads=1):  # fmt: skip
    """Rows of COLUMNS for all targets. Finished ones are kept in ``folder``."""
    if steps < 1 or picture_steps < 1 or picture_seeds < 0:
        raise ValueError("at least one step each, and no less than no pictures")
    settings = [{"part": "capacity", "target": kind} for kind in kinds]
    rows = run_grid(capacity, settings, range(seeds), folder, workers, threads, {"steps": steps},
                    "points")  # fmt: skip
    settings = [{"part": "pictures", "target": kind, "views": n}
                for kind in kinds if kind != KINDS[0] for n in views]  # fmt: skip
    options = {"steps": picture_steps}
    return rows + run_grid(pictures, settings, range(picture_seeds), folder, workers, threads,
                           options, "pictures")  # fmt: skip


# ------------------------------------------------------------------ heads


@lru_cache(maxsize=1)
def _flame():
    return FLAME.load(device="cpu")


@lru_cache(maxsize=8)
def _sculpted(seed):
    """A person (V, 3), metres, whose features were drawn 2 standard deviations wide, and sculpted
    all at once: what changes together does not add up."""
    rng = np.random.default_rng(seed)
    drawn = {name: PARAMETERS[name] + 2 * size * rng.standard_normal()
             for name, size in FEATURES.items()}  # fmt: skip
    return sculpt(Sculpt(**drawn)).vertices / 1000


def target(kind, seed):
    """A true head (V, 3), metres, of one of KINDS. Raises ValueError for another kind."""
    flame, mean = _flame(), _flame().v_template.numpy()
    if kind == "in the span":
        draw = torch.randn(1, flame.n_shape, generator=torch.Generator().manual_seed(seed))
        return flame(draw)[0]
    if kind == "sculpted":
        found = _sculpted(seed)
    elif kind == "asymmetric":  # the left of one person and the right of another
        left = 1 / (1 + np.exp(-mean[:, :1] / 0.006))
        found = left * _sculpted(seed) + (1 - left) * _sculpted(1000 + seed)
    elif kind == "exaggerated":  # a caricature: further from the mean
        found = mean + 1.7 * (_sculpted(seed) - mean)
    else:
        raise ValueError(f"There are no heads {kind!r}; there are {', '.join(KINDS)}.")
    return torch.from_numpy(found).float()


def surface_error(vertices, truth, scale=False):
    """Mean distance in mm of the true face's points from a surface laid over it; with ``scale``, of
    the best size: no picture tells how large a face is."""
    return metrics.identity_error(vertices, truth, _flame(), scale)[1]


def laid_over(vertices, truth, scale=False):
    """A head (V, 3) moved so that its face fits that of the truth, point by point."""
    face = _flame().masks["face"].numpy()
    found, wanted = np.asarray(vertices), np.asarray(truth)
    return metrics.apply(metrics.rigid_align(found[face], wanted[face], scale), found)


def point_error(vertices, truth, scale=False):
    """Mean distance in mm of the face's points from the same points, laid over each other."""
    away = np.linalg.norm(laid_over(vertices, truth, scale) - np.asarray(truth), axis=1)
    return 1000 * float(away[_flame().masks["face"].numpy()].mean())


# ------------------------------------------------------------------ points known by name


@lru_cache(maxsize=1)
def harmonics(count=HARMONICS[-1]):
    """(V, count) the smoothest functions on the skin's mesh: eigenvectors of its Laplacian (Lévy
    2006). Eyeballs, teeth and tongue take the nearest skin's values."""
    flame = _flame()
    v = flame.v_template.numpy()
    a, b = edges(flame.faces.numpy())[0].astype(np.int32).T  # as older SciPy's csgraph reads them
    graph = coo_array((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), (len(v), len(v))).tocsr()
    label = csgraph.connected_components(graph)[1]
    skin = np.flatnonzero(label == np.bincount(label).argmax())
    laplacian = csgraph.laplacian(graph[skin][:, skin], normed=True)
    start = np.random.default_rng(0).standard_normal(len(skin))
    functions = eigsh(laplacian, count, sigma=-0.01, v0=start)[1]
    return functions[cKDTree(v[skin]).query(v)[1]]


def linear_fit(basis, truth, rounds=8):
    """The head (V, 3) nearest to the truth among mean + basis (V, 3, K) · code, up to a rigid
    motion: least squares over the code and six rigid directions at once, until both rest."""
    mean, weight = _flame().v_template.numpy().astype(float), face_weight(_flame()).numpy()
    root, near = np.repeat(np.sqrt(weight), 3), weight > 0.5
    goal = truth.numpy().astype(float)
    goal = metrics.apply(metrics.rigid_align(goal[near], mean[near], scale=False), goal)
    turns = np.cross(np.eye(3)[:, None], goal).transpose(1, 2, 0)
    shifts = np.broadcast_to(np.eye(3), (len(goal), 3, 3))
    rows = np.concatenate([basis, -turns, -shifts], 2).reshape(len(root), -1) * root[:, None]
    inverse = np.linalg.pinv(rows.T @ rows, rcond=1e-10, hermitian=True) @ rows.T
    for _ in range(rounds):
        code = inverse @ ((goal - mean).ravel() * root)
        goal = goal @ Rotation.from_rotvec(code[-6:-3]).as_matrix().T + code[-3:]
    return mean + basis @ code[:-6]


def harmonic_fit(count, truth):
    """The head (V, 3) nearest to the truth whose x, y and z are the mean's plus ``count`` harmonics
    each. The smoothest of them hold shifts, and turns very nearly."""
    functions = harmonics()[:, :count]
    mean, weight = _flame().v_template.numpy().astype(float), face_weight(_flame()).numpy()
    near = weight > 0.5
    goal = truth.numpy().astype(float)
    goal = metrics.apply(metrics.rigid_align(goal[near], mean[near], scale=False), goal)
    rows = functions * np.sqrt(weight)[:, None]
    inverse = np.linalg.pinv(rows.T @ rows, rcond=1e-10, hermitian=True) @ rows.T
    return mean + functions @ (inverse @ ((goal - mean) * np.sqrt(weight)[:, None]))


@lru_cache(maxsize=8)
def _asm(names=None, gaussians=3):
    return ASM(_flame(), gaussians, names)


def capacity(setting, seed, steps):
    """One head, fitted by every model: rows of COLUMNS."""
    truth = target(setting["target"], seed)
    start = surface_error(_flame().v_template, truth)
    rows = []

    def row(model, parameters, find, **more):
        begin = time.process_time()
        vertices = find()
        seconds = time.process_time() - begin
        rows.append({"model": model, "free": "", "bones": 0, "gaussians": 0, "views": 0,
                     "parameters": int(parameters), "steps": steps, "start_mm": start,
                     "surface_mm": surface_error(vertices, truth), "cpu_seconds": seconds,
                     "point_mm": point_error(vertices, truth)} | more)  # fmt: skip

    directions = _flame().shapedirs.numpy().astype(float)
    for count in COMPONENTS:
        row("components", count, lambda k=count: linear_fit(directions[..., :k], truth))
    for count in HARMONICS:
        row("harmonics", 3 * count, lambda k=count: harmonic_fit(k, truth))
    for names, free, gaussians in LADDER:
        head = AdaptiveHead(_flame(), _asm(names, gaussians), FREE[free])
        row("bones", head.n_shape, lambda h=head: fit_vertices(h, truth, steps=steps).vertices,
            free=free, bones=head.asm.bones, gaussians=gaussians)  # fmt: skip
    return rows


# ------------------------------------------------------------------ pictures


def photographs(truth, count, seed, size=224):
    """``count`` pictures (H, W, 3) uint8 of one head (V, 3) from different sides, with a Detection
    each that knows the landmarks. Skin and lamps are drawn by ``seed``; the face is at rest."""
    flame, generator = _flame(), torch.Generator().manual_seed(seed)
    code = FaceCode.zeros(flame, count)
    code.pose[:, 1] = torch.tensor([math.radians(y) for y in YAWS[:count]])
    code.pose[:, 0] = torch.tensor([math.radians(p) for p in PITCHES[:count]])
    code.camera[:, 0] *= 0.72
    code.light[:, 0] = 3.0
    code.light[:, 1:4] += 0.2 * torch.randn(count, 3, 1, generator=generator)
    albedo = 0.7 * torch.randn(1, flame.n_albedo, generator=generator)
    offsets = (truth - flame.v_template)[None]
    seen = foreshortened(flame(None, None, code.pose, offsets), torch.full((count, 1), DISTANCE))
    drawn = Renderer(flame, size)(seen, code.camera, flame.albedo(albedo), code.light,
                                  background=(0.4, 0.45, 0.5), supersample=2,
                                  occlusion=CREASES)  # fmt: skip
    images = (255 * drawn.image.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).numpy()
    marks = project(flame.landmarks(seen, code.pose), code.camera, size)[..., :2].numpy()
    boxes = np.concatenate([marks.min(1), marks.max(1)], 1)
    detections = [Detection(m, np.full(68, 0.5), b, "known", 1)
                  for m, b in zip(marks, boxes, strict=True)]  # fmt: skip
    return list(images), detections


def unposed(head, codes):
    """The face (V, 3) that N codes of one person show, without the turn of the head: expression and
    jaw are what they are on average, since what they explain is no error of the surface."""
    pose = codes.pose.mean(0, keepdim=True).clone()
    pose[:, ROOT] = 0
    with torch.no_grad():
        return head(codes.shape[:1], codes.expression.mean(0, keepdim=True), pose)[0]


def pictures(setting, seed, steps):
    """One head in ``views`` pictures, fitted by components and bones, and read by the encoder."""
    truth, views = target(setting["target"], seed), setting["views"]
    photos, detections = photographs(truth, views, seed)
    start, rows = surface_error(_flame().v_template, truth, scale=True), []
    stages = {"landmarks": steps, 56: steps, 112: steps}
    encoder()  # loaded before the clock starts
    models = [("components", "", _flame()), ("encoder", "", None)]
    models += [("bones", free, AdaptiveHead(_flame(), _asm(), FREE[free]))
               for free in ("motion", "all")]  # fmt: skip
    for model, free, head in models:
        begin = time.process_time()
        if head is None:
            head = _flame()
            codes = encode.first_guess(encoder(), photos, detections, head)[0]
        else:
            codes = fit(photos, detections, head, steps=stages, progress=False).codes
        seconds = time.process_time() - begin
        found = unposed(head, codes)
        rows.append({"model": model, "free": free, "bones": 84 if model == "bones" else 0,
                     "gaussians": 3 if model == "bones" else 0, "steps": steps, "views": views,
                     "parameters": int(head.n_shape),
                     "surface_mm": surface_error(found, truth, scale=True),
                     "point_mm": point_error(found, truth, scale=True), "start_mm": start,
                     "cpu_seconds": seconds})  # fmt: skip
    return rows


@lru_cache(maxsize=1)
def encoder():
    """The encoder that ships."""
    return FaceModel.load(DATA / "encoder.pt", _flame(), "cpu")
