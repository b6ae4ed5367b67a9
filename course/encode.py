"""From a photograph and its landmarks to codes: crop as the encoder was trained, read, put back."""

from functools import lru_cache, wraps

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from course.albums import seen_in
from course.encoder import average_identity
from course.facecode import LEFT_EYE, RIGHT_EYE, FaceCode
from course.fit import FAR, IMAGE_SIZE, RATES, Fitter, VertexAlbedo, bareness, observed
from course.photo import Detection, crop_around
from course.render import Renderer

# standard deviations of what a reading leaves open, in logarithms: an albedo coefficient, the
# lamp's strength, its tint (tried on other synthetic people than those that ``evaluate`` judges by)
SKIN, LAMP, TINT = 0.5, 0.3, 0.1
# correlation of the errors that photographs of one person are read with (chosen on such people too)
SHARED = 0.7
PART = 32  # pictures at once: their features need much memory
LOOK = 64  # pixels a side of the pictures whose colours are compared
DARKEST = 0.02  # below that a pixel's logarithm is noise


def kept(function):
    """A ``function(flame)`` that keeps what it made, until the head moves to another device."""
    cached = lru_cache(maxsize=2)(lambda flame, device, dtype: function(flame))
    return wraps(function)(
        lambda flame: cached(flame, flame.v_template.device, flame.v_template.dtype)
    )


@kept
def parity(flame):
    """(S,) +1 for identity components that move left and right alike, −1 for opposite ones.

    None for a head that is not its own mirror image or has components that are neither.
    """
    gap, other = _twins(flame)
    moves = _in_the_mirror(flame.shapedirs, other)
    even = (moves * flame.shapedirs).sum((0, 1)) / flame.shapedirs.square().sum((0, 1))
    return even.round() if gap < 1e-5 and (even.abs() > 0.99).all() else None


@kept
def _twins(flame):
    """The vertices (V,) nearest to the vertices' mirror images, and the largest distance, metres:
    (distance, indices)."""
    points = flame.v_template.double().cpu().numpy()
    gap, other = cKDTree(points).query(points * [-1, 1, 1])
    return gap.max(), torch.from_numpy(other)


def _in_the_mirror(moves, other):
    """What movements (V, 3, K) become in the mirror; ``other`` as from ``_twins``."""
    return moves[other] * moves.new_tensor([-1, 1, 1])[:, None]


@kept
def _nearest_mirror(flame):
    """Matrices (S, S) and (E, E) that turn codes into those whose movements come nearest to the
    mirrored ones, by least squares."""
    found, (_, other) = [], _twins(flame)
    for moves in (flame.shapedirs, flame.expressiondirs):
        own, mirrored = (m.double().flatten(0, 1) for m in (moves, _in_the_mirror(moves, other)))
        square = own.T @ own
        ridge = 1e-4 * square.diagonal().mean() * torch.eye(len(square)).to(square)
        found.append(torch.linalg.solve(square + ridge, own.T @ mirrored).to(moves))
    return found


def mirrored(code, flame):
    """The codes (N) of the mirror image: left and right exchanged.

    Expressions change sides by their names; albedo stays, being symmetric but for freckles. A head
    without ``parity`` has no such codes: there they are those whose head comes nearest to the
    mirror image, as near as its bases allow (ICT-FaceKit: 0.06 mm in the mean).
    """
    signs = parity(flame)
    if signs is None:
        of_shape, of_expression = _nearest_mirror(flame)
        shape, expression = code.shape @ of_shape.T, code.expression @ of_expression.T
        one_way = flame.expression_one_way
        expression = torch.where(one_way, expression.clamp_min(0), expression)
    else:
        names = flame.expression_names
        other = [n.replace("left", "?").replace("right", "left").replace("?", "right")
                 for n in names]  # fmt: skip
        order = [names.index(o) if o in names else k for k, o in enumerate(other)]
        order += range(len(order), code.expression.shape[1])  # components without names
        shape, expression = code.shape * signs, code.expression[:, order]
    flip = code.pose.new_tensor([1, -1, -1]).repeat(5)
    pose = code.pose * flip
    pose = torch.cat([pose[:, :9], pose[:, RIGHT_EYE], pose[:, LEFT_EYE]], 1)
    signs = code.light.new_tensor([1, -1, 1, 1, -1, -1, 1, 1, 1])[:, None]  # odd in x: x, xy, xz
    camera = code.camera * code.camera.new_tensor([1, -1, 1])
    return code.replace(shape=shape, expression=expression, pose=pose,
                        light=code.light * signs, camera=camera)  # fmt: skip


def mirror_rows(images, code, rows, flame):
    """Mirror the ``rows`` (N,) of pictures (N, 3, H, W) and of their FaceCode, in place."""
    other = mirrored(code[rows], flame)
    for name, values in vars(code).items():
        values[rows] = getattr(other, name)
    images[rows] = images[rows].flip(-1)


def mean(codes):
    """The mean of FaceCodes with the same number of rows."""
    fields = vars(codes[0])
    return FaceCode(**{k: torch.stack([getattr(c, k) for c in codes]).mean(0) for k in fields})


@torch.no_grad()
def read_crops(model, images, flame, mirror=True):
    """Codes of upright crops (N, 3, S, S) as seen there, and their confidences or None.

    ``mirror`` averages over each crop and its mirror image, where a head can tell.
    Raises ValueError in training mode.
    """
    if model.training:
        raise ValueError("The encoder is in training mode; call eval() first.")
    found, trust = [], []
    both = mirror and flame.expression_names and parity(flame) is not None
    for view in (images, images.flip(-1)) if both else (images,):
        features = torch.cat([model.features(part) for part in view.split(PART)])
        code = model.reconstructor(features)
        found.append(mirrored(code, flame) if found else code)
        if model.config["confidence"]:
            trust.append(model.confidence(features))
    whole = {k: torch.stack([t[k] for t in trust]).mean(0) for k in trust[0]} if trust else None
    return mean(found), whole


@kept
def _look(flame):
    """How bare triangles (F,) are, 0 where not of the face; how its mean log colour follows the
    albedo code, (3, T); and what makes vertex colours of codes, and pictures of those."""
    skin = flame.masks["face"][flame.faces].all(1) * bareness(flame)
    albedo = VertexAlbedo(flame)
    dirs = flame.v_template.new_zeros(3, 0)
    if flame.n_albedo:
        dirs = albedo.dirs[:, flame.masks["face"]].mean(1).T
    return skin, dirs, albedo, Renderer(flame, LOOK)


@torch.no_grad()
def match_colours(code, images, flame):
    """The codes (N) with other albedo and light: drawn, they have the colours of ``images``.

    images (N, 3, S, S) are what the codes were read from. By how much is each colour's logarithm
    off, g (3,), the median over the face, weighted by ``bareness``? Skin and lamp share it as their
    spreads allow: with g = D δa + δl, δa ~ N(0, SKIN²) and δl ~ N(0, Λ), Λ = LAMP² + TINT² on the
    diagonal and LAMP² beside it, the means of δa and δl given g are SKIN² Dᵀ x and Λ x with
    x = (SKIN² D Dᵀ + Λ)⁻¹ g.
    """
    skin, dirs, albedo, renderer = _look(flame)
    vertices = flame(code.shape, code.expression, code.pose)
    drawn = renderer(vertices, code.camera, albedo(code.albedo), code.light)
    seen = F.interpolate(images, (LOOK, LOOK), mode="area")
    off = seen.clamp_min(DARKEST).log() - drawn.image.clamp_min(DARKEST).log()
    pairs = zip(off.flatten(2), drawn.shows(skin).flatten(1), strict=True)
    off = torch.stack([_medians(o, weight) for o, weight in pairs])
    lamp = LAMP**2 + TINT**2 * torch.eye(3).to(off)
    share = torch.linalg.solve(SKIN**2 * dirs @ dirs.T + lamp, off.T).T
    return code.replace(albedo=code.albedo + SKIN**2 * share @ dirs,
                        light=code.light * (share @ lamp).exp().unsqueeze(1))  # fmt: skip


def _medians(values, weight):
    """Weighted medians (C,) of rows (C, P) under weights (P,); zeros where nothing has any."""
    values, order = values.sort(1)
    below = weight[order].cumsum(1)
    middle = (below >= below[:, -1:] / 2).int().argmax(1, keepdim=True)
    return values.gather(1, middle)[:, 0] * (below[:, -1] > 0)


def read_faces(model, photos, landmarks, flame=None, crops=None, mirror=True):
    """Codes (N) of the faces with ``landmarks`` (68, 2) in ``photos`` (H, W, 3) uint8, and trust.

    Their colours are matched to the photographs', see ``match_colours``. The codes are as seen in
    ``crops`` (a ``photo.Crop`` each; None: the upright crops that the encoder itself looked at).
    With ``fit.fit``, give the crops that it makes. Trust is what ``average_identity`` takes, or
    None. Without a ``model``, which not every head has, photographs of one person are read by
    their landmarks alone, in ``crops`` (None: those that ``fit.fit`` makes).
    """
    if model is None:
        return _by_landmarks(photos, landmarks, flame, crops), None
    flame = model._head(flame)
    device = flame.v_template.device
    size, scale = model.config["crop"]
    own = [crop_around(p, size, scale, upright=True) for p in landmarks]
    images = torch.stack([c.apply(p) for c, p in zip(own, photos, strict=True)]).to(device)
    code, trust = read_crops(model, images, flame, mirror)
    code = match_colours(code, images, flame)
    if crops is None:
        return code, trust
    bottom = [0, 0, 1]
    matrices = [np.linalg.inv(np.vstack([a.matrix, bottom])) @ np.vstack([b.matrix, bottom])
                for a, b in zip(own, crops, strict=True)]  # fmt: skip
    sides = {c.out for c in crops}
    if len(sides) != 1:
        raise ValueError("All crops must be of one size.")
    return seen_in(code, np.stack(matrices)[:, :2], size, flame, out=sides.pop()), trust


def _by_landmarks(photos, landmarks, flame, crops, steps=150):
    """Codes (N) of one person's photographs: a fit to their landmarks, by an infinitely far camera
    as the codes have it."""
    crops = crops or [crop_around(p, IMAGE_SIZE) for p in landmarks]
    found = [Detection(p, np.zeros(len(p)), None, "known", 1) for p in landmarks]
    images, *seen = observed(photos, found, crops, flame)
    fitter = Fitter(flame, images, *seen, "auto", FAR, rates=RATES | {"distance": 0.0})
    fitter.run({"landmarks": steps}, progress=False)
    return match_colours(fitter.result(crops).codes, images, flame)


def first_guess(model, photos, detections, flame):
    """(start, trust) for ``fit.fit`` of one person's photographs with ``photo.Detection``s; without
    a ``model`` (None, None), the mean face."""
    if model is None:
        return None, None
    crops = [crop_around(d.points, IMAGE_SIZE) for d in detections]
    code, trust = read_faces(model, photos, [d.points for d in detections], flame, crops)
    return average_identity(code, trust, shared=SHARED), trust
