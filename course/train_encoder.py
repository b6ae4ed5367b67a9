"""``python -m course train encoder``: the training loop of the networks that read faces' codes.

Synthetic photographs are made first (``albums.py``); then one loop serves full, weak and mixed
supervision, on one process or on as many as ``torchrun`` starts. It can be stopped at any time:
the same command with ``--resume`` goes on, with the same batches in the same order.
"""

import copy
import json
import math
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from course import albums, files, parallel, supervision
from course.backbones import BACKBONES
from course.camera import project
from course.encoder import PARTS, FaceModel, start_and_scales
from course.facecode import FaceCode
from course.faces import MOUTHS
from course.files import (
    DATA,
    any_path,
    check_folder,
    quiet,
    weights_path,
    write_report,
    write_text,
)
from course.flame import FLAME
from course.losses import IDENTITY, IdentityNet
from course.optim import running_average

WEIGHTS = DATA / "encoder.pt"
JOINTS = (0, 2, 3, 4)  # the neck's turn is in the root's
CHECKED = 240  # photographs of the training album that are set aside to judge it; at most 1/8
HEAD_RATE = 0.25  # of --rate, for the head of the points backbone
# of a Trainer, in its checkpoint
KEPT = ("model", "average", "optimizer", "scaler")
COUNTS = ("step", "seconds", "best", "worse", "best_state", "curves")
CURVE = 10  # steps that a point of the curves is the mean of


def add_arguments(parser):
    parser.add_argument("--photos", type=int, default=48_000, help="training photographs")
    parser.add_argument(
        "--portraits",
        type=int,
        default=0,
        help=f"photographs of the clear kind beside them, by {albums.SHARD}",
    )
    parser.add_argument("--steps", type=int, default=7_000)
    parser.add_argument("--batch", type=int, default=64, help="photographs a step, all processes")
    parser.add_argument("--backbone", choices=list(BACKBONES), default="points")
    parser.add_argument("--hidden", type=int, default=1024, help="width of the layer of the head")
    parser.add_argument("--supervision", choices=supervision.MODES, default="full")
    parser.add_argument("--own", type=any_path, metavar="FOLDER",
                        help="your own photographs for weak or mixed supervision; photographs in a "
                        "folder of their own show one person")  # fmt: skip
    parser.add_argument("--begin", type=any_path, metavar="FILE",
                        help="weights to start from (default: from scratch, the points backbone "
                        "from the landmark network)")  # fmt: skip
    parser.add_argument("--head_only", action="store_true",
                        help="with --begin: the backbone stays as it is, only what turns its "
                        "features into codes is trained")  # fmt: skip
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--check", type=int, default=250, help="steps between two judgements")
    parser.add_argument("--patience", type=int, default=0,
                        help="stop after so many checks without a better one")  # fmt: skip
    parser.add_argument("--precision", choices=["auto", "full", "mixed"], default="auto",
                        help="mixed: half where it does no harm (auto: on GPUs; CPUs that multiply "
                        "bfloat16 are nearly twice as fast by it, all others slower)")  # fmt: skip
    add_run_arguments(parser, WEIGHTS, "photographs, checkpoint and curves")


def add_run_arguments(parser, output, kept):
    """What every training on albums asks for; ``kept`` says what is in its folder."""
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1),
                        help="processes that make photographs")  # fmt: skip
    parser.add_argument("--threads", type=int, default=0, help="of a process (0: PyTorch's choice)")
    parser.add_argument(
        "--folder", type=any_path, default=DATA.parent / "runs" / "encoder", help=kept
    )
    parser.add_argument("--output", type=any_path,
                        help=f"for the weights (default: {output.name} in --folder)")  # fmt: skip
    parser.add_argument("--device", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")


def check_run_arguments(args):
    """Raise ValueError or WriteError for what would fail only after hours of photographs."""
    if args.begin and not args.begin.is_file():
        raise ValueError(f"There is no file {args.begin} to begin with.")
    if args.seed < 0 or args.threads < 0 or not 0 < args.rate < math.inf:
        raise ValueError("--seed and --threads start at 0, --rate is above 0")
    check_folder(args.folder)


def run(args):
    """Train, write the weights, their report and the curves; exit code 0. Raises ValueError."""
    if args.steps < 1 or args.batch < 2 or args.check < 1:
        raise ValueError("at least one step, two photographs a step and one step a check, please")
    if args.own and args.supervision == "full":
        raise ValueError("your own photographs have no 3D truth; add --supervision mixed or weak")
    if args.head_only and not args.begin:
        raise ValueError("a backbone that stays as it is has to have learned; add --begin FILE")
    if args.hidden < 1:
        raise ValueError("--hidden starts at 1")
    check_run_arguments(args)
    args.output = weights_path(args.output, WEIGHTS, args.folder)
    if args.threads:
        torch.set_num_threads(args.threads)
    world = parallel.start(args.device)
    try:
        world.share(range(args.batch))
        checkpoint = args.folder / "checkpoint.pt"
        if checkpoint.is_file() and not args.resume:
            raise ValueError(f"{checkpoint} is there from an earlier run; add --resume to go on, "
                             "or give another --folder.")  # fmt: skip
        album, own = load_albums(args, world)
        trainer = Trainer(args, world, album, own)
        if args.resume and checkpoint.is_file():
            trainer.restore(checkpoint)
        trainer.train()
        if world.chief:
            trainer.write()
    finally:
        parallel.stop()
    return 0


def load_albums(args, world):
    """The synthetic album (None if not needed) and the learner's own (None without one)."""
    own = None
    if args.own:
        from course.own_photos import Folder

        own = Folder(args.own)
    if args.supervision == "weak" and own:
        return None, own
    if args.photos - _set_aside(args.photos) < args.batch:
        raise ValueError(f"{args.photos} photographs are too few for steps of {args.batch}.")
    if world.chief:
        _make_albums(args, args.workers)
    world.wait()
    paths = _make_albums(args, 1)
    clear = len(paths) - math.ceil(args.photos / albums.SHARD)
    return albums.Album(paths, clear * albums.SHARD + args.photos), own


def _make_albums(args, workers):
    """The shards' paths: portraits first, so that the last, which judge, are of the usual kind."""
    paths = []
    if args.portraits:
        variety = albums.KINDS["portrait"][1] | MOUTHS
        paths = albums.make(args.folder / "portraits", args.portraits, 2, args.seed, workers,
                            variety)  # fmt: skip
    return paths + albums.make(args.folder / "train", args.photos, 2, args.seed, workers)


def _set_aside(photos):
    """How many of an album's photographs judge what the others taught; whole pairs."""
    return min(CHECKED, photos // 16 * 2)


# ------------------------------------------------------------------ batches


def chosen(step, seed, count, size, pairs):
    """Numbers (size,) of the photographs of a step: every epoch shuffles anew.

    ``pairs`` keeps photographs 2k and 2k + 1, which show one person, together.
    """
    unit = 2 if pairs and size % 2 == 0 else 1
    units, take = count // unit, size // unit
    a_pass = max(1, units // take)
    epoch, place = divmod(step, a_pass)
    order = np.random.default_rng([seed, 11, epoch]).permutation(units)
    if len(order) < take:
        order = np.resize(order, take)
    mine = order[place * take : (place + 1) * take]
    return mine if unit == 1 else np.stack([2 * mine, 2 * mine + 1], 1).reshape(-1)


def rate(highest, step, steps):
    """Learning rate: up in a straight line, down along a cosine to 1/200."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return highest * min(1, (step + 1) / min(200, 1 + steps // 10)) * max(cosine, 0.005)


class Batches:
    """Batches for the steps from ``first`` on, made one ahead in a thread of their own."""

    def __init__(self, make, first):
        self.make, self.step = make, first
        self.pool = ThreadPoolExecutor(1)
        self.next = self.pool.submit(make, first)

    def __call__(self):
        batch = self.next.result()
        self.step += 1
        self.next = self.pool.submit(self.make, self.step)
        return batch

    def close(self):
        self.pool.shutdown(cancel_futures=True)


# ------------------------------------------------------------------ the loop


class _Whole(nn.Module):
    """The model with its losses: one forward, so that DistributedDataParallel sees all of it."""

    def __init__(self, model, full, weak):
        super().__init__()
        self.model, self.objectives = model, [full, weak]

    def forward(self, batch, own):
        """(total, {name: loss}) of a synthetic Batch and a Batch of own pictures; either may be
        None."""
        model, (full, weak) = self.model, self.objectives
        loss, found = 0.0, {}
        for source, part in (("", batch), ("own ", own)):
            if part is None:
                continue
            features = model.features(part.images)
            with torch.autocast(part.images.device.type, enabled=False):
                features = features.float()  # places of points, which half precision would round
                code = model.reconstructor(features)
                for objective in (full, weak):
                    # what has a truth teaches by it; the weak losses go to own pictures, if any
                    if objective is None or (objective is full and part.code is None):
                        continue
                    if objective is weak and own is not None and part is batch:
                        continue
                    terms = objective(model, features, code, part)
                    loss = loss + supervision.total(terms, objective.weights)
                    kind = "weak " if objective is weak else ""
                    found |= {f"{source}{kind}{k}": v for k, v in terms.items()}
        return loss, {"loss": loss} | found


class Trainer:
    """Everything that a run is made of; see ``run``."""

    def __init__(self, args, world, album, own=None, flame=None):
        self.args, self.world, self.album, self.own = args, world, album, own
        device = world.device
        self.flame = (FLAME.load(device="cpu") if flame is None else flame).to(device)
        self.cpu_flame = copy.deepcopy(self.flame).to("cpu")
        torch.manual_seed(args.seed)
        model = self._new_model().to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(model).eval()
        if world.size > 1:
            parallel.synced(model)
        mode = args.supervision
        full = supervision.FullSupervision(self.flame).to(device) if mode != "weak" else None
        weak = None
        if mode != "full":
            judge = IdentityNet.load(device=device) if IDENTITY.is_file() else None
            weak = supervision.WeakSupervision(self.flame, network=judge).to(device)
        self.model, self.whole = model, _Whole(model, full, weak)
        if world.size > 1:
            self.whole = DistributedDataParallel(self.whole, find_unused_parameters=True)
        self.optimizer = torch.optim.AdamW(self._groups(model), lr=args.rate)
        on_gpu = device.type == "cuda"
        self.half = args.precision == "mixed" or (args.precision == "auto" and on_gpu)
        self.half_type = torch.float16 if on_gpu else torch.bfloat16  # of float32's range
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half and on_gpu)
        self.step, self.seconds, self.best, self.worse = 0, 0.0, math.inf, 0
        self.best_state, self.curves = None, {"losses": [], "checks": []}
        self.judged, self.judge = 0, None
        if album is not None:
            self.judged = len(album) - _set_aside(len(album))
            self.judge = Judge(album, self.judged, self.flame, self.cpu_flame)

    def _new_model(self):
        args = self.args
        if args.begin:
            model = FaceModel.load(args.begin, self.flame, "cpu")
            model.config["crop"] = [albums.CROP, albums.CROP_SCALE]
            return model
        if self.album is None:
            raise ValueError("weak supervision on your own photographs alone needs --begin FILE")
        some = albums.crop_batch(
            self.album, np.arange(0, min(len(self.album), 6000), 2), self.cpu_flame
        )
        start, scales = start_and_scales(some.code, JOINTS)
        model = FaceModel(self.flame, args.backbone, args.hidden, JOINTS, confidence=True,
                          start=start, scales=scales,
                          normalize=args.backbone != "points")  # fmt: skip
        if args.backbone == "points":
            from course import landmarks

            model.encoder.votes.begin_as(landmarks.load(), some.points.mean(0))
            begin_linear(model, some)
        return model

    def _groups(self, model):
        """Parameters by learning rate and weight decay.

        A head that begins as a regression on all points would soon forget it at the others' rate.
        """
        alone = self.args.head_only
        groups, slow = [], HEAD_RATE if model.config["backbone"] == "points" and not alone else 1.0
        model.encoder.requires_grad_(not alone)
        for part, share in ((model.encoder, 1.0), (model.reconstructor, slow))[alone:]:
            for decay, wanted in ((0.02, lambda p: p.ndim > 1), (0.0, lambda p: p.ndim <= 1)):
                own = [p for p in part.parameters() if wanted(p)]
                groups.append({"params": own, "weight_decay": decay, "share": share})
        if model.config["confidence"]:
            groups.append({"params": list(model.trust.parameters()), "share": slow})
        return groups

    # -------------------------------------------------------------- batches

    def batch(self, step):
        """This process's (synthetic, own) batches of a step."""
        args, seed = self.args, self.args.seed
        found = []
        for album, count in ((self.album, self.judged),
                             (self.own, len(self.own) if self.own else 0)):  # fmt: skip
            if album is None:
                found.append(None)
                continue
            numbers = chosen(step, seed, count, args.batch, args.supervision != "full")
            # a generator a photograph: however many processes share them, crops are the same
            mine = self.world.share(list(enumerate(numbers)))
            rngs = [np.random.default_rng([seed, 12, step, i]) for i, _ in mine]
            found.append(album.batch([int(k) for _, k in mine], self.cpu_flame, rngs))
        return found

    # -------------------------------------------------------------- steps

    def train(self):
        """All steps that are left. Ctrl-C leaves a checkpoint."""
        args, world = self.args, self.world
        clock, recent = time.perf_counter() - self.seconds, []
        batches = Batches(self.batch, self.step)
        bar = tqdm(total=args.steps, initial=self.step, desc=f"encoder ({args.supervision})",
                   disable=quiet() or not world.chief)  # fmt: skip
        try:
            while self.step < args.steps and not self._given_up():
                terms = self._one(batches())
                recent.append(terms)
                bar.update()
                if self.step % min(CURVE, args.check) == 0 or self.step == args.steps:
                    self._note(recent, bar)
                    recent = []
                if self.step % args.check == 0 or self.step == args.steps:
                    self.seconds = time.perf_counter() - clock
                    self._check(bar)
        except KeyboardInterrupt:
            self.seconds = time.perf_counter() - clock
            self.save()
            raise
        finally:
            bar.close()
            batches.close()

    def _one(self, parts):
        device = self.world.device
        batch, own = (None if part is None else part.to(device) for part in parts)
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * rate(self.args.rate, self.step, self.args.steps)
        self.whole.train()
        if self.args.head_only:
            self.model.encoder.eval()
        with torch.autocast(device.type, dtype=self.half_type, enabled=self.half):
            loss, terms = self.whole(batch, own)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        running_average(self.average, self.model, self.step)
        return {name: value.detach() for name, value in terms.items()}

    def _note(self, recent, bar):
        """A point of the curves: the mean of the last steps over all processes."""
        names = list(recent[0])
        table = torch.stack([torch.stack([terms[n] for n in names]) for terms in recent]).mean(0)
        values = self.world.mean(table).tolist()
        if not math.isfinite(values[0]):
            raise ValueError(f"the loss is {values[0]} at step {self.step}; lower --rate")
        point = {"step": self.step} | {n: round(v, 6) for n, v in zip(names, values, strict=True)}
        self.curves["losses"].append(point)
        bar.set_postfix(loss=f"{values[0]:.3f}")

    def _given_up(self):
        return bool(self.args.patience) and self.worse >= self.args.patience

    def _check(self, bar):
        """Judge the averaged weights on the photographs set aside; save."""
        if self.album is not None:
            errors = self.judge(self.average)
            self.curves["checks"].append({"step": self.step} | errors)
            if errors["shape"] < self.best - 1e-4:
                self.best, self.worse = errors["shape"], 0
                if self.args.patience:
                    self.best_state = copy.deepcopy(self.average.state_dict())
            else:
                self.worse += 1
            if self.world.chief:
                bar.write(f"step {self.step}: " + ", ".join(f"{k} {v}" for k, v in errors.items()))
        self.save()

    # -------------------------------------------------------------- files

    def _settings(self):
        a = self.args
        return {"steps": a.steps, "batch": a.batch, "backbone": self.model.config["backbone"],
                "supervision": a.supervision, "seed": a.seed, "photos": a.photos,
                "portraits": a.portraits, "crop": list(self.model.config["crop"]),
                "head_only": a.head_only}  # fmt: skip

    def save(self):
        """The checkpoint and the curves, each whole or not at all; by one process."""
        if self.world.chief:
            more = {name: getattr(self, name) for name in COUNTS}
            files.save_training(self.args.folder / "checkpoint.pt", self._parts(),
                                self._settings(), **more)  # fmt: skip
            write_text(self.args.folder / "curves.json", json.dumps(self.curves) + "\n")
        self.world.wait()

    def restore(self, path):
        """Go on from a checkpoint. Raises ValueError when it is damaged or of another run."""
        found = files.load_training(path, self._parts(), self._settings(), COUNTS,
                                    self.world.device)  # fmt: skip
        for name, value in zip(COUNTS, found, strict=True):
            setattr(self, name, value)
        if self.world.chief:
            print(f"going on from step {self.step} of {self.args.steps}")

    def _parts(self):
        return {name: getattr(self, name) for name in KEPT}

    def write(self):
        """The weights that ship, and a report beside them."""
        if self.best_state is not None:
            self.average.load_state_dict(self.best_state)
        self.average.save(self.args.output)
        a = self.args
        report = {
            "command": f"python -m course train encoder --photos {a.photos} --steps {a.steps} "
            f"--batch {a.batch} --supervision {a.supervision} --seed {a.seed} --rate {a.rate:g}"
            + (f" --portraits {a.portraits}" if a.portraits else "")
            + (" --head_only" if a.head_only else "")
            + (f" --precision {a.precision}" if a.precision != "auto" else "")
            + (f" --begin {a.begin}" if a.begin else ""),
            "settings": self._settings(),
            "steps": self.step,
            "minutes": round(self.seconds / 60, 1),
            "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} "
            f"threads, {self.world.device.type}, {self.world.size} process(es)",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "last loss": self.curves["losses"][-1] if self.curves["losses"] else None,
            "checks": self.curves["checks"][-1:],
        }
        before = a.begin and a.begin.with_suffix(".json")
        if before and before.is_file():
            report["began with"] = json.loads(before.read_text("utf-8"))
        write_report(a.output, report, WEIGHTS)


@torch.no_grad()
def linear_map(x, target):
    """Weight (D, C) and bias (D,) of the best linear map from x (n, C) to targets (n, D).

    W = (XᵀX/n + λI)⁻¹ XᵀT/n of centred X and T; λ is chosen on the last sixth.
    """
    x, target = x.double(), target.double()
    learn = len(x) - len(x) // 6
    middle, offset = x[:learn].mean(0), target[:learn].mean(0)
    x, y = x - middle, target - offset
    gram, cross = x[:learn].T @ x[:learn] / learn, x[:learn].T @ y[:learn] / learn
    best = math.inf
    for strength in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1):
        map_ = torch.linalg.solve(gram + strength * torch.eye(len(gram)).to(gram), cross)
        error = (x[learn:] @ map_ - y[learn:]).square().mean().item()
        if error < best:
            best, rows = error, map_.T
    return rows, offset - rows @ middle


@torch.no_grad()
def begin_linear(model, batch):
    """Let a model with the points backbone begin as the best linear map from points to codes.

    From what the network now sees (points and what the whole picture looks like) to the true codes
    of a Batch. Each row w, b of the map becomes two hidden units, w·x + b = relu(w·x + b) −
    relu(−w·x − b); the other units are left to learn.
    """
    votes, head = model.encoder.votes, model.reconstructor
    model.eval()
    used = votes.sharp  # not the coarse map, whose BatchNorm is new
    x = torch.cat([model.features(part)[:, :used] for part in batch.images.split(60)])
    parts = {p: getattr(batch.code, p).flatten(1) for p in PARTS}
    parts["pose"] = parts["pose"][:, head.pose_columns]
    target = (torch.cat([parts[p] for p in PARTS], 1) - head.start) / head.scale
    rows, bias = linear_map(x, target)
    first, _, last = head.layers
    count = min(len(rows), first.out_features // 3)  # shape comes first
    first.weight[: 2 * count] = 0
    for sign, place in ((1, 0), (-1, 1)):
        units = torch.arange(count) * 2 + place
        first.weight[units, :used] = sign * rows[:count].to(first.weight)
        first.bias[units] = sign * bias[:count].to(first.bias)
        last.weight[torch.arange(count), units] = float(sign)
    model.train()


class Judge:
    """Errors on an album's photographs from ``first`` on, cropped straight: ``judge(model)``."""

    def __init__(self, album, first, flame, cpu_flame):
        from course.losses import SurfaceMetric

        device = flame.v_template.device
        self.flame = flame
        self.batch = album.batch(range(first, len(album)), cpu_flame).to(device)
        self.shape = SurfaceMetric(flame).to(device)
        self.moved = SurfaceMetric(flame, "expressiondirs", aligned=False, slide=0.5).to(device)

    @torch.no_grad()
    def __call__(self, model):
        """Shape and expression: SurfaceMetric's root over that of the usual face; landmarks: NME.

        The NME is in % of the distance between the outer corners of the eyes, as
        ``train.measure``'s.
        """
        flame, batch, truth = self.flame, self.batch, self.batch.code
        codes = FaceCode.cat([model(part) for part in batch.images.split(60)])
        vertices = flame(codes.shape, codes.expression, codes.pose)
        size = batch.images.shape[-1]
        marks = project(flame.landmarks(vertices, codes.pose), codes.camera, size)[..., :2]
        ocular = (batch.landmarks[:, 36] - batch.landmarks[:, 45]).norm(dim=-1)
        box = (batch.landmarks.amax(1) - batch.landmarks.amin(1)).amax(-1)
        nme = (marks - batch.landmarks).norm(dim=-1).mean(1) / torch.maximum(ocular, 0.35 * box)
        shape = self.shape(codes.shape, truth.shape) / self.shape(0 * truth.shape, truth.shape)
        usual = truth.expression.mean(0, keepdim=True)
        moved = self.moved(codes.expression, truth.expression)
        moved = moved / self.moved(usual, truth.expression)
        return {"shape": round(shape.sqrt().item(), 4),
                "expression": round(moved.sqrt().item(), 4),
                "landmarks %": round(100 * nme.mean().item(), 2)}  # fmt: skip
