"""The course's benchmark: how many millimetres is a face wrong that was found in photographs?

After NoW (Sanyal et al. 2019), on synthetic people whose heads are known: 100 people × 12
photographs, three of each of four kinds. The found head, at rest, is laid over the true one by
seven landmarks (rotation, shift and size), from there moved until the distances are least; every
vertex of the true face is a scan point, whose distance to the found surface counts. No photograph
ships: a seed a person makes the same ones everywhere. ``python -m course evaluate --benchmark``
runs it.
"""

import time
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from course import landmarks, metrics
from course.experiments import COMMON, RESULTS, RUNS, run_grid, write
from course.facecode import FaceCode
from course.files import any_path, cached_arrays, digest, quiet
from course.flame import FLAME, head_yaw
from course.photo import Detection
from course.workers import spread

PEOPLE, EACH, SIZE, SEED = 100, 3, 256, 9_000_017
# changes of faces.Variety; all are photographs of about this size, of a lens at this distance
COMMON_LOOK = {"zoom": (1.0, 1.1), "shift": 0.05, "roll": 8.0, "distance": (0.6, 2.5),
               "expressive": 0.15, "occluders": 0.0, "glasses": 0.0, "max_yaw": 8.0}  # fmt: skip
KINDS = {
    "frontal": {},
    "three-quarter": {"max_yaw": 50.0},
    "occluded": {"occluders": 1.0, "glasses": 0.4, "hands": 0.35, "masks": 0.35},
    "expressive": {"expressive": 1.0},
}
TURNED = (25.0, 50.0)  # degrees that a three-quarter view is turned by, to either side
SETS = (2, 4, 8)
LIMITS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)  # mm, of the cumulative curve
COLUMNS = {"method": str, "kind": str, "photo": int, "median": float, "mean": float, "std": float,
           "seven_landmarks": float,  # the median where the landmarks alone align
           "seconds": float} | {f"within_{mm:g}": float for mm in LIMITS}  # fmt: skip


# ------------------------------------------------------------------ photographs


@lru_cache(maxsize=1)
def _photographer():
    from course.faces import Photographer

    return Photographer(FLAME.load(device="cpu"), size=SIZE)


def photographs(person, folder):
    """A person's photographs, made where they are missing: a dict of arrays.

    images (12, S, S, 3) uint8 · landmarks (12, 68, 2) pixels · shape (n_shape,) · points, sigma
    and box: what the landmark network sees, as in ``photo.Detection``
    """
    known = repr((SEED, person, EACH, SIZE, COMMON_LOOK, KINDS, TURNED))
    return cached_arrays(Path(folder) / f"person-{person:03d}.npz", known,
                         lambda: _photographed(person))  # fmt: skip


def _photographed(person):
    from course.evaluate import network_sees
    from course.faces import Variety

    maker, rng = _photographer(), np.random.default_rng([SEED, person])
    who, images, marks = maker.person(rng), [], []
    for kind, changes in KINDS.items():
        maker.variety = Variety(**(COMMON_LOOK | changes))
        low, high = TURNED if kind == "three-quarter" else (0.0, 180.0)
        for _ in range(EACH):
            code = maker.person(rng)
            while not low <= head_yaw(code.pose).abs() <= high:
                code = maker.person(rng)
            photo = maker(rng, code.replace(shape=who.shape, albedo=who.albedo))
            images.append(photo.image)
            marks.append(photo.landmarks)
    found = [network_sees(image, true, [SEED, person, k])
             for k, (image, true) in enumerate(zip(images, marks, strict=True))]  # fmt: skip
    seen = {
        name: np.stack([getattr(d, name) for d in found]) for name in ("points", "sigma", "box")
    }
    known = {"images": np.stack(images), "landmarks": np.stack(marks)}
    return known | seen | {"shape": who.shape[0].numpy()}


def make(shelf, people, workers=1):
    """All photographs of so many people, by so many processes."""
    made = spread(photographs, [(person, shelf) for person in range(people)], workers)
    for _ in tqdm(made, "people", people, disable=quiet()):
        pass


# ------------------------------------------------------------------ methods


def _mean_face(photos, found, flame):
    return FaceCode.zeros(flame).shape


def _fit(photos, found, flame, encoder=None, **options):
    from course.encode import first_guess
    from course.fit import fit

    start = {}
    if encoder:
        start = dict(zip(("start", "trust"), first_guess(_encoder(encoder), photos, found, flame),
                         strict=True))  # fmt: skip
    return fit(photos, found, flame, progress=False, **start, **options).codes.shape[:1]


def _read(photos, found, flame, encoder=None):
    from course.encode import SHARED, read_faces
    from course.encoder import average_identity

    code, trust = read_faces(_encoder(encoder), photos, [d.points for d in found], flame)
    return average_identity(code, trust, shared=SHARED).shape[:1]


def _ensemble(photos, found, flame, encoder=None, members=()):
    """The mean of what several encoders read."""
    return torch.stack([_read(photos, found, flame, e) for e in (encoder, *members)]).mean(0)


@lru_cache(maxsize=4)
def _encoder(path):
    from course.encoder import FaceModel

    return FaceModel.load(path, FLAME.load(device="cpu"), "cpu")


@lru_cache(maxsize=1)
def _adaptive():
    from course.asm_fit import AdaptiveHead

    return AdaptiveHead(FLAME.load(device="cpu"))


ENSEMBLE = "encoder, ensemble of 3"
LANDMARKS_ONLY = {56: 0, 112: 0}
QUICK = ("mean face", "encoder", *(f"encoder, {n} photos" for n in SETS))
FITTED = ("landmarks only", "fit", "encoder + fit", "ASM fit",
          *(f"encoder + fit, {n} photos" for n in SETS))  # fmt: skip
METHODS = {
    "mean face": _mean_face,
    "encoder": _read,
    ENSEMBLE: _ensemble,
    "landmarks only": partial(_fit, steps=LANDMARKS_ONLY),
    "fit": _fit,
    "encoder + fit": _fit,
    "ASM fit": _fit,
}
METHODS |= {f"encoder, {n} photos": _read for n in SETS}
METHODS |= {f"encoder + fit, {n} photos": _fit for n in SETS}
READS = {name for name in METHODS if name.startswith("encoder")}


# ------------------------------------------------------------------ measuring


def one(setting, seed, shelf, encoder, each=EACH, members=()):
    """Rows of one method on one person: a row a photograph, or a row for a set of them.

    ``each`` is how many photographs of each kind are looked at; sets always choose from all.
    """
    method, files = setting["method"], photographs(seed, shelf)
    flame = FLAME.load(device="cpu")
    head = _adaptive() if method == "ASM fit" else flame
    images, seen = files["images"], [files[name] for name in ("points", "sigma", "box")]
    found = [Detection(*parts, "built-in", 1) for parts in zip(*seen, strict=True)]
    kinds = np.repeat(list(KINDS), EACH)
    groups = [[k] for k in range(len(images)) if k % EACH < each]
    options = {"encoder": encoder} if method in READS else {}
    if method == ENSEMBLE:
        options["members"] = members
    if "photos" in method:
        order = np.random.default_rng([SEED, seed, 1]).permutation(len(images))
        groups = [order[: int(method.split()[-2])].tolist()]
    true = flame(torch.from_numpy(files["shape"])[None])[0].numpy()
    rows = []
    if options and method not in FITTED:  # what a first call loads is not the method's time
        METHODS[method]([images[0]], [found[0]], head, **options)
    for group in groups:
        clock = time.perf_counter()
        shape = METHODS[method]([images[k] for k in group], [found[k] for k in group], head,
                                **options)  # fmt: skip
        seconds = time.perf_counter() - clock
        with torch.no_grad():
            guessed = head(shape)[0].numpy()
        errors = metrics.scan_errors(guessed, true, flame)
        by_marks = metrics.scan_errors(guessed, true, flame, refine=False)
        rows.append({
            "kind": str(kinds[group[0]]) if len(group) == 1 else "set", "photo": int(group[0]),
            "median": float(np.median(errors)), "mean": float(errors.mean()),
            "std": float(errors.std()), "seven_landmarks": float(np.median(by_marks)),
            "seconds": seconds, "steps": 0,
            **{f"within_{mm:g}": 100 * float((errors <= mm).mean()) for mm in LIMITS},
        })  # fmt: skip
    return rows


def measure(folder, encoder, people=PEOPLE, fits=None, workers=1, threads=1, members=()):
    """Rows of COLUMNS: the quick methods on all photographs, fits on one of each kind.

    ``fits`` of the people are fitted, without it all. ``members`` are two more encoders' files:
    with ``encoder`` an ensemble, which needs them.
    """
    for path in (encoder, *members):  # what is missing is told before the hours of work
        _encoder(str(path))
    shelf = Path(folder) / f"photographs-{digest(landmarks.WEIGHTS)}"  # with what it sees in them
    make(shelf, people, workers)
    options = {"shelf": str(shelf), "encoder": str(encoder)}
    engine = partial(run_grid, folder=folder, workers=workers, threads=threads)
    rows = engine(one, [{"method": m} for m in QUICK], range(people), options=options,
                  title="encoder")  # fmt: skip
    if members:
        rows += engine(one, [{"method": ENSEMBLE}], range(people),
                       options=options | {"members": [str(m) for m in members]},
                       title="ensemble")  # fmt: skip
    fitted = range(people if fits is None else fits)
    return rows + engine(one, [{"method": m} for m in FITTED], fitted,
                         options=options | {"each": 1}, title="fits")  # fmt: skip


def add_arguments(parser):
    from course.train_encoder import WEIGHTS

    parser.add_argument("--weights", type=any_path, default=WEIGHTS, help="the encoder to judge")
    parser.add_argument("--fits", type=int,
                        help="people whose photographs are fitted, one of each kind (default: "
                        "all)")  # fmt: skip
    parser.add_argument("--members", type=any_path, nargs=2, default=(), metavar="FILE",
                        help="two more encoders: with --weights, an ensemble of three")  # fmt: skip
    parser.set_defaults(seeds=PEOPLE, output=None)


def run(args):
    """The command; exit code 0."""
    if args.fits is not None and not 0 <= args.fits <= args.seeds:
        raise ValueError("--fits is a number of people, at most --seeds.")
    report(args.weights, args.seeds, args.fits, args.workers, args.threads, args.folder,
           args.output, args.members)  # fmt: skip
    return 0


def report(encoder, people=PEOPLE, fits=None, workers=1, threads=1, folder=RUNS / "benchmark",
           output=None, members=()):  # fmt: skip
    """Measure, print the table, write the CSV.

    Without ``output`` it goes where notebook 10 reads it if it is as large as what ships, ensemble
    included; else into ``folder``.
    """
    rows = measure(folder, encoder, people, fits, workers, threads, members)
    print("\n".join(table(rows)))
    whole = people >= PEOPLE and fits is None and members
    output = output or (RESULTS if whole else Path(folder)) / "benchmark.csv"
    write(output, rows, COLUMNS | COMMON)


def table(rows):
    """A line a method: photographs, NoW's median, mean and std in mm, seconds."""
    lines = [
        f"{'method':22s} {'faces':>5s} {'median':>7s} {'mean':>6s} {'std':>6s} {'seconds':>8s}"
    ]
    for method in METHODS:
        of = [r for r in rows if r["method"] == method]
        if of:
            median, mean, std, seconds = (
                np.mean([r[c] for r in of]) for c in ("median", "mean", "std", "seconds")
            )
            lines.append(f"{method:22s} {len(of):5d} {median:7.2f} {mean:6.2f} {std:6.2f} "
                         f"{seconds:8.2f}")  # fmt: skip
    return lines
