"""``python -m course evaluate``: the figures that the course quotes for an encoder.

Synthetic people that no training has seen; landmarks come from the landmark network, as in
``reconstruct``, so its mistakes count.
"""

import json
import os
import time
from functools import lru_cache

import numpy as np
import torch
from tqdm import tqdm

from course import albums, landmarks, metrics
from course.camera import project
from course.encode import SHARED, read_faces
from course.encoder import FaceModel, average_identity
from course.facecode import resolve_device
from course.files import DATA, any_path, quiet, write_text
from course.fit import IMAGE_SIZE, fit
from course.flame import FLAME
from course.photo import Detection, crop_around
from course.train_encoder import WEIGHTS
from course.workers import spread

EACH = 8  # photographs a person
# what the course promises: of the mean face's error, percent, of the single photograph's error
BARS = {"identity": 0.55, "landmarks": 4.0, "refined": 0.45, "set": 0.75}


def add_arguments(parser):
    parser.add_argument("--weights", type=any_path, default=WEIGHTS)
    parser.add_argument("--photos", choices=["both", *albums.KINDS], default="both",
                        help="portrait: sharp, with nothing before the face, turned up to 30°; "
                        "wild: small, blurred, half hidden, from near and far")  # fmt: skip
    parser.add_argument("--people", type=int, default=1000, help="people, one photograph each")
    parser.add_argument("--sets", type=int, default=200, help=f"people with {EACH} photographs")
    parser.add_argument(
        "--refine",
        type=int,
        default=0,
        metavar="N",
        help="also fit the codes: to one photograph of N people, and to all photographs of up to N "
        f"people with {EACH}",
    )
    parser.add_argument("--folder", type=any_path, default=DATA.parent / "runs" / "encoder",
                        help="where the photographs are kept")  # fmt: skip
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--benchmark", action="store_true",
                        help="run the course's benchmark instead, after NoW: many methods on 100 "
                        "people (python -m course experiment benchmark)")  # fmt: skip
    parser.add_argument("--members", type=any_path, nargs=2, default=(), metavar="FILE",
                        help="for the benchmark's ensemble: two more encoders")  # fmt: skip
    parser.add_argument("--device", default=None)
    parser.add_argument("--json", type=any_path, metavar="FILE", help="write the figures there too")


def run(args):
    """Measure and print; exit code 0. Raises ValueError for impossible numbers."""
    if args.people < 1 or args.sets < 0 or not 0 <= args.refine <= args.people:
        raise ValueError("--people must be at least one and at least --refine, --sets not negative")
    if args.benchmark:
        if args.json or args.refine:
            raise ValueError("--benchmark has figures of its own: leave out --json and --refine")
        from course.experiments import benchmark

        benchmark.report(args.weights, min(args.people, benchmark.PEOPLE), workers=args.workers,
                         members=args.members)  # fmt: skip
        return 0
    device = resolve_device(args.device)
    flame = FLAME.load(device=device)
    model = FaceModel.load(args.weights, flame, device)
    figures = {}
    for kind in albums.KINDS if args.photos == "both" else (args.photos,):
        where = args.folder / "held-out", kind
        single = albums.held_out(*where, args.people, 1, args.workers)
        many = albums.held_out(*where, args.sets, EACH, args.workers) if args.sets else None
        figures[kind] = evaluate(model, single, many, flame, args.refine, args.workers)
        print(f"{kind} photographs")
        for line in table(figures[kind]):
            print(f"  {line}")
    if args.json:
        write_text(args.json, json.dumps(figures, indent=1) + "\n")
    return 0


# ------------------------------------------------------------------ reading


def network_sees(image, truth, seed):
    """Detection by the landmark network in a photograph with the true landmarks (68, 2), from the
    face's box as a face detector might have drawn it: shifted and grown by some 5 % of its size."""
    rng = np.random.default_rng(seed)
    low, high = truth.min(0), truth.max(0)
    side, middle = (high - low).max(), (low + high) / 2
    half = side / 2 * np.exp(rng.normal() * 0.05)
    middle = middle + rng.normal(size=2) * 0.05 * side
    box = np.concatenate([middle - half, middle + half])
    points, sigma = landmarks.predict(landmarks.load(), image, box,
                                      roll=landmarks.upright_roll(truth))  # fmt: skip
    return Detection(points, sigma, box, "built-in", 1)


def detected(album, k):
    """Detection of photograph ``k`` of an album."""
    return network_sees(album.image(k), album.landmarks[k], [albums.HELD_OUT_SEED, int(k)])


def read(model, album, numbers, flame, text):
    """Codes of photographs (as seen in the whole pictures), their trust and detections."""
    codes, trusts, found = [], [], []
    bar = tqdm(total=len(numbers), desc=text, disable=quiet())
    for part in np.array_split(numbers, max(1, len(numbers) // 50)):
        seen = [detected(album, k) for k in part]
        images = [album.image(k) for k in part]
        whole = [_whole(image) for image in images]
        code, trust = read_faces(model, images, [d.points for d in seen], flame, whole)
        codes.append(code)
        trusts.append(trust)
        found += seen
        bar.update(len(part))
    bar.close()
    trust = None
    if trusts[0] is not None:
        trust = {k: torch.cat([t[k] for t in trusts]) for k in trusts[0]}
    return type(codes[0]).cat(codes), trust, found


def _whole(image):
    """The crop that is the whole (square) picture."""
    from course.photo import Crop

    side = image.shape[0]
    return Crop(np.full(2, side / 2), float(side), 0.0, side)


# ------------------------------------------------------------------ measuring


@lru_cache(maxsize=1)
def _head():
    torch.set_num_threads(1)
    return FLAME.load(device="cpu")


def _identity(guess, truth):
    """Rigid and scaled identity errors (median, mean, std, scaled median) of a guessed shape."""
    flame = _head()
    guess, truth = (flame(torch.from_numpy(c[None]))[0].numpy() for c in (guess, truth))
    rigid = metrics.identity_error(guess, truth, flame, scale=False)
    return (*rigid, metrics.identity_error(guess, truth, flame, scale=True)[0])


def identity_errors(shapes, truths, workers=1, text="identity"):
    """(n, 4) mm of shape codes (n, S) against the truth: scan-to-mesh median, mean and std after
    rigid alignment, and the median when size is aligned too."""
    jobs = [(a.cpu().numpy(), b.cpu().numpy()) for a, b in zip(shapes, truths, strict=True)]
    found = spread(_identity, jobs, workers if len(jobs) >= 50 else 1, ordered=True)
    return np.array(list(tqdm(found, text, len(jobs), disable=quiet())))


def landmark_errors(code, album, numbers, flame):
    """NME (n,) in % of codes as seen in the whole pictures.

    Of the outer corners' distance, or of 0.35 of the landmarks' box where that is more, as
    ``train.measure``.
    """
    with torch.no_grad():
        vertices = flame(code.shape, code.expression, code.pose)
        found = project(flame.landmarks(vertices, code.pose), code.camera, album.size)
    return nme(found[..., :2].cpu().numpy(), album.landmarks[numbers])


def nme(found, truth):
    """(n,) % of points (n, 68, 2)."""
    return metrics.landmark_errors(found, truth).mean(1)


def evaluate(model, album, many, flame, refine=0, workers=1):
    """All figures as a dict; see ``table`` for what they mean.

    ``album`` has one photograph a person, ``many`` (or None) EACH; ``refine`` people of each are
    fitted.
    """
    people = len(album)
    first = np.arange(people)
    clock = time.perf_counter()
    code, trust, found = read(model, album, first, flame, "reading")
    seconds = (time.perf_counter() - clock) / people
    truth = album.code[torch.as_tensor(first)].to(code.shape.device)
    zero = torch.zeros_like(truth.shape)
    mean = identity_errors(zero, truth.shape, workers, "the mean face")
    own = identity_errors(code.shape, truth.shape, workers, "the encoder")
    marks = landmark_errors(code, album, first, flame)
    seen = nme(np.stack([d.points for d in found]), album.landmarks[first])
    figures = {
        "people": people,
        "mean face mm": _summary(mean),
        "encoder mm": _summary(own),
        "identity": _round(own[:, 0].mean() / mean[:, 0].mean()),
        "identity, size aligned": _round(own[:, 3].mean() / mean[:, 3].mean()),
        "landmarks": _round(marks.mean()),
        "landmarks, median": _round(np.median(marks)),
        "detector's landmarks": _round(seen.mean()),
        "seconds a photograph": _round(seconds),
    }
    for low, high in ((0, 20), (20, 35), (35, 50)):
        at = (np.abs(album.yaw[first]) >= low) & (np.abs(album.yaw[first]) < high)
        if at.any():
            figures[f"yaw {low}…{high}°"] = {
                "identity": _round(own[at, 0].mean() / mean[at, 0].mean()),
                "landmarks": _round(marks[at].mean()),
            }
    if many is not None:
        figures |= _sets(model, many, flame, refine, workers)
    if refine:
        figures |= _refined(album, flame, code, trust, found, first[:refine], own, mean, workers)
    return figures


def _sets(model, album, flame, refine, workers):
    """Errors of plain and confidence-weighted averages over 1, 2, 4 … photographs of a person."""
    sets, numbers = len(album) // EACH, np.arange(len(album))
    code, trust, seen = read(model, album, numbers, flame, f"{EACH} photographs")
    truth = album.code.shape[::EACH]
    place, single = torch.arange(len(numbers)) % EACH, None
    result = {"sets": {"people": sets, "photographs": {}}}
    for count in (1, 2, 4, EACH):
        rows = place < count
        groups = torch.arange(sets).repeat_interleave(count).to(code.shape.device)
        errors = {}
        for name, weights in (("plain", None), ("weighted", trust)):
            if name == "weighted" and trust is None:
                continue
            kept = None if weights is None else {k: v[rows] for k, v in weights.items()}
            averaged = average_identity(code[rows], kept, groups, SHARED).shape[::count]
            found = identity_errors(averaged, truth, workers, f"{count}, {name}")[:, 0].mean()
            single = single or found  # the first is one photograph's
            errors[name] = {"mm": _round(found), "of the single photograph": _round(found / single)}
        result["sets"]["photographs"][str(count)] = errors
    result["set, readings averaged"] = min(e["of the single photograph"] for e in errors.values())
    if refine:
        result |= _refined_sets(album, flame, code, trust, seen, min(refine, sets), workers)
    return result


def _refined_sets(album, flame, code, trust, found, people, workers):
    """Errors of one head fitted to all photographs of a person, and of one fitted to the first."""
    truth, mm = album.code.shape[: people * EACH : EACH], []
    for count in (1, EACH):
        groups = [np.arange(EACH * k, EACH * k + count) for k in range(people)]
        shapes, _ = _fits(album, flame, code, trust, found, groups, workers)
        mm.append(identity_errors(shapes, truth, workers, f"{count} refined").mean(0))
    return {
        "set": _round(mm[1][0] / mm[0][0]),
        # no photograph shows how large a head is: what is left of the error without that
        "set, size aligned": _round(mm[1][3] / mm[0][3]),
        "refined sets": {"people": people, "1 photograph mm": _round(mm[0][0]),
                         f"{EACH} photographs mm": _round(mm[1][0])},
    }  # fmt: skip


def _refined(album, flame, code, trust, found, numbers, own, mean, workers):
    """Errors after fitting each picture, started from the encoder's codes."""
    clock = time.perf_counter()
    shapes, marks = _fits(album, flame, code, trust, found, numbers[:, None], workers)
    seconds = (time.perf_counter() - clock) / len(numbers)
    truth = album.code.shape[torch.as_tensor(numbers)]
    errors = identity_errors(shapes, truth, workers, "refined")
    count = len(numbers)
    return {
        "refined people": count,
        "refined": _round(errors[:, 0].mean() / mean[:count, 0].mean()),
        "the same, not refined": _round(own[:count, 0].mean() / mean[:count, 0].mean()),
        "refined landmarks": _round(nme(marks, album.landmarks[numbers]).mean()),
        "refined seconds": _round(seconds),
    }


def _fits(album, flame, code, trust, found, groups, workers):
    """Shapes (n, S) and landmarks (n, 68, 2) of the first picture of each of n groups of
    photographs, one head fitted to each, started from the encoder's codes."""
    jobs = []
    for group in groups:
        crops = [crop_around(found[k].points, IMAGE_SIZE).matrix for k in group]
        start = albums.seen_in(code[group], np.stack(crops), album.size, flame, out=IMAGE_SIZE)
        sure = None if trust is None else {name: c[group].cpu() for name, c in trust.items()}
        photos, seen = [album.image(k) for k in group], [found[k] for k in group]
        jobs.append((photos, seen, average_identity(start.to("cpu"), sure, shared=SHARED), sure))
    done = spread(_fit_one, jobs, workers, ordered=True)
    shapes, marks = zip(*tqdm(done, "refining", len(jobs), disable=quiet()), strict=True)
    return torch.cat(shapes), np.stack(marks)


def _fit_one(photos, found, start, trust):
    result = fit(photos, found, _head(), progress=False, start=start, trust=trust)
    return result.codes.shape[:1], result.landmarks[0]


def _summary(errors):
    """Averages over people of each one's median, mean and standard deviation."""
    names = ("median", "mean", "std", "median, size aligned")
    return {name: _round(value) for name, value in zip(names, errors.mean(0), strict=True)}


def _round(value):
    return round(float(value), 3)


def table(figures):
    """The figures as lines of text, bars first."""
    texts = {
        "identity": ("identity error over the mean face's (scan to mesh, median, rigid)", ""),
        "landmarks": ("landmark error, of the distance between the outer corners of the eyes",
                      " %"),
        "refined": ("identity error over the mean face's, refined by fitting", ""),
        "set": (f"identity error refined on {EACH} photographs over refined on one", ""),
    }  # fmt: skip
    lines = []
    for name, bar in BARS.items():
        if name in figures:
            text, unit = texts[name]
            state = "reached" if figures[name] <= bar else "NOT reached"
            lines.append(f"{text}: {figures[name]}{unit} (bar {bar}{unit}: {state})")
    for name, value in figures.items():
        if name not in BARS:
            lines.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    return lines
