"""From a head to a picture: interpolate, look up the texture, light it; all of it differentiable.

Work is done for covered pixels only. Visibility is a choice without a gradient; where a pixel is
covered, everything that it shows depends smoothly on vertices, albedo, light and camera.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn

from course.camera import _size, project, to_ndc
from course.rasterize import EPSILON, check_mesh, covered, rasterize, zbuffer_of
from course.silhouette import soft_silhouette

# Real spherical harmonics up to band 2 in the order 1, x, y, z, xy, xz, yz, x²−y², 3z²−1. Bands 1
# and 2 carry the factors 2π/3 and π/4 that turn radiance into irradiance (Ramamoorthi and Hanrahan
# 2001); band 0 leaves its π out, as DECA does.
_BAND1 = 2 * math.pi / 3 * math.sqrt(3 / (4 * math.pi))
_BAND2 = math.pi / 4 * 3 * math.sqrt(5 / (12 * math.pi))
SH_CONSTANTS = (
    1 / math.sqrt(4 * math.pi),
    *(_BAND1,) * 3,
    *(_BAND2,) * 3,
    math.pi / 4 * 1.5 * math.sqrt(5 / (12 * math.pi)),
    math.pi / 4 * 0.5 * math.sqrt(5 / (4 * math.pi)),
)


def spherical_harmonics(normals):
    """The nine basis functions (…, 9) at unit normals (…, 3), irradiance constants folded in."""
    return torch.stack(_sh_planes(normals.unbind(-1)), -1)


def _sh_planes(normal):
    x, y, z = normal
    c = SH_CONSTANTS
    return [
        torch.full_like(x, c[0]), c[1] * x, c[2] * y, c[3] * z,
        c[4] * x * y, c[5] * x * z, c[6] * y * z,
        c[7] * (x * x - y * y), c[8] * (3 * z * z - 1),
    ]  # fmt: skip


class _Gather(torch.autograd.Function):
    """table (C, M), index (P,) → (C, P). Backward adds plane by plane: several times faster than
    PyTorch's own backward of indexing."""

    @staticmethod
    def forward(ctx, table, index):
        ctx.save_for_backward(index)
        ctx.length = table.shape[1]
        out = table.new_empty(len(table), len(index))
        for plane, row in zip(table, out, strict=True):
            torch.index_select(plane, 0, index, out=row)
        return out

    @staticmethod
    def backward(ctx, gradient):
        (index,) = ctx.saved_tensors
        return _Scatter.apply(gradient, index, ctx.length), None


class _Scatter(torch.autograd.Function):
    """values (C, P), index (P,) → (C, length): sums of the values that share an index."""

    @staticmethod
    def forward(ctx, values, index, length):
        ctx.save_for_backward(index)
        out = values.new_zeros(len(values), length)
        for plane, row in zip(out, values, strict=True):
            plane.scatter_add_(0, index, row)
        return out

    @staticmethod
    def backward(ctx, gradient):
        (index,) = ctx.saved_tensors
        return _Gather.apply(gradient, index), None, None


def _batched_rows(faces, batch, vertices):
    """Rows of every triangle's corners in the flattened batch: (3·N·F,), corner after corner."""
    if batch == 1:
        return faces.T.reshape(-1)
    start = torch.arange(batch, device=faces.device).view(1, -1, 1) * vertices
    return (faces.T.unsqueeze(1) + start).reshape(-1)


def _normal_planes(planes, rows):
    """Unit vertex normals (3, M) of vertex planes (3, M): face normals summed by area."""
    a, b, c = _Gather.apply(planes, rows).view(3, 3, -1).unbind(1)
    p, q = b - a, c - a
    face = torch.stack(
        [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]]
    )
    total = _Scatter.apply(face.repeat(1, 3), rows, planes.shape[1])
    return _unit(total)


def _unit(planes):
    """Unit vectors of planes (3, M); several times faster than a norm over the first axis."""
    x, y, z = planes
    return planes * (x * x + y * y + z * z).clamp_min(1e-24).rsqrt()


def vertex_normals(vertices, faces):
    """Unit normals (N, V, 3) of vertices (N, V, 3): the sum of the faces' normals, by area."""
    batch, count = vertices.shape[:2]
    planes = vertices.reshape(-1, 3).T.contiguous()
    normals = _normal_planes(planes, _batched_rows(faces, batch, count))
    return normals.T.reshape(batch, count, 3)


def sample_texture(texture, uv):
    """Colours (N, C, H, W) of textures (N, C, R, R) at uv (N, H, W, 2); v points up as in OBJ."""
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], -1)
    return F.grid_sample(texture, grid, align_corners=False, padding_mode="border")


def shade(albedo, normals, light):
    """Lambertian colour: albedo (N, 3, H, W) times light (N, 9, 3) falling on normals likewise."""
    basis = torch.stack(_sh_planes(normals.unbind(1)), 1)
    return albedo * torch.einsum("nkhw,nkc->nchw", basis, light)


@dataclass
class Rendering:
    """A batch of pictures. Maps that nobody asks for are not made.

    image (N, 3, H, W) · mask (N, 1, H, W) covered pixels, no gradient · alpha (N, 1, H, W) soft
    silhouette with gradients (None unless asked for) · depth (N, 1, H, W) and normal (N, 3, H, W),
    zero where empty · uv (N, H, W, 2) · albedo and shading (N, 3, H, W) · occlusion (N, 1, H, W) ·
    pix_to_face (N, H, W).
    """

    image: torch.Tensor
    pix_to_face: torch.Tensor
    alpha: torch.Tensor | None
    hit: torch.Tensor
    planes: dict

    def _dense(self, planes):
        n, h, w = self.pix_to_face.shape
        out = planes.new_zeros(n * h * w, len(planes)).index_copy(0, self.hit, planes.T)
        return out.view(n, h, w, -1).permute(0, 3, 1, 2)

    def shows(self, triangles):
        """Pixels (N, H, W) where one of the marked triangles (F,) is seen; or what those weigh."""
        return triangles[self.pix_to_face % len(triangles)] * (self.pix_to_face >= 0)

    @cached_property
    def mask(self):
        return (self.pix_to_face >= 0).unsqueeze(1).float()

    @cached_property
    def depth(self):
        return self._dense(self.planes["depth"])

    @cached_property
    def normal(self):
        return self._dense(self.planes["normal"])

    @cached_property
    def uv(self):
        return self._dense(self.planes["uv"]).permute(0, 2, 3, 1)

    @cached_property
    def albedo(self):
        return self._dense(self.planes["albedo"])

    @cached_property
    def shading(self):
        return self._dense(self.planes["shading"])

    @cached_property
    def occlusion(self):
        return self._dense(self.planes["occlusion"])


class Renderer(nn.Module):
    """Draws a head model: ``renderer(vertices, camera, albedo, light) → Rendering``."""

    def __init__(self, flame, image_size=224, backend="auto"):
        """``flame`` gives triangles, texture coordinates and ambient occlusion; ``image_size`` is
        an int or (height, width). Raises ValueError for a backend that is not there."""
        super().__init__()
        self.image_size = _size(image_size)
        zbuffer_of(backend, flame.faces.device)
        check_mesh(flame.v_template[None], flame.faces)
        self.vertices = len(flame.v_template)
        self.backend = backend
        self.flame = [flame]  # in a list: the head's buffers are not this module's own
        self.register_buffer("corner_uv", flame.vt[flame.ft].contiguous())

    def render(self, code, **options):
        """A FaceCode's pictures: runs the head model, its albedo and its light."""
        flame = self.flame[0]
        vertices = flame(code.shape, code.expression, code.pose)
        return self(vertices, code.camera, flame.albedo(code.albedo), code.light, **options)

    def forward(self, vertices, camera, albedo=None, light=None, **options):
        """Draw vertices (N, V, 3) through cameras (N, 3); see ``draw`` for the rest.

        Raises ValueError for cameras of another shape, and as ``draw`` does.
        """
        check_mesh(vertices[:1], self.flame[0].faces, within=self.vertices)
        if camera.ndim != 2 or camera.shape[1] != 3 or len(camera) not in (1, len(vertices)):
            raise ValueError(
                f"camera has shape {tuple(camera.shape)}; ({len(vertices)}, 3) is needed."
            )
        pixels = project(vertices, camera, self.image_size)
        return self.draw(vertices, pixels, albedo, light, **options)

    def draw(self, vertices, pixels, albedo=None, light=None, background=None, silhouette=None,
             occlusion=True, cull_backfaces=False, supersample=1):  # fmt: skip
        """Draw vertices that some camera has put at ``pixels`` (N, V, 3) = (u, v, depth).

        albedo      (N, 3, R, R) texture, (N, V, 3) vertex colours, or None for clay
        light       (N, 9, 3), or None for none: the albedo itself is shown
        background  (N, 3, H, W), a colour of three numbers, or None for black
        silhouette  σ of a soft silhouette in squared picture units, True for 1e-4, None for none
        occlusion   multiply the shading by the head's ambient occlusion, to this power
        supersample draw k×k times as many pixels and average, for smooth edges (the image only)

        Raises ValueError for shapes that do not fit each other and meshes ``rasterize`` refuses.
        """
        flame, (height, width) = self.flame[0], self.image_size
        faces = check_mesh(vertices, flame.faces, within=self.vertices)
        self._check(vertices, pixels, albedo, light, background, supersample)
        batch = len(vertices)
        ndc = to_ndc(pixels, self.image_size)
        check_mesh(ndc, faces, within=self.vertices)
        zbuffer = zbuffer_of(self.backend, vertices.device)
        with torch.no_grad():
            pix_to_face, _ = zbuffer(ndc.float(), faces, height, width, cull_backfaces)

        colours = albedo if albedo is not None and albedo.ndim == 3 else None
        if colours is not None and len(colours) < batch:
            colours = colours.expand(batch, -1, -1).contiguous()
        inputs = [t for t in (vertices, ndc, colours, light) if t is not None]
        compiled = zbuffer.__name__ == "zbuffer_numba"
        compiled = compiled and all(t.dtype == torch.float32 for t in inputs)
        interpolate = self._interpolate_compiled if compiled else self._interpolate
        hit, picture, planes = interpolate(vertices, ndc, faces, pix_to_face, colours, light)
        if colours is None:
            counts = torch.bincount(picture, minlength=batch).tolist()
            planes["albedo"] = _sampled(albedo, planes["uv"], counts)
        if occlusion and light is not None:
            share = planes["occlusion"]
            # the clamp: below power 1 the slope at zero has no end
            share = share if occlusion == 1 else share.clamp_min(1e-6) ** occlusion
            planes["shading"] = planes["shading"] * share
        colour = planes["albedo"] * planes["shading"]
        canvas = self._canvas(background, batch, colour)
        if compiled:
            image = _compiled().paint(canvas, colour, hit)
        else:
            flat = canvas.permute(0, 2, 3, 1).reshape(-1, 3).index_copy(0, hit, colour.T)
            image = flat.view(batch, height, width, 3).permute(0, 3, 1, 2)
        if supersample > 1:
            image = self._supersampled(supersample, vertices, pixels, albedo, light, background,
                                       None, occlusion, cull_backfaces)  # fmt: skip
        alpha = None
        if silhouette is not None and silhouette is not False:
            sigma = 1e-4 if silhouette is True else silhouette
            backend = "torch" if self.backend == "torch" else "auto"
            alpha = soft_silhouette(ndc, faces, (height, width), sigma, backend).unsqueeze(1)
        return Rendering(image, pix_to_face, alpha, hit, planes)

    def _interpolate(self, vertices, ndc, faces, pix_to_face, colours, light):
        """Covered pixels (P,), the picture of each, and what each shows as planes (C, P)."""
        batch, count = vertices.shape[:2]
        hit, face, px, py = covered(pix_to_face, *self.image_size)
        table = [ndc.reshape(-1, 3).T, vertex_normals(vertices, faces).reshape(-1, 3).T]
        table.append(self._occlusion(batch).reshape(1, -1).to(ndc.dtype))
        if colours is not None:
            table.append(colours.reshape(-1, 3).T)
        picture, within = face // len(faces), face % len(faces)
        rows = (faces.T.index_select(1, within) + picture * count).reshape(-1)
        gathered = _Gather.apply(torch.cat(table), rows).unflatten(1, (3, -1))
        weights = _barycentric_planes(gathered[:2], px, py)
        values = (gathered[2:] * weights).sum(1)  # (depth, normal, occlusion[, colour], P)
        planes = {"depth": values[:1], "normal": _unit(values[1:4]), "occlusion": values[4:5]}
        corner_uv = self.corner_uv[within].permute(2, 1, 0)
        planes["uv"] = (corner_uv * weights).sum(1)
        planes["albedo"] = values[5:]
        starts = torch.bincount(picture, minlength=batch).tolist()
        planes["shading"] = _lit(light, planes["normal"], starts)
        return hit, picture, planes

    def _interpolate_compiled(self, vertices, ndc, faces, pix_to_face, colours, light):
        """The same in compiled loops."""
        render_numba = _compiled()
        hit, face, picture = render_numba.covered_pixels(pix_to_face)
        table = [render_numba.normals(vertices, faces), self._occlusion(len(ndc))[..., None]]
        if colours is not None:
            table.append(colours)
        values = render_numba.interpolate(
            ndc, torch.cat(table, 2), self.corner_uv.float(), faces, hit, face, *self.image_size
        )
        depth, uv, normal, shade, colour = values.split([1, 2, 3, 1, values.shape[0] - 7])
        planes = {"depth": depth, "uv": uv, "occlusion": shade, "albedo": colour}
        if light is None:
            planes["normal"], planes["shading"] = _unit(normal), torch.ones_like(normal)
        else:
            planes["normal"], planes["shading"] = render_numba.lit(
                normal, light, picture, SH_CONSTANTS
            )
        return hit, picture, planes

    def _occlusion(self, batch):
        return self.flame[0].ao.expand(batch, -1)

    def _check(self, vertices, pixels, albedo, light, background, supersample):
        batch, count = vertices.shape[:2]
        if pixels.shape != vertices.shape:
            raise ValueError(f"pixels have shape {tuple(pixels.shape)}, not the vertices' "
                             f"{tuple(vertices.shape)}.")  # fmt: skip
        if albedo is not None:
            fits = (albedo.ndim == 4 and albedo.shape[1] == 3) or (
                albedo.ndim == 3 and albedo.shape[1:] == (count, 3)
            )
            if not fits or len(albedo) not in (1, batch):
                raise ValueError(f"albedo has shape {tuple(albedo.shape)}; ({batch}, 3, R, R) or "
                                 f"({batch}, {count}, 3) is needed.")  # fmt: skip
        if light is not None and (light.shape[1:] != (9, 3) or len(light) not in (1, batch)):
            raise ValueError(f"light has shape {tuple(light.shape)}; ({batch}, 9, 3) is needed.")
        if torch.is_tensor(background) and background.ndim == 4:
            needed = (3, *self.image_size)
            if background.shape[1:] != needed or len(background) not in (1, batch):
                raise ValueError(f"background has shape {tuple(background.shape)}; "
                                 f"{(batch, *needed)} is needed.")  # fmt: skip
        if supersample < 1 or supersample != int(supersample):
            raise ValueError(f"supersample is {supersample}; a whole number ≥ 1 is needed.")

    def _supersampled(self, times, vertices, pixels, albedo, light, background, *options):
        """The image alone, from ``times``² pixels each."""
        fine = Renderer(self.flame[0], [times * side for side in self.image_size], self.backend)
        if torch.is_tensor(background) and background.ndim == 4:
            background = background.repeat_interleave(times, 2).repeat_interleave(times, 3)
        pixels = pixels * pixels.new_tensor([times, times, 1])
        image = fine.draw(vertices, pixels, albedo, light, background, *options).image
        return F.avg_pool2d(image, times)

    def _canvas(self, background, batch, like):
        """The background (N, 3, H, W) in front of which the head is painted."""
        height, width = self.image_size
        if background is None:
            return like.new_zeros(batch, 3, height, width)
        if not torch.is_tensor(background):
            background = like.new_tensor(background)
        if background.ndim == 1:
            background = background.view(1, 3, 1, 1)
        return background.to(like).expand(batch, 3, height, width)


def _compiled():
    """The compiled loops; imported late, because numba takes a second and a GPU needs none."""
    from course import render_numba

    return render_numba


def _barycentric_planes(corners, px, py):
    """Barycentric weights (3, P) of corner planes (2, 3, P); see ``rasterize.barycentric_at``."""
    x, y = corners
    area = (x[2] - x[0]) * (y[1] - y[0]) - (y[2] - y[0]) * (x[1] - x[0]) + EPSILON
    xa, ya, xb, yb = x.roll(-1, 0), y.roll(-1, 0), x.roll(1, 0), y.roll(1, 0)
    return ((px - xa) * (yb - ya) - (py - ya) * (xb - xa)) / area


def _sampled(texture, uv, counts):
    """Texture colours (3, P) at uv (2, P); pixels come picture by picture, ``counts`` of each."""
    if texture is None:
        return torch.full_like(uv[:1], 0.75).expand(3, -1)
    parts = []
    for n, part in enumerate(uv.split(counts, 1)):
        grid = part.T.view(1, 1, -1, 2)
        parts.append(sample_texture(texture[n % len(texture)][None], grid)[0, :, 0])
    return torch.cat(parts, 1)


def _lit(light, normal, counts):
    """Shading (3, P) of normals (3, P) under light (N, 9, 3)."""
    if light is None:
        return torch.ones_like(normal)
    basis = torch.stack(_sh_planes(normal))
    parts = [light[n % len(light)].T @ part for n, part in enumerate(basis.split(counts, 1))]
    return torch.cat(parts, 1)


__all__ = ["SH_CONSTANTS", "Renderer", "Rendering", "rasterize", "sample_texture", "shade",
           "spherical_harmonics", "vertex_normals"]  # fmt: skip
