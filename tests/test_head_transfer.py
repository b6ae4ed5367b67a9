"""Landmarks, UV, masks and albedo, carried over to a FLAME file that lies alone."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import stand_in
import torch

from course import (
    doctor,
    files,
    fit,
    flame_files,
    gltf,
    head_completion,
    head_transfer,
    registration,
)
from course.camera import project
from course.export import to_uint8
from course.facecode import FaceCode
from course.flame import FLAME
from course.photo import Detection
from course.render import Renderer


def at(vertices, faces, embedding, part):
    corners = vertices[faces[np.asarray(embedding[f"{part}_lmk_faces_idx"])]]
    return (corners * np.asarray(embedding[f"{part}_lmk_bary_coords"])[..., None]).sum(-2)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The one file, the head that was loaded from it, and the truth."""
    path = tmp_path_factory.mktemp("flame") / "generic_model.pkl"
    model, person, faces, bary = stand_in.flame_like()
    path.write_bytes(pickle.dumps(model, protocol=2))
    flame = FLAME.load(path, device="cpu", n_shape=60, n_expression=29)
    return SimpleNamespace(path=path, model=model, flame=flame, person=person, faces=faces,
                           bary=bary, ours=stand_in.built_in())  # fmt: skip


def test_landmarks_are_within_millimetres(other):
    vertices = 1000 * other.model["v_template"]
    found = {k: v.numpy() for k, v in other.flame.state_dict().items() if "_lmk_" in k}
    for part, mean, worst in (("static", 1.3, 4.0), ("dynamic", 2.5, 7.0)):
        mine = at(vertices, other.model["f"].astype(int), found, part)
        error = np.linalg.norm(mine - at(other.person, other.ours["f"], other.ours, part), axis=-1)
        print(f"\n{part} landmarks: mean {error.mean():.2f} mm, worst {error.max():.2f} mm")
        assert error.mean() < mean
        assert error.max() < worst


def test_masks_and_texture_places(other):
    ours = other.ours
    mixed = lambda v: np.einsum("nk,nk...->n...", other.bary, v[other.faces])  # noqa: E731
    for name, least in (("face", 0.95), ("eyes", 1.0), ("lips", 0.8), ("scalp", 0.9)):
        truth = mixed(ours[f"mask_{name}"].astype(float)[ours["f"]][:, :]) > 0.5
        mine = other.flame.masks[name].numpy()
        assert (truth & mine).sum() / (truth | mine).sum() >= least, name
    assert not other.flame.masks["teeth"].any()
    # a millimetre of the face is so much of the texture's side
    truth = np.einsum("nk,nkc->nc", other.bary, ours["vt"][ours["ft"]][other.faces])
    corner, place = other.flame.faces.numpy(), other.flame.vt.numpy()[other.flame.ft.numpy()]
    face = other.flame.masks["face"].numpy()[corner]
    side = np.linalg.norm(place[:, 0] - place[:, 1], axis=1)
    edge = 1000 * np.linalg.norm(
        other.model["v_template"][corner[:, 0]] - other.model["v_template"][corner[:, 1]], axis=1
    )
    off = np.linalg.norm(place - truth[corner], axis=2)[face]
    off = off * np.median(edge[face.all(1)] / side[face.all(1)])
    print(f"\ntexture: median {np.median(off):.2f} mm, 95 % under {np.percentile(off, 95):.2f} mm")
    assert np.median(off) < 1.5
    assert np.percentile(off, 95) < 4
    # no triangle reaches across a seam
    assert np.linalg.norm(place - place.mean(1, keepdims=True), axis=2).max() < 0.3


def test_the_second_time_nothing_is_registered(other, monkeypatch):
    def never(*arguments):
        raise AssertionError("registered again")

    monkeypatch.setattr(head_transfer, "correspond", never)
    again = FLAME.load(other.path, device="cpu", n_shape=60, n_expression=29)
    for key, value in other.flame.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    kept = head_completion.cache_path(other.path)
    assert {p.name for p in other.path.parent.iterdir()} == {other.path.name, kept.name}
    assert flame_files.find(other.path.parent) == other.path  # the cache is no model
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    assert files.read_cached(kept, "") is None
    with pytest.raises(AssertionError, match="registered again"):
        FLAME.load(other.path, device="cpu")
    kept.write_bytes(whole)


def test_doctor_says_which_head_is_in_use(other, monkeypatch):
    monkeypatch.setenv("COURSE_FLAME", str(other.path))
    row = doctor._flame()
    assert row.state == "ok"
    assert str(other.path) in row.found
    assert "landmarks, UV, masks, albedo carried over from the built-in head" in row.found
    kept = head_completion.cache_path(other.path)
    whole = kept.read_bytes()
    kept.unlink()
    assert "to be carried over at its first use" in doctor._flame().found
    kept.write_bytes(whole)


def test_landmarks_beside_a_head_are_the_last_choice(other, tmp_path):
    """What fits a photograph has to mean what the landmark network means."""
    state = other.flame.state_dict()
    beside = {key: np.zeros_like(value) for key, value in state.items() if "_lmk_" in key}
    beside["mask_face"] = np.ones(len(other.model["v_template"]), bool)
    found, reason = head_completion.complete(other.path, other.model, other.ours, beside)
    assert not reason
    assert found["mask_face"].all()
    assert np.array_equal(found["static_lmk_faces_idx"], other.flame.static_lmk_faces_idx)
    assert "landmarks" in head_completion.state(other.path, other.model, other.ours, beside)
    # where nothing can be carried over, they are better than none
    plane = {"v_template": np.zeros((9, 3)), "f": np.zeros((8, 3), int)}
    found, reason = head_completion.complete(tmp_path / "plane.npz", plane, other.ours, beside)
    assert reason
    assert np.array_equal(found["static_lmk_faces_idx"], beside["static_lmk_faces_idx"])


def test_it_is_fitted_drawn_and_exported(other, tmp_path):
    flame, size = other.flame, 128
    code = FaceCode.zeros(flame, 1)
    generator = torch.Generator().manual_seed(1)
    code.shape[:] = torch.randn(code.shape.shape, generator=generator)
    code.pose[0, 1], code.pose[0, 6] = 0.3, 0.15
    code.camera[:] = torch.tensor(flame.default_camera)
    code.light[:, 0] = 3.0
    drawn = Renderer(flame, size).render(code)
    assert 0.2 < drawn.mask.mean() < 0.9
    vertices = flame(code.shape, code.expression, code.pose)
    points = project(flame.landmarks(vertices, code.pose), code.camera, size)[0, :, :2].numpy()
    box = np.concatenate([points.min(0), points.max(0)])
    seen = Detection(points, np.full(68, 1.0, np.float32), box, "truth", 1)
    result = fit.fit([to_uint8(drawn.image[0])], [seen], flame, image_size=size, progress=False,
                     steps={"landmarks": 60, 56: 5, 112: 0})  # fmt: skip
    away = np.linalg.norm(result.landmarks[0] - points, axis=1)
    print(f"\nfit: landmarks {away.mean():.2f} pixels off")
    assert away.mean() < 0.04 * np.ptp(points[:, 0])
    gltf.save_animation(tmp_path / "face.glb", flame, FaceCode.cat([code, result.codes])[:1])
    assert (tmp_path / "face.glb").stat().st_size > 100_000


def test_what_is_no_head_is_said_to_be_none():
    side = np.linspace(-1, 1, 30)
    x, y = np.meshgrid(side, side)
    corner = (np.arange(29)[:, None] * 30 + np.arange(29)).ravel()
    model = {"v_template": np.stack([x, y, x * y], -1).reshape(-1, 3),
             "f": np.stack([corner, corner + 1, corner + 30], 1)}  # fmt: skip
    found, reason = head_completion.complete(
        stand_in.flame_files.DATA / "plane.npz", {**model, "part": np.zeros(900)},
        stand_in.built_in(), progress=False)  # fmt: skip
    assert "does not look like a head" in reason
    assert "vt" not in found


def test_own_uv_gets_the_built_in_colours(other):
    """A head with a texture plane of its own: the same colours, at its own places."""
    ours = other.ours
    mirrored = {"vt": other.flame.vt.numpy() * [-1, 1] + [1, 0], "ft": other.flame.ft.numpy()}
    carried = {"vt": other.flame.vt.numpy(), "ft": other.flame.ft.numpy()}
    painted = head_completion._repainted({"albedo_mean": ours["albedo_mean"]}, carried, mirrored)
    flipped = painted["albedo_mean"][:, ::-1].astype(float)
    middle = np.s_[150:400, 180:330]  # texels of the face
    assert np.abs(flipped - ours["albedo_mean"])[middle].mean() < 3


def test_similarity_from_any_pose(other):
    """Lying on its side and twice the size, a head is still found."""
    ours = other.ours
    skin = ours["part"] == 0
    source = registration.Surface(1000 * ours["v_template"].astype(float),
                                  ours["f"][skin[ours["f"]].all(1)])  # fmt: skip
    turn = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    model = other.model
    theirs = 2000 * model["v_template"] @ turn.T
    part = head_transfer.parts(model)
    target = registration.Surface(theirs, model["f"].astype(int)[(part == 0)[model["f"]].all(1)])
    weight = (skin & ~ours["mask_mouth_interior"].astype(bool)).astype(float)
    move = registration.align(source, weight, target)
    truth = registration.Similarity.between(source.vertices[skin],
                                            2 * other.person[skin] @ turn.T)  # fmt: skip
    away = np.linalg.norm(move(source.vertices[skin]) - truth(source.vertices[skin]), axis=1)
    assert np.median(away) / move.scale < 15  # no similarity fits another person exactly
