"""Where the faces of a picture are: boxes from cascades and windows, each confirmed by landmarks.

Upright faces are proposed by OpenCV's cascades (Viola and Jones 2001). Where these see none, the
landmark network is asked about windows all over the picture, at eight angles.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from course import landmarks as landmark_net
from course.landmarks import INPUT, UNIT

WORKING_SIDE = 720  # faces are looked for in a copy of at most this size
FINE_SIDE = 1440  # and if there are none, in this one for small faces
SMALL_FACE = 32  # pixels a side that these have at least
# mean σ of the inner landmarks over the face's size, above which it is no face; real ones have
# about 0.02, and a picture searched at many angles needs a stricter limit
SURE, SURE_TURNED = 0.045, 0.030
STEADY = 0.05  # of the face's size: how far its landmarks may move when the box does
SHARES = (0.6, 0.36)  # sides of the windows, of the picture's shorter side
ANGLES = np.radians(np.arange(-135, 181, 45))
LONG = 3  # times as long as wide
ASKED = 12  # of the windows, those whose landmarks the network is surest of
VIEWS = 64  # pictures that the network sees at once


@dataclass
class Face:
    """box (4,) = x1, y1, x2, y2 · points (68, 2) and sigma (68,) in pixels · doubt: how unsure the
    network is of them, as a share of the face's size."""

    box: np.ndarray
    points: np.ndarray
    sigma: np.ndarray
    doubt: float


def find(image):
    """Faces of a picture (H, W, 3) uint8, each with the landmarks that confirmed it, largest first.

    Tilted or upside-down faces and very small ones are looked for where there are no sure others.
    """
    small, shrink = _copy(image, WORKING_SIDE)
    if min(small.shape[:2]) < SMALL_FACE:  # a strip
        return []
    faces = _proposed(small, max(20, min(small.shape[:2]) // 14))
    if not any(face.doubt < SURE_TURNED for face in faces):  # a face that stands on its head
        faces = _without_overlaps(faces + _scan(small))  # can look like an odd upright one
    if not faces and max(image.shape[:2]) > WORKING_SIDE:
        small, shrink = _copy(image, FINE_SIDE)
        faces = _proposed(small, SMALL_FACE)
    for face in faces:
        face.box, face.points, face.sigma = (
            q / shrink for q in (face.box, face.points, face.sigma)
        )
    return sorted(faces, key=lambda f: -np.prod(f.box[2:] - f.box[:2]))


def _copy(image, side):
    """A copy of at most ``side`` pixels a side and at least 320, and its size over the picture's:
    cascades want faces of some size."""
    longest = max(image.shape[:2])
    shrink = side / longest if longest > side else max(1.0, 320 / longest)
    size = [max(1, round(q * shrink)) for q in image.shape[1::-1]]
    how = cv2.INTER_AREA if shrink < 1 else cv2.INTER_LINEAR
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=how)), shrink


# ------------------------------------------------------------------ cascades


@lru_cache(maxsize=1)
def _cascades():
    folder = Path(cv2.data.haarcascades)
    names = ("haarcascade_frontalface_alt2.xml", "haarcascade_frontalface_default.xml",
             "haarcascade_profileface.xml")  # fmt: skip
    return [cv2.CascadeClassifier(str(folder / name)) for name in names]


def _candidates(grey, least):
    """Boxes (x1, y1, x2, y2) that some cascade takes for a face of ``least`` pixels or more."""
    alt, default, profile = _cascades()
    boxes = []
    for cascade, neighbours, flip in ((alt, 3, False), (default, 5, False), (profile, 4, False),
                                      (profile, 4, True)):  # fmt: skip
        view = np.ascontiguousarray(grey[:, ::-1]) if flip else grey
        for x, y, w, h in cascade.detectMultiScale(view, 1.1, neighbours, minSize=(least, least)):
            x = grey.shape[1] - x - w if flip else x
            boxes.append((x, y, x + w, y + h))
    return np.array(boxes, float).reshape(-1, 4)


def _proposed(image, least):
    """Faces that the cascades propose and the landmark network confirms."""
    grey, faces = cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)), []
    for box in _candidates(grey, least):
        face = confirmed(image, box)
        if face is None:
            continue
        middle, side = (box[:2] + box[2:]) / 2, np.ptp(face.points, axis=0).max()
        near = np.abs(face.points.mean(0) - middle).max() < 0.6 * (box[2] - box[0])
        if near and 0.4 < side / (box[2] - box[0]) < 1.8:
            faces.append(face)
    return _without_overlaps(faces)


# ------------------------------------------------------------------ windows


def _scan(image):
    """Faces that the network finds by itself, started from windows all over the picture.

    Slower than the cascades, and better at faces that fill the picture, look aside, wear fringes,
    lie or stand on their head.
    """
    windows = _windows(*image.shape[:2])
    doubts = np.concatenate([_doubts(image, part) for part in windows])
    asked, faces = np.concatenate(windows)[np.argsort(doubts)[:ASKED]], []
    for x, y, side, roll in asked:
        box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
        if not any(_overlap(box, face.box) > 0.9 for face in faces):
            face = confirmed(image, box, SURE_TURNED, roll)
            faces += [] if face is None else [face]
    return _without_overlaps(faces)


def _windows(height, width):
    """For each of SHARES an array (n, 4) of x, y, side and roll; long pictures, which have many,
    are not turned."""
    found, angles = [], ANGLES if max(height, width) < LONG * min(height, width) else [0.0]
    for share in SHARES:
        side = share * min(height, width)
        rows, columns = (max(1, round((q - side) / (0.6 * side)) + 1) for q in (height, width))
        y, x = (np.linspace(side / 2, q - side / 2, n) if n > 1 else np.array([q / 2])
                for q, n in ((height, rows), (width, columns)))  # fmt: skip
        grid = np.stack(np.meshgrid(x, y, [side], angles, indexing="ij"), -1)
        found.append(grid.reshape(-1, 4))
    return found


@torch.no_grad()
def _doubts(image, windows):
    """How unsure the network is of the landmarks in each window (n, 4) of one side: (n,)."""
    net, side = landmark_net.load(), 1.5 * windows[0, 2]  # as ``landmarks.predict`` widens a box
    if side > INPUT:  # shrunk once for all
        image = cv2.resize(image, None, fx=INPUT / side, fy=INPUT / side,
                           interpolation=cv2.INTER_AREA)  # fmt: skip
        windows, side = windows * [INPUT / side, INPUT / side, 1, 1], INPUT
    device, found = next(net.parameters()).device, []
    for start in range(0, len(windows), VIEWS):
        crops = [landmark_net.crop(image, w[:2], side, w[3])[0]
                 for w in windows[start : start + VIEWS]]  # fmt: skip
        batch = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2).float() / 255
        points, log_sigma = net(batch)
        size = (points.amax(1) - points.amin(1)).amax(1).clamp_min(1)
        found.append((log_sigma[:, 17:].exp().mean(1) * UNIT / size).cpu().numpy())
    return np.concatenate(found)


# ------------------------------------------------------------------ judging


def confirmed(image, box, sure=SURE, roll=0.0):
    """The face that the network sees from a box, turned by ``roll`` (radians), or None.

    It has to be sure of its landmarks, and to find the same ones from a shifted, larger box.
    """
    net = landmark_net.load()
    points, sigma = landmark_net.predict(net, image, box, rounds=2, roll=roll)
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
    return Face(np.concatenate([low, high]), points, sigma, doubt)


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
