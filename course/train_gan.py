"""``python -m course gan``: train a GAN on small pictures of faces.

Without a flag it is the tutorial's: fully connected, 28 × 28 grey pixels, its rates and folders.
Every --sample_interval steps it leaves a sheet of faces in --images and its whole state in --save;
it can be stopped, and the same command goes on from the last sheet, to the same result.
"""

import csv
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from course import files, gan, real_faces
from course.export import to_uint8
from course.facecode import resolve_device
from course.files import DATA, any_path, atomic_path, quiet

WEIGHTS = DATA / "gan.pt"
NETWORKS = {"mlp": (gan.MLPGenerator, gan.MLPDiscriminator),
            "dcgan": (gan.DCGenerator, gan.DCDiscriminator)}  # fmt: skip
SHEET = 5  # faces across and down a sheet
COLUMNS = ("step", "discriminator", "generator", "real", "fake")
# what may change between two calls that are one training
FREE = ("n_epochs", "n_cpu", "sample_interval", "images", "save", "device", "command")


def add_arguments(parser):
    """The tutorial's flags with its defaults, then ours."""
    for name, kind, default, text in (
        ("n_epochs", int, 100, "epochs"),
        ("batch_size", int, 64, "pictures in a batch"),
        ("lr", float, 2e-4, "Adam's rate, of both players"),
        ("b1", float, 0.5, "Adam's β₁"),
        ("b2", float, 0.999, "Adam's β₂"),
        ("n_cpu", int, 2, "threads, and processes that make photographs"),
        ("latent_dim", int, 100, "numbers in the generator's noise"),
        ("img_size", int, 28, "pixels a side"),
        ("channels", int, 1, "1 for grey, 3 for colour"),
        ("sample_interval", int, 500, "steps from one sheet of faces to the next"),
        ("per_epoch", int, 6400, "augmented pictures in an epoch"),
        ("width", int, 32, "channels of dcgan's largest maps"),
        ("r1", float, 0.0, "weight γ of the R1 penalty"),
        ("ema", float, 0.0, "decay of the generator's average; 0: none"),
        ("warm_up", int, 0, "steps before the game, see Game.warm_up"),
        ("anchor", float, 0.0, "weight of that pixel loss during the game"),
        ("augment", float, 1.0, "strength of the augmentation; 0: mirrored only"),
        ("seed", int, 0, "of weights, noise and augmentation"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    parser.add_argument(
        "--images", type=any_path, default=Path("images/gan"), help="folder of sheets"
    )
    parser.add_argument("--save", type=any_path, default=Path("save/gan"), help="folder of weights")
    parser.add_argument("--data", choices=real_faces.SOURCES, default="lfw_subset")
    parser.add_argument("--count", type=int, help="pictures to train on; all, where not given")
    parser.add_argument("--judge_width", type=int,
                        help="the same of its discriminator's; if not given: --width")  # fmt: skip
    parser.add_argument("--network", choices=NETWORKS, default="mlp")
    parser.add_argument("--loss", choices=gan.KINDS, default="non-saturating")
    parser.add_argument("--norm", choices=("batch", "spectral", "none"),
                        help="discriminator; if not given: mlp none, dcgan batch")  # fmt: skip
    parser.add_argument("--device", default=None)


def run(args):
    """Train, and say where everything lies."""
    least = {"n_epochs": 1, "batch_size": 2, "n_cpu": 1, "latent_dim": 1, "sample_interval": 1,
             "per_epoch": args.batch_size, "width": 1, "judge_width": 1, "warm_up": 0,
             "img_size": 4, "count": 1, "lr": 0, "r1": 0, "anchor": 0, "augment": 0,
             "b1": 0, "b2": 0}  # fmt: skip
    for name, low in least.items():
        given = getattr(args, name)
        if given is not None and not low <= given < math.inf:
            finite = " and finite" if isinstance(given, float) else ""
            raise ValueError(f"--{name} is at least {low}{finite}, not {given}.")
    for name in ("b1", "b2"):
        if getattr(args, name) >= 1:
            raise ValueError(f"--{name} is below 1, not {getattr(args, name)}.")
    threads = torch.get_num_threads()
    torch.set_num_threads(args.n_cpu)
    try:
        game = new_game(args)  # before anything is fetched: bad sizes are told at once
        faces = real_faces.load(
            args.data, args.img_size, args.channels, args.count, folder=args.save,
            workers=args.n_cpu,
        )  # fmt: skip
        train(game, faces, args)
        settle(game.best, args.latent_dim, args.seed)
    finally:
        torch.set_num_threads(threads)
    save_generator(args.save / "generator.pt", game.best, args)
    print(f"sheets in {args.images}, generator in {args.save / 'generator.pt'}")
    return 0


# ------------------------------------------------------------------ the game


class Game:
    """Two networks and their optimisers; ``step`` is one move of each.

    kind  of gan.KINDS · r1  weight γ of the R1 penalty, 0: none · decay  of the generator's
    running average, 0: none · anchor  weight of the pixel loss on known pictures · rate, betas
    Adam's, of both
    """

    def __init__(self, generator, discriminator, kind="non-saturating", rate=2e-4,
                 betas=(0.5, 0.999), r1=0.0, decay=0.0, anchor=0.0):  # fmt: skip
        self.generator, self.discriminator, self.kind, self.r1 = generator, discriminator, kind, r1
        self.anchor = anchor
        self.average = gan.EMA(generator, decay) if decay else None
        self.optimizers = [torch.optim.Adam(player.parameters(), rate, betas)
                           for player in (generator, discriminator)]  # fmt: skip

    @property
    def best(self):
        """The generator to draw with: the average, where there is one."""
        return self.average.model if self.average else self.generator

    def step(self, real, z, known=None):
        """One move of the discriminator, one of the generator; what each lost and the mean logits.

        real (N, …) and noise z (N, latent); known: pictures that this noise should become.
        """
        for_generator, for_discriminator = self.optimizers
        fake = self.generator(z)
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        lost = gan.discriminator_loss(on_real, on_fake, self.kind)
        penalty = self.r1 * gan.r1_penalty(self.discriminator, real) if self.r1 else 0.0
        for_discriminator.zero_grad()
        (lost + penalty).backward()
        for_discriminator.step()

        self.discriminator.requires_grad_(False)  # its slopes on its own weights are not needed
        won = gan.generator_loss(self.discriminator(fake), self.kind)
        held = self.anchor * (fake - known).abs().mean() if known is not None else 0.0
        for_generator.zero_grad()
        (won + held).backward()
        for_generator.step()
        self.discriminator.requires_grad_()
        if self.average:
            self.average.update(self.generator)
        values = (lost, won, on_real.mean(), on_fake.mean())
        return {name: v.item() for name, v in zip(COLUMNS[1:], values, strict=True)}

    def warm_up(self, real, z):
        """One step before the game: the generator draws known pictures from known noise (L1 loss).

        With each picture's own principal components as noise, it begins with blurred faces in an
        ordered latent space, and the discriminator has only to sharpen them.
        """
        lost = (self.generator(z) - real).abs().mean()
        self.optimizers[0].zero_grad()
        lost.backward()
        self.optimizers[0].step()
        if self.average:
            self.average.update(self.generator)
        return dict.fromkeys(COLUMNS[1:], math.nan) | {"generator": lost.item()}

    def state_dict(self):
        """Everything that changes."""
        players = {"generator": self.generator, "discriminator": self.discriminator}
        state = {name: player.state_dict() for name, player in players.items()}
        state["optimizers"] = [o.state_dict() for o in self.optimizers]
        if self.average:
            state["average"] = self.average.model.state_dict()
            state["averaged"] = self.average.steps
        return state

    def load_state_dict(self, state):
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        if self.average:
            self.average.model.load_state_dict(state["average"])
            self.average.steps = state["averaged"]


def new_game(args):
    """A Game as the flags want it."""
    torch.manual_seed(args.seed)
    device = resolve_device(args.device)
    build, judge = NETWORKS[args.network]
    widths = {}, {}
    if args.network == "dcgan":
        widths = {"width": args.width}, {"width": args.judge_width or args.width}
    generator = build(args.latent_dim, args.img_size, args.channels, **widths[0]).to(device)
    usual = "batch" if args.network == "dcgan" else "none"
    norm = {"none": None}.get(args.norm or usual, args.norm or usual)
    discriminator = judge(args.img_size, args.channels, norm=norm, **widths[1]).to(device)
    return Game(generator, discriminator, args.loss, args.lr, (args.b1, args.b2), args.r1, args.ema,
                args.anchor)  # fmt: skip


def components(faces, count):
    """The first principal components (n, count) of pictures, each of unit variance."""
    flat = faces.flatten(1)
    if count > min(flat.shape):
        raise ValueError(f"{len(faces)} pictures have fewer than {count} principal components; "
                         "lower --latent_dim or leave out --warm_up.")  # fmt: skip
    left, _, _ = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    return left[:, :count] * (len(flat) - 1) ** 0.5


def train(game, faces, args):
    """Play all epochs, from --save's checkpoint where there is one.

    Raises ValueError where that is damaged or of other settings.
    """
    steps = args.warm_up + args.n_epochs * -(-args.per_epoch // args.batch_size)
    known = components(faces, args.latent_dim) if args.warm_up or args.anchor else None
    noise = torch.Generator().manual_seed(args.seed + 1)
    shown = torch.randn(SHEET**2, args.latent_dim, generator=noise)
    settings = {k: v for k, v in vars(args).items() if k not in FREE}
    settings = {k: v for k, v in settings.items() if isinstance(v, (int, float, str, bool))}
    checkpoint, log, step = args.save / "checkpoint.pt", [], 0
    device = next(game.generator.parameters()).device
    if checkpoint.is_file():
        more = ("noise", "log", "step")
        state, log, step = files.load_training(checkpoint, {"game": game}, settings, more, device)
        noise.set_state(state.cpu())

    def keep():
        files.save_training(checkpoint, {"game": game}, settings,
                            noise=noise.get_state(), log=log, step=step)  # fmt: skip
        with atomic_path(args.save / "losses.csv") as temporary, temporary.open("w") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *log])
        with torch.no_grad(), atomic_path(args.images / f"{step:06d}.png") as temporary:
            game.best.eval()
            Image.fromarray(sheet(game.best(shown.to(device)), SHEET)).save(temporary)
            game.generator.train()

    with tqdm(total=steps, initial=step, desc="GAN", disable=quiet()) as bar:
        while step < steps:
            chosen = torch.randint(len(faces), (args.batch_size,), generator=noise)
            if step < args.warm_up:
                found = game.warm_up(faces[chosen].to(device), known[chosen].to(device))
            else:
                real = real_faces.augment(faces[chosen], noise, args.augment).to(device)
                if args.anchor:
                    other = torch.randint(len(faces), (args.batch_size,), generator=noise)
                    found = game.step(real, known[other].to(device), faces[other].to(device))
                else:
                    z = torch.randn(args.batch_size, args.latent_dim, generator=noise).to(device)
                    found = game.step(real, z)
            step += 1
            bar.update()
            if step % args.sample_interval == 0 or step == steps:
                log.append([step, *(round(v, 5) for v in found.values())])
                bar.set_postfix({k: f"{v:.2f}" for k, v in found.items()})
                keep()


def settle(generator, latent, seed=0):
    """Measure the means and variances of a generator's batch norm anew, over 3,200 noises.

    An average of weights has other activations than the weights had (Izmailov et al. 2018).
    """
    z = torch.randn(3200, latent, generator=torch.Generator().manual_seed(seed + 2))
    update_bn(z.split(64), generator, next(generator.parameters()).device)


def sheet(images, columns):
    """Pictures (N, C, H, W) in 0…1 side by side and below each other: (…, …, 3) uint8."""
    pictures = np.stack([to_uint8(i.expand(3, -1, -1)) for i in images])
    rows = -(-len(pictures) // columns)
    side = pictures.shape[1]
    board = np.full((rows * (side + 2) + 2, columns * (side + 2) + 2, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = (2 + n * (side + 2) for n in divmod(k, columns))
        board[top : top + side, left : left + side] = picture
    return board


# ------------------------------------------------------------------ weights


def save_generator(path, generator, args):
    """A generator's weights in half precision, with what it takes to build it."""
    built = {"latent": args.latent_dim, "size": args.img_size, "channels": args.channels}
    if args.network == "dcgan":
        built["width"] = args.width
    state = {k: v.half() if v.is_floating_point() else v for k, v in generator.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save({"network": args.network, "built": built, "weights": state}, temporary)


def load_generator(path=WEIGHTS, device=None):
    """The generator of a file, in eval mode. Raises FileNotFoundError or ValueError."""
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        generator = NETWORKS[kept["network"]][0](**kept["built"])
        generator.load_state_dict(kept["weights"])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; type: python -m course gan") from None
    except Exception:  # torch raises many kinds for a damaged file
        raise ValueError(f"{path} does not hold a generator.") from None
    return generator.to(resolve_device(device)).eval().requires_grad_(False)
