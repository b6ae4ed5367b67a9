"""ICT-FaceKit and GNM Head, from small files laid out as upstream lays them out."""

import json

import numpy as np
import pytest
import stand_in
import torch

from course import flame, flame_files, head_transfer, other_heads, registration
from course.flame import FLAME, rodrigues


@pytest.fixture(scope="module")
def head():
    """A coarse head with eyeballs, upright and in metres, and what one needs to write it down."""
    model, *_ = stand_in.flame_like(seed=3, spacing=1.6, scale=1.0, turn=0.0)
    model["part"] = head_transfer.parts(model)
    return model


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One look at the registration's precision is enough (test_head_transfer): here it is short."""
    monkeypatch.setattr(registration, "STIFFNESS", (10.0,))
    monkeypatch.setattr(registration, "ROUNDS", 1)
    flame._say.cache_clear()


def write_obj(path, vertices, faces, part):
    """As upstream: centimetres, a material before its faces, place and texture place per corner;
    two triangles in one polygon where they can be."""
    lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in vertices] + ["vt 0.5 0.5"]
    extra = len(vertices)
    lines += [f"v {x:.3f} 0.0 9.0" for x in (-1, 0, 1)]
    for number, name in ((0, "M_Face"), (1, "M_ScleraLeft"), (2, "M_ScleraRight")):
        lines.append(f"usemtl {name}")
        chosen = faces[(part == number)[faces].all(1)]
        lines += [f"f {a + 1}/1 {b + 1}/1 {c + 1}/1" for a, b, c in chosen]
    lines += ["usemtl M_EyeOcclusion", f"f {extra + 1}/1 {extra + 2}/1 {extra + 3}/1"]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def ict(head, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit") / "FaceXModel"
    folder.mkdir()
    rest, faces = 100 * head["v_template"], head["f"].astype(int)
    names = ["jawOpen", "mouthSmile_L"]
    moves = {f"identity{k:03d}": 100 * head["shapedirs"][:, :, k] for k in range(3)}
    moves |= {name: 100 * head["shapedirs"][:, :, 300 + k] for k, name in enumerate(names)}
    write_obj(folder / other_heads.NEUTRAL, rest, faces, head["part"])
    for name, move in moves.items():
        write_obj(folder / f"{name}.obj", rest + move, faces, head["part"])
    (folder / "vertex_indices.json").write_text(json.dumps({"expressions": names}))
    return folder


def whole(model):
    """What the course needs of every head is there, and a face can be moved with it."""
    assert model.has_landmarks
    assert model.has_uv
    assert model.n_albedo > 0
    assert {"face", "skin", "eyes", "lips", "scalp"} <= set(model.masks)
    jaw, gaze = torch.zeros(1, 15), torch.zeros(1, 15)
    jaw[0, 6], gaze[0, 10] = 0.3, 0.3
    rest, opened = model.landmarks(model())[0], model.landmarks(model(pose=jaw), jaw)[0]
    assert opened[8, 1] < rest[8, 1] - 0.008  # the chin drops
    assert (opened[36:48] - rest[36:48]).norm(dim=1).max() < 1e-3
    moved = (model(pose=gaze) - model())[0].norm(dim=1)
    assert moved[model.masks["left_eyeball"]].max() > 0.002
    assert moved[model.masks["right_eyeball"]].max() < 1e-6
    assert torch.allclose(model.lbs_weights.sum(1), torch.ones(1), atol=1e-5)


def test_ict_facekit(ict, head, capsys):
    model = FLAME.load(ict.parent, device="cpu")
    assert "MIT licence" in capsys.readouterr().err
    assert (model.name, model.n_shape, model.n_expression) == ("ICT-FaceKit", 3, 2)
    assert model.expression_names == ["jawOpen", "mouthSmile_L"]
    assert len(model.v_template) == len(head["v_template"])  # without the glassy layer
    assert np.allclose(model.v_template, head["v_template"], atol=1e-6)
    one = torch.eye(3)[1:2]
    assert np.allclose((model(one) - model())[0], head["shapedirs"][:, :, 1], atol=1e-6)
    smile = torch.tensor([[0.0, 1.0]])
    assert np.allclose((model(None, smile) - model())[0], head["shapedirs"][:, :, 301], atol=1e-6)
    assert np.allclose(model.joints()[0, 3:], head["J_regressor"][3:] @ head["v_template"],
                       atol=1e-3)  # fmt: skip
    whole(model)


def test_ict_faults_are_named(ict, tmp_path):
    (tmp_path / other_heads.NEUTRAL).write_bytes((ict / other_heads.NEUTRAL).read_bytes())
    with pytest.raises(ValueError, match=r"no identity"):
        flame_files.read(tmp_path)
    for path in ict.glob("*.obj"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "vertex_indices.json").write_text('{"expressions": ["jawOpen", "browDown_L"]}')
    with pytest.raises(ValueError, match=r"lacks browDown_L\.obj"):
        flame_files.read(tmp_path)
    (tmp_path / "vertex_indices.json").unlink()
    (tmp_path / "jawOpen.obj").write_text("v 0 0 0\nf 1/1 1/1 1/1\n")
    with pytest.raises(ValueError, match=r"jawOpen\.obj has 1 vertices"):
        flame_files.read(tmp_path)


def gnm_arrays(head):
    rows = [0, 1, 3, 4]
    parts = list(other_heads.COMPONENTS)
    weights = head["weights"][:, rows].T.copy()
    weights[1] += head["weights"][:, 2]
    correctives = head["posedirs"].reshape(-1, 3, 4, 9)[:, :, [0, 2, 3]].transpose(2, 3, 0, 1)
    correctives = np.concatenate([np.zeros_like(correctives[:1]), correctives])
    return {
        "version": np.array("3.0"), "variant": np.array("head"),
        "template_vertex_positions": head["v_template"].astype(np.float32),
        "template_joint_positions": head["J_regressor"][rows] @ head["v_template"],
        "vertex_identity_basis": head["shapedirs"][:, :, :4].transpose(2, 0, 1),
        "expression_basis": head["shapedirs"][:, :, 300:303].transpose(2, 0, 1),
        "expression_names": np.array(["left_eye_region_000", "lower_face_000", "iris"]),
        "skinning_weights": weights, "joint_regressor": head["J_regressor"][rows],
        "joint_parent_indices": np.array([-1, 0, 1, 1]), "triangles": head["f"].astype(np.int32),
        "triangle_uvs": np.zeros((len(head["f"]), 3, 2)),
        "pose_correctives_regressor": correctives.reshape(36, -1),
        "vertex_groups": np.stack([head["part"] == k for k in range(6)]).astype(float),
        "vertex_group_names": np.array(parts),
    }  # fmt: skip


def test_gnm_head(head, tmp_path, capsys):
    arrays = gnm_arrays(head)
    np.savez(tmp_path / "gnm_head.npz", **arrays)
    model = FLAME.load(tmp_path, device="cpu")
    assert "Apache licence 2.0" in capsys.readouterr().err
    assert (model.name, model.n_shape, model.n_expression) == ("GNM Head", 4, 3)
    joints = model.joints()[0].numpy()
    assert np.allclose(joints[[0, 1, 3, 4]], arrays["template_joint_positions"], atol=1e-5)
    jaw = head["J_regressor"][2] @ head["v_template"]
    assert np.linalg.norm(joints[2] - jaw) < 0.01  # carried over: GNM has none
    # posed by neck and eyes, it is what GNM's own formula makes of it
    codes = torch.tensor([[0.5, -1.0, 0.3, 1.2]]), torch.tensor([[0.4, -0.7, 1.0]])
    pose = torch.zeros(1, 15)
    pose[0, :6], pose[0, 9:12] = torch.tensor([0.1, 0.3, 0, -0.2, 0.1, 0.05]), 0.2
    rotations = rodrigues(pose.view(5, 3)[[0, 1, 3, 4]]).double().numpy()
    vertices = (arrays["template_vertex_positions"]
                + np.tensordot(codes[0][0].numpy(), arrays["vertex_identity_basis"], 1)
                + np.tensordot(codes[1][0].numpy(), arrays["expression_basis"], 1))  # fmt: skip
    joints = model.joints(*codes)[0].double().numpy()[[0, 1, 3, 4]]
    moved = (rotations - np.eye(3)).reshape(-1) @ arrays["pose_correctives_regressor"]
    vertices = vertices + moved.reshape(-1, 3)
    posed, turns, places = np.zeros_like(vertices), [rotations[0]], [joints[0]]
    for k, parent in ((1, 0), (2, 1), (3, 1)):
        places.append(places[parent] + turns[parent] @ (joints[k] - joints[parent]))
        turns.append(turns[parent] @ rotations[k])
    for k in range(4):
        there = (vertices - joints[k]) @ turns[k].T + places[k]
        posed += arrays["skinning_weights"][k][:, None] * there
    assert np.abs(model(*codes, pose)[0].numpy() - posed).max() < 1e-5
    whole(model)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("expression_basis", None, "lacks expression_basis"),
     ("skinning_weights", np.zeros((5, 7)), "skinning_weights has shape"),
     ("joint_parent_indices", np.array([-1, 0, 1, 2]), "root, neck and two eyes")],
)  # fmt: skip
def test_gnm_faults_are_named(key, value, message, head, tmp_path):
    arrays = {**gnm_arrays(head), key: value}
    np.savez(tmp_path / "gnm_head.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        flame_files.read(tmp_path / "gnm_head.npz")


def test_flame_comes_before_other_heads(ict, tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_FLAME", raising=False)
    monkeypatch.setattr(flame_files, "DATA", tmp_path)
    (tmp_path / "flame" / "ICT-FaceKit" / "FaceXModel").mkdir(parents=True)
    assert flame_files.find() == flame_files.BUILT_IN
    kit = tmp_path / "flame" / "ICT-FaceKit" / "FaceXModel"
    (kit / other_heads.NEUTRAL).write_bytes(b"")
    assert flame_files.find() == kit
    (tmp_path / "flame" / "generic_model.pkl").write_bytes(b"")
    (tmp_path / "flame" / "gnm_head.npz").write_bytes(b"")
    assert flame_files.find().name == "generic_model.pkl"
