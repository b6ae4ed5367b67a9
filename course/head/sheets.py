"""Contact sheets of the built head: what to look at after every change to the sculptor."""

import math
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from course.facecode import FaceCode
from course.files import atomic_path
from course.flame import FLAME
from course.render import Renderer

BACKGROUND = (0.93, 0.94, 0.95)
SUPERSAMPLE = 2


def write_sheets(head_path, directory):
    """Draw the sheets of a head file into ``directory``; returns the paths written."""
    flame = FLAME.load(head_path, device="cpu")
    directory = Path(directory)
    drawers = {"mean": _mean, "people": _people, "expressions": _expressions, "jaw": _jaw,
               "components": _components, "albedo": _albedo}  # fmt: skip
    written = []
    for name, draw in drawers.items():
        pictures, labels, columns = draw(flame)
        with atomic_path(directory / f"{name}.png") as temporary:
            iio.imwrite(temporary, sheet(pictures, labels, columns))
        written.append(directory / f"{name}.png")
    return written


@torch.no_grad()
def portrait(flame, code, size=280, clay=False, zoom=0.8):
    """One picture (size, size, 3) uint8 of a code, lit from the upper left."""
    renderer = Renderer(flame, size * SUPERSAMPLE)
    camera = code.camera.clone()
    camera[:, 0] *= zoom
    light = torch.zeros(1, 9, 3)
    light[:, 0], light[:, 1], light[:, 2], light[:, 3] = 2.1, -0.35, 0.28, 0.45
    vertices = flame(code.shape, code.expression, code.pose)
    albedo = None if clay else flame.albedo(code.albedo)
    picture = renderer(vertices, camera, albedo, light, background=BACKGROUND).image
    picture = F.avg_pool2d(picture, SUPERSAMPLE)[0].clamp(0, 1)
    return (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def sheet(pictures, labels, columns):
    """Pictures side by side in rows, each with its label."""
    height, width = pictures[0].shape[:2]
    rows = math.ceil(len(pictures) / columns)
    canvas = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        y, x = k // columns * height, k % columns * width
        canvas[y : y + height, x : x + width] = picture
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 13)
    for k, label in enumerate(labels):
        draw.text((k % columns * width + 8, k // columns * height + 6), label, (30, 30, 30), font)
    return np.asarray(image)


def _turned(code, degrees):
    pose = code.pose.clone()
    pose[:, 1] = math.radians(degrees)
    return code.replace(pose=pose)


def _mean(flame):
    code, yaws = FaceCode.zeros(flame), (0, -40, -90, 150)
    pictures = [portrait(flame, _turned(code, y), 420, clay, 0.66)
                for clay in (False, True) for y in yaws]  # fmt: skip
    return pictures, [f"{y}°" for y in yaws] * 2, len(yaws)


def _people(flame):
    generator = torch.Generator().manual_seed(11)
    codes = FaceCode.random(flame, 12, generator, expression=0.0)
    pictures = [portrait(flame, _turned(codes[k], y)) for k in range(12) for y in (0, -40)]
    return pictures, [f"person {k + 1}" if y else "" for k in range(12) for y in (1, 0)], 6


def _expressions(flame):
    pictures, labels = [], []
    for k, name in enumerate(flame.expression_names):
        code = _turned(FaceCode.zeros(flame), -15)
        code.expression[0, k] = 2
        pictures.append(portrait(flame, code, zoom=1.0))
        labels.append(f"{name} +2σ")
    return pictures, labels, 6


def _jaw(flame):
    pictures, labels = [], []
    for degrees in range(0, 31, 6):
        for yaw in (0, -35):
            code = _turned(FaceCode.zeros(flame), yaw)
            code.pose[0, 6] = math.radians(degrees)
            pictures.append(portrait(flame, code))
            labels.append(f"jaw {degrees}°")
    return pictures, labels, 6


def _components(flame):
    pictures, labels = [], []
    for k in range(12):
        for value in (-2, 2):
            code = _turned(FaceCode.zeros(flame), -20)
            code.shape[0, k] = value
            pictures.append(portrait(flame, code))
            labels.append(f"shape {k} {value:+d}σ")
    return pictures, labels, 6


def _albedo(flame):
    pictures, labels = [], []
    for k, name in enumerate(flame.albedo_names):
        for value in (-2, 2):
            code = FaceCode.zeros(flame)
            code.albedo[0, k] = value
            pictures.append(portrait(flame, code, 240))
            labels.append(f"{name} {value:+d}σ")
    return pictures, labels, 6
