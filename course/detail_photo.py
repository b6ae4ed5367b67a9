"""Detail of photographs that have been fitted: its code, its maps as files, its pictures."""

import json

import numpy as np
import torch
import torch.nn.functional as F

from course import texture
from course.detail import fine_part
from course.detail_album import ambient, lamp
from course.export import save_png, to_uint8
from course.facecode import ROOT
from course.files import write_text
from course.flame import yaw_pose
from course.reconstruct import BACKGROUND, PANEL, halved, portrait_camera, sheet
from course.relief import WINDOW
from course.render import Renderer

STEPS, RATE = 60, 0.05
PRIOR = 0.02  # how strongly a code is held to what the encoder read
ZERO, TOP = 32768, 65535  # of 16 bits: no displacement, the largest
RANGE = 0.002  # metres of displacement that ZERO … TOP stands for
CLAY = 0.65  # albedo of the geometry
FILE_SIDE = 512  # texels a side of the files: all of UV, a window texel is about 1.3 of them


def fit_detail(model, result, steps=STEPS):
    """Detail codes (N, D) of the N photographs of a ``fit.FitResult``, the same for all.

    The encoder's mean is where it starts; then the code is drawn to the photographs' fine part,
    wherever the coarse fit explains them. Broad differences are none of its business.
    """
    codes, relief = result.codes, model.relief
    read = model.read(result.images, result.rendered, result.seen, codes.camera)
    start = read.mean(0, keepdim=True)
    if not steps:
        return start.expand(len(read), -1).clone()
    renderer = Renderer(relief.flame[0], result.images.shape[-1])
    with torch.no_grad():
        rendering = renderer(result.seen, codes.camera, relief.flame[0].albedo(codes.albedo))
        canvas = relief.canvas(rendering, result.seen)
        sure = torch.cat([texture.trust(result, n) for n in range(len(read))]) * result.mask
        wanted = fine_part(_log(result.images) - _log(result.rendered), sure)
    code = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([code], lr=RATE)
    for _ in range(steps):
        maps = model(codes.expression, codes.pose, code)
        found = _log(relief.paint(canvas, maps, codes.light)) - _log(result.rendered)
        loss = ((fine_part(found, sure) - wanted).abs() * sure).sum() / sure.sum().clamp_min(1)
        loss = loss + PRIOR * (code - start).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return code.detach().expand(len(read), -1).clone()


def _log(picture):
    return picture.clamp_min(0.02).log()


def whole(maps, side=FILE_SIDE):
    """Maps (N, C, R, R) of the window laid into all of UV (N, C, side, side), zero around it."""
    left, bottom, width = WINDOW
    at = (torch.arange(side, device=maps.device) + 0.5) / side
    x, y = 2 * (at - left) / width - 1, 2 * (at - (1 - bottom - width)) / width - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, align_corners=False)


@torch.no_grad()
def pictures_of(model, code, vertices):
    """What is saved of one face: displacement (S, S) uint16 and tangent normals (S, S, 3) uint8.

    vertices (1, V, 3): the posed head, whose stretch the normals follow.
    """
    depth = model.of(code)[:, :1]
    normals = whole(model.relief.tangent_normals(depth, vertices))[0]
    normals[2] += (normals.square().sum(0) == 0).to(normals)  # around the window: straight up
    normals = F.normalize(normals, dim=0)
    steps = whole(depth)[0, 0] / RANGE * (TOP - ZERO) + ZERO
    return (steps.round().clamp(0, TOP).cpu().numpy().astype(np.uint16),
            to_uint8((normals + 1) / 2))  # fmt: skip


def save_detail(folder, name, depth, normals):
    """Write ``name_displacement.png``, ``name_normal.png`` and what they mean as JSON."""
    save_png(folder / f"{name}_displacement.png", depth)
    save_png(folder / f"{name}_normal.png", normals)
    meaning = {
        "displacement": f"{name}_displacement.png",
        "metres": f"(value - {ZERO}) * {RANGE / (TOP - ZERO):.6g}, along the normal",
        "zero": ZERO,
        "metres per step": RANGE / (TOP - ZERO),
        "normals": f"{name}_normal.png",
        "normal space": "tangent: red along u, green along v (up), blue outwards",
        "uv": "that of the mesh, v upwards: row 0 of the pictures is v = 1",
    }
    write_text(folder / f"{name}_detail.json", json.dumps(meaning, indent=1) + "\n")


# ------------------------------------------------------------------ pictures


def relief_of(model, code):
    """Detail maps of a FaceCode without their colours: a texture that was read from a photograph
    shows those already."""
    maps = model.of(code)
    return torch.cat([maps[:, :1], torch.zeros_like(maps[:, 1:])], 1)


def clay_of(colours):
    """An albedo (1, 3, 8, 8) like a texture (3, R, R) that shows the geometry alone."""
    return torch.full_like(colours[None, :, :8, :8], CLAY)


@torch.no_grad()
def draw_detail(model, code, colours, side=PANEL):
    """One face with and without detail, and its wrinkles in two other moods, as one picture.

    ``colours`` (3, R, R) is its texture; of the detail only the relief is drawn.
    """
    flame = model.relief.flame[0]
    pose = code.pose.clone()
    pose[:, ROOT] = yaw_pose(-20, device=pose.device)[:, ROOT]
    code = code.replace(pose=pose)
    renderer = Renderer(flame, 2 * side)
    texture_, clay = colours[None], clay_of(colours)

    def look(code, paint, deep=1.0):
        vertices = flame(code.shape, code.expression, code.pose)
        camera = portrait_camera(flame, vertices) * vertices.new_tensor([1.55, 1, 1])
        camera[:, 2] = -(vertices[:, flame.masks["face"], 1].mean(1))
        maps = deep * relief_of(model, code)
        code = code.replace(camera=camera, light=_from_the_side(vertices))
        picture = model.relief.draw(renderer, code, maps, BACKGROUND, vertices, paint)
        return halved(picture.clamp(0, 1))

    def mood(**actions):
        expression = 0.3 * code.expression
        for action, strength in actions.items():
            expression[:, flame.expression_columns(action.replace("_", " "))] = strength
        return code.replace(expression=expression)

    return sheet({
        "coarse": look(code, texture_, 0), "with detail": look(code, texture_),
        "smiles": look(mood(smile=2.0, squint=1.2), texture_),
        "coarse relief": look(code, clay, 0), "with detail, in clay": look(code, clay),
        "brows up": look(mood(inner_brows_up=2.0, outer_brow_up=2.0), clay),
    }, 3)  # fmt: skip


def _from_the_side(like):
    """Light (1, 9, 3) in which relief shows."""
    light = ambient(0.42) + lamp(torch.tensor([0.8, 0.45, 0.65]), 0.72)
    return light.to(like)[..., None].expand(-1, -1, 3)
