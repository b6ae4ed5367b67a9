"""A film of one person: one identity for all frames, and codes that are smooth in time.

Landmarks tremble from frame to frame, and a fit of each frame alone trembles with them. Here all
frames are fitted at once, and what is fitted are not the codes z themselves but y, with z = S y and
S the smoother of ``reenact.smooth``: whatever the steps do to y, z cannot shake, and every frame is
judged together with its neighbours.
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
from course.reenact import smooth, smoother

KEY_FRAMES = 6  # frames that the identity is read from
STEPS = {"landmarks": 120, 56: 60, 112: 30}
# strengths of smoothing: waves shorter than 2π √√strength frames are taken for trembling
STRENGTH = 3.0  # of the codes
CROP_STRENGTH = 30.0  # of the crops: they follow the head
LIGHT_STRENGTH = 1e4  # of the light: lamps do not flicker
MOVING = ("expression", "pose", "camera", "distance")


def detect(frames, detector="auto"):
    """Frames with a face and their detections: [(name, picture, Detection)]; says what is left out.

    ``frames`` are (name, picture) pairs. Raises ValueError when no frame has a face.
    """
    found, seen = [], None
    for name, image in tqdm(frames, "landmarks", disable=quiet()):
        try:
            seen = photo.follow(image, seen, detector) if seen else photo.detect(image, 0, detector)
            found.append((name, image, seen))
        except photo.NoFaceError as error:
            tqdm.write(f"frame {name} is left out: {error}")
    if not found:
        raise ValueError("No frame shows a face.")
    return found


def track(photos, detections, flame, model=None, backend="auto", steps=None):
    """Fit one person to the frames of a film: a ``fit.FitResult`` of all of them.

    photos, detections and flame as for ``fit.fit``; ``model`` is a ``FaceModel`` for the start, or
    None. ``steps`` overrides STEPS, and those of the fit that finds the identity. Raises ValueError
    when there is nothing to fit.
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
                      float(known.distance.mean()), begin)  # fmt: skip
    tracker.run(STEPS | (steps or {}))
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
    """Frames of one known person, whose codes are smooth in time."""

    def __init__(self, *args):
        super().__init__(*args)
        self.free = _Smoothed(self.free, smoother(len(self.images), STRENGTH))

    def run(self, schedule):
        """All stages of ``schedule``, stage → steps."""
        with tqdm(total=sum(schedule.values()), desc="track", disable=quiet()) as bar:
            for stage, count in schedule.items():
                if stage == "landmarks":
                    self.landmark_stage(count, bar)
                elif count:
                    self.pixel_stage(stage, count, bar)

    def _adam(self, names, scale=1.0):
        groups = [{"params": [self.free.raw(k)], "lr": scale * fit.RATES[k]} for k in MOVING]
        return torch.optim.Adam(groups, betas=(0.9, 0.98))

    def _solve_light(self, renderer, images):
        super()._solve_light(renderer, images)
        self.free["light"] = smooth(self.free["light"], LIGHT_STRENGTH)


class _Smoothed(dict):
    """Codes by name; those that move come smoothed, with gradients to the ones that are kept."""

    def __init__(self, raw, operator):
        super().__init__(raw)
        self.operator = operator

    def raw(self, name):
        return super().__getitem__(name)

    def __getitem__(self, name):
        value = super().__getitem__(name)
        return self.operator.to(value) @ value if name in MOVING else value


def chosen(result, rows):
    """A FitResult of some of the faces of a FitResult."""
    rows, fields = list(rows), {}
    for name, value in vars(result).items():
        if isinstance(value, list):
            fields[name] = [value[k] for k in rows]
        else:  # losses and seconds are of all together
            fields[name] = value if isinstance(value, dict) else value[rows]
    return fit.FitResult(**fields)
