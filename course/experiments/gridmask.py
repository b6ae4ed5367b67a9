"""``python -m course experiment gridmask``: does hiding parts of pictures make an encoder robust?

One small encoder, one budget of steps, one album of photographs without anything before the faces.
What differs is what is done to a batch. Each network is then shown people that it has not met:
with nothing before the face, with hands, masks, glasses and fringes, in the dark, out of focus,
and people whose dark skin was rare in the album.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from course import metrics
from course.albums import FIELDS, seen_in, shaken
from course.encode import mirror_rows
from course.encoder import FaceModel, start_and_scales
from course.experiments import COMMON, run_grid, write
from course.facecode import JAW, ROOT, FaceCode
from course.faces import Photographer, Variety
from course.faces_camera import background_bank
from course.files import atomic_path
from course.flame import FLAME, folded, rodrigues
from course.gridmask import Cutout, GridMask
from course.losses import SurfaceMetric
from course.photo import crop_around
from course.supervision import FULL
from course.train_encoder import rate
from course.workers import spread

SIDE, CROP_SCALE = 64, 1.6  # pixels of what the encoder sees, side over the landmarks' box
SHARD = 100  # photographs that one job makes
SEEDS = 5
# nobody wears glasses or a fringe, nothing is before a face
PLAIN = {"occluders": 0.0, "glasses": 0.0, "hair": ("none", "painted", "short", "long", "big"),
         "max_yaw": 45.0, "roll": 20.0, "zoom": (1.0, 1.1), "shift": 0.05}  # fmt: skip
CONDITIONS = {
    "clean": {}, "hand": {"hands": 1.0}, "mask": {"masks": 1.0}, "glasses": {"glasses": 1.0},
    "hair": {"hair": ("fringe", "long fringe")}, "dark": {}, "blurred": {}, "rare": {},
}  # fmt: skip
SPOILT = ("dark", "blurred")  # the clean photographs, see ``spoilt``
SETTINGS = ("none", "flips and colour", "Cutout", "GridMask", "GridMask, ramp", "balanced")
RARE_SHARE = 0.02  # of the album; a third of a balanced batch
DARK_SKIN, MOST = 1.2, 0.6  # melanin (standard deviations): least of the rare, most of the others
HIDE = 0.8  # probability of GridMask and Cutout
CUTOUT_SIDE = 0.45  # hides as much on average as GridMask with r = 0.6: 16 %

COLUMNS = {
    "augmentation": str,  # one of SETTINGS
    "condition": str,  # one of CONDITIONS
    "people": int,  # photographs that the row is the mean of
    "photos": int,  # photographs in the album
    "face_mm": float,  # see ``errors``: the face as the picture shows it
    "shape_mm": float,  # the face at rest
    "mean_face_mm": float,  # the same of the mean face, in the album's mean pose
    "mean_shape_mm": float,
}


def add_arguments(parser):
    parser.add_argument("--photos", type=int, default=24000, help="photographs in the album")
    parser.add_argument("--steps", type=int, default=6000, help="steps of each run")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--people", type=int, default=300, help="test photographs a condition")


def run(args):
    rows = experiment(args.folder, args.seeds, args.steps, args.photos, args.people, args.batch,
                      workers=args.workers, threads=args.threads)  # fmt: skip
    print(f"wrote {write(args.output, rows, COLUMNS | COMMON)}")
    return 0


def experiment(folder, seeds=SEEDS, steps=6000, photos=24000, people=300, batch=32,
               settings=SETTINGS, conditions=tuple(CONDITIONS), workers=1, threads=1):  # fmt: skip
    """Rows of COLUMNS for all settings and seeds. Photographs and runs are kept in ``folder``."""
    if photos < batch or steps < 1 or people < 1 or batch < 4:
        raise ValueError("at least one step, four photographs a batch, and a batch of photographs")
    folder = Path(folder)
    shelf = folder / "photographs"
    make(shelf, "album", photos, workers)
    for name in conditions:
        if name not in SPOILT:
            make(shelf, name, people, workers)
    options = {"shelf": str(shelf), "steps": steps, "photos": photos, "people": people,
               "batch": batch, "conditions": list(conditions)}  # fmt: skip
    settings = [{"augmentation": name} for name in settings]
    return run_grid(one, settings, range(seeds), folder, workers, threads, options, "encoders")


# ------------------------------------------------------------------ photographs


def make(shelf, name, count, workers=1):
    """Make what is missing of ``count`` photographs under ``name``: "album" or a condition."""
    jobs = [(Path(shelf) / f"{name}-{k:03d}.npz", name, k) for k in range(-(-count // SHARD))]
    jobs = [job for job in jobs if not job[0].is_file()]
    for _ in spread(_make, jobs, workers):
        pass


def _maker():
    """The photographer of this process."""
    if not hasattr(_maker, "kept"):
        _maker.kept = Photographer(FLAME.load(device="cpu"), bank=background_bank(120), size=96)
    return _maker.kept


def _make(path, name, number):
    """A shard: SHARD photographs of as many people."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        album = name == "album"
        # the conditions show the same people with the same faces, except for the rare ones
        seed = {"album": 1, "rare": 3}.get(name, 2)
        found = []
        for k in range(SHARD * number, SHARD * (number + 1)):
            rng = np.random.default_rng([seed, k])
            rare = rng.random() < RARE_SHARE if album else name == "rare"
            found.append(photograph(_maker(), rng, {} if album else CONDITIONS[name], rare))
        code = FaceCode.cat([code for _, code, _ in found])
        arrays = {field: getattr(code, field).numpy() for field in FIELDS if field != "light"}
        arrays["images"] = np.stack([image for image, _, _ in found])
        arrays["rare"] = np.array([rare for *_, rare in found])
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)
    finally:
        torch.set_num_threads(threads)


def photograph(maker, rng, changes, rare=False, side=SIDE):
    """One crop (3, side, side) uint8 as a detector might make it, its FaceCode as seen there, and
    whether the person belongs to the rare ones. ``changes`` are a condition's."""
    code = _person(maker, rng, rare)
    maker.variety = Variety(**PLAIN | changes)
    shot = maker(rng, code)
    crop = crop_around(shot.landmarks, side, CROP_SCALE, upright=True)
    shaken(crop, rng)
    code = shot.code.replace(pose=folded(shot.code.pose))
    code = seen_in(code, crop.matrix[None], maker.size, maker.flame, out=side)
    return (255 * crop.apply(shot.image)).round().byte().numpy(), code, rare


def _person(maker, rng, rare):
    maker.variety = Variety(**PLAIN)
    code = maker.person(rng)
    names = maker.flame.albedo_names
    if "melanin" in names:
        value = rng.uniform(DARK_SKIN, 2.4)
        while not rare and value > MOST:
            value = max(rng.normal(), -2.2)
        code.albedo[0, names.index("melanin")] = value
    return code


def load(shelf, name, count):
    """images (n, 3, SIDE, SIDE) uint8, FaceCode and rare (n,) of photographs under ``name``."""
    files = [np.load(Path(shelf) / f"{name}-{k:03d}.npz") for k in range(-(-count // SHARD))]
    column = {n: np.concatenate([f[n] for f in files])[:count] for n in files[0].files}
    images, rare = column.pop("images"), column.pop("rare")
    fields = {n: torch.from_numpy(values) for n, values in column.items()}
    code = FaceCode(**fields, light=torch.zeros(len(rare), 9, 3))
    return torch.from_numpy(images), code, torch.from_numpy(rare)


def spoilt(images, name, seed=0):
    """Photographs (n, 3, s, s) uint8 as a test sees them, floats in 0…1."""
    if name == "dark":  # a twelfth of the light, and the noise of a small sensor
        linear = (images.float() / 255) ** 2.2 / 12
        noise = torch.randn(linear.shape, generator=torch.Generator().manual_seed(seed))
        return (linear + noise * (linear * 0.002 + 1e-5).sqrt()).clamp(0, 1) ** (1 / 2.2)
    if name == "blurred":
        sigma = 0.035 * images.shape[-1]
        planes = [cv2.GaussianBlur(p.permute(1, 2, 0).numpy(), (0, 0), sigma) for p in images]
        return torch.from_numpy(np.stack(planes)).permute(0, 3, 1, 2).float() / 255
    return images.float() / 255


# ------------------------------------------------------------------ one run


def one(setting, seed, shelf, steps, photos, people, batch, conditions):
    """Train and test one encoder: a row of COLUMNS for each condition."""
    flame = FLAME.load(device="cpu")
    model = train(setting["augmentation"], seed, load(shelf, "album", photos), flame, steps, batch)
    rows = []
    for name in conditions:
        source = "clean" if name in SPOILT else name
        images, truth, _ = load(shelf, source, people)
        code = predict(model, spoilt(images, name))
        usual = FaceCode.cat([model.start] * people)
        rows.append({
            "condition": name, "people": people, "photos": photos, "steps": steps,
            "face_mm": errors(flame, code, truth).mean().item(),
            "shape_mm": errors(flame, code, truth, rest=True).mean().item(),
            "mean_face_mm": errors(flame, usual, truth).mean().item(),
            "mean_shape_mm": errors(flame, usual, truth, rest=True).mean().item(),
        })  # fmt: skip
    return rows


def train(name, seed, album, flame, steps, batch=32, highest=2e-3):
    """A FaceModel (eval mode) with the small backbone, trained with augmentation ``name``."""
    images, truth, rare = album
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    joints = (0, 2)
    start, scales = start_and_scales(truth, joints)
    model = FaceModel(flame, "small", 256, joints, start=start, scales=scales)
    model = model.to(memory_format=torch.channels_last)
    measure = (SurfaceMetric(flame),
               SurfaceMetric(flame, "expressiondirs", aligned=False, slide=0.5))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=highest, weight_decay=0.02)
    augment = augmentation(name, steps)
    weights = torch.ones(len(images))
    if name == "balanced" and rare.any():
        weights[rare] = 0.5 * (~rare).sum() / rare.sum()  # a third of what is drawn
    for step in range(steps):
        chosen = torch.multinomial(weights, batch, generator=generator)
        seen, code = augment(images[chosen].float() / 255, truth[chosen], flame, generator, step)
        for group in optimizer.param_groups:
            group["lr"] = rate(highest, step, steps)
        loss = _loss(model(seen.contiguous(memory_format=torch.channels_last)), code, measure)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.start = start
    return model.eval()


def _loss(code, truth, measure):
    """What of full supervision needs no head to be drawn."""
    shape, expression = measure
    turn = rodrigues(code.pose[:, ROOT]) - rodrigues(truth.pose[:, ROOT])
    return (
        FULL["shape"] * shape(code.shape, truth.shape)
        + FULL["codes"] * F.mse_loss(code.shape, truth.shape)
        + FULL["expression"] * expression(code.expression, truth.expression)
        + FULL["turn"] * turn.square().sum((1, 2)).mean()
        + FULL["jaw"] * F.mse_loss(code.pose[:, JAW], truth.pose[:, JAW])
        + FULL["albedo"] * F.mse_loss(code.albedo, truth.albedo)
    )


def augmentation(name, steps):
    """``augment(images, code, flame, generator, step)`` → images, code."""
    if name not in SETTINGS:
        raise ValueError(f"There is no augmentation {name!r}; there are {', '.join(SETTINGS)}.")
    ramp = round(0.8 * steps)  # as in the paper: 240 of 300 epochs
    hide = {
        "Cutout": Cutout(HIDE, side=CUTOUT_SIDE), "GridMask": GridMask(HIDE),
        "GridMask, ramp": GridMask(HIDE, ramp),
    }.get(name)  # fmt: skip

    def augment(images, code, flame, generator, step):
        if name == "flips and colour":
            images, code = images.clone(), code.clone()
            half = torch.rand(len(images), generator=generator) < 0.5
            mirror_rows(images, code, half, flame)
            images = _coloured(images, generator)
        if hide is not None:
            images = hide(images, generator, step=step).images
        return images, code

    return augment


def _coloured(images, generator):
    """Brightness, contrast, tint, and now and then no colour at all."""

    def draw(channels, spread):
        return torch.randn(len(images), channels, 1, 1, generator=generator) * spread

    images = images * torch.exp(draw(1, 0.25) + draw(3, 0.07))
    middle = images.mean((1, 2, 3), keepdim=True)
    images = middle + (images - middle) * torch.exp(draw(1, 0.2))
    grey = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.15
    return torch.where(grey, images.mean(1, keepdim=True), images).clamp(0, 1)


# ------------------------------------------------------------------ measuring


@torch.no_grad()
def predict(model, images):
    """FaceCode of pictures (n, 3, s, s) in 0…1."""
    return FaceCode.cat([model(part) for part in images.split(100)])


@torch.no_grad()
def errors(flame, code, truth, rest=False):
    """Mean distance (n,) in mm between points of the face and where they should be.

    As the picture shows it: turned, with expression and open jaw, both faces' middles laid over
    each other, since no picture tells how far away a face is. ``rest``: who it is, without turn,
    expression and jaw, aligned rigidly. Distances are from a point to the same point, which is more
    than to the surface.
    """
    face = flame.masks["face"]

    def points(c):
        if rest:
            return flame(c.shape)[:, face]
        pose = torch.zeros_like(c.pose)
        for joint in (ROOT, JAW):
            pose[:, joint] = c.pose[:, joint]
        found = flame(c.shape, c.expression, pose)[:, face]
        return found - found.mean(1, keepdim=True)

    found, wanted = points(code), points(truth)
    if rest:
        laid = [metrics.apply(metrics.rigid_align(*pair, scale=False), pair[0])
                for pair in zip(found, wanted, strict=True)]  # fmt: skip
        found = torch.from_numpy(np.stack(laid))
    return 1000 * (found - wanted).norm(dim=-1).mean(1)
