"""From a file to a face: read any picture, find faces, place 68 landmarks, crop.

Detection is OpenCV's and scikit-image's cascades (Viola and Jones 2001) checked by our landmark
network's own uncertainty; landmarks come from that network or, where its weights are at hand, from
``face_alignment`` (Bulat and Tzimiropoulos 2017).
"""

import contextlib
import io
import sys
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from course import landmarks as landmark_net
from course import network

MIN_SIDE = 24
MAX_PIXELS = 80_000_000  # beyond this a picture is refused before it is unpacked
WORKING_SIDE = 720  # faces are looked for in a copy of at most this size
# mean σ of the inner landmarks over the face's size, above which it is no face; real ones have
# about 0.02, and a picture searched at many angles needs a stricter limit
SURE, SURE_TURNED = 0.045, 0.030
STEADY = 0.05  # of the face's size: how far its landmarks may move when the box does
FAN_HOME = "https://www.adrianbulat.com"  # where face_alignment fetches its weights
FAN_FILES = ("2DFAN4-11f355bf06.pth.tar", "2DFAN4-cd938726ad.zip")
DETECTORS = ("auto", "built-in", "face_alignment")


class PhotoError(ValueError):
    """A picture that cannot be used; the message is one sentence for the person who gave it."""


class NoFaceError(PhotoError):
    """A picture without a face that we can find."""


def read(source):
    """Read a picture as (H, W, 3) uint8 RGB: any common format, turned as its EXIF says.

    Grey, palette, 16-bit and CMYK become RGB, transparency goes on white, of an animation the first
    picture is taken. ``source`` is a path, bytes or an open file. Raises PhotoError.
    """
    name = Path(source).name if isinstance(source, str | Path) else "the picture"
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise PhotoError(
                        f"{name} has {picture.width}×{picture.height} pixels, too many to open; "
                        "save it smaller."
                    )
                picture.seek(0)
                picture.load()
                array = _to_rgb(picture)
    except PhotoError:
        raise
    except FileNotFoundError:
        raise PhotoError(f"There is no picture {source}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError(
            f"{name} claims to have too many pixels to open; save it smaller."
        ) from None
    except IsADirectoryError:
        raise PhotoError(f"{source} is a folder, not a picture.") from None
    except UnidentifiedImageError:
        hint = ""
        if str(name).lower().endswith((".heic", ".heif", ".avif")):
            hint = " (save it as JPEG first)"
        raise PhotoError(f"{name} is not a picture that can be read{hint}.") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, TypeError, KeyError,
            IndexError, OverflowError, AttributeError) as error:  # fmt: skip
        raise PhotoError(f"{name} is damaged or cut short ({error}).") from None
    if min(array.shape[:2]) < MIN_SIDE:
        raise PhotoError(
            f"{name} has only {array.shape[1]}×{array.shape[0]} pixels; a face needs more."
        )
    return array


def _to_rgb(picture):
    with contextlib.suppress(Exception):  # a broken EXIF block is no reason to refuse
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        grey = np.clip(values / top * 255, 0, 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"))


# ------------------------------------------------------------------ faces


@lru_cache(maxsize=1)
def _cascades():
    folder = Path(cv2.data.haarcascades)
    names = ("haarcascade_frontalface_alt2.xml", "haarcascade_frontalface_default.xml",
             "haarcascade_profileface.xml")  # fmt: skip
    return [cv2.CascadeClassifier(str(folder / name)) for name in names]


def _candidates(grey):
    """Boxes (x1, y1, x2, y2) that some cascade takes for a face."""
    least = max(20, min(grey.shape) // 14)
    alt, default, profile = _cascades()
    boxes = []
    for cascade, neighbours, flip in ((alt, 3, False), (default, 5, False), (profile, 4, False),
                                      (profile, 4, True)):  # fmt: skip
        view = np.ascontiguousarray(grey[:, ::-1]) if flip else grey
        for x, y, w, h in cascade.detectMultiScale(view, 1.1, neighbours, minSize=(least, least)):
            x = grey.shape[1] - x - w if flip else x
            boxes.append((x, y, x + w, y + h))
    return np.array(boxes, float).reshape(-1, 4)


def find_faces(image):
    """Boxes (K, 4) = (x1, y1, x2, y2) of the faces in a picture, largest first, possibly none.

    Upright faces first; if there are none, the landmark network looks by itself, and turned copies
    of the picture are searched too.
    """
    return np.array([face.box for face in _find(image)]).reshape(-1, 4)


def _find(image):
    """Verified faces, largest first, each with the landmarks that verified it."""
    shrink = min(1.0, WORKING_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    if shrink == 1 and max(image.shape[:2]) < 320:  # cascades want faces of some size
        shrink = 320 / max(image.shape[:2])
        small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_LINEAR)
    small = np.ascontiguousarray(small)
    searches = (
        lambda: _find_turned(small, 0),
        lambda: _scan(small),
        lambda: [f for angle in (-30, 30, 90, -90, 180) for f in _find_turned(small, angle)],
    )
    for search in searches:
        faces = _without_overlaps(search())
        if faces:
            for face in faces:
                face.box, face.points, face.sigma = (
                    q / shrink for q in (face.box, face.points, face.sigma)
                )
            return sorted(faces, key=lambda f: -np.prod(f.box[2:] - f.box[:2]))
    return []


@dataclass
class _Face:
    box: np.ndarray
    points: np.ndarray
    sigma: np.ndarray
    doubt: float


def _find_turned(image, degrees):
    """Faces that the cascades propose and the landmark network confirms."""
    height, width = image.shape[:2]
    turn = _rotation(width, height, degrees)
    size = (
        int(abs(width * np.cos(np.radians(degrees))) + abs(height * np.sin(np.radians(degrees)))),
        int(abs(width * np.sin(np.radians(degrees))) + abs(height * np.cos(np.radians(degrees)))),
    )
    view = cv2.warpAffine(image, turn, size) if degrees else image
    grey = cv2.equalizeHist(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY))
    back, faces = cv2.invertAffineTransform(turn), []
    for box in _candidates(grey):
        face = _confirmed(view, box, SURE_TURNED if degrees else SURE)
        if face is None:
            continue
        middle, side = (box[:2] + box[2:]) / 2, np.ptp(face.points, axis=0).max()
        near = np.abs(face.points.mean(0) - middle).max() < 0.6 * (box[2] - box[0])
        if near and 0.4 < side / (box[2] - box[0]) < 1.8:
            if degrees:
                face.points = face.points @ back[:, :2].T + back[:, 2]
                face.box = np.concatenate([face.points.min(0), face.points.max(0)])
            faces.append(face)
    return faces


def _scan(image):
    """Faces that the network finds by itself, started from windows all over the picture.

    Slower than the cascades, and better at faces that fill the picture, look aside or wear fringes.
    """
    height, width = image.shape[:2]
    faces = []
    for share in (0.6, 0.36):
        side = share * min(height, width)
        rows, columns = (max(1, round((q - side) / (0.6 * side)) + 1) for q in (height, width))
        for y in np.linspace(side / 2, height - side / 2, rows) if rows > 1 else [height / 2]:
            for x in (
                np.linspace(side / 2, width - side / 2, columns) if columns > 1 else [width / 2]
            ):
                window = np.array([x, y, x, y]) + np.array([-1, -1, 1, 1]) * side / 2
                face = _confirmed(image, window, SURE_TURNED)
                if face is not None:
                    faces.append(face)
    return faces


def _confirmed(image, box, sure):
    """The face that the network sees from a box, or None.

    It has to be sure of its landmarks, and to find the same ones from a shifted, larger box.
    """
    net = landmark_net.load()
    points, sigma = landmark_net.predict(net, image, box, rounds=2)
    side = np.ptp(points, axis=0).max()
    doubt = float(sigma[17:].mean() / max(side, 1))
    if doubt >= sure or side < 12:
        return None
    low, high = points.min(0), points.max(0)
    other = np.concatenate([low - 0.25 * side, high + 0.1 * side])
    again, _ = landmark_net.predict(net, image, other, rounds=2,
                                    roll=landmark_net.upright_roll(points))  # fmt: skip
    if np.linalg.norm(again - points, axis=1)[17:].mean() > STEADY * side:
        return None
    return _Face(np.concatenate([low, high]), points, sigma, doubt)


def _rotation(width, height, degrees):
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    c, s = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    matrix[0, 2] += (height * s + width * c - width) / 2
    matrix[1, 2] += (width * s + height * c - height) / 2
    return matrix


def _without_overlaps(faces):
    """Of boxes that overlap by more than a third, keep the one with the surest landmarks."""
    kept = []
    for face in sorted(faces, key=lambda f: f.doubt):
        if all(_overlap(face.box, other.box) < 1 / 3 for other in kept):
            kept.append(face)
    return kept


def _overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return shared / min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))


# ------------------------------------------------------------------ landmarks


@dataclass
class Detection:
    """points (68, 2) and sigma (68,) in pixels of the picture · box (4,) · who found them · how
    many faces the picture has."""

    points: np.ndarray
    sigma: np.ndarray
    box: np.ndarray
    detector: str
    n_faces: int


def detect(image, face=0, detector="auto"):
    """The 68 landmarks of one face of a picture; ``face`` counts from the largest, 0.

    ``detector``: "built-in"; "face_alignment"; "auto" takes face_alignment when its weights are on
    disk or can be fetched at once. Raises NoFaceError, PhotoError or ValueError.
    """
    if detector not in DETECTORS:
        raise ValueError(f"There is no detector '{detector}'; choose {', '.join(DETECTORS)}.")
    faces = _find(image)
    if not faces:
        raise NoFaceError(
            "No face was found; try a photograph where one face is large, lit and looks this way."
        )
    if not 0 <= face < len(faces):
        count = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
        raise NoFaceError(f"There is no face number {face + 1}: the picture has {count}.")
    chosen = faces[face]
    if detector != "built-in":
        aligner, reason = _face_alignment()
        if aligner is not None:
            points = _by_face_alignment(aligner, image, chosen.box)
            if points is not None:
                side = np.ptp(points, axis=0).max()
                return Detection(points, np.full(68, 0.012 * side, np.float32), chosen.box,
                                 "face_alignment", len(faces))  # fmt: skip
            reason = "it found nothing in that box"
        if detector == "face_alignment":
            raise PhotoError(f"face_alignment cannot be used: {reason}.")
        _say_once(f"The built-in landmarks are used, not face_alignment: {reason}.")
    roll = landmark_net.upright_roll(chosen.points)
    points, sigma = landmark_net.predict(landmark_net.load(), image, chosen.box, roll=roll)
    return Detection(points, sigma, chosen.box, "built-in", len(faces))


def follow(image, before, detector="auto"):
    """The landmarks in the next frame of a film, looked for where they were ``before``.

    Many times faster than ``detect``, which is asked when the face is lost there; raises as it
    does.
    """
    face = _confirmed(image, before.box, SURE)
    if face is None or detector == "face_alignment" or before.detector == "face_alignment":
        return detect(image, detector=detector)
    roll = landmark_net.upright_roll(face.points)
    points, sigma = landmark_net.predict(landmark_net.load(), image, face.box, roll=roll)
    return Detection(points, sigma, face.box, "built-in", before.n_faces)


def face_alignment_weights():
    """The landmark network's file in torch hub's folder, or None."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return next((folder / name for name in FAN_FILES if (folder / name).is_file()), None)


@lru_cache(maxsize=1)
def _face_alignment():
    """The face_alignment network, or None and the reason."""
    try:
        import face_alignment
    except ImportError as error:
        return None, f"it is not installed ({error})"
    if face_alignment_weights() is None and not network.answers(FAN_HOME):
        return None, (f"its weights are not on this machine, and {FAN_HOME} does not answer; "
                      "connect to the network, or choose the built-in detector")  # fmt: skip
    from course.facecode import resolve_device

    try:
        with network.impatient():
            return face_alignment.FaceAlignment(
                face_alignment.LandmarksType.TWO_D, device=str(resolve_device()), compile=False,
                face_detector="folder",
            ), ""  # fmt: skip
    except Exception as error:  # a failed download raises many kinds
        return None, (f"its weights could not be fetched from {FAN_HOME} ({error}); "
                      "try again later, or choose the built-in detector")  # fmt: skip


@lru_cache
def _say_once(text):
    """Print to stderr what was tried, once however many pictures there are."""
    print(text, file=sys.stderr)


def _by_face_alignment(aligner, image, box):
    side = max(box[2] - box[0], box[3] - box[1])
    # its detectors' boxes reach up to the forehead, ours end at the brows
    grown = [box[0], box[1] - 0.25 * side, box[2], box[3]]
    found = aligner.get_landmarks_from_image(image, detected_faces=[grown])
    return np.asarray(found[0], np.float32) + 0.5 if found else None


# ------------------------------------------------------------------ cropping


@dataclass
class Crop:
    """A turned square of a picture: ``centre`` (2,), ``side`` in its pixels, ``angle`` radians,
    ``out`` pixels a side."""

    centre: np.ndarray
    side: float
    angle: float
    out: int

    @property
    def matrix(self):
        """(2, 3) from the crop's pixels to the picture's."""
        c, s = (np.cos(self.angle), np.sin(self.angle))
        linear = np.array([[c, -s], [s, c]]) * self.side / self.out
        return np.column_stack([linear, self.centre - linear @ np.full(2, self.out / 2)])

    def apply(self, image):
        """The crop (3, out, out) float32 0…1 of a picture (H, W, 3) uint8; edges are repeated."""
        matrix = self.matrix
        shifted = matrix.copy()  # OpenCV's pixel centres are whole numbers
        shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
        shrink = self.side / self.out
        if shrink > 1.5:
            image = cv2.GaussianBlur(image, (0, 0), 0.4 * shrink)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(image, shifted, (self.out, self.out), flags=flags,
                              borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        return torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1).float() / 255

    def to_photo(self, points):
        """Crop pixels (…, 2) to picture pixels."""
        return np.asarray(points) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_crop(self, points):
        """Picture pixels (…, 2) to crop pixels."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return (np.asarray(points) - self.matrix[:, 2]) @ linear.T


def crop_around(points, out=224, scale=1.6, upright=False):
    """The square crop around landmarks (68, 2): their box's side times ``scale``.

    ``upright`` turns the crop so that the eyes are level.
    """
    points = np.asarray(points, float)
    angle = 0.0
    if upright:
        angle = landmark_net.upright_roll(points)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    level = points @ turn.T
    low, high = level.min(0), level.max(0)
    return Crop(turn.T @ ((low + high) / 2), float((high - low).max() * scale), angle, out)
