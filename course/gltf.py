"""A head that moves, as one glTF 2.0 binary file (.glb) for Blender and every other viewer.

Expressions are morph targets, joints a skeleton, and a row of codes one baked animation. What a
viewer computes, v' = Σ_j w_j G_j B_j (v + Σ_k a_k d_k), is FLAME's own formula (section numbers
below: the Khronos Group's glTF 2.0 specification): the joint matrix G_j B_j with the inverse bind
matrix B_j is FLAME's transform of joint j, so at every frame both give the same vertices.
"""

import json
import struct

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from course.export import jpeg_bytes, split_vertices
from course.files import atomic_path
from course.flame import JOINTS, rotation_offsets
from course.render import vertex_normals

COMPONENT = {"float32": 5126, "uint32": 5125, "uint16": 5123, "uint8": 5121}
KIND = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
VERTEX_DATA, INDICES = 34962, 34963
STILL = 1e-6  # metres or no unit: what moves less than that does not move
CORRECTED = 5e-5  # metres that the pose correctives may be wrong by


class Binary:
    """A .glb in the making: ``json`` is its description, ``data`` the one buffer."""

    def __init__(self):
        self.json = {"asset": {"version": "2.0", "generator": "face-course"},
                     "accessors": [], "bufferViews": []}  # fmt: skip
        self.data = bytearray()

    def view(self, content, target=None):
        """Index of a new buffer view that holds ``content``; views begin at multiples of four."""
        self.data += bytes(-len(self.data) % 4)
        entry = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        self.data += content
        self.json["bufferViews"].append(entry | ({"target": target} if target else {}))
        return len(self.json["bufferViews"]) - 1

    def accessor(self, values, target=None, bounds=False, sparse=False):
        """Index of a new accessor for (n,) or (n, k) values, with their bounds where asked.

        ``sparse`` stores only the rows that are not zero, where that saves space (3.6.2.3).
        """
        values = np.ascontiguousarray(values)
        rows = values.reshape(len(values), -1)
        entry = {"componentType": COMPONENT[values.dtype.name], "count": len(rows),
                 "type": KIND[rows.shape[1]]}  # fmt: skip
        if bounds:
            entry |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        used = np.flatnonzero(rows.any(1))
        if sparse and 0 < len(used) < 0.8 * len(rows):
            index = used.astype(np.uint16 if len(rows) <= 65535 else np.uint32)
            entry["sparse"] = {
                "count": len(used),
                "indices": {"bufferView": self.view(index.tobytes()),
                            "componentType": COMPONENT[index.dtype.name]},
                "values": {"bufferView": self.view(rows[used].tobytes())},
            }  # fmt: skip
        elif not sparse or len(used):  # without a view all values are zero
            entry["bufferView"] = self.view(values.tobytes(), target)
        self.json["accessors"].append(entry)
        return len(self.json["accessors"]) - 1

    def save(self, path):
        """Write the file, whole or not at all: header, JSON chunk, binary chunk (4.4)."""
        self.data += bytes(-len(self.data) % 4)
        self.json["buffers"] = [{"byteLength": len(self.data)}]
        text = json.dumps(self.json, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.data), b"BIN\0") + self.data
        with atomic_path(path) as temporary:
            temporary.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


@torch.no_grad()
def save_animation(path, flame, codes, texture=None, fps=20.0):
    """Write a face that moves through ``codes``, a FaceCode of K frames of one person.

    texture (3, R, R) in 0…1, or None for the model's own albedo. Every expression component is a
    morph target by its name, at hand for other animations too. The pose correctives are functions
    of the pose that glTF does not know: the few directions that the K frames need are baked as
    morph targets of their own, "corrective 1" and so on.

    Raises ValueError without frames, for frames of several people, or a rate that is not positive.
    """
    if not len(codes) or not fps > 0:
        raise ValueError("An animation needs at least one frame and a positive frame rate.")
    if (codes.shape - codes.shape[:1]).abs().max() > 1e-4:
        raise ValueError("The frames of an animation must show one person: one shape for all.")
    glb = Binary()
    targets, weights, names = _targets(flame, codes)
    base = flame(codes.shape[:1])[0]
    _add_mesh(glb, flame, base, targets, names, weights)
    _add_material(glb, flame.albedo(codes.albedo[:1])[0] if texture is None else texture)
    local = _add_skeleton(glb, flame, base, codes)
    times = np.arange(len(codes), dtype=np.float32) / np.float32(fps)
    _add_animation(glb, times, weights, *local)
    glb.json["scene"], glb.json["scenes"] = 0, [{"nodes": [0, 1]}]
    glb.save(path)


def _targets(flame, codes):
    """Morph targets (T, V, 3), their weights (K, T) and names: expressions, then correctives."""
    names = list(flame.expression_names)
    names += [f"expression {k + 1}" for k in range(len(names), flame.n_expression)]
    offsets = rotation_offsets(codes.pose.unflatten(1, (5, 3)))[:, 1:].flatten(1)
    moved = torch.einsum("kp,vcp->kvc", offsets, flame.posedirs).flatten(1)
    left, size, right = torch.linalg.svd(moved, full_matrices=False)
    shares, kept = left * size, 0
    while kept < len(size):
        rest = moved - shares[:, :kept] @ right[:kept]
        if rest.unflatten(1, (-1, 3)).norm(dim=-1).max() < CORRECTED:
            break
        kept += 1
    scale = shares[:, :kept].abs().amax(0).clamp_min(1e-12)  # weights between −1 and 1
    corrective = (right[:kept] * scale[:, None]).unflatten(1, (-1, 3))
    targets = torch.cat([flame.expressiondirs.permute(2, 0, 1), corrective])
    weights = torch.cat([codes.expression, shares[:, :kept] / scale], 1)
    names += [f"corrective {k + 1}" for k in range(kept)]
    return targets, weights.cpu().numpy().astype(np.float32), names


def _add_mesh(glb, flame, base, targets, names, weights):
    """One mesh of split vertices, with its morph targets, and the node that shows it."""
    places, texture_places, triangles = split_vertices(flame.faces.cpu(), flame.ft.cpu())
    normals = vertex_normals(torch.cat([base[None], base + targets]), flame.faces).cpu().numpy()
    points, moves = base.cpu().numpy(), targets.cpu().numpy()
    moves = np.where(np.abs(moves).max(-1, keepdims=True) > STILL, moves, 0)
    turned = np.where(np.abs(normals[1:] - normals[0]) > 1e-3, normals[1:] - normals[0], 0)
    uv = flame.vt.cpu().numpy()[texture_places] * [1, -1] + [0, 1]  # glTF's v points down
    joints, share = _influences(flame.lbs_weights.cpu().numpy()[places])
    attributes = {"POSITION": points[places], "NORMAL": normals[0, places],
                  "TEXCOORD_0": uv, "WEIGHTS_0": share}  # fmt: skip
    attributes = {
        name: glb.accessor(values.astype(np.float32), VERTEX_DATA, name == "POSITION")
        for name, values in attributes.items()
    }
    attributes["JOINTS_0"] = glb.accessor(joints, VERTEX_DATA)
    morphs = [
        {"POSITION": glb.accessor(move[places], None, True, True),
         "NORMAL": glb.accessor(turn[places], None, False, True)}
        for move, turn in zip(moves, turned, strict=True)
    ]  # fmt: skip
    index = triangles.astype(np.uint16 if len(places) <= 65535 else np.uint32).reshape(-1)
    primitive = {"attributes": attributes, "indices": glb.accessor(index, INDICES), "material": 0,
                 "targets": morphs}  # fmt: skip
    glb.json["meshes"] = [{"name": "face", "primitives": [primitive],
                           "weights": weights[0].tolist(),
                           "extras": {"targetNames": names}}]  # fmt: skip
    glb.json["nodes"] = [{"name": "face", "mesh": 0, "skin": 0}]


def _influences(weights):
    """The four strongest joints (n, 4) of each vertex and their weights (n, 4), which add up to 1.

    Joints without weight are named 0, as the specification asks (3.7.3.3).
    """
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    share = np.take_along_axis(weights, joints, 1).astype(np.float64)
    share = np.where(share > 1e-6, share, 0)
    share = (share / share.sum(1, keepdims=True)).astype(np.float32)
    wide = 4 - joints.shape[1]
    joints, share = (np.pad(a, ((0, 0), (0, wide))) for a in (joints, share))
    return np.where(share > 0, joints, 0).astype(np.uint8), share


def _add_material(glb, texture):
    picture = glb.view(jpeg_bytes(texture, 92))
    glb.json["images"] = [{"bufferView": picture, "mimeType": "image/jpeg", "name": "face"}]
    glb.json["samplers"] = [{"magFilter": 9729, "minFilter": 9987}]  # linear, with mipmaps
    glb.json["textures"] = [{"source": 0, "sampler": 0}]
    glb.json["materials"] = [
        {"name": "face", "doubleSided": True,
         "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0,
                                  "roughnessFactor": 0.75}}
    ]  # fmt: skip


def _add_skeleton(glb, flame, base, codes):
    """A node per joint and the skin; returns their rotations (K, 5, 4) and translations (K, 5, 3).

    ``base`` (V, 3) is the person at rest, of whatever the head makes identity. A joint's global
    matrix is G = A B⁻¹: FLAME's transform A times the matrix that carries the joint's own space to
    the head at rest. Locally, that is relative to the parent's matrix.
    """
    rest = (flame.J_regressor @ base).cpu().double().numpy()
    offsets = (base - flame.v_template)[None]
    posed = flame.transforms(None, codes.expression, codes.pose, offsets)
    matrices = np.tile(np.eye(4), (len(codes), 5, 1, 1))
    matrices[:, :, :3] = posed.cpu().double().numpy()
    bind = np.tile(np.eye(4), (5, 1, 1))
    bind[:, :3, 3] = -rest
    matrices = matrices @ np.linalg.inv(bind)
    local = matrices.copy()
    for joint, parent in enumerate(flame.parents):
        if joint:
            local[:, joint] = np.linalg.inv(matrices[:, parent]) @ matrices[:, joint]
    turns = Rotation.from_matrix(local[:, :, :3, :3].reshape(-1, 3, 3)).as_quat()
    turns = turns.reshape(len(codes), 5, 4)
    for k in range(1, len(codes)):  # q and −q are the same turn: take the nearer one
        turns[k] *= np.where((turns[k] * turns[k - 1]).sum(-1, keepdims=True) < 0, -1, 1)
    shifts, first = local[:, :, :3, 3], len(glb.json["nodes"])
    for joint, name in enumerate(JOINTS):
        children = [first + c for c in range(1, 5) if flame.parents[c] == joint]
        node = {"name": name, "rotation": turns[0, joint].tolist(),
                "translation": shifts[0, joint].tolist()}  # fmt: skip
        glb.json["nodes"].append(node | ({"children": children} if children else {}))
    columns = bind.transpose(0, 2, 1).reshape(5, 16).astype(np.float32)  # column after column
    glb.json["skins"] = [{"joints": list(range(first, first + 5)), "skeleton": first,
                          "inverseBindMatrices": glb.accessor(columns)}]  # fmt: skip
    return turns.astype(np.float32), shifts.astype(np.float32)


def _add_animation(glb, times, weights, turns, shifts):
    """One animation: all weights, and the joints that move."""
    samplers, channels = [], []
    clock = glb.accessor(times, bounds=True)

    def animate(node, path, values):
        samplers.append({"input": clock, "output": glb.accessor(values)})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    animate(0, "weights", weights.reshape(-1))
    for joint in range(turns.shape[1]):
        if joint in (1, 2) or np.ptp(turns[:, joint], axis=0).max() > STILL:
            animate(joint + 1, "rotation", turns[:, joint])
        if np.ptp(shifts[:, joint], axis=0).max() > STILL:
            animate(joint + 1, "translation", shifts[:, joint])
    glb.json["animations"] = [{"name": "animation", "samplers": samplers, "channels": channels}]
