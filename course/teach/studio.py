"""A head as a picture in one line: always the same camera, lamp and background."""

import math

import cv2
import torch
from matplotlib import colormaps

from course.camera import project
from course.export import to_uint8
from course.render import Renderer

BACKGROUND = (0.93, 0.94, 0.95)
DROP = 0.012  # metres that the view is lowered by, so that the whole head is in it
ORANGE = (213, 94, 0)


def around_y(degrees):
    """Rotation (3, 3) about the vertical axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def heat(values, top):
    """Values (V,) as colours (V, 3) to paint a head with: 0 is dark, ``top`` and more is yellow."""
    share = (values.detach().float() / top).clamp(0, 1)
    return torch.tensor(colormaps["viridis"](share.numpy())[:, :3]).float()


class Studio:
    """Draws heads of one model, ``side`` pixels wide."""

    def __init__(self, flame, side=576):
        self.flame, self.side = flame, side
        self.renderers = {}
        self.lamp = torch.zeros(1, 9, 3)
        self.lamp[0, :4] = torch.tensor([2.1, -0.35, 0.28, 0.45])[:, None]

    def camera(self, zoom):
        camera = torch.tensor([self.flame.default_camera]) * torch.tensor([zoom, 1, 1])
        return camera - torch.tensor([0, 0, DROP])

    @torch.no_grad()
    def look(self, vertices, paint=None, turn=0.0, zoom=0.74, side=None):
        """A head (V, 3) as a picture (3, side, side), from ``turn`` degrees around it.

        paint: colours (V, 3), a texture (1, 3, R, R), or None for clay.
        """
        side = side or self.side
        if side not in self.renderers:
            self.renderers[side] = Renderer(self.flame, side)
        if paint is not None and paint.ndim == 2:
            paint = paint[None]
        turned = (vertices @ around_y(turn).T)[None]
        draw = self.renderers[side]
        drawn = draw(turned, self.camera(zoom), paint, self.lamp, background=BACKGROUND)
        return drawn.image[0].clamp(0, 1)

    def mark(self, picture, points, lines=(), colour=ORANGE, turn=0.0, zoom=0.74):
        """A copy (H, W, 3) uint8 of a picture with points (n, 3), metres, and lines between them.

        ``lines`` are pairs of point numbers. turn and zoom are those that the picture was made
        with. Points that the head hides are drawn too.
        """
        picture = to_uint8(picture).copy()
        size = len(picture)
        uv = project((points @ around_y(turn).T)[None], self.camera(zoom), size)[0, :, :2]
        uv, width = uv.round().int().tolist(), max(2, size // 190)
        for a, b in lines:
            cv2.line(picture, uv[a], uv[b], colour, width, cv2.LINE_AA)
        for place in uv:
            cv2.circle(picture, place, 2 * width + 1, colour, -1, cv2.LINE_AA)
        return picture
