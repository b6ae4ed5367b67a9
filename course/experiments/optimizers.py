"""``python -m course experiment optimizers``: SGD against Adam, for notebook 05.

A small encoder learns to read heads from pictures of them, under each optimiser of
``course.optim``. The pictures are drawn by the renderer, as in notebook 02: from photographs with
hair, lamps and backgrounds this encoder learns too little form in minutes for optimisers to differ.
Parts, told apart by the column ``part``:

- rates    every optimiser with every rate of one grid: the same search for all;
- runs     every optimiser with the best rate of its search, other seeds, longer;
- decay    Adam and AdamW on few pictures, with several decays: learning by heart;
- step     what one step costs: all optimisers in turn, after a warm-up, in one process.

``seconds`` are processor seconds of training alone (in ``step`` and ``update``: seconds on the
clock of one whole step, and of its optimiser), so that other work on the machine counts little.
"""

import time
from functools import lru_cache

import numpy as np
import torch

from course import experiments
from course.encoder import PARTS, FaceModel, start_and_scales
from course.facecode import FaceCode, resolve_device
from course.files import atomic_path
from course.fit import VertexAlbedo
from course.flame import FLAME
from course.losses import SurfaceMetric
from course.optim import OPTIMIZERS
from course.render import Renderer

COLUMNS = {"part": str, "optimizer": str, "rate": float, "decay": float, "train_mm": float,
           "error_mm": float, "seconds": float}  # fmt: skip
SEEDS = 5
SIZE = 32  # pixels a side of what the encoder sees
HELD_OUT = 400  # pictures of other people that judge it
BATCH = 32
JOINTS = (0,)  # the root
RATES = tuple(round(10 ** (-k / 2), 6) for k in range(9))  # 1 … 1e-4, two a decade
SEARCH_SEEDS = (100,)  # not those of the runs: what was chosen on it is not judged on it
DECAY = {"AdamW": 1e-2}  # its default; without any it is Adam
DECAYS = (0.0, 0.1, 1.0)
FEW = 300  # pictures of the part ``decay``
TARGETS = (2.1, 2.05)  # mm of error, goals of the race; always answering the mean face is at 2.2
TURNS = 20  # steps of each optimiser that are timed


def add_arguments(parser):
    parser.add_argument("--pictures", type=int, default=4000, help="held-out ones too")
    parser.add_argument("--steps", type=int, default=400, help="of each run")
    parser.add_argument("--search", type=int, default=100, help="steps of the search for rates")
    parser.add_argument("--every", type=int, default=25, help="steps between two judgements")
    parser.add_argument("--device", default=None)


def run(args):
    """Search, run, decay, time; one CSV. Raises ValueError for impossible numbers."""
    if args.pictures < HELD_OUT + FEW or min(args.steps, args.search, args.every) < 1:
        raise ValueError(f"at least {HELD_OUT + FEW} pictures and one step are needed")
    data = args.folder / f"drawn-{SIZE}-{args.pictures}.npz"
    if not data.is_file():
        code = people(args.pictures, 0)
        save_faces(data, draw(code, SIZE), code)
    options = {"data": str(data), "every": args.every}
    if args.device:
        options["device"] = str(resolve_device(args.device))
    common = {"folder": args.folder / "runs", "workers": args.workers, "threads": args.threads}

    def grid(title, settings, seeds, steps, **more):
        given = options | {"steps": steps} | more
        return experiments.run_grid(one, settings, seeds, title=title, options=given, **common)

    def of(part, name, rate):
        return {"part": part, "optimizer": name, "rate": rate, "decay": DECAY.get(name, 0.0)}

    settings = [of("rates", name, rate) for rate in RATES for name in OPTIMIZERS]
    rows = grid("rates", settings, SEARCH_SEEDS, args.search, every=max(1, args.search // 2))
    best = best_rates(rows)
    settings = [of("runs", name, best[name]) for name in OPTIMIZERS]
    rows += grid("runs", settings, range(args.seeds), args.steps)
    settings = [
        of("decay", name, best[name]) | {"decay": decay}
        for decay in DECAYS
        for name in ("Adam", "AdamW")
        if decay or name == "Adam"
    ]
    rows += grid("decay", settings, range(min(3, args.seeds)), args.steps // 2, few=FEW)
    timing = {"data": str(data)} | ({"device": options["device"]} if args.device else {})
    # nothing beside it: steps are timed by the clock
    rows += experiments.run_grid(one_by_one, [{"part": "step", "decay": 0.0}], range(3),
                                 args.folder / "runs", 1, args.threads, timing, "step")  # fmt: skip
    experiments.write(args.output, rows, COLUMNS | experiments.COMMON)
    for name, rate in best.items():
        print(f"{name:9s} best rate {rate:g}")
    print(f"wrote {args.output}")
    return 0


def best_rates(rows):
    """{optimizer: rate} with the least mean error at the end of the search's runs.

    A run whose loss was no longer finite has no error at its end, and its rate is out.
    """
    last = max(row["steps"] for row in rows)
    found = {}
    for name in dict.fromkeys(row["optimizer"] for row in rows):
        ends = {}
        for row in rows:
            if row["optimizer"] == name and row["steps"] == last:
                ends.setdefault(row["rate"], []).append(row["error_mm"])
        lost = {rate for rate, e in ends.items() if None in e or not np.isfinite(e).all()}
        means = {rate: np.inf if rate in lost else np.mean(e) for rate, e in ends.items()}
        found[name] = min(means, key=means.get)
    return found


# ------------------------------------------------------------------ pictures


def people(count, seed):
    """Codes of calm people, turned a little, each in a light of its own."""
    flame, g = FLAME.load(device="cpu"), torch.Generator().manual_seed(seed)
    code = FaceCode.random(flame, count, g, expression=0.0)
    code.pose[:, :3] = torch.randn(count, 3, generator=g) * torch.tensor([0.08, 0.22, 0.04])
    code.light[:, 1:4] += 0.25 * torch.randn(count, 3, 1, generator=g)
    zoom = 1 + torch.tensor([0.03, 0, 0]) * torch.randn(count, 1, generator=g)
    return code.replace(albedo=0.7 * code.albedo, camera=code.camera * zoom)


@torch.no_grad()
def draw(code, size, wall=(0.55, 0.6, 0.66)):
    """Pictures (N, 3, size, size) uint8 of N faces."""
    flame, made = FLAME.load(device="cpu"), []
    canvas, skin = Renderer(flame, size), VertexAlbedo(flame)
    for k in range(0, len(code), 16):
        c = code[k : k + 16]
        heads = flame(c.shape, c.expression, c.pose)
        drawn = canvas(heads, c.camera, skin(c.albedo), c.light, background=wall)
        made.append((255 * drawn.image.clamp(0, 1)).round().byte())
    return torch.cat(made)


def save_faces(path, images, code):
    """Pictures (N, 3, S, S) uint8 and their codes, as ``Faces`` reads them."""
    with atomic_path(path) as temporary:
        np.savez(temporary, images=images.numpy(), **{k: v.numpy() for k, v in vars(code).items()})


class Faces:
    """Pictures with their codes; the last ``held_out`` are other people and judge.

    ``few`` takes only so many to learn from.
    """

    def __init__(self, images, code, held_out=None, few=0):
        learn = len(images) - (held_out or HELD_OUT)
        self.images, self.code, self.learn = images, code, min(few or learn, learn)
        self.held_out = range(learn, len(images))
        self.columns = [3 * joint + axis for joint in JOINTS for axis in range(3)]
        start, self.scales = start_and_scales(code[:learn], JOINTS)
        self.start = start.replace(albedo=0 * start.albedo)
        self.metric = SurfaceMetric(FLAME.load(device="cpu"))

    @classmethod
    @lru_cache(maxsize=2)
    def load(cls, path, few=0):
        with np.load(path) as file:
            code = FaceCode(**{name: torch.from_numpy(file[name]) for name in PARTS})
            return cls(torch.from_numpy(file["images"]), code, few=few)

    def model(self, seed):
        """A fresh encoder that shows the mean face."""
        torch.manual_seed(seed)
        return FaceModel(None, "small", 128, JOINTS, start=self.start, scales=self.scales)

    def batch(self, rows, device="cpu"):
        """Pictures in 0…1 and codes of some rows."""
        return self.images[rows].to(device).float() / 255, self.code[rows].to(device)

    def loss(self, found, code):
        """About 1 for shape and 1 for each other kind of code while the answer is the mean."""
        metric = self.metric.to(code.shape.device)
        loss = metric(found.shape, code.shape) / metric.gram.trace()
        for name in ("pose", "camera", "light", "albedo"):
            a, b = getattr(found, name), getattr(code, name)
            if name == "pose":
                a, b = a[:, self.columns], b[:, self.columns]
            loss = loss + ((a - b) / torch.tensor(self.scales[name]).to(a)).square().mean()
        return loss

    @torch.no_grad()
    def error(self, model, rows, device="cpu"):
        """Root of the mean squared distance on the face, mm, of the heads that are read."""
        model.eval()
        images, code = self.batch(torch.as_tensor(list(rows)), device)
        found = torch.cat([model(part).shape for part in images.split(120)])
        model.train()
        return self.metric.to(found.device)(found, code.shape).sqrt().item()


# ------------------------------------------------------------------ runs


def one(setting, seed, data, steps, every, few=0, device="cpu"):
    """Train one encoder: a row a judgement; error_mm None once the loss is no longer finite."""
    return train(Faces.load(data, few), setting, seed, steps, every, device)


def train(faces, setting, seed, steps, every, device="cpu"):
    """As ``one``, on ``Faces`` at hand."""
    model = faces.model(seed).to(device)
    kind = OPTIMIZERS[setting["optimizer"]]
    optimizer = kind(model.parameters(), lr=setting["rate"], weight_decay=setting["decay"])
    generator, rows, seconds = torch.Generator().manual_seed(seed), [], 0.0
    some = range(0, faces.learn, max(1, faces.learn // 240))
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            alive = all(p.isfinite().all() for p in model.parameters())
            rows.append({
                "steps": step, "seconds": seconds,
                "train_mm": faces.error(model, some, device) if alive else None,
                "error_mm": faces.error(model, faces.held_out, device) if alive else None,
            })  # fmt: skip
            if not alive:
                rows[-1]["steps"] = steps
                break
        begin = time.process_time()
        _step(faces, model, optimizer, generator, device)
        seconds += time.process_time() - begin
    return rows


def _step(faces, model, optimizer, generator, device="cpu"):
    """One step on a batch drawn at random; seconds of the whole and of the optimiser's part."""
    begin = time.perf_counter()
    images, code = faces.batch(torch.randint(faces.learn, (BATCH,), generator=generator), device)
    loss = faces.loss(model(images), code)
    optimizer.zero_grad()
    loss.backward()
    middle = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - begin, time.perf_counter() - middle


def one_by_one(setting, seed, data, device="cpu"):
    """Seconds of single steps, see ``time_steps``."""
    rows = []
    for name, times in time_steps(Faces.load(data), seed, TURNS, device).items():
        for turn, (whole, update) in enumerate(times):
            common = {"optimizer": name, "steps": turn, "rate": 1e-4}
            rows.append(common | {"seconds": whole})
            rows.append(common | {"part": "update", "seconds": update})
    return rows


def time_steps(faces, seed, turns, device="cpu", warm_up=5):
    """{optimizer: [(seconds of a step, seconds of its update)]}, ``turns`` each.

    One step each in turn, in an order that is drawn anew every turn: what slows the machine down
    slows all down. torch's own SGD and Adam run beside ours.
    """
    kinds = OPTIMIZERS | {"torch SGD": torch.optim.SGD, "torch Adam": torch.optim.Adam}
    runners = {}
    for name, kind in kinds.items():
        model = faces.model(seed).to(device)
        runners[name] = (model, kind(model.parameters(), lr=1e-4))
    generator, order = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    times = {name: [] for name in runners}
    for turn in range(-warm_up, turns):
        for name in order.permutation(list(runners)).tolist():
            spent = _step(faces, *runners[name], generator, device)
            if turn >= 0:
                times[name].append(spent)
    return times


# ------------------------------------------------------------------ reading the runs


def first_times(table, target, column="steps"):
    """{(optimizer, seed): ``column`` when the run arrives at ``target`` mm}; inf: never.

    A run has arrived at the first of two judgements in a row at or under the target: errors jump
    from step to step, and one lucky judgement is no arrival. ``table`` is the part ``runs``.
    """
    found = {}
    for name in dict.fromkeys(table["optimizer"].tolist()):
        own = table.where(optimizer=name)
        for seed in np.unique(own["seed"]).tolist():
            run_ = own.where(seed=seed)
            there = run_["error_mm"] <= target
            there = there[:-1] & there[1:]
            found[name, seed] = float(run_[column][:-1][there][0]) if there.any() else np.inf
    return found
