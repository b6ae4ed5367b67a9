"""A person as photographed, ready to be given other codes: read from a picture or a film, and
drawn into it again."""

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from course import clip, export, film, fit, photo, texture
from course.camera import foreshortened, project
from course.detail_photo import clay_of, fit_detail, relief_of
from course.photo import Crop
from course.reconstruct import camera_in, explain, halved, studio_light
from course.render import Renderer

VIEW = 1.25  # what pictures show, over what the fit compared
FEATHER = 0.03  # of the picture: how softly the drawn face ends in the photograph
INSIDE = ("face", "eyes", "mouth_interior", "teeth", "tongue")  # what is drawn; hair is left alone


@dataclass
class Actor:
    """One person: name, the n pictures, their detections and ``fit.FitResult``, one texture
    (3, R, R) in 0…1, and frames a second if the pictures are a film."""

    name: str
    images: list
    found: list
    result: fit.FitResult
    colours: torch.Tensor
    fps: float = film.FPS

    def __len__(self):
        return len(self.images)

    @property
    def codes(self):
        return self.result.codes

    def view(self, k, size):
        """Picture k as it is, around the face: (size, size, 3) uint8."""
        return export.to_uint8(_wider(self.result.crops[k], size).apply(self.images[k]))


def read_picture(name, source, flame, model, args, branch=None):
    """An actor from one photograph, a path or a function that gives it.

    ``args`` are those of ``reconstruct.reading_arguments``; with ``branch``, a DetailModel, the
    actor's codes have detail. Raises PhotoError in a sentence.
    """
    image = source() if callable(source) else photo.read(source)
    found = photo.detect(image, args.face - 1, args.detector)
    result = explain([image], [found], flame, model, args)
    return _actor(name, [image], [found], result, flame, branch)


def read_film(name, path, flame, model, args, branch=None):
    """An actor from a film of one person, whose identity is the same in all frames."""
    frames, fps = film.read(path, args.every)
    kept = clip.detect(frames, args.detector, args.face - 1)
    _, images, found = (list(column) for column in zip(*kept, strict=True))
    steps = dict.fromkeys(fit.STEPS_FROM_START, 0) if args.no_refine else None
    result = clip.track(images, found, flame, model, args.rasterizer_type, steps)
    return _actor(name, images, found, result, flame, branch, fps)


def _actor(name, images, found, result, flame, branch, fps=film.FPS):
    """The actor whose skin, colours and detail, some of the pictures show."""
    some = clip.chosen(result, range(0, len(images), max(1, len(images) // clip.KEY_FRAMES)))
    colours, _ = texture.sample(some, flame)
    if branch is not None:
        detail = fit_detail(branch, some)[:1].expand(len(images), -1).clone()
        result = dataclasses.replace(result, codes=result.codes.replace(detail=detail))
    return Actor(name, images, found, result, colours, fps)


@torch.no_grad()
def changed(actor, codes, flame):
    """FitResult of the actor with other codes (K rows; K frames of the film, or any K of one
    picture), in the pictures that show it."""
    kept = clip.chosen(actor.result, [k % len(actor) for k in range(len(codes))])
    vertices = flame(codes.shape, codes.expression, codes.pose)
    seen = foreshortened(vertices, kept.distance[:, None])
    marks = project(flame.landmarks(seen, codes.pose), codes.camera, kept.images.shape[-1])
    marks = marks[..., :2].cpu().numpy()
    marks = np.stack([c.to_photo(m) for c, m in zip(kept.crops, marks, strict=True)])
    return dataclasses.replace(kept, codes=codes, vertices=vertices, seen=seen, landmarks=marks)


def draw_face(renderer, code, vertices, albedo, branch=None):
    """A Rendering and a picture (1, 3, H, W) before black, with ``branch`` of wrinkles too.

    Colours come from ``albedo`` (1, 3, R, R); of the detail only the relief is drawn.
    """
    drawn = renderer(vertices, code.camera, albedo, code.light)
    if branch is None:
        return drawn, drawn.image
    relief = branch.relief
    return drawn, relief.paint(relief.canvas(drawn, vertices), relief_of(branch, code), code.light)


class Stage:
    """Draws an actor with other codes into the actor's own pictures, ``size`` pixels a side.

    With ``branch``, a DetailModel, the wrinkles are drawn too.
    """

    def __init__(self, actor, flame, size, backend="auto", branch=None):
        self.actor, self.size, self.branch = actor, size, branch
        self.renderer = Renderer(flame, 2 * size, backend)
        masks = [flame.masks[k] for k in INSIDE if k in flame.masks]
        self.inside = torch.stack(masks).any(0)[flame.faces].all(1)

    @torch.no_grad()
    def pictures(self, result, k):
        """The face and its geometry (size, size, 3) uint8 of row k of what ``changed`` gave.

        The drawn face ends softly in the photograph; what the old face covered and the new one
        does not shows the drawn neck.
        """
        own = k % len(self.actor)
        crop = _wider(result.crops[k], self.size)
        camera = camera_in(crop, result.crops[k], result.codes.camera[k : k + 1])
        backdrop = crop.apply(self.actor.images[own])[None].to(camera)
        backdrop = F.interpolate(backdrop, scale_factor=2, mode="bicubic").clamp(0, 1)
        vertices, code = result.seen[k : k + 1], result.codes[k].replace(camera=camera)
        new, image = draw_face(self.renderer, code, vertices, self.actor.colours[None], self.branch)
        old = self.renderer(self.actor.result.seen[own : own + 1], camera)
        share = self._soft(self._inside(new) | self._inside(old)) * new.mask
        code = code.replace(light=studio_light(vertices))
        _, clay = draw_face(self.renderer, code, vertices, clay_of(self.actor.colours), self.branch)
        clay = clay + 1 - new.mask
        return halved(image * share + backdrop * (1 - share)), halved(clay)

    def _inside(self, drawn):
        return drawn.shows(self.inside)[0]

    def _soft(self, mask):
        """Of a mask (H, W), weights (1, 1, H, W): 0 at its border, 1 well inside."""
        depth = cv2.distanceTransform(mask.cpu().numpy().astype(np.uint8), cv2.DIST_L2, 5)
        weight = np.clip(depth / (FEATHER * len(mask)), 0, 1).astype(np.float32)
        return torch.from_numpy(weight)[None, None].to(self.renderer.corner_uv)


def _wider(crop, size):
    return Crop(crop.centre, VIEW * crop.side, crop.angle, size)
