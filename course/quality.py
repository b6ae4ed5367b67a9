"""Is a photograph good for reconstruction? Every trouble in one kind sentence: reason and remedy.

Nothing here refuses a picture: a poor photograph is better than none.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from course.facecode import ROOT
from course.fit import first_pose
from course.flame import rodrigues
from course.photo import crop_around

SIDE = 128  # pixels of the upright crop that is judged, and 1.2 times the landmarks' box
# Measured on 24 synthetic people, spoilt by known amounts (``spoilt``): at the limits of blur,
# darkness, burnt and one-sided light, landmarks or the encoder's identity are wrong by a tenth or
# more than without. Such people, unspoilt, stay below; so does a real photograph, scikit-image's.
LIMITS = {
    "small": 70.0,  # half of what the fit compares; shape suffers at 30 only, the texture earlier
    "blurred": 2.4,
    "turned": 40.0,
    "dark": 0.012,
    "bright": 0.5,
    "one-sided": 1.6,
    "hidden": 0.017,  # nine of ten behind a hand or a mask have more, nine of ten bare below 0.010
    "open mouth": 0.35,
}
# the reason, and what to do; the numbers are the photograph's and the limit's
SENTENCES = {
    "small": "The face is only {value:.0f} pixels wide ({limit:.0f} are needed), too few to tell "
    "its features apart: come closer, or send the picture in its full size.",
    "blurred": "The face is blurred over {value:.1f} % of its width (at most {limit:.1f} %), so "
    "edges are not where they seem: hold still, wipe the lens, find more light.",
    "turned": "The face is turned away by {value:.1f}° (at most {limit:.0f}°), so one half of it "
    "is guessed: add a photograph that looks into the camera.",
    "dark": "The face is very dark (brightness {value:.3f}, at least {limit:.3f}), so its shading "
    "is lost in noise: turn towards a window or switch on a lamp.",
    "bright": "{value:.0%} of the face is burnt out (at most {limit:.0%}), white where there "
    "was skin: step out of the sun, or expose less.",
    "one-sided": "One side of the face gets {factor:.1f} times the light of the other (at most "
    "{most:.1f}), and in the shadow shape cannot be seen: face the light.",
    "hidden": "Something seems to hide a part of the face (landmarks are unsure by {value:.1%} "
    "of it, at most {limit:.1%}): take off glasses, mask or hand, and brush hair aside.",
    "cut off": "{value:.0f} of the face's 68 landmarks lie outside the picture, so a part of it "
    "is missing: leave some room around the head.",
    "several faces": "There are {value:.0f} faces and the largest is taken: cut the picture to "
    "yours if that is another one.",
    "open mouth": "The mouth is wide open ({value:.0%} of the eyes' distance, at most "
    "{limit:.0%}), which hides how the chin is at rest: add a photograph with a calm face.",
}  # fmt: skip


@dataclass
class Quality:
    """What was measured (name → number) and what is the matter (name → sentence); ``good`` says
    that nothing is."""

    measures: dict
    troubles: dict

    @property
    def good(self):
        return not self.troubles


def check(image, detection, flame):
    """Quality of the face that ``detection`` found in a picture (H, W, 3) uint8.

    Raises ValueError for a picture of another kind.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"Need a picture (H, W, 3) of uint8, not {image.shape} {image.dtype}.")
    found = measures(image, detection, flame)
    troubles = {}
    for name, text in SENTENCES.items():
        value, limit = found[name], LIMITS.get(name)
        few = name in ("small", "dark")
        if {"cut off": value > 0, "several faces": value > 1}.get(name) or (
            limit is not None and (value < limit if few else value > limit)
        ):
            numbers = {} if limit is None else {"factor": 2**value, "most": 2**limit}
            troubles[name] = text.format(value=value, limit=limit, **numbers)
    return Quality(found, troubles)


def measures(image, detection, flame):
    """The numbers that are judged, under the names of SENTENCES.

    small           side of the landmarks' box, pixels
    blurred         standard deviation of the blur, % of that side, see ``blur_width``
    turned          angle between the face's direction and the camera's, degrees
    dark, bright    median of the skin's linear light 0…1; share of its pixels that are burnt out
    one-sided       log₂ of one half's light over the other's
    hidden          standard deviation of the inner landmarks over the side, by their network
    cut off, several faces    landmarks outside the picture, faces in it
    open mouth      between the inner lips, over the distance of the eyes' outer corners
    """
    points, sigma = np.asarray(detection.points, float), np.asarray(detection.sigma, float)
    side = np.ptp(points, axis=0).max()
    crop = crop_around(points, SIDE, 1.2, upright=True)
    face = np.ascontiguousarray(crop.apply(image).permute(1, 2, 0).numpy())
    marks = crop.to_crop(points)
    skin = skin_of(marks)
    light = (face @ [0.2126, 0.7152, 0.0722]) ** 2.2  # brightness, nearly linear
    middle = np.arange(SIDE)[None] + 0.5 < np.interp(np.arange(SIDE), *_ridge(marks))[:, None]
    halves = [np.median(light[skin & part]) + 0.01 if (skin & part).any() else np.nan
              for part in (middle, ~middle)]  # fmt: skip
    lean = abs(np.log2(halves[0] / halves[1]))
    height, width = image.shape[:2]
    eyes = np.linalg.norm(points[36] - points[45])
    return {
        "small": side,
        "blurred": 100 * blur_width(face, skin) * 1.2 / SIDE,
        "turned": turn(points, flame),
        "dark": float(np.median(light[skin])),
        "bright": float((face.max(-1)[skin] > 0.985).mean()),
        "one-sided": float(np.nan_to_num(lean)),
        "hidden": sigma[17:].mean() / side,
        "cut off": int(((points < 0) | (points > [width, height])).any(1).sum()),
        "several faces": detection.n_faces,
        "open mouth": np.linalg.norm(points[62] - points[66]) / max(eyes, 0.35 * side),
    }


def skin_of(marks):
    """(SIDE, SIDE) where the crop shows the inner face: inside the outline, brows to chin."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(marks.round().astype(np.int32)), 1)
    return mask.astype(bool)


def _ridge(marks):
    """Rows and columns of the line from between the brows over the nose to the chin."""
    line = marks[[27, 28, 29, 30, 33, 51, 57, 8]]
    line = line[np.argsort(line[:, 1])]
    return line[:, 1], line[:, 0]


def blur_width(face, mask):
    """Standard deviation, pixels, of the Gaussian that the edges of a picture (H, W, 3) in 0…1
    look blurred by, in ``mask`` (H, W).

    The picture is blurred twice more: what is blurred already changes less (the idea of Crété et
    al. 2007). A step's slope falls as 1/√(w² + b²), so the ratio of both slopes gives w.
    """
    grey = np.ascontiguousarray(face.mean(-1), np.float32)
    little, much = (_slope(cv2.GaussianBlur(grey, (0, 0), b), mask) for b in BLURS)
    ratio = min(float(much / max(little, 1e-9)) ** 2, 0.999)
    return np.sqrt(max(0.0, (ratio * BLURS[1] ** 2 - BLURS[0] ** 2) / (1 - ratio)))


BLURS = (1.0, 2.5)  # pixels; the first takes the noise away


def _slope(grey, mask):
    """How steep the steepest tenth of the masked pixels is."""
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *way) for way in ((1, 0), (0, 1)))
    slopes = np.hypot(across, down)[mask]
    return slopes[slopes >= np.quantile(slopes, 0.9)].mean()


def turn(points, flame):
    """Angle in degrees between where a face with landmarks (68, 2) looks and the camera."""
    marks = torch.from_numpy(np.asarray(points, np.float32))[None].to(flame.v_template)
    pose, _ = first_pose(flame, marks, 1)
    return float(torch.rad2deg(rodrigues(pose[:, ROOT])[0, 2, 2].clamp(-1, 1).arccos()))


def spoilt(image, points, blur=0.0, stops=0.0, lean=0.0, side=None, seed=0):
    """A photograph spoilt by known amounts, (H, W, 3) uint8, and its landmarks (68, 2).

    blur  standard deviation, % of the landmarks' box · stops  of exposure, negative is darker; the
    sensor's noise stays · lean  log₂ of the light on the right edge of the face over the left
    side  pixels that the landmarks' box then has
    """
    points = np.asarray(points, float)
    box = np.ptp(points, axis=0).max()
    linear = (image.astype(np.float32) / 255) ** 2.2
    if blur:
        linear = cv2.GaussianBlur(linear, (0, 0), blur / 100 * box)
    across = (np.arange(image.shape[1]) - points[:, 0].mean()) / np.ptp(points[:, 0])
    linear = linear * 2.0 ** (stops + lean * np.clip(across, -0.7, 0.7))[None, :, None]
    if side is not None and side < box:
        size = [max(1, round(q * side / box)) for q in image.shape[1::-1]]
        points = points * size / np.array(image.shape[1::-1])
        linear = cv2.resize(linear, size, interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(seed).normal(size=linear.shape) * 0.004
    values = np.clip(linear + noise, 0, 1) ** (1 / 2.2)
    return (255 * values).round().astype(np.uint8), points
