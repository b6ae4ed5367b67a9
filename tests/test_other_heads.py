"""ICT-FaceKit and GNM Head, from small files laid out as upstream lays them out."""

import json
from functools import partial

import numpy as np
import pytest
import stand_in
import torch
from skimage.data import astronaut
from test_gltf import Glb

from course import (
    actions,
    fit,
    flame,
    flame_files,
    gltf,
    head_transfer,
    metrics,
    other_heads,
    photo,
    reenact,
    registration,
    texture,
    train_encoder,
)
from course.detail import DetailModel
from course.encode import first_guess
from course.encoder import FaceModel
from course.export import split_vertices
from course.flame import FLAME, rodrigues
from course.teach import widgets
from course.teach.studio import Studio


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


def _polygons(triangles):
    """The first triangle and one beside it as a quad, then the others."""
    (a, b, c), others = triangles[0].tolist(), triangles[1:].tolist()
    for k, other in enumerate(others):
        turned = [other[j:] + other[:j] for j in range(3)]
        last = [t[2] for t in turned if t[:2] == [a, c]]  # a, b, c and a, c, d
        if last:
            return [[a, b, c, *last], *others[:k], *others[k + 1 :]]
    raise AssertionError("no triangle lies beside the first one's edge from c to a")


def write_obj(path, vertices, faces, part):
    """As upstream: centimetres, a material before its faces, place and texture place per corner;
    two triangles of each part in one polygon."""
    lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in vertices] + ["vt 0.5 0.5"]
    extra = len(vertices)
    lines += [f"v {x:.3f} 0.0 9.0" for x in (-1, 0, 1)]
    for number, name in ((0, "M_Face"), (1, "M_ScleraLeft"), (2, "M_ScleraRight")):
        lines.append(f"usemtl {name}")
        chosen = faces[(part == number)[faces].all(1)]
        lines += ["f " + " ".join(f"{k + 1}/1" for k in corners) for corners in _polygons(chosen)]
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
    lengths = {len(line.split()) - 1 for line in (ict / other_heads.NEUTRAL).read_text().split("\n")
               if line.startswith("f ")}  # fmt: skip
    assert lengths == {3, 4}
    as_sets = lambda faces: {tuple(sorted(f)) for f in np.asarray(faces).tolist()}  # noqa: E731
    assert as_sets(model.faces) == as_sets(head["f"].astype(int))  # the quad is two again
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


@pytest.fixture(params=["FLAME", "ICT-FaceKit", "GNM Head"])
def any_head(request, head, ict, tmp_path):
    """Each kind of head, from a file of its own layout."""
    kinds = {"FLAME": ("generic_model.npz", {k: v for k, v in head.items() if k != "part"}),
             "GNM Head": ("gnm_head.npz", gnm_arrays(head))}  # fmt: skip
    if request.param not in kinds:
        return FLAME.load(ict, device="cpu")
    name, arrays = kinds[request.param]
    np.savez(tmp_path / name, **arrays)
    return FLAME.load(tmp_path / name, device="cpu")


def test_any_head_is_fitted_drawn_animated_and_dragged(any_head, tmp_path):
    """What notebooks 09 and 10 do, a few steps of it; neither encoder nor detail is made for it."""
    for load in (partial(FaceModel.load, train_encoder.WEIGHTS), DetailModel.load):
        with pytest.raises(ValueError, match=f"made for a head with.*{any_head.name}"):
            load(any_head)
    image = astronaut()
    found = photo.detect(image, detector="built-in")
    start, trust = first_guess(None, [image], [found], any_head)
    result = fit.fit([image], [found], any_head, start=start, trust=trust, progress=False,
                     steps={"landmarks": 240, 56: 20, 112: 0})  # fmt: skip
    assert metrics.nme(result.landmarks[0], found.points) < 8
    for history in result.losses.values():
        assert history[-1] < history[0]
    assert (result.rendered > 0).any(1).float().mean() > 0.2
    colours, _ = texture.sample(result, any_head)
    rest = result.codes.replace(expression=0 * result.codes.expression)
    acting = rest.replace(expression=actions.expression(any_head, smile=1.5))
    frames = reenact.timeline([(0, rest), (1, reenact.repose(acting, yaw=20, jaw=15))], [0, 0.5, 1])
    gltf.save_animation(tmp_path / "head.glb", any_head, frames, colours, fps=2)
    viewed = Glb(tmp_path / "head.glb").vertices(2)
    true = any_head(frames.shape, frames.expression, frames.pose)[2].numpy()
    places, _, _ = split_vertices(any_head.faces, any_head.ft)
    assert 1000 * np.abs(viewed - true[places]).max() < 0.1
    studio = Studio(any_head, 96)

    def draw(smile=0.0, jaw=0.0):
        code = reenact.repose(rest, yaw=0, jaw=jaw)
        moved = any_head(code.shape, actions.expression(any_head, smile=smile), code.pose)[0]
        return studio.look(moved, colours[None])

    panel = widgets.panel(draw, smile=(0.0, 2.0, 0.0), jaw=(0.0, 20.0, 0.0))
    controls, picture = panel.children
    seen = {picture.value}
    for control in controls.children[:2]:
        control.value = control.max
        seen.add(picture.value)
    assert len(seen) == 3  # both sliders change the picture


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
