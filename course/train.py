"""``python -m course train landmarks``: train the networks that ship with the course.

First a set of synthetic photographs is made (in chunks, kept on disk), then the network is trained
on it. Both can be stopped at any time; the same command goes on where it stopped.
"""

import copy
import json
import math
import os
import platform
import time

import numpy as np
import torch
from tqdm import tqdm

from course import files, metrics
from course.facecode import resolve_device
from course.files import DATA, any_path, atomic_path, quiet, weights_path, write_report
from course.landmarks import INPUT, MIRROR, WEIGHTS, LandmarkNet, landmark_loss, load
from course.optim import running_average
from course.workers import spread

SIZE = 112  # side of the photographs; random crops of INPUT pixels are trained on
CHUNK = 250
HELD_OUT_SEED = 7_000_003  # training chunks use the seeds 0, 1, 2 …
HELD_OUT_YAW = 50.0  # degrees: heads are judged up to here, and trained on further
YAW_BINS = ((0, 20), (20, 35), (35, 50))


def add_arguments(parser):
    """One sub-command a network."""
    from course import train_detail, train_encoder, train_identity

    networks = parser.add_subparsers(dest="network", required=True, metavar="NETWORK")
    for name, module, text in (
        ("landmarks", None, "68 landmarks in a picture (data/landmarks.pt)"),
        ("encoder", train_encoder, "a face's codes from its picture (data/encoder.pt)"),
        ("identity", train_identity, "who it is, for the identity loss (data/identity.pt)"),
        ("detail", train_detail, "wrinkles that move with the expression (data/detail.pt)"),
    ):
        sub = networks.add_parser(name, help=text, description=text)
        (module.add_arguments if module else _landmark_arguments)(sub)
        sub.set_defaults(run=module.run if module else _run_landmarks)


def run(args):
    return args.run(args)


def _landmark_arguments(parser):
    parser.add_argument("--photos", type=int, default=30_000, help="training photographs")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of 64 photographs")
    parser.add_argument("--rate", type=float, default=2.5e-3, help="highest learning rate")
    parser.add_argument(
        "--start", type=any_path, help="weights to go on from, instead of random ones"
    )
    parser.add_argument("--precision", choices=["full", "mixed"], default="full",
                        help="mixed: bfloat16 where it does no harm")  # fmt: skip
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1),
                        help="processes that make photographs")  # fmt: skip
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--folder", type=any_path, default=DATA.parent / "runs" / "landmarks",
                        help="photographs and checkpoints")  # fmt: skip
    parser.add_argument("--output", type=any_path,
                        help=f"for the weights (default: {WEIGHTS.name} in --folder)")  # fmt: skip
    parser.add_argument("--device", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", action="store_true",
                        help="only measure the weights, on 1,000 held-out photographs")  # fmt: skip


def _run_landmarks(args):
    if args.photos < CHUNK or args.steps < 1:
        raise ValueError(f"at least {CHUNK} photographs and one step are needed")
    if args.start and not args.start.is_file():
        raise ValueError(f"There are no weights {args.start} to start from.")
    torch.set_num_threads(args.threads)
    held_out = load_photos(
        args.folder / "held-out", 1000, HELD_OUT_SEED, args.workers, max_yaw=HELD_OUT_YAW
    )
    if args.evaluate:
        print_errors(measure(load(args.output or WEIGHTS), *held_out))
        return 0
    args.output = weights_path(args.output, WEIGHTS, args.folder)
    photos = load_photos(args.folder / "train", args.photos, args.seed, args.workers)
    report = train_landmarks(photos, held_out, args)
    print_errors(report["errors"])
    write_report(args.output, report, WEIGHTS)
    return 0


# ------------------------------------------------------------------ photographs


def _make_chunk(path, seed, max_yaw):
    """Make one chunk of photographs and write it, whole or not at all."""
    from course.faces import MOUTHS, Photographer, Variety

    torch.set_num_threads(1)
    variety = Variety(**MOUTHS, brows=0.5) if max_yaw is None else Variety(max_yaw=max_yaw)
    maker = _make_chunk.__dict__.setdefault("maker", None) or Photographer(size=SIZE)
    _make_chunk.maker = maker
    maker.variety = variety
    rng = np.random.default_rng(seed)
    photos = [maker(rng) for _ in range(CHUNK)]
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            images=np.stack([p.image for p in photos]),
            landmarks=np.stack([p.landmarks for p in photos]),
            yaws=np.array([p.yaw for p in photos], np.float32),
        )
    return path


def load_photos(folder, count, seed, workers, max_yaw=None):
    """Images (n, 112, 112, 3) uint8, landmarks (n, 68, 2), yaws (n,); made where missing.

    ``max_yaw`` degrees narrows the photographer's own range of turned heads.
    """
    chunks = math.ceil(count / CHUNK)
    paths = [folder / f"{seed}-{k:05d}.npz" for k in range(chunks)]
    jobs = [(p, [seed, k], max_yaw) for k, p in enumerate(paths) if not p.is_file()]
    if jobs:
        made = spread(_make_chunk, jobs, workers)
        for _ in tqdm(made, f"photographs ({folder.name})", len(jobs), disable=quiet()):
            pass
    loaded = []
    for path in paths:
        with np.load(path) as file:
            loaded.append((file["images"], file["landmarks"], file["yaws"]))
    return tuple(np.concatenate(column)[:count] for column in zip(*loaded, strict=True))


# ------------------------------------------------------------------ training


def batches(images, landmarks, rng, size=64):
    """Endless batches (n, 96, 96, 3) uint8, points: random crops, mirrored, patches cut out."""
    room = SIZE - INPUT
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            offsets = rng.integers(0, room + 1, (size, 2))
            batch = np.stack([
                images[i, y : y + INPUT, x : x + INPUT]
                for i, (x, y) in zip(chosen, offsets, strict=True)
            ])  # fmt: skip
            points = landmarks[chosen] - offsets[:, None, :]
            mirrored = rng.random(size) < 0.5
            batch[mirrored] = batch[mirrored][:, :, ::-1]
            points[mirrored] = points[mirrored][:, MIRROR] * [-1, 1] + [INPUT, 0]
            for k in np.flatnonzero(rng.random(size) < 0.2):
                (w, h), (x, y) = rng.integers(8, 34, 2), rng.integers(0, INPUT - 6, 2)
                batch[k, y : y + h, x : x + w] = rng.integers(0, 256, 3)
            yield batch, points.astype(np.float32)


def train_landmarks(photos, held_out, args):
    """Train from scratch or from the folder's checkpoint; writes weights, returns a report.

    Raises ValueError for a checkpoint that is damaged or of another run.
    """
    images, landmarks, _ = photos
    inside = ((landmarks > -14) & (landmarks < SIZE + 14)).all((1, 2))
    images, landmarks = images[inside], landmarks[inside]
    device = resolve_device(args.device)
    torch.manual_seed(args.seed)
    net = load(args.start) if args.start else LandmarkNet()
    net = copy.deepcopy(net).requires_grad_().to(device, memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.rate)
    average = copy.deepcopy(net).eval()
    checkpoint, step, seconds = args.folder / "checkpoint.pt", 0, 0.0
    settings = {"steps": args.steps, "rate": args.rate, "seed": args.seed, "photos": len(images),
                "start": args.start and args.start.name}  # fmt: skip
    parts = {"net": net, "average": average, "optimizer": optimizer}
    if checkpoint.is_file():
        step, seconds = files.load_training(
            checkpoint, parts, settings, ("step", "seconds"), device
        )
        print(f"going on from step {step} of {args.steps}")
    stream = batches(images, landmarks, np.random.default_rng([args.seed, step]))
    start, recent = time.perf_counter() - seconds, []
    bar = tqdm(total=args.steps, initial=step, desc="landmarks", disable=quiet())
    try:
        while step < args.steps:
            for group in optimizer.param_groups:
                cosine = 0.5 * (1 + math.cos(math.pi * step / args.steps))
                group["lr"] = args.rate * min(1, (step + 1) / 200) * max(cosine, 0.004)
            batch, points = next(stream)
            x = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float() / 255
            net.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "mixed"):
                loss = landmark_loss(*net(x), torch.from_numpy(points).to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
            optimizer.step()
            step += 1
            running_average(average, net, step)
            recent = [*recent[-99:], loss.item()]
            bar.update()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{np.mean(recent):.3f}")
            if step % 500 == 0 or step == args.steps:
                seconds = time.perf_counter() - start
                files.save_training(checkpoint, parts, settings, step=step, seconds=seconds)
    except KeyboardInterrupt:
        seconds = time.perf_counter() - start
        files.save_training(checkpoint, parts, settings, step=step, seconds=seconds)
        raise
    finally:
        bar.close()
    with atomic_path(args.output) as temporary:
        torch.save({k: v.half() if v.is_floating_point() else v
                    for k, v in average.state_dict().items()}, temporary)  # fmt: skip
    checkpoint.unlink(missing_ok=True)
    command = f"--photos {args.photos} --steps {args.steps} --rate {args.rate:g} --seed {args.seed}"
    if args.precision == "mixed":
        command += " --precision mixed"
    before = args.start.with_suffix(".json") if args.start else None
    if args.start:
        command += f" --start {args.start.name}"
    return {
        "command": f"python -m course train landmarks {command}",
        "before": json.loads(before.read_text("utf-8")) if before and before.is_file() else None,
        "steps": step,
        "photographs": len(images),
        "minutes": round(seconds / 60, 1),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, "
        f"{device.type}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "loss": round(float(np.mean(recent)), 4) if recent else None,
        "errors": measure(average, *held_out),
    }


# ------------------------------------------------------------------ measuring


@torch.no_grad()
def measure(net, images, landmarks, yaws):
    """Mean and median error in % of the distance between the outer corners of the eyes.

    The network sees the middle of each picture once, without a detector's or its own second crop.
    For profiles see ``metrics.landmark_errors``.
    """
    net = net.eval()
    device = next(net.parameters()).device
    edge = (SIZE - INPUT) // 2
    found = []
    for start in range(0, len(images), 100):
        x = torch.from_numpy(
            images[start : start + 100, edge : edge + INPUT, edge : edge + INPUT].copy()
        )
        found.append(net(x.to(device).permute(0, 3, 1, 2).float() / 255)[0].cpu())
    found = torch.cat(found).numpy() + edge
    error = metrics.landmark_errors(found, landmarks)
    each, inner = error.mean(1), error[:, 17:].mean(1)
    result = {
        "photographs": len(each),
        "mean NME %": round(float(each.mean()), 2),
        "median NME %": round(float(np.median(each)), 2),
        "mean NME of the inner 51 %": round(float(inner.mean()), 2),
        "share under 10 %": round(float((each < 10).mean()), 3),
    }
    for low, high in YAW_BINS:
        chosen = (np.abs(yaws) >= low) & (np.abs(yaws) < high)
        if chosen.any():
            result[f"mean NME %, yaw {low}…{high}°"] = round(float(each[chosen].mean()), 2)
    return result


def print_errors(errors):
    for name, value in errors.items():
        print(f"{name:32s} {value}")
