"""From a file to a face: read any picture, find faces, place 68 landmarks, crop.

Files are read by ``pictures``, faces found by ``face_finder``; landmarks come from our network or,
where its weights are at hand, from ``face_alignment`` (Bulat and Tzimiropoulos 2017).
"""

import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from course import face_finder, network
from course import landmarks as landmark_net
from course.pictures import PhotoError, read  # noqa: F401 - photo.read is what others call

FAN_HOME = "https://www.adrianbulat.com"  # where face_alignment fetches its weights
FAN_FILES = ("2DFAN4-11f355bf06.pth.tar", "2DFAN4-cd938726ad.zip")
DETECTORS = ("auto", "built-in", "face_alignment")


class NoFaceError(PhotoError):
    """A picture without a face that we can find."""


def find_faces(image):
    """Boxes (K, 4) = (x1, y1, x2, y2) of the faces in a picture, largest first, possibly none."""
    return np.array([face.box for face in face_finder.find(image)]).reshape(-1, 4)


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
    faces = face_finder.find(image)
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
    face = face_finder.confirmed(image, before.box)
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
