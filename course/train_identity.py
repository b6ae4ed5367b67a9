"""``python -m course train identity``: the network that the identity loss asks who somebody is.

It begins with what a trained encoder sees, sees two photographs each of many synthetic people (the
encoder's album) and has to find each one's other photograph in the batch.
"""

import copy
import platform
import time

import numpy as np
import torch
from tqdm import tqdm

from course import albums, files
from course.encoder import FaceModel
from course.facecode import resolve_device
from course.files import any_path, quiet, weights_path, write_report
from course.losses import IDENTITY, IdentityNet, contrast
from course.optim import running_average
from course.train_encoder import (
    WEIGHTS,
    Batches,
    add_run_arguments,
    check_run_arguments,
    chosen,
    linear_map,
    rate,
)

CHECKED = 480  # photographs, two a person, that are set aside; at most 1/8
BEGUN = 6000  # photographs that the first, linear map is made from
CHECKPOINT = "identity-checkpoint.pt"  # in the encoder's folder
CROP, CROP_SCALE = 112, 1.6  # pixels a side of what is compared, side over the landmarks' box


def add_arguments(parser):
    parser.add_argument("--photos", type=int, default=48_000, help="photographs, two a person")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=96, help="photographs a step")
    parser.add_argument("--rate", type=float, default=3e-4, help="highest learning rate")
    parser.add_argument("--begin", type=any_path, default=WEIGHTS, metavar="FILE",
                        help="encoder with the points backbone to start from")  # fmt: skip
    add_run_arguments(parser, IDENTITY, "photographs (the encoder's) and checkpoint")


def run(args):
    """Train, write the weights and their report; exit code 0. Raises ValueError."""
    aside = min(CHECKED, args.photos // 16 * 2)
    if args.steps < 1 or args.batch < 4 or args.photos - aside < args.batch:
        raise ValueError("at least one step, four photographs a step and as many to choose from")
    check_run_arguments(args)
    checkpoint = args.folder / CHECKPOINT
    if checkpoint.is_file() and not args.resume:
        raise ValueError(f"{checkpoint} is there from an earlier run; add --resume to go on, or "
                         "delete it.")  # fmt: skip
    args.output = weights_path(args.output, IDENTITY, args.folder)
    if args.threads:
        torch.set_num_threads(args.threads)
    paths = albums.make(args.folder / "train", args.photos, 2, args.seed, args.workers)
    album = albums.Album(paths, args.photos)
    report = train(album, len(album) - aside, args)
    for name, value in report["checks"].items():
        print(f"{name}: {value}")
    write_report(args.output, report, IDENTITY)
    return 0


def crops(album, numbers, rngs=None):
    """Upright crops (n, 3, CROP, CROP) of an album's photographs; ``rngs`` shake and mirror."""
    from course.photo import crop_around

    found = []
    for i, k in enumerate(numbers):
        crop = crop_around(album.landmarks[k], CROP, CROP_SCALE, upright=True)
        if rngs is not None:
            albums.shaken(crop, rngs[i])
        image = crop.apply(album.image(k))
        found.append(image.flip(-1) if rngs is not None and rngs[i].random() < 0.5 else image)
    return torch.stack(found)


@torch.no_grad()
def begin(album, count, encoder):
    """An IdentityNet with an encoder's eyes and the best linear map from there to identity codes.

    Made from the first ``count`` photographs at most. Raises ValueError for another backbone.
    """
    model = FaceModel.load(encoder, device="cpu")
    if model.config["backbone"] != "points":
        raise ValueError(f"{encoder} has the backbone {model.config['backbone']}; the identity "
                         "network begins with an encoder whose backbone is points.")  # fmt: skip
    numbers = np.arange(min(count, BEGUN))
    truth = torch.cat([album.code.shape, album.code.albedo], 1)[numbers]
    net = IdentityNet(truth.shape[1]).eval()
    net.votes.load_state_dict(model.encoder.votes.state_dict())
    parts = np.array_split(numbers, max(1, len(numbers) // 60))
    bar = tqdm(parts, "looking", disable=quiet())
    features = torch.cat([net.votes(crops(album, part))[:, : net.votes.sharp, 0, 0]
                          for part in bar])  # fmt: skip
    weight, bias = linear_map(features, truth)
    net.project.weight.copy_(weight)
    net.project.bias.copy_(bias)
    return net


def train(album, count, args):
    """Train on the first ``count`` photographs, from an encoder or the checkpoint; the report.

    Raises ValueError for a checkpoint that is damaged or of another run.
    """
    device = resolve_device(args.device)
    torch.manual_seed(args.seed)
    net = begin(album, count, args.begin)
    net.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(net).eval()
    first = judge(average, album, count, device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.rate, weight_decay=0.02)
    path, step, seconds = args.folder / CHECKPOINT, 0, 0.0
    settings = {"steps": args.steps, "batch": args.batch, "seed": args.seed, "photos": count}
    parts = {"net": net, "average": average, "optimizer": optimizer}
    if path.is_file():
        step, seconds = files.load_training(path, parts, settings, ("step", "seconds"), device)
        print(f"going on from step {step} of {args.steps}")

    def make(at):
        numbers = chosen(at, args.seed, count, args.batch, pairs=True)
        rngs = [np.random.default_rng([args.seed, 13, at, i]) for i in range(len(numbers))]
        return crops(album, numbers, rngs), torch.from_numpy(album.person[numbers])

    def save():
        seconds = time.perf_counter() - clock
        files.save_training(path, parts, settings, step=step, seconds=seconds)

    clock, losses = time.perf_counter() - seconds, []
    batches = Batches(make, step)
    bar = tqdm(total=args.steps, initial=step, desc="identity", disable=quiet())
    try:
        while step < args.steps:
            images, person = (part.to(device) for part in batches())
            for group in optimizer.param_groups:
                group["lr"] = rate(args.rate, step, args.steps)
            net.train()
            loss = contrast(net(images), person)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            running_average(average, net, step)
            losses = [*losses[-49:], loss.item()]
            bar.update()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{np.mean(losses):.3f}")
            if step % 250 == 0 or step == args.steps:
                save()
    except KeyboardInterrupt:
        save()
        raise
    finally:
        bar.close()
        batches.close()
    average.save(args.output)
    return {
        "command": f"python -m course train identity --photos {args.photos} --steps {args.steps} "
        f"--batch {args.batch} --seed {args.seed}",
        "steps": step,
        "minutes": round((time.perf_counter() - clock) / 60, 1),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, "
        f"{device.type}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "loss": round(float(np.mean(losses)), 4) if losses else None,
        "begun with": first,
        "checks": judge(average, album, count, device),
    }


@torch.no_grad()
def judge(net, album, first, device):
    """How well people from number ``first`` on are told apart, two photographs each.

    Finds: for how many photographs the likest other one is the same person's. Pairs: at the best
    threshold, how many same and different pairs are told right (each kind counts half).
    """
    numbers = np.arange(first, len(album))
    parts = np.array_split(numbers, max(1, len(numbers) // 60))
    vectors = torch.cat([net(crops(album, part).to(device)) for part in parts]).cpu()
    person = torch.from_numpy(album.person[numbers])
    likeness = vectors @ vectors.T
    itself = torch.eye(len(numbers), dtype=torch.bool)
    nearest = likeness.masked_fill(itself, -2).argmax(1)
    same = (person[:, None] == person[None])[~itself]
    values = likeness[~itself]
    yes, no = values[same].sort().values, values[~same].sort().values
    marks = torch.linspace(-1, 1, 401)
    right = (1 - torch.searchsorted(yes, marks) / len(yes)
             + torch.searchsorted(no, marks) / len(no)) / 2  # fmt: skip
    return {"people": len(person.unique()),
            "finds": round((person[nearest] == person).float().mean().item(), 3),
            "pairs": round(right.max().item(), 3)}  # fmt: skip
