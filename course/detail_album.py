"""Photographs of synthetic people with fine skin, and everything that explains them but the detail.

Two photographs a person, in two moods and two lights, kept on disk: what a detail branch learns
from. Drawing them takes about a second each, which is why they are not made on the fly.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from course.detail import SEEN_SIDE, smaller
from course.detail_truth import SkinMaker
from course.facecode import JAW, FaceCode
from course.files import atomic_path, quiet
from course.flame import FLAME
from course.relief import CHANNELS, RESOLUTION, Relief
from course.render import Renderer, spherical_harmonics
from course.workers import spread

PHOTO = 256  # pixels a side
BACKGROUND = (0.62, 0.61, 0.60)
HELD_OUT = 1_000_000  # people from this number on are never trained on
# mood: actions at their usual strength, and the jaw in radians
MOODS = {
    "rest": ({}, 0.0), "smile": ({"smile": 1.8, "squint": 0.9}, 0.02),
    "laugh": ({"smile": 2.2, "squint": 1.4, "lips part": 1.2}, 0.10),
    "surprise": ({"inner brows up": 1.8, "outer brow up": 1.8, "eye wide": 1.2}, 0.22),
    "worry": ({"inner brows up": 1.8, "mouth corner down": 0.8}, 0.0),
    "anger": ({"brow down": 1.9, "lips pressed": 0.8}, 0.0),
    "disgust": ({"nose wrinkled": 1.7, "brow down": 1.0, "upper lip raised": 0.6}, 0.0),
    "doubt": ({"chin raised": 1.6, "mouth corner down": 1.2}, 0.0),
    "kiss": ({"pucker": 1.6}, 0.0), "shout": ({}, 0.38),
}  # fmt: skip


def draw_person(flame, rng):
    """A FaceCode of one person at rest, upright, who fills a photograph."""
    code = FaceCode.zeros(flame)
    code.shape[0] = torch.from_numpy(np.clip(0.8 * rng.normal(size=flame.n_shape), -2, 2)).float()
    code.albedo[0] = torch.from_numpy(np.clip(rng.normal(size=flame.n_albedo), -1.8, 1.8)).float()
    return code


def pose_person(flame, code, rng, mood=None):
    """The same person in another mood, turned a little, in other light."""
    mood = str(rng.choice(list(MOODS))) if mood is None else mood
    actions, jaw = MOODS[mood]
    expression = torch.from_numpy(rng.normal(size=(1, flame.n_expression)) * 0.12).float()
    expression = torch.where(flame.expression_one_way, expression.abs(), expression)
    for action, strength in actions.items():
        much = strength * rng.uniform(0.6, 1.25)
        for k in flame.expression_columns(action):
            expression[0, k] += much * rng.uniform(0.8, 1.1)
    pose = torch.zeros(1, 15)
    pose[0, :3] = torch.from_numpy(rng.normal(size=3) * [0.10, 0.24, 0.05]).float().clamp(-0.5, 0.5)
    pose[0, JAW][0] = jaw * rng.uniform(0.6, 1.2)
    code = code.replace(expression=expression, pose=pose, light=draw_light(rng))
    marks = flame.landmarks(flame(code.shape, expression, pose), pose)[0, :, :2]
    low, high = marks.amin(0), marks.amax(0)
    scale = 1.6 * rng.uniform(0.92, 1.08) / float((high - low).max())
    shift = -(low + high) / 2 - torch.tensor([0.0, 0.012])
    return code.replace(camera=torch.cat([torch.tensor([scale]), shift])[None])


def draw_light(rng):
    """Soft warm light (1, 9, 3): a sky and a lamp before the face, to one side."""
    way = np.array([rng.choice([-1, 1]) * rng.uniform(0.25, 1.0), rng.uniform(0.0, 0.8), 0.7])
    warm = torch.tensor([1.04, 1.0, 0.95]) ** float(rng.uniform(0, 2))
    sky = lamp(torch.tensor([0.0, 0.5, 1.0]), 0.15) + ambient(rng.uniform(0.42, 0.55))
    return (sky + lamp(torch.from_numpy(way).float(), rng.uniform(0.5, 0.75)))[..., None] * warm


def ambient(strength):
    """Light (1, 9) that falls from everywhere: shading ``strength``."""
    light = torch.zeros(1, 9)
    light[:, 0] = strength / spherical_harmonics(torch.tensor([0.0, 0.0, 1.0]))[0]
    return light


def lamp(way, strength):
    """Light (1, 9) of a far lamp: shading strength · max(0, cos), as far as band 2 tells it.

    max(0, c) ≈ 1/4 + c/2 + 5/16 P₂(c) (Ramamoorthi and Hanrahan 2001).
    """
    bands = torch.tensor([torch.pi] + [1.5 / torch.pi] * 3 + [4 / torch.pi] * 5)
    return strength * (bands * spherical_harmonics(F.normalize(way, dim=0)))[None]


@dataclass
class Album:
    """Photographs of people with fine skin, two a person, one after the other.

    images (N, 3, S, S) uint8 · canvases (N, C, S, S) half, see ``Relief.canvas`` · residual
    (N, 3, R, R) and seen (N, 1, R, R) half, what the encoder sees · codes FaceCode (N) ·
    displacement (N, 256, 256) half, the truth in mm · first  number (seed) of the first person
    """

    images: np.ndarray
    canvases: np.ndarray
    residual: np.ndarray
    seen: np.ndarray
    displacement: np.ndarray
    codes: FaceCode
    first: int

    def __len__(self):
        return len(self.images)

    def take(self, name, rows):
        """Some photographs' arrays as float tensors; images in 0…1."""
        values = torch.from_numpy(np.array(getattr(self, name)[rows])).float()
        return values / 255 if name == "images" else values


ARRAYS = ("images", "canvases", "residual", "seen", "displacement")


def make_album(folder, people, first=0, workers=1):
    """The Album of ``people`` people from number ``first`` on; kept in ``folder``, a person at a
    time."""
    folder = Path(folder) / f"people-{first}-{people}"
    if not (folder / "codes.json").is_file():
        shapes = {"images": (3, PHOTO, PHOTO), "canvases": (sum(CHANNELS), PHOTO, PHOTO),
                  "residual": (3, SEEN_SIDE, SEEN_SIDE), "seen": (1, SEEN_SIDE, SEEN_SIDE),
                  "displacement": (RESOLUTION, RESOLUTION)}  # fmt: skip
        for name, shape in shapes.items():
            _reserve(folder / f"{name}.npy", (2 * people, *shape))
        done = [folder / f"person-{k}.json" for k in range(people)]
        jobs = [(folder, k, first + k) for k, path in enumerate(done) if not path.is_file()]
        with tqdm(total=people, initial=people - len(jobs), desc="people", disable=quiet()) as bar:
            for _ in spread(_make, jobs, workers):
                bar.update()
        codes = FaceCode.cat([FaceCode.load(path, "cpu") for path in done])
        codes.save(folder / "codes.json", "built-in")
        for path in done:
            path.unlink()
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    return Album(**arrays, codes=FaceCode.load(folder / "codes.json", "cpu"), first=first)


def _reserve(path, shape):
    """Room for an array on disk, now: one that runs out of it later is ended by the system."""
    if path.is_file():  # of a run that was stopped
        return
    kind = np.uint8 if path.stem == "images" else np.float16
    with atomic_path(path) as temporary:
        np.lib.format.open_memmap(temporary, "w+", kind, shape)
        if hasattr(os, "posix_fallocate"):
            with temporary.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)


@lru_cache(maxsize=1)
def studio():
    """The head, its skins, its relief, its renderer: made once a process."""
    flame = FLAME.load(device="cpu")
    return flame, SkinMaker(flame), Relief(flame), Renderer(flame, PHOTO)


@torch.no_grad()
def _make(folder, place, number):
    """Both photographs of a person into an album's files, then their FaceCode."""
    flame, maker, relief, renderer = studio()
    files = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ARRAYS}
    rng, codes = np.random.default_rng([17, number]), []
    person, skin = draw_person(flame, rng), maker(number)
    for row in (2 * place, 2 * place + 1):
        code = pose_person(flame, person, rng)
        image, maps = photograph(maker.relief, renderer, skin, code)
        image = (255 * image).round().byte()
        vertices = flame(code.shape, code.expression, code.pose)
        fine = Renderer(flame, 2 * PHOTO)(vertices, code.camera, flame.albedo(code.albedo))
        # as the photographs: four samples a pixel
        files["canvases"][row] = F.avg_pool2d(relief.canvas(fine, vertices), 2)[0].half()
        files["images"][row] = image[0]
        truth = relief.mask * F.interpolate(maps[:, :1], RESOLUTION, mode="area")
        files["displacement"][row] = (1000 * truth)[0, 0].half()
        residual, seen = look(relief, renderer, _spoilt(image, rng), _doubted(code, rng))
        files["residual"][row], files["seen"][row] = residual[0].half(), seen[0].half()
        codes.append(code)
    for array in files.values():
        array.flush()
    FaceCode.cat(codes).save(folder / f"person-{place}.json", "built-in")


def photograph(relief, renderer, skin, code):
    """A picture (1, 3, S, S) of a FaceCode with this skin, and the maps it was drawn with."""
    maps = skin(code.expression, code.pose)
    return relief.draw(renderer, code, maps, BACKGROUND, supersample=2).clamp(0, 1), maps


def look(relief, renderer, image, code):
    """What the encoder is given of pictures (N, 3, S, S) whose coarse head has been found."""
    vertices = relief.flame[0](code.shape, code.expression, code.pose)
    coarse = renderer(vertices, code.camera, relief.flame[0].albedo(code.albedo), code.light).image
    return smaller(*relief.unwrap(image, vertices, code.camera, coarse))


def _spoilt(image, rng):
    """A photograph as a camera might have taken it, in 0…1."""
    picture = image[0].permute(1, 2, 0).numpy().astype(np.float32) / 255
    sigma = rng.uniform(0, 0.9)
    if sigma > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    picture = picture + rng.normal(size=picture.shape) * rng.uniform(0, 0.015)
    return torch.from_numpy(picture.clip(0, 1)).permute(2, 0, 1)[None].float()


def _doubted(code, rng):
    """The code as a fit might have found it: near the truth."""

    def near(values, spread):
        return values + torch.from_numpy(rng.normal(size=values.shape) * spread).float()

    pose = code.pose.clone()
    pose[:, :3] = near(pose[:, :3], 0.01)
    spreads = {"shape": 0.12, "albedo": 0.15, "expression": 0.08, "light": 0.02}
    changed = {name: near(getattr(code, name), spread) for name, spread in spreads.items()}
    return code.replace(pose=pose, **changed)
