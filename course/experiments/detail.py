"""``python -m course experiment detail``: what does a discriminator add to predicted skin detail?

A seed's detail model begins with folds that were learned from the synthetic people's truth. Every
setting goes on from there for as many steps with photographs alone: photometric, with a feature
loss, with a patch discriminator of several weights, with both. Each is then shown held-out people.
What is true of them is known, so fidelity, realism and geometry are told apart: a picture can come
nearer to photographs in general and further from this one.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from course import metrics
from course.detail import DetailModel
from course.detail_album import HELD_OUT, PHOTO, make_album
from course.experiments import COMMON, RESULTS, run_grid, write
from course.export import jpeg_bytes
from course.files import atomic_path
from course.flame import FLAME
from course.gan import generator_loss
from course.losses import IdentityNet
from course.realism import (
    detail_gap,
    feature_distance,
    features,
    kernel_distance,
    power_spectrum,
)
from course.relief import Relief
from course.render import Renderer
from course.train_detail import (
    BATCH,
    FOLDER,
    JUDGED,
    PEOPLE,
    Trainer,
    beyond,
    explained,
    judge,
    over,
    skin_patches,
)

SEEDS = 3
ADVERSARIAL = (0.03, 0.1, 0.3, 1.0)
# setting, weight of the feature loss, weight of the discriminator
SETTINGS = (("photograph", 0.0, 0.0), ("no detail", 0.0, 0.0), ("folds only", 0.0, 0.0),
            ("photometric", 0.0, 0.0), ("features", 0.3, 0.0),
            *(("discriminator", 0.0, w) for w in ADVERSARIAL),
            *(("both", 0.3, w) for w in ADVERSARIAL[:2]))  # fmt: skip
UNTRAINED = ("photograph", "no detail")
BANDS = 12  # of the skin's spectrum, two rings each
REAL = 128  # photographs of other people that the kernel distance compares with
REFINED, REFINING = 6, 10  # photographs whose geometry is refined, steps
WRONG = 0.35  # standard deviations by which their shape is wrong at first
SHEET = RESULTS / "detail.jpg"
SHOWN, CELL = (1, 4, 8, 14, 18, 23), 144  # held-out photographs of the sheet; pixels a cell

COLUMNS = {
    "setting": str,  # see SETTINGS
    "features": float,  # weights
    "adversarial": float,
    "photos": int,  # held-out photographs that the row is the mean of
    "psnr": float,  # dB, on skin
    "feature_distance": float,
    "detail_gap": float,  # dB of the skin's fine power above that of the photographs
    "kernel_distance": float,  # of skin from photographs of other people
    "displacement_mm": float,  # error of the displacement, root mean square
    "start_mm": float,  # error of the head at rest before its shape is refined with this loss
    "identity_mm": float,  # and after
    # power of the skin in dB, up to so many waves a patch of 48 pixels
    **{f"power_{2 * k}": float for k in range(1, BANDS + 1)},
}


def add_arguments(parser):
    parser.add_argument("--people", type=int, default=PEOPLE, help="two photographs each")
    parser.add_argument("--begin", type=int, default=400, help="steps of the folds")
    parser.add_argument("--steps", type=int, default=600, help="steps of each setting after it")
    parser.add_argument("--batch", type=int, default=BATCH)


def run(args):
    rows = experiment(args.folder, args.seeds, args.people, args.begin, args.steps, args.batch,
                      workers=args.workers, threads=args.threads)  # fmt: skip
    print(f"wrote {write(args.output, rows, COLUMNS | COMMON)}")
    path = args.output.with_suffix(".jpg")
    draw_sheet(args.folder, path)
    print(f"wrote {path}")
    return 0


def experiment(folder, seeds=SEEDS, people=PEOPLE, begin=400, steps=600, batch=BATCH,
               judged=JUDGED, settings=SETTINGS, photographs=FOLDER, workers=1,
               threads=1):  # fmt: skip
    """Rows of COLUMNS for all settings and seeds. Runs are kept in ``folder``, the photographs,
    which are those of ``train detail``, in ``photographs``."""
    if min(begin, steps) < 1 or not 2 <= batch <= people:
        raise ValueError("at least one step of each kind, two photographs a step, as many people")
    folder = Path(folder)
    make_album(photographs, people, 0, workers)
    make_album(photographs, judged, HELD_OUT, workers)
    options = {"photographs": str(photographs), "people": people, "judged": judged,
               "begin": begin, "batch": batch, "folder": str(folder)}  # fmt: skip
    run_grid(beginning, [{"setting": "begin"}], range(seeds), folder, workers, threads, options,
             "beginnings")  # fmt: skip
    names = ("setting", "features", "adversarial")
    settings = [dict(zip(names, setting, strict=True)) for setting in settings]
    options["steps"] = steps
    return run_grid(one, settings, range(seeds), folder, workers, threads, options, "settings")


def _begun(folder, seed, begin):
    return Path(folder) / f"begun-{seed}-{begin}.pt"


def _trainer(photographs, people, seed, batch):
    torch.manual_seed(seed)
    return Trainer(DetailModel(_flame()), make_album(photographs, people), seed, batch)


@lru_cache(maxsize=1)
def _flame():
    return FLAME.load(device="cpu")


def beginning(setting, seed, folder, photographs, people, judged, begin, batch):
    """What all settings of a seed go on from: a checkpoint in ``folder``."""
    trainer = _trainer(photographs, people, seed, batch)
    trainer.learn_folds(begin)
    trainer.save(_begun(folder, seed, begin))
    return [{"steps": begin}]


def one(setting, seed, folder, photographs, people, judged, begin, batch, steps):
    """One setting's row, and its pictures of the held-out photographs that the sheet shows."""
    shelf, model, trainer = make_album(photographs, judged, HELD_OUT), None, None
    weights = {name: setting[name] for name in ("features", "adversarial")}
    if setting["setting"] not in UNTRAINED:
        trainer = _trainer(photographs, people, seed, batch)
        trainer.restore(_begun(folder, seed, begin))
        model = trainer.average
        if setting["setting"] == "folds only":
            steps = 0
            torch.nn.init.zeros_(model.decoder.last.weight)  # no texture yet, nor its first noise
        trainer.train(steps, steps, **weights)
    row = {"steps": steps if model else 0, "photos": len(shelf)}
    if setting["setting"] == "photograph":
        made = shelf.take("images", slice(None))
    else:
        kept = []
        score = judge(model, shelf, kept)
        made = torch.cat(kept)
        row |= {"psnr": score["psnr"], "feature_distance": score["feature distance"],
                "displacement_mm": score["displacement mm"]}  # fmt: skip
        row["start_mm"], row["identity_mm"] = refine(model, trainer, shelf, **weights)
    album = make_album(photographs, people)
    network = IdentityNet.load()
    skins = skin_patches(made, shelf.take("canvases", slice(None)))
    truth = skin_patches(shelf.take("images", slice(None)), shelf.take("canvases", slice(None)))
    others = (album.take(name, slice(0, REAL)) for name in ("images", "canvases"))
    others = features(network, skin_patches(*others))
    row["kernel_distance"] = kernel_distance(features(network, skins), others)
    row["detail_gap"] = detail_gap(skins, truth)
    power = power_spectrum(skins).mean(0).view(BANDS, 2).mean(1).log10()
    row |= {f"power_{2 * k}": 10 * p for k, p in enumerate(power.tolist(), 1)}
    if seed == 0:
        shown = made[[k for k in SHOWN if k < len(made)]]
        with atomic_path(_kept(folder, setting)) as temporary:
            np.save(temporary, shown.numpy())
    return [row]


def refine(model, trainer, shelf, features, adversarial):
    """Error in mm of heads at rest before and after their shape is fitted through the detail.

    Starts from shapes that are a little wrong; detail codes are read once. If a loss is content
    with skin that looks real wherever it lies, the shape goes astray here.
    """
    flame, rows = _flame(), np.arange(0, len(shelf), 2)[:REFINED]
    code, photo = shelf.codes[rows.tolist()], shelf.take("images", rows)
    relief = Relief(flame) if model is None else model.relief
    maps = explained(model, shelf, rows)[2]
    generator = torch.Generator().manual_seed(7)
    shape = code.shape + WRONG * torch.randn(code.shape.shape, generator=generator)
    first = shape.clone()
    shape.requires_grad_()
    optimizer, renderer = torch.optim.Adam([shape], lr=0.05), Renderer(flame, PHOTO)
    albedo, network = flame.albedo(code.albedo), IdentityNet.load()
    for _ in range(REFINING):
        vertices = flame(shape, code.expression, code.pose)
        canvas = relief.canvas(renderer(vertices, code.camera, albedo), vertices)
        drawn, mask = over(relief, canvas, maps, code.light, photo)
        loss = 10 * ((drawn - photo).abs() * mask).sum() / (3 * mask.sum())
        if features:
            loss = loss + features * feature_distance(network, drawn, photo)
        if adversarial:
            (made,) = beyond(relief, canvas, code.light, photo, drawn)
            loss = loss + adversarial * generator_loss(trainer.critic(made), "hinge")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return tuple(_error(flame, s, code.shape) for s in (first, shape.detach()))


@torch.no_grad()
def _error(flame, shape, truth):
    pairs = zip(flame(shape), flame(truth), strict=True)
    return float(np.mean([metrics.identity_error(a, b, flame)[1] for a, b in pairs]))


# ------------------------------------------------------------------ the sheet


def _kept(folder, setting):
    name = setting["setting"].replace(" ", "-")
    return Path(folder) / f"shown-{name}-{setting['adversarial']:g}.npy"


def draw_sheet(folder, path=SHEET):
    """Faces as every setting draws them, seed 0, as one JPEG: a row a setting, a column a face."""
    names = ("setting", "features", "adversarial")
    kept = [np.load(_kept(folder, dict(zip(names, s, strict=True)))) for s in SETTINGS]
    x, y = (PHOTO - CELL) // 2, 70
    rows = [np.concatenate(list(p[..., y : y + CELL, x : x + CELL]), 2) for p in kept]
    sheet = torch.from_numpy(np.concatenate(rows, 1))
    with atomic_path(path) as temporary:
        temporary.write_bytes(jpeg_bytes(sheet, 82))


def read_sheet(path=SHEET):
    """{(setting, adversarial weight): pictures (n, CELL, CELL, 3) uint8}, cut from the sheet."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing; type: python -m course experiment detail")
    with Image.open(path) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    cells = sheet.reshape(len(SETTINGS), CELL, -1, CELL, 3).swapaxes(1, 2)
    return {(name, weight): cells[k] for k, (name, _, weight) in enumerate(SETTINGS)}
