"""Pictures from files as people have them: of any common format, turned, moving, damaged, hostile.

What cannot be read is refused in one sentence; whatever a file claims to hold, it costs neither
minutes nor more than about a gigabyte.
"""

import contextlib
import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow knows more, some of which start other programs (EPS) or are no pictures
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MIN_SIDE = 24
MAX_PIXELS = 80_000_000  # beyond this a picture is refused before it is unpacked
MAX_SCANS = 100  # that a JPEG may draw its picture in: usual are 1 and 10, each costs time
BAND = 512  # rows that are made RGB at once
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF tags
JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
JPEG_END, JPEG_SCAN = 0xD9, 0xDA


class PhotoError(ValueError):
    """A picture that cannot be used; the message is one sentence for the person who gave it."""


def read(source):
    """Read a picture as (H, W, 3) uint8 RGB: any common format, turned as its EXIF says.

    Grey, palette, 16-bit and CMYK become RGB, transparency goes on white, of an animation the first
    picture is taken. ``source`` is a path, bytes or an open file. Raises PhotoError.
    """
    name = "the picture"
    if isinstance(source, str | Path):
        name = Path(source).name
        _check_path(Path(source))
    elif isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=_formats()) as picture:
                _check(picture, name)
                picture.seek(0)
                array = _to_rgb(picture)
    except PhotoError:
        raise
    except PermissionError:
        raise PhotoError(f"{name} may not be read; change its permissions.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError(
            f"{name} claims to have too many pixels to open; save it smaller."
        ) from None
    except MemoryError:
        raise PhotoError(f"{name} needs more memory than there is; save it smaller.") from None
    except UnidentifiedImageError:
        hint = " (save it as JPEG first)" if name.lower().endswith((".heic", ".heif")) else ""
        raise PhotoError(f"{name} is not a picture that can be read{hint}.") from None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError(f"{name} is damaged or cut short ({reason}).") from None
    if min(array.shape[:2]) < MIN_SIDE:
        raise PhotoError(
            f"{name} has only {array.shape[1]}×{array.shape[0]} pixels; a face needs more."
        )
    return array


def _check_path(path):
    try:
        if path.is_dir():
            raise PhotoError(f"{path} is a folder, not a picture.")
        if path.is_file():
            return
        there = path.exists()
    except OSError:  # a name that no file system takes
        there = False
    if there:  # opening a pipe would wait for ever
        raise PhotoError(f"{path} is not a file.")
    raise PhotoError(f"There is no picture {path}.")


def _formats():
    """FORMATS that this Pillow has: old ones lack AVIF."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check(picture, name):
    """Refuse what would take too long or too much memory to unpack."""
    if picture.width * picture.height > MAX_PIXELS:
        raise PhotoError(f"{name} has {picture.width}×{picture.height} pixels, too many to open; "
                         "save it smaller.")  # fmt: skip
    tags = getattr(picture, "tag_v2", {})
    if int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0)) > MAX_PIXELS:
        raise PhotoError(f"{name} is stored in tiles that are too large to open; save it anew.")
    if picture.format in ("JPEG", "MPO"):
        place = picture.fp.tell()
        picture.fp.seek(0)
        scans = _scans(picture.fp.read())
        picture.fp.seek(place)
        if scans > MAX_SCANS:
            raise PhotoError(f"{name} is drawn in {scans} layers, too many to open; save it anew.")


def _scans(data):
    """How many times over a JPEG file draws its picture."""
    count, place = 0, 2
    while match := JPEG_MARKER.search(data, place):
        kind, place = match[1][0], match.end()
        if kind == JPEG_END:
            break
        count += kind == JPEG_SCAN
        place += int.from_bytes(data[place : place + 2], "big")  # of the segment's head
    return count


def _white(brightest, floats):
    """What stands for white where a file does not say: of floats 1, of cameras 12 or 16 bits."""
    usual = (*((1,) if floats else ()), 255, 4095, 65535)
    return next((top for top in usual if brightest <= top), brightest)


def _to_rgb(picture):
    """(H, W, 3) uint8, a band of rows at a time: whole pictures of other kinds take memory."""
    picture.load()
    with contextlib.suppress(Exception):  # a broken EXIF block is no reason to refuse
        ImageOps.exif_transpose(picture, in_place=True)
    deep = picture.mode.startswith("I") or picture.mode == "F"
    top = _white(picture.getextrema()[1], picture.mode == "F") if deep else 255
    clear = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    out = np.empty((picture.height, picture.width, 3), np.uint8)
    for row in range(0, picture.height, BAND):
        band = picture.crop((0, row, picture.width, min(row + BAND, picture.height)))
        if deep:
            grey = np.nan_to_num(np.asarray(band, np.float32)) / top * 255
            out[row : row + BAND] = np.clip(grey, 0, 255).round()[..., None]
            continue
        if clear:
            paper = Image.new("RGB", band.size, "white")
            paper.paste(band.convert("RGB"), mask=band.convert("RGBA").getchannel("A"))
            band = paper
        out[row : row + BAND] = np.asarray(band.convert("RGB"))
    return out
