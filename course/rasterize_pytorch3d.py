"""pytorch3d's rasterizer behind our z-buffer's signature; imported only when it is installed."""

import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes


def zbuffer_pytorch3d(corners, height, width, cull_backfaces=False):
    """Nearest triangle and depth (N, H, W) of corners (N, F, 3, 3)."""
    batch, count = corners.shape[:2]
    faces = torch.arange(3 * count, device=corners.device).view(1, count, 3)
    meshes = Meshes(corners.reshape(batch, -1, 3), faces.expand(batch, -1, -1))
    pix_to_face, zbuf, _, _ = rasterize_meshes(
        meshes,
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        bin_size=0 if corners.device.type == "cpu" else None,
        perspective_correct=False,
        cull_backfaces=cull_backfaces,
    )
    return pix_to_face[..., 0], zbuf[..., 0]
