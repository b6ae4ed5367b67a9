"""``python -m course train detail``: the detail branch, from synthetic people with fine skin.

A code is read from one photograph of a person and has to explain the other too, with the other's
expression and jaw (DECA's detail consistency), so that it says who and not what they do.

Folds come first: a basis by principal components of the synthetic people's displacement, then what
strength each has, learned from the truth (nobody has that of real people; photographs alone would
take days). Texture comes from photographs alone: photometric loss, features, a discriminator.
"""

import contextlib
import copy
import platform
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from course import files, metrics
from course.detail import WEIGHTS, DetailModel
from course.detail_album import HELD_OUT, PHOTO, make_album, studio
from course.files import DATA, any_path, quiet, weights_path, write_report
from course.flame import FLAME
from course.gan import PatchDiscriminator, discriminator_loss, generator_loss
from course.losses import IdentityNet
from course.optim import running_average
from course.realism import detail_gap, feature_distance
from course.relief import RESOLUTION, WINDOW

PATCH = 192  # pixels a side of what is compared
FOLD_RATE, RATE, CRITIC_RATE = 1.5e-3, 4e-3, 1e-3
CALM = 0.05  # of the rate: what has been learned of the folds, while texture is learned
BATCH = 4
PEOPLE, JUDGED = 240, 16  # trained on, and set aside
FOLDER = DATA.parent / "runs" / "detail"
STRONGER = 5  # how much a discriminator's view of detail is amplified
FOLD_STEPS, FOLD_BATCH = 600, 16  # of learning the folds' strengths
# of a Trainer, in its checkpoint
PARTS, COUNTS = (
    ("model", "average", "critic", "optimizer", "critics"),
    ("step", "seconds", "folded"),
)


def add_arguments(parser):
    parser.add_argument("--people", type=int, default=PEOPLE, help="two photographs each")
    parser.add_argument("--steps", type=int, default=1200, help="steps of texture")
    parser.add_argument("--folds", type=int, default=FOLD_STEPS, help="steps of the folds before")
    parser.add_argument("--batch", type=int, default=BATCH, help="photographs a step of texture")
    parser.add_argument("--features", type=float, default=0.3, help="weight of the feature loss")
    parser.add_argument("--adversarial", type=float, default=0.03,
                        help="weight of the discriminator, in the second half")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that make photographs")
    parser.add_argument("--folder", type=any_path, default=FOLDER, help="photographs, checkpoint")
    parser.add_argument("--output", type=any_path,
                        help=f"for the weights (default: {WEIGHTS.name} in --folder)")  # fmt: skip


def run(args):
    """Train, write the weights and their report; exit code 0. Raises ValueError."""
    if args.steps < 2 or args.people < args.batch or args.batch < 2:
        raise ValueError("at least two steps, and two photographs a step of as many people")
    args.output = weights_path(args.output, WEIGHTS, args.folder)
    flame = FLAME.load(device="cpu")
    album = make_album(args.folder, args.people, 0, args.workers)
    shelf = make_album(args.folder, JUDGED, HELD_OUT, args.workers)
    torch.manual_seed(args.seed)
    trainer = Trainer(DetailModel(flame), album, args.seed, args.batch)
    checkpoint = args.folder / "checkpoint.pt"
    kept = ("people", "steps", "folds", "batch", "features", "adversarial", "seed")
    settings = {name: getattr(args, name) for name in kept}
    trainer.restore(checkpoint, settings)
    with trainer.kept(checkpoint, settings):
        trainer.learn_folds(args.folds)
        trainer.train(args.steps // 2, args.steps, features=args.features)
        trainer.train(args.steps, args.steps, features=args.features, adversarial=args.adversarial)
    trainer.average.save(args.output)
    report = {
        "command": f"python -m course train detail --people {args.people} --steps {args.steps} "
        f"--batch {args.batch} --features {args.features:g} --adversarial {args.adversarial:g} "
        f"--seed {args.seed}",
        "steps": trainer.step,
        "photographs": len(album),
        "minutes": round(trainer.seconds / 60, 1),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "held out": judge(trainer.average, shelf),
        "held out, no detail": judge(None, shelf),
    }
    for kind in ("held out", "held out, no detail"):
        print(kind + ": " + ", ".join(f"{k} {v:.3f}" for k, v in report[kind].items()))
    write_report(args.output, report, WEIGHTS)
    checkpoint.unlink(missing_ok=True)
    return 0


class Trainer:
    """Trains a DetailModel on an Album; ``average`` is what to use of it.

    The loss is 10 L1 of patches of photographs + 0.002 mean z² + 0.003 mean (D / 0.1 mm)²
    + 0.01 mean tint², and what ``train`` is asked to add: the distance in the features of the
    frozen identity network, and what a patch discriminator says (hinge, spectral norm) of how
    pictures differ from drawings without detail.
    """

    def __init__(self, model, album, seed=0, batch=BATCH):
        self.model, self.album, self.batch = model.train(), album, batch
        self.average = copy.deepcopy(model).eval()
        self.critic = PatchDiscriminator(width=16, layers=2)  # judges 34 pixels a side
        self.network = IdentityNet.load()
        texture = [*model.decoder.start.parameters(), *model.decoder.layers.parameters(),
                   *model.decoder.fine.parameters(), *model.decoder.last.parameters()]  # fmt: skip
        known = [*model.encoder.parameters(), *model.decoder.strengths.parameters()]
        groups = [{"params": texture, "share": 1.0}, {"params": known, "share": CALM}]
        self.optimizer = torch.optim.Adam(groups, lr=RATE, betas=(0.9, 0.99))
        self.critics = torch.optim.Adam(self.critic.parameters(), lr=CRITIC_RATE, betas=(0.5, 0.99))
        self.seed, self.step, self.folded, self.seconds = seed, 0, 0, 0.0
        self.history = []

    def learn_folds(self, steps):
        """The folds' basis in closed form, then their strengths from photographs and truth."""
        decoder, encoder = self.model.decoder, self.model.encoder
        if self.folded >= steps:
            return
        truth = torch.from_numpy(np.array(self.album.displacement)).float()
        decoder.begin_folds(truth)
        wanted = decoder.wanted(truth)
        weight = decoder.spread.square() / decoder.spread.square().mean()  # errors are in mm
        optimizer = torch.optim.Adam(
            [*encoder.parameters(), *decoder.strengths.parameters()], lr=FOLD_RATE
        )
        codes, size = self.album.codes, min(FOLD_BATCH, len(self.album) // 2)
        bar = tqdm(range(steps), "folds", disable=quiet())
        for step in bar:
            slow = min(1, (step + 1) / 20, 2 * (steps - step) / steps)
            optimizer.param_groups[0]["lr"] = FOLD_RATE * slow
            rng = np.random.default_rng([self.seed, 3, step])
            people = rng.choice(len(self.album) // 2, size, replace=False)
            read, explain = (2 * people + rng.integers(2, size=size) for _ in range(2))
            code = encoder(self.album.take("residual", read), self.album.take("seen", read))
            known = decoder.know(codes.expression[explain], codes.pose[explain], code)
            error = (decoder.strengths(known) - wanted[explain]).square()
            loss = (weight * error).mean() + 0.002 * code.square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")
        self.folded = steps
        self.average.load_state_dict(self.model.state_dict())

    def train(self, until, total, features=0.0, adversarial=0.0):
        """Go on to step ``until`` of ``total``, after which the rate would be zero."""
        bar = tqdm(total=until, initial=self.step, desc="detail", disable=quiet())
        with bar:
            while self.step < until:
                rate = RATE * min(1, (self.step + 1) / 20) * (1 - self.step / total) ** 0.5
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group["share"]
                self.history.append(self._one(features, adversarial))
                self.step += 1
                running_average(self.average, self.model, self.step, 0.99, early=(1, 10))
                bar.update()

    def pick(self):
        """A step's photographs to read, photographs to explain, and where their patches begin."""
        rng = np.random.default_rng([self.seed, self.step])
        people = rng.choice(len(self.album) // 2, self.batch, replace=False)
        read = 2 * people + rng.integers(2, size=self.batch)
        explain = 2 * people + rng.integers(2, size=self.batch)
        corners = rng.integers(0, PHOTO - PATCH + 1, (self.batch, 2))
        return read, explain, corners

    def patches(self, name, rows, corners):
        """(n, C, PATCH, PATCH) of some photographs' pictures or canvases."""
        source = getattr(self.album, name)
        found = np.stack([source[k, :, y : y + PATCH, x : x + PATCH]
                          for k, (y, x) in zip(rows, corners, strict=True)])  # fmt: skip
        found = torch.from_numpy(found).float()
        return found / 255 if name == "images" else found

    def _one(self, features, adversarial):
        read, explain, corners = self.pick()
        canvas, photo = (self.patches(n, explain, corners) for n in ("canvases", "images"))
        rows = torch.from_numpy(explain)
        codes = self.album.codes
        code = self.model.encoder(self.album.take("residual", read), self.album.take("seen", read))
        maps = self.model(codes.expression[rows], codes.pose[rows], code)
        drawn, mask = over(self.model.relief, canvas, maps, codes.light[rows], photo)
        loss = 10 * ((drawn - photo).abs() * mask).sum() / (3 * mask.sum())
        note = {"photometric": loss.item() / 10}
        loss = loss + 0.002 * code.square().mean() + 0.01 * maps[:, 1:].square().mean()
        loss = loss + 0.003 * (1e4 * maps[:, :1]).square().mean()
        if features:
            gap = feature_distance(self.network, drawn, photo)
            loss, note["features"] = loss + features * gap, gap.item()
        if adversarial:
            relief, light = self.model.relief, codes.light[rows]
            real, made = beyond(relief, canvas, light, photo, photo, drawn)
            self.critic.requires_grad_(True)
            verdict = discriminator_loss(self.critic(real), self.critic(made.detach()), "hinge")
            self.critics.zero_grad(set_to_none=True)
            verdict.backward()
            self.critics.step()
            self.critic.requires_grad_(False)
            loss = loss + adversarial * generator_loss(self.critic(made), "hinge")
            note["critic"] = verdict.item()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(_own(self.model), 1.0)
        self.optimizer.step()
        return note

    @contextlib.contextmanager
    def kept(self, path, settings=None):
        """Write a checkpoint when this is left, stopped or not."""
        begun = time.perf_counter() - self.seconds
        try:
            yield
        finally:
            self.seconds = time.perf_counter() - begun
            self.save(path, settings)

    def save(self, path, settings=None):
        more = {name: getattr(self, name) for name in COUNTS}
        files.save_training(path, self._parts(), settings, **more)

    def restore(self, path, settings=None):
        """Go on from a checkpoint if there is one.

        Raises ValueError where it is damaged or of other ``settings``.
        """
        if not Path(path).is_file():
            return
        found = files.load_training(path, self._parts(), settings, COUNTS)
        self.step, self.seconds, self.folded = found

    def _parts(self):
        return {name: getattr(self, name) for name in PARTS}


def beyond(relief, canvas, light, photo, *pictures):
    """What the discriminator judges: how each of the pictures differs from the drawing without
    detail (see ``over``), amplified, around grey. Skin is pale beside edges: with all of the
    picture before it, a discriminator takes thousands of steps to look at anything else."""
    none = canvas.new_zeros(len(canvas), 4, RESOLUTION, RESOLUTION)
    plain = over(relief, canvas, none, light, photo)[0]
    return [0.5 + STRONGER * (picture - plain) for picture in pictures]


def _own(model):
    return [*model.encoder.parameters(), *model.decoder.parameters()]


def over(relief, canvas, maps, light, photo):
    """Painted canvases over photographs, and the mask (N, 1, H, W) of pixels with relief.

    Where detail cannot change anything, the picture is the photograph: nobody is to judge it.
    """
    place = canvas[:, :2].permute(0, 2, 3, 1)
    mask = F.grid_sample(relief.mask.expand(len(canvas), -1, -1, -1), place, align_corners=False)
    mask = (mask > 0.3).float() * (canvas[:, -1:] > 0)
    return relief.paint(canvas, maps, light) * mask + photo * (1 - mask), mask


# ------------------------------------------------------------------ judging


@torch.no_grad()
def explained(model, album, rows, read=None):
    """Photographs ``rows`` as a model draws them, their masks, and its maps.

    read: the photographs that the codes are read from, if others; ``model`` None: no detail.
    """
    codes, relief = album.codes[rows], studio()[2] if model is None else model.relief
    canvas, photo = album.take("canvases", rows), album.take("images", rows)
    if model is None:
        maps = torch.zeros(len(rows), 4, RESOLUTION, RESOLUTION)
    else:
        read = rows if read is None else read
        code = model.encoder(album.take("residual", read), album.take("seen", read))
        maps = model(codes.expression, codes.pose, code)
    drawn, mask = over(relief, canvas, maps, codes.light, photo)
    return drawn.clamp(0, 1), mask, maps


def judge(model, album, kept=None, chunk=8):
    """How well an album's photographs are explained; every other code is read from the person's
    other photograph, so half of the wrinkles have been moved by the decoder.

    PSNR in dB, feature distance, detail gap of the skin in dB, and the error of the displacement
    in mm (root mean square over the skin). The drawings are added to the list ``kept``.
    """
    network, found = IdentityNet.load(), []
    relief = studio()[2] if model is None else model.relief
    where = relief.mask[0, 0] > 0.5
    for start in range(0, len(album), chunk):
        rows = np.arange(start, min(start + chunk, len(album)))
        drawn, mask, maps = explained(model, album, rows, rows // 2 * 2)
        photo = album.take("images", rows)
        truth = album.take("displacement", rows)
        if kept is not None:
            kept.append(drawn)
        for k in range(len(rows)):
            error = (1000 * maps[k, 0] - truth[k])[where].square().mean().sqrt()
            found.append((metrics.psnr(drawn[k], photo[k], mask[k]), error.item()))
        gap = feature_distance(network, middle(drawn), middle(photo)).item()
        skins = (skin_patches(x, album.take("canvases", rows)) for x in (drawn, photo))
        found[-1] = (*found[-1], gap, detail_gap(*skins))
    pairs = np.array([f[:2] for f in found])
    chunks = np.array([f[2:] for f in found if len(f) > 2])
    return {"psnr": float(pairs[:, 0].mean()), "displacement mm": float(pairs[:, 1].mean()),
            "feature distance": float(chunks[:, 0].mean()),
            "detail gap": float(chunks[:, 1].mean())}  # fmt: skip


def middle(images, side=128):
    """Patches (2N, C, side, side) of the upper and the lower half of the faces."""
    x = (PHOTO - side) // 2
    return torch.cat([images[..., y : y + side, x : x + side] for y in (28, PHOTO - side - 28)])


def skin_patches(images, canvases, side=48):
    """Patches (3N, C, side, side) of both cheeks and the forehead, where nothing but skin is."""
    places = canvases[:, :2]
    found = []
    for u, v in ((0.405, 0.49), (0.595, 0.49), (0.5, 0.735)):
        left, bottom, width = WINDOW
        at = places.new_tensor([2 * (u - left) / width - 1, 1 - 2 * (v - bottom) / width])
        away = (places - at.view(1, 2, 1, 1)).square().sum(1) + (canvases[:, -1] == 0)
        nearest = away.flatten(1).argmin(1)
        for k, pixel in enumerate(nearest.tolist()):
            row, column = divmod(pixel, images.shape[-1])
            y, x = (min(max(q - side // 2, 0), images.shape[-1] - side) for q in (row, column))
            found.append(images[k, :, y : y + side, x : x + side])
    return torch.stack(found)
