"""Fine relief: a height map in UV bends the normals that the light falls on (bump mapping, Blinn
1978), and a colour map multiplies the albedo.

Both live in a square window of UV that holds the face, so that 256² texels are spent where the
wrinkles are (a texel is about a millimetre of cheek). A detail map is (N, 4, R, R), row 0 on top:
displacement along the normal in metres, then the change of log albedo of red, green and blue.
"""

import torch
import torch.nn.functional as F
from torch import nn

from course.camera import project
from course.render import Renderer, shade, vertex_normals
from course.texture import texel_places

RESOLUTION = 256  # texels a side of the maps that ship
WINDOW = (0.18, 0.165, 0.64)  # of UV: left, bottom, side
EDGE = 0.06  # of the window: the relief fades out towards its border
MIN_COSINE = 0.25  # views flatter than this say nothing about a texel
CHANNELS = (2, 3, 6, 3, 1)  # of a canvas: place, normal, ∇u and ∇v, albedo, occlusion
SLACK = 0.007  # depth (picture units) by which a texel may lie behind what is seen


class Relief(nn.Module):
    """Places a head's detail maps: ``image = relief.draw(renderer, code, maps)``.

    flame  a head with texture coordinates · resolution  texels a side of its maps.
    Raises ValueError for a head without texture coordinates.
    """

    def __init__(self, flame, resolution=RESOLUTION):
        super().__init__()
        if not flame.has_uv:
            raise ValueError(f"{flame.name} has no texture coordinates: detail has no place on it.")
        self.flame, self.resolution = [flame], resolution
        left, bottom, side = WINDOW
        whole = round(resolution / side)
        row, column = round((1 - bottom - side) * whole), round(left * whole)
        face, weights = (part[row : row + resolution, column : column + resolution]
                         for part in texel_places(flame, whole))  # fmt: skip
        self.register_buffer("painted", face >= 0, persistent=False)
        self.register_buffer("corners", flame.faces[face.clamp_min(0)], persistent=False)
        self.register_buffer("weights", weights.unsqueeze(-1).clamp_min(0), persistent=False)
        self.register_buffer("mask", self._mask(), persistent=False)

    def _mask(self):
        """(1, 1, R, R): 1 on bare skin, 0 on lips, in the hair and at the window's border."""
        flame = self.flame[0]
        if "skin" in flame.uv_masks:
            skin = self.window(flame.uv_masks["skin"][None, None])
        else:
            known = flame.masks.get("face", torch.ones_like(flame.v_template[:, 0], dtype=bool))
            skin = self.texels(known[None, :, None].float())
        skin = skin * self.painted
        soft = F.avg_pool2d(F.pad(skin, [2] * 4, mode="replicate"), 5, 1)
        at = (torch.arange(self.resolution, device=skin.device) + 0.5) / self.resolution
        fade = (torch.minimum(at, 1 - at) / EDGE).clamp(0, 1)
        return soft.clamp_max(1) * skin * fade * fade[:, None]

    def window(self, texture):
        """The window (N, C, R, R) of whole textures (N, C, T, T)."""
        left, bottom, side = WINDOW
        at = (torch.arange(self.resolution, device=texture.device) + 0.5) / self.resolution * side
        x, y = 2 * (left + at) - 1, 2 * (1 - bottom - side + at) - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).expand(len(texture), -1, -1, -1)
        return F.grid_sample(texture, grid, align_corners=False, padding_mode="border")

    def texels(self, values):
        """What vertices have, (N, V, C), at every texel: (N, C, R, R)."""
        corners = values[:, self.corners]  # (N, R, R, 3, C)
        return (corners * self.weights).sum(3).permute(0, 3, 1, 2)

    def _grid(self, uv):
        """uv (N, H, W, 2) → places in the window as ``grid_sample`` has them."""
        left, bottom, side = WINDOW
        at = (uv - uv.new_tensor([left, bottom])) / side
        return torch.stack([2 * at[..., 0] - 1, 1 - 2 * at[..., 1]], -1)

    def slopes(self, displacement):
        """∂D/∂u and ∂D/∂v (N, 2, R, R) of displacements (N, 1, R, R), metres per unit of UV.

        The displaced surface's normal is n − ∇D, made unit again, and on the surface
        ∇D = ∂D/∂u ∇u + ∂D/∂v ∇v: folds stretch with the skin that they are in.
        """
        padded = F.pad(displacement, [1] * 4, mode="replicate")
        step = 2 * WINDOW[2] / self.resolution
        along = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / step
        up = (padded[..., :-2, 1:-1] - padded[..., 2:, 1:-1]) / step
        return torch.cat([along, up], 1)

    def tangent_normals(self, displacement, vertices):
        """Tangent-space normal map (N, 3, R, R) of unit vectors: x along u, y along v, z outwards.

        As glTF 2.0 has it: red and green hold x and y, green pointing up in the picture.
        """
        frames = self.texels(uv_gradients(self.flame[0], vertices)).unflatten(1, (2, 3))
        # along ∇u/|∇u| the height rises by ∂D/∂u |∇u|, if u and v are at right angles
        rise = self.slopes(displacement) * frames.norm(dim=2)
        return F.normalize(torch.cat([-rise, torch.ones_like(rise[:, :1])], 1), dim=1)

    def canvas(self, rendering, vertices):
        """What a Rendering's pixels need to be painted with any detail: (N, CHANNELS, H, W).

        Place in the window (−1…1, as ``grid_sample`` has it), normal, ∇u and ∇v, albedo, and
        ambient occlusion, which is 0 where no head is. Its crops are canvases too.
        """
        frames = self.texels(uv_gradients(self.flame[0], vertices.detach()))
        place = self._grid(rendering.uv)
        frames = F.grid_sample(frames, place, align_corners=False, padding_mode="border")
        return torch.cat([place.permute(0, 3, 1, 2), rendering.normal, frames, rendering.albedo,
                          rendering.occlusion * rendering.mask], 1)  # fmt: skip

    def paint(self, canvas, maps, light):
        """Colours (N, 3, H, W) of a canvas with maps (N, 4, R, R) in light (N, 9, 3).

        Zero where no head is. Differentiable in all three.
        """
        place, normal, frames, albedo, occlusion = canvas.split(CHANNELS, 1)
        maps = maps * self.mask
        layers = torch.cat([self.slopes(maps[:, :1]), maps[:, 1:]], 1)
        layers = F.grid_sample(layers, place.permute(0, 2, 3, 1), align_corners=False)
        slopes, tint = layers.split([2, 3], 1)
        rise = (slopes.unsqueeze(2) * frames.unflatten(1, (2, 3))).sum(1)
        return shade(albedo * tint.exp(), F.normalize(normal - rise, dim=1), light) * occlusion

    def draw(self, renderer, code, maps, background=None, vertices=None, albedo=None,
             supersample=1):  # fmt: skip
        """Pictures (N, 3, H, W) of a FaceCode with detail maps (N, 4, R, R).

        background (N, 3, H, W), three numbers, or None for black · vertices (N, V, 3) and albedo
        instead of those of the code · supersample as in ``Renderer.draw``.
        """
        flame = self.flame[0]
        if supersample > 1:
            fine = Renderer(flame, [supersample * s for s in renderer.image_size], renderer.backend)
            if torch.is_tensor(background) and background.ndim == 4:
                background = background.repeat_interleave(supersample, 2)
                background = background.repeat_interleave(supersample, 3)
            picture = self.draw(fine, code, maps, background, vertices, albedo)
            return F.avg_pool2d(picture, supersample)
        if vertices is None:
            vertices = flame(code.shape, code.expression, code.pose)
        albedo = flame.albedo(code.albedo) if albedo is None else albedo
        rendering = renderer(vertices, code.camera, albedo, background=background)
        empty = rendering.image * (1 - rendering.mask)
        return empty + self.paint(self.canvas(rendering, vertices), maps, code.light)

    @torch.no_grad()
    def unwrap(self, image, vertices, camera, coarse=None):
        """Pictures laid out in the window: colours (N, 3, R, R) and seen texels (N, 1, R, R).

        image (N, 3, S, S) · vertices (N, V, 3) and camera (N, 3) as the picture shows the head.
        ``coarse`` pictures (N, 3, S, S) make it log(image / coarse): what is left to explain.
        """
        size = image.shape[-1]
        place = self.texels(project(vertices, camera, size))
        facing = F.normalize(self.texels(vertex_normals(vertices, self.flame[0].faces)), dim=1)
        grid = 2 * place[:, :2].permute(0, 2, 3, 1) / size - 1
        depth = Renderer(self.flame[0], size)(vertices, camera).depth
        near = F.grid_sample(depth, grid, mode="nearest", align_corners=False)
        seen = (place[:, 2:] < near + SLACK * camera[:, :1, None, None]) & (near > 0)
        seen &= (facing[:, 2:] > MIN_COSINE) & (self.mask > 0.5)
        if coarse is not None:
            image = (image.clamp_min(0.02) / coarse.clamp_min(0.02)).log()
        colours = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
        return colours * seen, seen.to(image)


def uv_gradients(flame, vertices):
    """∇u and ∇v on the surface, (N, V, 6), per metre: means over each vertex's triangles, by area.

    In a triangle with edges e₁, e₂: ∇u = a e₁ + b e₂ with (a, b) = G⁻¹ (Δ₁u, Δ₂u), G_ij = e_i·e_j.
    """
    corners = vertices[:, flame.faces]  # (N, F, 3, 3)
    edges = corners[:, :, 1:] - corners[:, :, :1]  # (N, F, 2, 3)
    gram = edges @ edges.mT
    area = gram[..., 0, 0] * gram[..., 1, 1] - gram[..., 0, 1] ** 2
    at = flame.vt[flame.ft]
    change = at[:, 1:] - at[:, :1]  # (F, 2 edges, u and v)
    a, b, d = gram[..., 0, 0], gram[..., 0, 1], gram[..., 1, 1]
    inverse = torch.stack([d, -b, -b, a], -1).unflatten(-1, (2, 2))
    inverse = inverse / area.clamp_min(1e-18)[..., None, None]
    gradients = (change.mT @ inverse @ edges).flatten(2)  # (N, F, 6)
    size = area.clamp_min(0).sqrt()[..., None]
    ends = flame.faces.reshape(-1)
    weighted = torch.cat([gradients * size, size], -1).repeat_interleave(3, 1)
    total = torch.zeros(len(vertices), vertices.shape[1], 7).to(vertices)
    total = total.index_add(1, ends, weighted)
    return total[..., :6] / total[..., 6:].clamp_min(1e-12)
