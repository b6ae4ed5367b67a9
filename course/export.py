"""Meshes, heads that move, and pictures for other programs: textured OBJ, GLB, PNG; whole or not at
all."""

import io
import re

import imageio.v3 as iio
import numpy as np
import trimesh
from PIL import Image

from course.files import atomic_path, write_text


def split_vertices(faces, ft):
    """One vertex per (place, texture place) pair, as file formats want it.

    From faces (F, 3) and ft (F, 3): place (n,), texture place (n,) and triangles (F, 3) of those.
    """
    pairs = np.stack([np.asarray(faces).reshape(-1), np.asarray(ft).reshape(-1)], 1)
    unique, index = np.unique(pairs, axis=0, return_inverse=True)
    return unique[:, 0], unique[:, 1], index.reshape(-1, 3)


def textured_mesh(vertices, faces, vt, ft, texture, normals=None):
    """A trimesh of split vertices.

    vertices (V, 3) metres, faces (F, 3), vt (T, 2), ft (F, 3), texture (R, R, 3) uint8; normals
    likewise, a tangent-space normal map, or None.
    """
    places, texture_places, triangles = split_vertices(faces, ft)
    material = trimesh.visual.material.PBRMaterial(
        name="face",
        baseColorTexture=Image.fromarray(texture),
        normalTexture=None if normals is None else Image.fromarray(normals),
        metallicFactor=0.0,
        roughnessFactor=0.75,
        doubleSided=True,
    )
    visual = trimesh.visual.TextureVisuals(uv=np.asarray(vt)[texture_places], material=material)
    # without normals viewers show facets, and those of the split mesh would show its seams
    smooth = trimesh.Trimesh(vertices, faces, process=False).vertex_normals[places]
    return trimesh.Trimesh(np.asarray(vertices)[places], triangles, vertex_normals=smooth,
                           visual=visual, process=False)  # fmt: skip


def save_glb(path, mesh):
    """Write a binary glTF that any viewer opens."""
    content = mesh.export(file_type="glb", include_normals=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def save_animation(path, flame, codes, texture=None, fps=20.0):
    """Write a head that moves, with expressions as morph targets and joints as a skeleton: a GLB.

    What it takes and raises: see ``gltf.save_animation``.
    """
    from course import gltf  # here: it is built on this module

    gltf.save_animation(path, flame, codes, texture, fps)


def save_obj(path, mesh):
    """Write ``name.obj``, ``name.mtl`` and ``name.png`` beside each other.

    A normal map goes into ``name_normal.png``; the .mtl names it as Blender (map_Bump) and others
    (norm) read it.
    """
    # many readers split the names in an .mtl at spaces and take backslashes for folders
    stem = re.sub(r"[\s\\]", "_", path.stem)
    simple = mesh.copy()
    image = mesh.visual.material.baseColorTexture
    material = trimesh.visual.material.SimpleMaterial(image=image, name=stem)
    simple.visual = trimesh.visual.TextureVisuals(uv=mesh.visual.uv, material=material)
    text, files = trimesh.exchange.obj.export_obj(
        simple, include_normals=True, return_texture=True, mtl_name=f"{stem}.mtl"
    )
    if mesh.visual.material.normalTexture is not None:
        save_png(
            path.with_name(f"{stem}_normal.png"), np.asarray(mesh.visual.material.normalTexture)
        )
        files[f"{stem}.mtl"] += f"\nmap_Bump {stem}_normal.png\nnorm {stem}_normal.png\n".encode()
    for name, content in files.items():
        target = path.with_name(name)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    write_text(path, text)


def save_png(path, picture):
    """Write a picture: (H, W, 3) or (H, W) uint8 or uint16, or a (3, H, W) tensor in 0…1."""
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, to_uint8(picture), extension=".png")


def to_uint8(picture):
    """(3, H, W) floats in 0…1 as (H, W, 3) uint8; uint8 and uint16 arrays pass."""
    if hasattr(picture, "detach"):
        picture = picture.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
        picture = (255 * picture).round().astype(np.uint8)
    return np.asarray(picture)


def jpeg_bytes(picture, quality=90):
    """A picture as JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(picture)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
