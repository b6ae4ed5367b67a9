"""pytorch3d's rasterizer behind our z-buffer's signature; imported only when it is installed."""

from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes


def zbuffer_pytorch3d(vertices, faces, height, width, cull_backfaces=False):
    """Nearest triangle and depth (N, H, W) of vertices (N, V, 3) and faces (F, 3)."""
    meshes = Meshes(vertices, faces.expand(len(vertices), -1, -1))
    pix_to_face, zbuf, _, _ = rasterize_meshes(
        meshes,
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        bin_size=0 if vertices.device.type == "cpu" else None,
        perspective_correct=False,
        cull_backfaces=cull_backfaces,
    )
    return pix_to_face[..., 0], zbuf[..., 0]
