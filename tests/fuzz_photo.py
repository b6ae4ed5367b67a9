"""Damaged, hostile and odd picture files for ``photo.read``:

    python tests/fuzz_photo.py --count 10000 --seed 0

or in parts, by --start. File k of a seed is always the same. A process of its own with 2 GB of
memory reads them, and is ended at the first one that takes longer than 20 seconds. Of every file is
known whether it has to be read, has to be refused, or may be either; a refusal is one sentence with
the file's name. Of every ``--detect`` th picture that is read the faces are looked for.
"""

import argparse
import collections
import faulthandler
import io
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from skimage.data import astronaut

MEMORY = 2 * 1024**3
SECONDS, WAIT = 20, 300  # a file: of the processor's time, and of the clock's
READ, REFUSE, EITHER = "read", "refuse", "either"
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "GIF": ".gif", "TIFF": ".tif", "WEBP": ".webp",
            "BMP": ".bmp", "PPM": ".ppm", "TGA": ".tga", "ICO": ".ico", "JPEG2000": ".jp2",
            "AVIF": ".avif"}  # fmt: skip
Image.init()
if "AVIF" not in Image.SAVE:  # Pillow before 11.3
    del SUFFIXES["AVIF"]
NAMES = ("my photo", "照片", "a\\b", "it's; $me & you", "é", "-s", "x" * 200, "%s{0}")


@cache
def portrait():
    return Image.fromarray(astronaut()[10:210, 120:320])


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def original(kind, size=64, mode="RGB", **options):
    """A whole file of a kind."""
    options = {"sizes": [(size, size)]} if kind == "ICO" else options
    return encoded(portrait().resize((size, size)).convert(mode), kind, **options)


def any_original(rng):
    kind = str(rng.choice(list(SUFFIXES)))
    return kind, original(kind, int(rng.choice([40, 64, 120])))


# ------------------------------------------------------------------ damage: (content, suffix, what)


def truncated(rng):
    kind, data = any_original(rng)
    return data[: rng.integers(0, len(data))], SUFFIXES[kind], EITHER


def flipped(rng):
    """Some bytes are others, the head more often than the rest."""
    kind, data = any_original(rng)
    data = bytearray(data)
    reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
    for at in rng.integers(0, reach, rng.choice([1, 3, 20])):
        data[at] = rng.integers(256)
    return bytes(data), SUFFIXES[kind], EITHER


def cut_up(rng):
    """A piece is missing, doubled, zeroed or another file's."""
    kind, data = any_original(rng)
    a, b = sorted(rng.integers(0, len(data), 2))
    middle = (b"", data[a:b] * 2, bytes(b - a), any_original(rng)[1][a:b])[rng.integers(4)]
    return data[:a] + middle + data[b:], SUFFIXES[kind], EITHER


def huge_header(rng):
    """The head claims a size that the rest does not have."""
    wide, high = (int(v) for v in rng.choice([1, 9000, 16383, 30_000, 65_000], 2))
    kind = str(rng.choice(["PNG", "BMP", "GIF", "JPEG", "TIFF", "WEBP", "PPM"]))
    data = bytearray(original(kind))
    if kind == "PNG":
        data[16:24] = struct.pack(">II", wide, high)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "BMP":
        data[18:26] = struct.pack("<II", wide, high)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", wide, high)
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", high, wide)
    elif kind == "TIFF":
        start = struct.unpack("<I", data[4:8])[0]
        for k in range(struct.unpack("<H", data[start : start + 2])[0]):
            at = start + 2 + 12 * k
            tag = struct.unpack("<H", data[at : at + 2])[0]
            if tag in (256, 257):
                data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, wide if tag == 256 else high)
    elif kind == "WEBP":
        data = bytearray(encoded(portrait().resize((64, 64)).convert("RGBA"), "WEBP", exif=b"x"))
        at = data.index(b"VP8X") + 12
        data[at : at + 6] = struct.pack("<I", wide - 1)[:3] + struct.pack("<I", high - 1)[:3]
    else:
        data = b"P6\n%d %d\n255\n" % (wide, high) + data[15:]
    return bytes(data), SUFFIXES[kind], EITHER


def png_chunks(width, height, bits, colour, *chunks):
    """A PNG file of chunks (name, content) behind its head."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pieces = [(b"IHDR", head), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in pieces
    )


@cache
def zeros(count):
    """So many zeros, packed, without having them."""
    packer, block = zlib.compressobj(9), bytes(1_000_000)
    parts = [packer.compress(block) for _ in range(count // len(block))]
    return b"".join(parts) + packer.compress(bytes(count % len(block))) + packer.flush()


def bomb_png(_):
    return png_chunks(30_000, 30_000, 1, 0, (b"IDAT", zeros(30_000 * 3751))), ".png", REFUSE


def bomb_png_wide(rng):
    """As many pixels as may be, in the kind that takes most memory."""
    bits, colour, each = ((8, 2, 3), (8, 6, 4), (16, 0, 2), (16, 6, 8))[rng.integers(4)]
    rows = zeros(8800 * (9000 * each + 1))
    return png_chunks(9000, 8800, bits, colour, (b"IDAT", rows)), ".png", READ


def bomb_png_text(rng):
    content = (b"iCCP", b"x\0\0") if rng.random() < 0.5 else (b"zTXt", b"x\0\0")
    chunk = content[0], content[1] + zeros(300_000_000)
    return png_chunks(64, 64, 8, 2, chunk, (b"IDAT", zeros(64 * 193))), ".png", EITHER


def bomb_jpeg(_):
    data = bytearray(original("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data), ".jpg", REFUSE


def bomb_jpeg_scans(_):
    """A large picture that is drawn thousands of times over."""
    data = encoded(Image.new("L", (8000, 8000)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start : data.index(b"\xff\xd9", start)]
    return data[:start] + scan * 3000 + b"\xff\xd9", ".jpg", REFUSE


def bomb_gif(rng):
    """A frame that is larger than the picture it belongs to."""
    data = bytearray(original("GIF"))
    at = data.index(b"\x2c")
    data[at + 1 : at + 9] = struct.pack("<HHHH", *rng.choice([0, 60_000, 65_535], 4))
    return bytes(data), ".gif", EITHER


def bomb_gif_frames(_):
    frames = [Image.new("L", (32, 32), k % 256) for k in range(2)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    at = data.rindex(b"\x21\xf9")
    return data[:at] + data[at:-1] * 20_000 + b";", ".gif", READ


def tiff(entries, data, first=8):
    """A little-endian TIFF of tags {number: value}, with ``data`` at the 8th byte."""
    table = b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in sorted(entries.items()))
    head = b"II*\0" + struct.pack("<I", first + len(data))
    return head + data + struct.pack("<H", len(entries)) + table + bytes(4)


def bomb_tiff(rng):
    side, data = int(rng.choice([8900, 30_000])), zeros(8900 * 8900)
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: side,
            279: len(data)}  # fmt: skip
    return tiff(tags, data), ".tif", READ if side == 8900 else REFUSE


def bomb_tiff_tiles(_):
    data = zeros(1_800_000_000 // 8)
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 40_000, 323: 45_008, 324: 8,
            325: len(data)}  # fmt: skip
    return tiff(tags, data), ".tif", REFUSE


def tiff_loop(_):
    """The next page is the page itself."""
    data = bytearray(tiff({256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64,
                           279: 4096}, bytes(4096)))  # fmt: skip
    data[-4:] = data[4:8]
    return bytes(data), ".tif", READ


def bomb_webp(_):
    image = Image.new("RGB", (16_383, 4000))  # the decoder keeps it three times
    return encoded(image, "WEBP", quality=1, method=0), ".webp", EITHER


def wrong_suffix(rng):
    _, data = any_original(rng)
    return data, str(rng.choice([*SUFFIXES.values(), "", ".txt", ".exe", ".JPG", "."])), READ


def animated(rng):
    kind = str(rng.choice(["GIF", "WEBP", "PNG", "TIFF"]))
    frames = [portrait().resize((48, 48)).rotate(20 * k) for k in range(rng.integers(2, 6))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    if rng.random() < 0.3:
        return data[: rng.integers(len(data))], SUFFIXES[kind], EITHER
    return data, SUFFIXES[kind], READ


def odd_size(rng):
    size = ((1, 1), (1, 10_000), (10_000, 1), (24, 10_000), (30_000, 24), (23, 400), (24, 24),
            (2000, 25))[rng.integers(8)]  # fmt: skip
    kind = str(rng.choice(["PNG", "JPEG", "BMP", "TIFF", "GIF"]))
    if rng.random() < 0.5:
        image = portrait().resize(size)
    else:
        image = Image.new("RGB", size, str(rng.choice(["black", "white", "#808080"])))
    return encoded(image, kind), SUFFIXES[kind], READ if min(size) >= 24 else REFUSE


def turned(rng):
    """EXIF orientations, also such as do not exist, and EXIF that is none."""
    exif = Image.Exif()
    exif[274] = int(rng.choice([*range(10), 65_000]))
    block = exif.tobytes() if rng.random() < 0.7 else b"Exif\0\0" + rng.bytes(60)
    kind = str(rng.choice(["JPEG", "PNG", "WEBP"]))
    image = portrait().resize((64, 48)).rotate(180 * int(rng.integers(2)))
    return encoded(image, kind, exif=block), SUFFIXES[kind], READ


def odd_mode(rng):
    mode = str(rng.choice(["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I",
                           "F"]))  # fmt: skip
    values = np.asarray(portrait().resize((48, 40)).convert("L"))
    if mode in ("I;16", "I", "F"):
        top = float(rng.choice([1, 257, 1e4 if mode == "I" else 257]))
        values = values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        values = values * values.dtype.type(top)
        if mode == "F":
            values.flat[rng.integers(0, values.size, 20)] = rng.choice([np.nan, np.inf, -1e30, -1])
        return encoded(Image.fromarray(values), "TIFF"), ".tif", READ
    image = portrait().resize((48, 40))
    if mode == "PA":  # a palette with a transparency for each of its colours
        return (encoded(image.quantize(64), "PNG", transparency=rng.bytes(64)), ".png", READ)
    image = image.convert(mode)
    if "A" in mode and mode != "LAB":
        image.putalpha(Image.fromarray(rng.integers(0, 256, (40, 48), dtype=np.uint8)))
    options = {} if mode not in ("1", "L", "P") or rng.random() < 0.5 else {"transparency": 0}
    kind = "PNG" if mode in ("1", "L", "LA", "P", "RGBA") else "TIFF"
    # Pillow before 13 writes YCbCr as TIFF, and calls its own file cut short
    known = mode != "YCbCr" or int(PIL.__version__.split(".")[0]) >= 13
    return encoded(image, kind, **options), SUFFIXES[kind], READ if known else EITHER


def no_picture(rng):
    """Files that are something else."""
    kinds = (b"", b"\0", b"hello, this is text", b"<svg width='9' height='9'></svg>", rng.bytes(99),
             b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n{loop}bind exec\n",
             b"\0\0\0 ftypheic" + rng.bytes(50), b"PK\3\4" + rng.bytes(40), b"%PDF-1.4\n",
             bytes(5000), b"\x7fELF" + rng.bytes(60), b"<html><body>404</body></html>")  # fmt: skip
    suffix = str(rng.choice([".jpg", ".png", ".heic", ".eps", ".tif", ".webp", ""]))
    return kinds[rng.integers(len(kinds))], suffix, REFUSE


def no_file(rng):
    """What lies in a folder beside files; made by ``put``."""
    return str(rng.choice(["folder", "pipe", "loop", "nothing", "long name"])), ".jpg", REFUSE


# how often each; the large ones take a second or so each
DAMAGE = {truncated: 24, flipped: 40, cut_up: 30, huge_header: 20, wrong_suffix: 8, animated: 8,
          odd_size: 6, turned: 10, odd_mode: 12, no_picture: 10, no_file: 4, bomb_gif: 6,
          tiff_loop: 1, bomb_png: 0.2, bomb_png_wide: 0.15, bomb_png_text: 0.4, bomb_jpeg: 2,
          bomb_jpeg_scans: 0.1, bomb_gif_frames: 0.3, bomb_tiff: 0.3, bomb_tiff_tiles: 0.3,
          bomb_webp: 0.05}  # fmt: skip


def put(folder, seed, number, kinds=DAMAGE):
    """Make file ``number``; its path, its kind's name and what is to happen."""
    rng = np.random.default_rng([seed, number])
    share = np.array(list(kinds.values()), float)
    chosen = rng.choice(len(kinds), p=share / share.sum())
    make = list(kinds)[number if number < len(kinds) else chosen]  # each at least once
    content, suffix, expected = make(rng)
    name = str(rng.choice(NAMES)) if rng.random() < 0.1 else ""
    path = Path(folder) / f"{number:05d}{name}{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "loop":
        path.symlink_to(path.name)
    elif content == "long name":
        path = path.with_name("y" * 3000 + ".jpg")
    return path, make.__name__, expected


# ------------------------------------------------------------------ the process that reads


def look(path, expected, detect):
    """What is wrong with how a file was dealt with, or "", and what happened."""
    from course import photo

    try:
        image = photo.read(path)
    except photo.PhotoError as error:
        text = str(error)
        if expected == READ:
            return f"refused: {text}", REFUSE
        if path.name not in text or "\n" in text or not text.endswith("."):
            return f"no sentence with the name: {text!r}", REFUSE
        # a dot and a capital begin a second sentence
        return ("two sentences: " + text if re.search(r"\. [A-Z]", text) else ""), REFUSE
    if expected == REFUSE:
        return f"read as {image.shape}", READ
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        return f"{image.dtype} {image.shape}", READ
    if detect:
        try:
            photo.detect(image, detector="built-in")
        except photo.NoFaceError:
            return "", "read, no face"
        return "", "read, a face"
    return "", READ


def child(arguments):
    """Read the files that are named on stdin, a line of JSON each; answer a line of JSON each."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # libraries map a gigabyte that they never touch: the limit is for what is really held
    mapped, held = (int(pages) for pages in Path("/proc/self/statm").read_text().split()[:2])
    limit = MEMORY + (mapped - held) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("error")
    read = 0
    for line in sys.stdin:
        path, kind, expected = json.loads(line)
        # without a handler SIGPROF ends the process, whatever it is doing
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        faulthandler.dump_traceback_later(WAIT, exit=True)
        begin = time.process_time()
        detect = bool(arguments.detect) and read % arguments.detect == 0
        try:
            wrong, happened = look(Path(path), expected, detect)
        except BaseException as error:
            wrong, happened = f"{type(error).__name__}: {error}", "crash"
        read += happened.startswith(READ)
        print(json.dumps([Path(path).name, kind, happened, wrong, time.process_time() - begin]),
              file=answers, flush=True)  # fmt: skip
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(["", "peak MB", round(peak / 1024), "", 0]), file=answers)
    answers.close()


def run(count, seed=0, detect=0, start=0, kinds=DAMAGE):
    """Read so many files; a dict of what happened, with "wrong", a list of what should not."""
    command = [sys.executable, __file__, "--child", "--detect", str(detect)]
    report = {"files": count, "happened": collections.Counter(), "wrong": [], "slowest": 0.0}
    kept = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as folder:
        reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            for k in range(start, start + count):
                path, kind, expected = put(folder, seed, k, kinds)
                reader.stdin.write(json.dumps([str(path), kind, expected]) + "\n")
                reader.stdin.flush()
                line = reader.stdout.readline()
                if not line:
                    report["wrong"].append([path.name[:99], kind, "the reader died or hung"])
                    break
                _, _, happened, wrong, seconds = json.loads(line)
                report["happened"][happened] += 1
                kept[kind][happened] += 1
                report["slowest"] = max(report["slowest"], round(seconds, 2))
                if wrong:
                    report["wrong"].append([path.name[:99], kind, wrong])
                if os.path.isfile(path):
                    path.unlink()
            reader.stdin.close()
            last = reader.stdout.readline()
            report["peak MB"] = json.loads(last)[2] if last else None
            reader.wait(60)
        finally:
            reader.kill()
            reader.wait()
            reader.stdout.close()
    report["kinds"] = {name: dict(counts) for name, counts in kept.items()}
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first file")
    parser.add_argument("--detect", type=int, default=100)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
    else:
        found = run(args.count, args.seed, args.detect, args.start)
        print(json.dumps(found, indent=1, ensure_ascii=False))
        sys.exit(bool(found["wrong"]))
