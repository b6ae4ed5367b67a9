"""The animated .glb: its rules (glTF 2.0), and what a viewer computes from it against FLAME."""

import json
import struct

import khronos
import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from course import export, gltf
from course.asm_fit import AdaptiveHead
from course.export import split_vertices
from course.facecode import FaceCode

TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
FPS = 10.0


class Glb:
    """A reader as a viewer has it, from the specification alone."""

    def __init__(self, path):
        content = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON"
        assert size % 4 == 0
        self.json = json.loads(content[20 : 20 + size])
        length, kind = struct.unpack_from("<I4s", content, 20 + size)
        assert kind == b"BIN\0"
        self.data = content[28 + size :]
        assert len(self.data) == length == self.json["buffers"][0]["byteLength"]

    def view(self, index, dtype, count):
        view = self.json["bufferViews"][index]
        size = np.dtype(dtype).itemsize
        assert view["byteOffset"] % size == 0
        assert view["byteOffset"] % 4 == 0
        assert count * size <= view["byteLength"]
        assert view["byteOffset"] + view["byteLength"] <= len(self.data)
        return np.frombuffer(self.data, dtype, count, view["byteOffset"])

    def accessor(self, index):
        entry = self.json["accessors"][index]
        dtype, width = TYPES[entry["componentType"]], WIDTHS[entry["type"]]
        shape = (entry["count"], width) if width > 1 else (entry["count"],)
        values = np.zeros(shape, dtype)
        if "bufferView" in entry:
            values = self.view(entry["bufferView"], dtype, int(np.prod(shape))).reshape(shape)
        if "sparse" in entry:
            sparse, values = entry["sparse"], values.copy()
            count = sparse["count"]
            rows = self.view(sparse["indices"]["bufferView"],
                             TYPES[sparse["indices"]["componentType"]], count)  # fmt: skip
            assert (np.diff(rows.astype(int)) > 0).all()
            assert rows.max() < len(values)
            values[rows] = self.view(sparse["values"]["bufferView"], dtype, count * width).reshape(
                count, -1
            )
        if "min" in entry:
            flat = values.reshape(len(values), -1)
            assert np.array_equal(flat.min(0), np.float32(entry["min"]))
            assert np.array_equal(flat.max(0), np.float32(entry["max"]))
        assert np.isfinite(values).all()
        return values

    def channel(self, node, path, k):
        """What the animation says about a node at frame k, or the node's own value."""
        animation = self.json["animations"][0]
        for channel in animation["channels"]:
            if channel["target"] == {"node": node, "path": path}:
                sampler = animation["samplers"][channel["sampler"]]
                values = self.accessor(sampler["output"])
                return values.reshape(len(self.accessor(sampler["input"])), -1)[k]
        return np.array(self.json["nodes"][node][path], np.float32)

    def vertices(self, k):
        """Morphed and skinned vertices (n, 3) at frame k."""
        (primitive,) = self.json["meshes"][0]["primitives"]
        points = self.accessor(primitive["attributes"]["POSITION"]).astype(float)
        for weight, target in zip(self.channel(0, "weights", k), primitive["targets"], strict=True):
            points = points + weight * self.accessor(target["POSITION"])
        skin = self.json["skins"][0]
        matrices, parents = {}, {}
        for number, node in enumerate(self.json["nodes"]):
            parents |= dict.fromkeys(node.get("children", []), number)
        for number in skin["joints"]:
            local = np.eye(4)
            local[:3, :3] = Rotation.from_quat(self.channel(number, "rotation", k)).as_matrix()
            local[:3, 3] = self.channel(number, "translation", k)
            matrices[number] = matrices.get(parents.get(number), np.eye(4)) @ local
        bind = self.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        joint = np.stack([matrices[n] for n in skin["joints"]]) @ bind
        index = self.accessor(primitive["attributes"]["JOINTS_0"])
        share = self.accessor(primitive["attributes"]["WEIGHTS_0"])
        blended = np.einsum("vk,vkij->vij", share, joint[index])
        return np.einsum("vij,vj->vi", blended[:, :3, :3], points) + blended[:, :3, 3]


def performance(flame, frames=5):
    """A person who turns, opens the mouth, looks aside and smiles."""
    generator = torch.Generator().manual_seed(3)
    code = FaceCode.cat([FaceCode.random(flame, 1, generator)] * frames)
    t = torch.linspace(0, 1, frames)
    code.pose[:, 1], code.pose[:, 3], code.pose[:, 6] = 0.5 * t, -0.2 * t, 0.5 * t
    code.pose[:, 10] = code.pose[:, 13] = 0.3 * t
    code.expression[:] = torch.randn(frames, flame.n_expression, generator=generator)
    return code


@pytest.fixture(scope="module")
def codes(flame):
    return performance(flame)


@pytest.fixture(scope="module")
def path(flame, codes, tmp_path_factory):
    path = tmp_path_factory.mktemp("glb") / "face.glb"
    gltf.save_animation(path, flame, codes, fps=FPS)
    return path


def test_a_viewer_computes_flames_vertices(flame, codes, path):
    glb = Glb(path)
    places, _, _ = split_vertices(flame.faces, flame.ft)
    posed = flame(codes.shape, codes.expression, codes.pose).numpy()
    for k, truth in enumerate(posed):
        millimetres = 1000 * np.linalg.norm(glb.vertices(k) - truth[places], axis=1)
        assert millimetres.max() < 0.1
    plain = flame(codes.shape, codes.expression).numpy()  # without joints it would be far off
    assert 1000 * np.abs(plain[-1] - posed[-1]).max() > 20


def test_the_correctives_are_needed(flame, codes, path, tmp_path):
    names = Glb(path).json["meshes"][0]["extras"]["targetNames"]
    assert names[: flame.n_expression] == flame.expression_names
    assert len(names) > flame.n_expression
    still = codes.replace(pose=0 * codes.pose)
    gltf.save_animation(tmp_path / "still.glb", flame, still, fps=FPS)
    assert Glb(tmp_path / "still.glb").json["meshes"][0]["extras"]["targetNames"] == (
        flame.expression_names
    )


def test_structure(flame, codes, path):
    glb = Glb(path)
    description = glb.json
    for index in range(len(description["accessors"])):
        glb.accessor(index)
    (mesh,) = description["meshes"]
    (primitive,) = mesh["primitives"]
    attributes = {k: glb.accessor(v) for k, v in primitive["attributes"].items()}
    count = len(attributes["POSITION"])
    assert {len(values) for values in attributes.values()} == {count}
    for index in [
        primitive["attributes"]["POSITION"],
        *(t["POSITION"] for t in primitive["targets"]),
    ]:
        assert {"min", "max"} <= set(description["accessors"][index])
        assert description["accessors"][index]["count"] == count
    assert glb.accessor(primitive["indices"]).max() == count - 1
    assert np.abs(np.linalg.norm(attributes["NORMAL"], axis=1) - 1).max() < 1e-5
    weights, joints = attributes["WEIGHTS_0"], attributes["JOINTS_0"]
    assert np.abs(weights.sum(1) - 1).max() < 1e-6
    assert weights.min() >= 0
    skin = description["skins"][0]
    assert joints.max() < len(skin["joints"]) == 5
    assert (joints[weights == 0] == 0).all()
    assert len(mesh["weights"]) == len(primitive["targets"]) == len(mesh["extras"]["targetNames"])
    used = [view for view in description["bufferViews"] if "target" in view]
    assert all(view["byteOffset"] % 4 == 0 for view in used)
    assert attributes["TEXCOORD_0"].min() >= 0
    assert attributes["TEXCOORD_0"].max() <= 1


def test_the_animation(flame, codes, path):
    glb = Glb(path)
    (animation,) = glb.json["animations"]
    targets = len(glb.json["meshes"][0]["weights"])
    paths = [(c["target"]["node"], c["target"]["path"]) for c in animation["channels"]]
    assert len(set(paths)) == len(paths)
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        times, values = glb.accessor(sampler["input"]), glb.accessor(sampler["output"])
        assert np.allclose(times, np.arange(len(codes)) / FPS)
        assert "min" in glb.json["accessors"][sampler["input"]]
        each = targets if channel["target"]["path"] == "weights" else 1
        assert len(values) == len(times) * each
        if channel["target"]["path"] == "rotation":
            assert np.abs(np.linalg.norm(values, axis=1) - 1).max() < 1e-5
            assert ((values[1:] * values[:-1]).sum(1) > 0).all()  # the short way round
    assert (0, "weights") in paths
    assert {node for node, path in paths if path == "rotation"} == {1, 2, 3, 4, 5}


def test_inverse_bind_matrices_bring_joints_home(flame, codes, path):
    glb = Glb(path)
    bind = glb.accessor(glb.json["skins"][0]["inverseBindMatrices"]).reshape(-1, 4, 4)
    rest = flame.joints(codes.shape[:1])[0].numpy()
    home = np.einsum("jik,ji->jk", bind, np.pad(rest, ((0, 0), (0, 1)), constant_values=1))
    assert np.abs(home - [0, 0, 0, 1]).max() < 1e-6


def test_trimesh_opens_it(flame, path):
    scene = trimesh.load(path)
    (mesh,) = scene.geometry.values()
    assert len(mesh.faces) == len(flame.faces)
    assert np.asarray(mesh.visual.material.baseColorTexture).std() > 10


def test_what_is_refused(flame, codes, tmp_path):
    with pytest.raises(ValueError, match="one shape"):
        gltf.save_animation(tmp_path / "a.glb", flame, FaceCode.random(flame, 2))
    with pytest.raises(ValueError, match="positive frame rate"):
        gltf.save_animation(tmp_path / "a.glb", flame, codes, fps=0)
    assert not list(tmp_path.iterdir())


def test_the_khronos_validator(path):
    khronos.accepts(path)
    info = khronos.report(path)["info"]
    assert info["animationCount"] == 1
    assert info["hasMorphTargets"]
    assert info["hasSkins"]


def test_the_khronos_validator_finds_faults(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[content.index(b'"joints":[') + 10] = ord("9")
    (tmp_path / "bad.glb").write_bytes(content)
    assert khronos.report(tmp_path / "bad.glb")["issues"]["numErrors"] > 0


def test_export_offers_it_too(flame, codes, path, tmp_path):
    export.save_animation(tmp_path / "face.glb", flame, codes, fps=FPS)
    assert (tmp_path / "face.glb").read_bytes() == path.read_bytes()


def test_a_head_whose_identity_is_bones(flame, codes, tmp_path):
    """The person at rest comes from the head itself; the rest is the linear head's."""
    head = AdaptiveHead(flame)
    code = torch.randn(1, head.n_shape, generator=torch.Generator().manual_seed(0))
    bones = codes.replace(shape=0.5 * code.expand(len(codes), -1))
    gltf.save_animation(tmp_path / "bones.glb", head, bones, fps=FPS)
    with torch.no_grad():
        posed = head(bones.shape, bones.expression, bones.pose).numpy()
    places, _, _ = split_vertices(flame.faces, flame.ft)
    glb = Glb(tmp_path / "bones.glb")
    for k in (0, len(codes) - 1):
        off = 1000 * np.linalg.norm(glb.vertices(k) - posed[k][places], axis=1)
        assert off.max() < 0.1
