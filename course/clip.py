"""A film of one person: one identity for all frames, and codes that are smooth in time.

Landmarks tremble from frame to frame, and a fit of each frame alone trembles with them. Here all
frames are fitted at once, to one shape and one skin, and after every stage of the fit their codes
pass through the smoother of ``reenact.smooth``: what trembles is taken out before the pixels are
asked again, and at the end.
"""

import time

import numpy as np
import torch
from tqdm import tqdm

from course import fit, photo
from course.encode import first_guess, read_faces
from course.facecode import FaceCode
from course.files import quiet
from course.photo import Crop, crop_around
from course.reenact import smooth

KEY_FRAMES = 6  # frames that the identity is read from
# strengths of smoothing: waves shorter than 2π √√strength frames are taken for trembling
STRENGTH = 3.0  # of the codes
CROP_STRENGTH = 30.0  # of the crops: they follow the head
LIGHT_STRENGTH = 1e4  # of the light: lamps do not flicker
MOVING = ("expression", "pose", "camera", "distance")


def detect(frames, detector="auto", face=0):
    """Frames with a face and their detections: [(name, picture, Detection)]; says what is left out.

    ``frames`` are (name, picture) pairs; ``face`` is which face of the first one, by size, is
    followed. Raises ValueError when no frame has a face.
    """
    found, seen = [], None
    for name, image in tqdm(frames, "landmarks", disable=quiet()):
        try:
            seen = (
                photo.follow(image, seen, detector) if seen else photo.detect(image, face, detector)
            )
            found.append((name, image, seen))
        except photo.NoFaceError as error:
            tqdm.write(f"frame {name} is left out: {error}")
    if not found:
        raise ValueError("No frame shows a face.")
    return found


def track(photos, detections, flame, model=None, backend="auto", steps=None):
    """Fit one person to the frames of a film: a ``fit.FitResult`` of all of them.

    photos, detections and flame as for ``fit.fit``; ``model`` is a ``FaceModel`` for the start, or
    None. ``steps`` overrides those of ``fit``. Raises ValueError when there is nothing to fit.
    """
    if not photos or len(photos) != len(detections):
        raise ValueError("track needs at least one frame and a detection for each.")
    clock = time.perf_counter()
    keys = _key_frames(detections)
    some = [photos[k] for k in keys], [detections[k] for k in keys]
    start, trust = (None, None) if model is None else first_guess(model, *some, flame)
    known = fit.fit(*some, flame, backend=backend, steps=steps, start=start, trust=trust)
    known_at = time.perf_counter() - clock
    crops = smooth_crops(detections)
    begin = _begin(photos, detections, crops, flame, model, known)
    tracker = Tracker(flame, *fit.observed(photos, detections, crops, flame), backend,
                      float(known.distance.mean()), begin, trust)  # fmt: skip
    tracker.run((fit.STEPS if model is None else fit.STEPS_FROM_START) | (steps or {}))
    result = tracker.result(crops)
    found = time.perf_counter() - clock
    result.seconds = {"identity": known_at, "track": found - known_at}
    return result


def smooth_crops(detections):
    """A crop for each frame whose middle and size follow the head smoothly."""
    crops = [crop_around(d.points, fit.IMAGE_SIZE) for d in detections]
    state = np.array([[*c.centre, c.side] for c in crops])
    state = smooth(torch.from_numpy(state), CROP_STRENGTH).numpy()
    return [Crop(row[:2], float(row[2]), 0.0, fit.IMAGE_SIZE) for row in state]


def _key_frames(detections):
    """Numbers of up to KEY_FRAMES frames, spread over the film, the surest of each stretch."""
    parts = np.array_split(np.arange(len(detections)), min(KEY_FRAMES, len(detections)))
    doubt = [d.sigma.mean() / np.ptp(d.points, axis=0).max() for d in detections]
    return [int(min(part, key=lambda k: doubt[k])) for part in parts]


def _begin(photos, detections, crops, flame, model, known):
    """Codes that all frames start from: read by the encoder, the identity as fitted."""
    n = len(photos)
    who = {k: getattr(known.codes, k)[:1].expand(n, -1).clone() for k in ("shape", "albedo")}
    light = known.codes.light.mean(0, keepdim=True).expand(n, -1, -1).clone()
    if model is None:
        code = FaceCode.cat([FaceCode.zeros(flame)] * n)
    else:
        points = [d.points for d in detections]
        code, _ = read_faces(model, photos, points, flame, crops)
    return code.replace(**who, light=light)


class Tracker(fit.Fitter):
    """Frames of one person, whose codes are smooth in time after every stage."""

    @torch.no_grad()
    def after_stage(self):
        for name in MOVING:
            self.free[name].copy_(smooth(self.free[name], STRENGTH))
        self.free["light"].copy_(smooth(self.free["light"], LIGHT_STRENGTH))
        self._keep_jaw()  # what is smoothed may swing below zero


def chosen(result, rows):
    """A FitResult of some of the faces of a FitResult."""
    rows, fields = list(rows), {}
    for name, value in vars(result).items():
        if isinstance(value, list):
            fields[name] = [value[k] for k in rows]
        else:  # losses and seconds are of all together
            fields[name] = value if isinstance(value, dict) else value[rows]
    return fit.FitResult(**fields)
