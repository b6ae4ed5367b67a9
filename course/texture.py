"""A texture from photographs: what was seen, its shading taken out, the rest filled in.

Seen texels are the photo's colour over the fitted light. What no photo shows takes the other half
of the face, and where that is hidden too, the model's albedo; the difference between photo and
model fades out smoothly, so no seam shows.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from course.camera import project
from course.rasterize import rasterize
from course.render import Renderer, spherical_harmonics, vertex_normals

TRUST = 0.22  # colour difference from which a pixel is thought not to be skin
DARK = 0.2  # shading below which a texel's colour is not to be had
MIN_COSINE = 0.18  # flatter views than this say little about a texel
LEAST, SURE = 0.004, 0.04  # a texel is seen from that weight on, if so much of it is sure
AROUND = 0.05  # of the picture: what counts as near a pixel
BRIGHTEST = 1.6  # texel: above 1 where the model sees a shadow that the photo does not have
MOST = 3.0  # times that a lamp is made stronger or weaker
WHITE = 1.0  # how bright the bright parts of a face may be in the studio


def texel_places(flame, resolution):
    """Triangle (R, R) and barycentric weights (R, R, 3) of every texel, row 0 at v = 1."""
    corners = flame.vt[flame.ft].reshape(1, -1, 2)
    plane = torch.stack([1 - 2 * corners[..., 0], 2 * corners[..., 1] - 1], -1)
    vertices = torch.cat([plane, torch.ones_like(plane[..., :1])], -1)
    faces = torch.arange(vertices.shape[1], device=vertices.device).view(-1, 3)
    found = rasterize(vertices, faces, resolution)
    return found.pix_to_face[0], found.barycentric[0]


@torch.no_grad()
def sample(result, flame, resolution=512):
    """Texture (3, R, R) in 0…BRIGHTEST and the mask (R, R) of texels that some photo shows.

    ``result`` is a ``fit.FitResult``.
    """
    face, weights = texel_places(flame, resolution)
    covered = face >= 0
    corners = flame.faces[face.clamp_min(0)]
    size = result.images.shape[-1]
    pixels = project(result.seen, result.codes.camera, size)
    normals = vertex_normals(result.seen, flame.faces)
    depth = Renderer(flame, size)(result.seen, result.codes.camera).depth[:, 0]
    skin = _skin_texels(flame, corners, weights) & covered
    eyes = _of(flame, ("eyes",), corners, weights) > 0.5
    total = torch.zeros(3, resolution, resolution, device=face.device)
    weight_sum = torch.zeros(resolution, resolution, device=face.device)
    views = torch.zeros_like(weight_sum)
    for n in range(len(result.images)):
        mix = lambda values: (values[corners] * weights.unsqueeze(-1)).sum(2)  # noqa: E731
        place, normal = mix(pixels[n]), F.normalize(mix(normals[n]), dim=-1)
        grid = (2 * place[..., :2] / size - 1)[None]
        seen_depth = F.grid_sample(depth[n][None, None], grid, mode="nearest", align_corners=False)
        slack = 0.02 * result.codes.camera[n, 0] * 0.35
        visible = (place[..., 2] < seen_depth[0, 0] + slack) & (seen_depth[0, 0] > 0)
        visible &= (grid[0].abs().amax(-1) < 1) & skin & (normal[..., 2] > MIN_COSINE)
        light = spherical_harmonics(normal) @ result.codes.light[n]
        ao = (flame.ao[corners] * weights).sum(-1, keepdim=True)
        shading = (light * ao).clamp_min(0.15).permute(2, 0, 1)
        lit = ((shading.mean(0) - DARK) / DARK).clamp(0, 1)  # dividing by next to nothing is noise
        colour = F.grid_sample(result.images[n][None], grid, align_corners=False)[0]
        # hair, glasses, a hand: what the fitted face cannot explain is not skin
        sure, strict = (F.grid_sample(trust(result, n, bare), grid, align_corners=False)[0, 0]
                        for bare in (True, False))  # fmt: skip
        sure = torch.where(eyes, strict * (strict > 0.5), sure)  # a closed lid is no eyeball
        view = torch.where(visible, (normal[..., 2] - MIN_COSINE).square() * lit, 0.0)
        share = view * sure
        total += share * colour / shading
        weight_sum += share
        views += view
    seen = (views > LEAST) & (weight_sum > SURE * views)
    model = flame.albedo(result.codes.albedo[:1])
    model = F.interpolate(model, (resolution, resolution), mode="bilinear")[0]
    # skin and lamp share a tint between them as they like; teeth and eyes show the lamp's
    ahead = spherical_harmonics(model.new_tensor([[0.0, 0.0, 1.0]])) @ result.codes.light.mean(0)
    tint = ahead[0] / ahead.mean().clamp_min(1e-6)
    inside = _of(flame, ("eyes", "mouth_interior", "teeth", "tongue"), corners, weights) > 0.5
    balanced = model / tint.clamp(0.5, 2)[:, None, None]
    model = torch.where(inside & covered, balanced.clamp(0, 1), model)
    photo = torch.where(seen, total / weight_sum.clamp_min(1e-6), model)
    unseen = covered & ~inside & ~seen  # eyes and mouth are holes in the skin, no border of it
    return _blend(photo.clamp(0, BRIGHTEST), model, seen, unseen, inside & ~seen), seen


def trust(result, n, bare=True):
    """Map (1, 1, S, S) in 0…1: how well the fitted face explains each pixel's neighbourhood.

    With ``bare``, skin where the model has brows is a face too: a pixel may look like what is drawn
    there, or like what is drawn around it.
    """
    size, mask = result.images.shape[-1], result.mask[n, 0]
    rendered, inside = (
        (result.rendered[n] * mask).permute(1, 2, 0).cpu().numpy(),
        mask.cpu().numpy(),
    )
    around = [cv2.GaussianBlur(part, (0, 0), size * AROUND) for part in (rendered, inside)]
    around = torch.from_numpy(around[0] / np.maximum(around[1], 1e-3)[..., None]).permute(2, 0, 1)
    residual = [(result.images[n] - drawn).square().sum(0).sqrt()
                for drawn in (result.rendered[n], around.to(result.images))]  # fmt: skip
    residual = (torch.minimum(*residual) if bare else residual[0]).clamp_max(1) * mask
    blurred = cv2.GaussianBlur(residual.cpu().numpy(), (0, 0), size / 75)
    sure = 1 / (1 + (blurred / TRUST) ** 4)
    return torch.from_numpy(sure)[None, None].to(result.images)


@torch.no_grad()
def exposed(light, result, colours, flame):
    """``light`` (1, 9, 3), stronger or weaker in each colour, so that a face with the texture
    ``colours`` (3, R, R) has the mean colour that it has in the photographs of ``result``, or is
    darker where its bright parts would be burnt out.

    A fit knows only the product of skin and lamp: in any other light its texture may look burnt,
    dark or tinted. Where the photographs show nothing to trust, ``light`` stays.
    """
    count, size = len(result.images), result.images.shape[-1]
    drawn = Renderer(flame, size)(result.seen, result.codes.camera, colours[None],
                                  light.expand(count, -1, -1)).image  # fmt: skip
    seen = result.mask * torch.cat([trust(result, n) for n in range(count)])
    wanted, found = ((seen * picture).sum((0, 2, 3)) for picture in (result.images, drawn))
    gain = (wanted / found.clamp_min(1e-6)).clamp(1 / MOST, MOST)
    shown = (drawn * gain[:, None, None]).amax(1)[seen[:, 0] > 0.5]
    if not len(shown):  # nothing that can be trusted: no skin, no colours
        return light
    brightest = shown.quantile(0.95)
    return light * gain * (WHITE / brightest).clamp_max(1)


def _skin_texels(flame, corners, weights):
    """Texels of skin, lips and eyes: what a photograph can be trusted to show."""
    masks = flame.masks
    keep = (masks["face"] | masks.get("eyes", masks["face"])).float()
    if "mouth_interior" in masks:
        keep[masks["mouth_interior"]] = 0
    return (keep[corners] * weights).sum(-1) > 0.99


def _of(flame, parts, corners, weights):
    """Share (R, R) of every texel that belongs to one of the parts."""
    masks = [flame.masks[part] for part in parts if part in flame.masks]
    keep = torch.stack(masks).any(0).float() if masks else 0 * flame.v_template[:, 0]
    return (keep[corners] * weights).sum(-1)


def _blend(photo, model, seen, unseen, apart):
    """Model plus the difference to the photo, feathered; the other half of the face helps out.

    ``unseen`` skin fades into what is seen; what lies ``apart``, in the mouth, stays the model's.
    """
    holes, hit = unseen.cpu().numpy().astype(np.uint8), seen.cpu().numpy()[..., None]
    skin = ~apart.cpu().numpy()[..., None]
    photo, plain = (part.permute(1, 2, 0).cpu().numpy().astype(np.float32)
                    for part in (photo, model))  # fmt: skip
    # creases that no pixel fell into take what is beside them
    wide = cv2.morphologyEx(holes, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    share = cv2.GaussianBlur(hit.astype(np.float32), (0, 0), 4)[..., None]
    beside = cv2.GaussianBlur(photo * hit, (0, 0), 4) / np.maximum(share, 1e-3)
    difference = np.where(hit, photo, beside) - plain
    inside = cv2.distanceTransform(1 - wide, cv2.DIST_L2, 3)
    weight = np.clip((inside - 2) / 14.0, 0, 1).astype(np.float32)
    weight = weight * (skin & (hit | (share > 1e-3)))[..., 0]
    # the mirrored difference, where this side is unsure
    other_weight, other = weight[:, ::-1] * 0.9, difference[:, ::-1]
    mirror = (1 - weight) * other_weight
    near = weight + mirror
    known = (difference * weight[..., None] + other * mirror[..., None]) / np.maximum(near, 1e-6)[
        ..., None
    ]
    # far from everything seen: only the difference's broad colour, fading out
    soft = cv2.GaussianBlur(near, (0, 0), 30)
    broad = (
        cv2.GaussianBlur(known * near[..., None], (0, 0), 30) / np.maximum(soft, 1e-3)[..., None]
    )
    broad = broad * np.clip(2 * soft, 0, 1)[..., None]
    near = np.clip(near, 0, 1)[..., None]
    texture = plain + (known * near + broad * (1 - near)) * skin
    return torch.from_numpy(np.clip(texture, 0, BRIGHTEST)).permute(2, 0, 1).to(model)
