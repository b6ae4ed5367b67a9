import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import scipy.sparse
import torch

from course import flame_files
from course.benchmark_skinning import flame_sized
from course.flame import FLAME, euler_yaw, rodrigues, yaw_pose


def made_up(vertices=200, faces=300, shape=300, expression=100, seed=0):
    """A model of FLAME's form with random numbers, as a dict of arrays."""
    model = flame_sized(shape, expression, vertices, faces, seed)
    del model["n_shape"]  # FLAME's own files have none
    return model


@pytest.mark.parametrize("batch", [1, 3])
def test_equals_smplx(batch):
    smplx = pytest.importorskip("smplx.lbs")
    model = made_up(5023, 9976)
    flame = FLAME(model)
    generator = torch.Generator().manual_seed(2)
    shape = torch.randn(batch, 300, generator=generator)
    expression = torch.randn(batch, 100, generator=generator)
    pose = torch.randn(batch, 15, generator=generator) * 0.4
    f32 = {k: torch.tensor(v).float() for k, v in model.items() if k not in ("f", "kintree_table")}
    expected, _ = smplx.lbs(
        torch.cat([shape, expression], 1),
        pose,
        f32["v_template"],
        f32["shapedirs"],
        f32["posedirs"].reshape(-1, 36).T,
        f32["J_regressor"],
        torch.tensor([-1, 0, 1, 1, 1]),
        f32["weights"],
    )
    assert (flame(shape, expression, pose) - expected).abs().max() < 1e-5


def test_gradients_are_right():
    flame = FLAME({**made_up(20, 10, 6, 4), "n_shape": 6}, n_shape=4, n_expression=2).double()
    generator = torch.Generator().manual_seed(1)
    codes = [torch.randn(2, n, generator=generator, dtype=torch.float64) for n in (4, 2, 15)]
    codes[2][1] = 0  # the pose at rest, where a careless Rodrigues formula divides by zero
    codes = [c.requires_grad_() for c in codes]
    assert torch.autograd.gradcheck(flame, codes, atol=1e-7)


def test_rodrigues_against_the_matrix_exponential():
    vectors = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    vectors[0], vectors[1] = 0, vectors[1] * 1e-6
    x, y, z = vectors.unbind(1)
    cross = torch.zeros(20, 3, 3, dtype=torch.float64)
    cross[:, 2, 1], cross[:, 1, 2] = x, -x
    cross[:, 0, 2], cross[:, 2, 0] = y, -y
    cross[:, 1, 0], cross[:, 0, 1] = z, -z
    assert torch.allclose(rodrigues(vectors), torch.matrix_exp(cross), atol=1e-12)


def write_flame_pickle(path, model):
    """A pickle as FLAME's authors wrote it: chumpy arrays, scipy sparse, protocol 2.

    Made in another process with a stand-in chumpy, so that this one never knows the class.
    """
    np.savez(path.with_suffix(".source.npz"), **model)
    script = """
        import pickle, sys, types
        import numpy as np, scipy.sparse
        chumpy, ch = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
        class Ch:
            def __init__(self, x): self.x = x
            def __getstate__(self): return {"x": self.x, "_dirty_vars": set(), "_cache": {}}
        Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
        ch.Ch = Ch
        sys.modules.update({"chumpy": chumpy, "chumpy.ch": ch})
        with np.load(sys.argv[1]) as source:
            model = dict(source)
        for key in ("v_template", "shapedirs", "posedirs", "weights"):
            model[key] = Ch(model[key])
        model["J_regressor"] = scipy.sparse.csc_matrix(model["J_regressor"])
        model["bs_style"], model["bs_type"] = "lbs", "lrotmin"
        pickle.dump(model, open(sys.argv[2], "wb"), protocol=2)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    subprocess.run([*command, str(path.with_suffix(".source.npz")), str(path)], check=True)


def test_loads_a_real_flame_pickle_without_chumpy(tmp_path):
    assert "chumpy" not in sys.modules
    model = made_up()
    path = tmp_path / "generic_model.pkl"
    write_flame_pickle(path, model)
    flame = FLAME.load(path, device="cpu")
    assert (flame.n_shape, flame.n_expression) == (300, 100)
    assert flame.name == "generic_model"
    again = FLAME(model)
    pose = yaw_pose(25)
    assert torch.allclose(flame(pose=pose), again(pose=pose), atol=1e-7)
    with pytest.raises(ValueError, match="landmark_embedding"):
        flame.landmarks(flame())


def test_python2_strings_and_scipy_module_names(tmp_path):
    matrix = scipy.sparse.csc_matrix(np.eye(5, 30))
    model = made_up(30, 10)
    model["J_regressor"] = matrix
    data = pickle.dumps(model, protocol=2)
    assert b"scipy.sparse._csc\n" in data
    data = data.replace(b"scipy.sparse._csc\n", b"scipy.sparse.csc\n")
    data = data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    path = tmp_path / "old.pkl"
    path.write_bytes(data)
    assert FLAME.load(path, device="cpu").v_template.shape == (30, 3)


def test_a_malicious_pickle_runs_nothing(tmp_path):
    sentinel = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            import os

            return os.system, (f"touch '{sentinel}'",)

    model = made_up(30, 10)
    model["extra"] = Evil()
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(model, protocol=2))
    with pytest.raises(ValueError, match=r"asks for \w+\.system"):
        FLAME.load(path, device="cpu")
    assert not sentinel.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "numpy.load", "os.remove"])
def test_other_names_are_refused(name, tmp_path):
    module, function = name.rsplit(".", 1)
    path = tmp_path / "evil.pkl"
    path.write_bytes(f"c{module}\n{function}\n.".encode())
    with pytest.raises(ValueError, match=name):
        FLAME.load(path, device="cpu")


def test_damaged_files(tmp_path):
    path = tmp_path / "model.pkl"
    whole = pickle.dumps(made_up(30, 10), protocol=2)
    for content in (b"", whole[: len(whole) // 2], b"hello", pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.pkl"):
            FLAME.load(path, device="cpu")
    path = tmp_path / "model.npz"
    np.savez(path, **made_up(30, 10))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"model\.npz"):
        FLAME.load(path, device="cpu")
    with pytest.raises(FileNotFoundError, match="no model file"):
        FLAME.load(tmp_path / "absent.pkl", device="cpu")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("v_template", np.zeros((30, 2)), "v_template has shape"),
        ("posedirs", np.zeros((30, 3, 30)), "posedirs has shape"),
        ("weights", None, "lacks weights"),
        ("f", np.full((4, 3), 30), "outside 0…29"),
        ("J_regressor", np.zeros((4, 30)), "J_regressor has shape"),
    ],
)
def test_wrong_shapes(key, value, message, tmp_path):
    model = made_up(30, 10)
    model[key] = value
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({k: v for k, v in model.items() if v is not None}))
    with pytest.raises(ValueError, match=message):
        FLAME.load(path, device="cpu")


def test_which_file_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_FLAME", raising=False)
    monkeypatch.setattr(flame_files, "DATA", tmp_path)
    assert flame_files.find() == flame_files.BUILT_IN
    (tmp_path / "flame").mkdir()
    (tmp_path / "flame" / "landmark_embedding.npz").write_bytes(b"")
    assert flame_files.find() == flame_files.BUILT_IN
    (tmp_path / "flame" / "generic_model.pkl").write_bytes(b"")
    assert flame_files.find().name == "generic_model.pkl"
    other = tmp_path / "other.npz"
    other.write_bytes(b"")
    monkeypatch.setenv("COURSE_FLAME", str(other))
    assert flame_files.find() == other


def test_wrong_codes(flame):
    with pytest.raises(ValueError, match="shape has shape"):
        flame(shape=torch.zeros(1, flame.n_shape + 1))
    with pytest.raises(ValueError, match="pose has shape"):
        flame(pose=torch.zeros(1, 6))
    with pytest.raises(ValueError, match="rows"):
        flame(shape=torch.zeros(2, 3), pose=torch.zeros(3, 15))


def test_landmarks_lie_on_the_head_and_move_with_it(flame):
    rest = flame.landmarks(flame())[0]
    assert rest.shape == (68, 3)
    assert rest[36, 0] < rest[45, 0]  # iBUG counts from the picture's left
    assert rest[27, 1] > rest[33, 1] > rest[51, 1] > rest[8, 1]
    jaw = torch.zeros(1, 15)
    jaw[0, 6] = 0.4
    opened = flame.landmarks(flame(pose=jaw), jaw)[0]
    assert opened[57, 1] < rest[57, 1] - 0.01  # the lower lip drops
    assert (opened[36:48] - rest[36:48]).norm(dim=1).max() < 1e-3  # the eyes stay


def test_landmark_gradients_reach_the_codes(flame):
    shape = torch.zeros(1, flame.n_shape, requires_grad=True)
    pose = torch.zeros(1, 15, requires_grad=True)
    flame.landmarks(flame(shape=shape, pose=pose), pose).sum().backward()
    assert shape.grad.abs().max() > 0
    assert pose.grad.abs().max() > 0


def test_yaw_has_the_sign_of_the_turn():
    for degrees in (-50.0, -10.0, 0.0, 33.0):
        pose = yaw_pose(degrees)
        assert euler_yaw(rodrigues(pose[:, :3])).item() == pytest.approx(degrees, abs=1e-4)
    flame_x = rodrigues(yaw_pose(30)[:, :3])[0] @ torch.tensor([0.0, 0.0, 1.0])
    assert flame_x[0] > 0  # the nose points to the picture's right


def test_albedo(flame):
    mean = flame.albedo()
    assert mean.shape[:2] == (1, 3)
    codes = torch.zeros(2, flame.n_albedo)
    codes[1, 0] = 2.0
    drawn = flame.albedo(codes)
    assert torch.allclose(drawn[0], mean[0], atol=1e-6)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert drawn[1].mean() < drawn[0].mean()  # the first component is melanin: darker


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix, np.asarray])
def test_every_protocol_and_matrix(protocol, kind, tmp_path):
    model = made_up(30, 10)
    path = tmp_path / "model.pkl"
    path.write_bytes(
        pickle.dumps({**model, "J_regressor": kind(model["J_regressor"])}, protocol=protocol)
    )
    back = flame_files.read(path)
    for key in flame_files.REQUIRED:
        assert np.array_equal(back[key], model[key])
        assert back[key].dtype == model[key].dtype


def test_random_damage_is_always_a_value_error(tmp_path):
    rng = np.random.default_rng(0)
    model = made_up(12, 6, 3, 2)
    model["J_regressor"] = scipy.sparse.csc_matrix(model["J_regressor"])
    whole = pickle.dumps(model, protocol=2)
    path, refused = tmp_path / "model.pkl", 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 6)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            flame_files.read(path)  # a changed digit of a number goes unseen
        except ValueError:
            refused += 1
    assert refused > 30


def dome(rings=41):
    """A model whose mesh is a smooth half-ellipsoid facing the viewer, as a dict of arrays."""
    side = np.linspace(-1, 1, rings)
    x, y = np.meshgrid(side, side)
    model = made_up(rings * rings, 4, 300, 100)
    model["v_template"] = np.stack([x, y, -(x * x) - y * y], -1).reshape(-1, 3) * 0.1
    corner = (np.arange(rings - 1)[:, None] * rings + np.arange(rings - 1)).ravel()
    model["f"] = np.stack([corner, corner + 1, corner + rings], 1)
    return model


@pytest.mark.parametrize("reverse", [False, True])
def test_what_lies_beside_a_real_model(reverse, tmp_path):
    """Embedding with torch tensors (as DECA's), masks and UV; the contour is put in order."""
    model = dome()
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(model, protocol=2))
    yaw = np.r_[0:40, -1:-40:-1] * (-1 if reverse else 1)
    # turned to the picture's right, the right contour (9…16) comes forward, the left goes back
    column = 20 + np.concatenate([np.full(8, -15), [0], np.full(8, 15)])[None]
    columns = column - np.round(yaw / 10).astype(int)[:, None]
    faces = 20 * 40 + columns
    embedding = {
        "static_lmk_faces_idx": np.arange(51),
        "static_lmk_bary_coords": np.full((51, 3), 1 / 3),
        "dynamic_lmk_faces_idx": torch.from_numpy(faces),
        "dynamic_lmk_bary_coords": torch.full((79, 17, 3), 1 / 3),
    }
    np.save(tmp_path / "landmark_embedding.npy", embedding, allow_pickle=True)
    parts = ("face", "left_eyeball", "right_eyeball")
    masks = {name: np.arange(5) + 10 * k for k, name in enumerate(parts)}
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, protocol=2))
    vt = np.random.default_rng(0).random((50, 2))
    np.savez(tmp_path / "FLAME_texture.npz", vt=vt, ft=np.zeros((len(model["f"]), 3), int))
    flame = FLAME.load(tmp_path, device="cpu")
    assert flame.masks["eyes"].sum() == 10
    assert set(flame.masks) == {"face", "eyes"}
    assert np.allclose(flame.vt, vt)
    rest = flame()
    right = [flame.landmarks(rest, yaw_pose(d))[0, 9:17, 2].mean() for d in (-35, 0, 35)]
    left = [flame.landmarks(rest, yaw_pose(d))[0, :8, 2].mean() for d in (-35, 0, 35)]
    assert right[0] < right[1] < right[2]
    assert left[0] > left[1] > left[2]


def test_contour_follows_yaw_of_root_and_neck_and_is_clamped():
    model = {**made_up(100, 79), "static_lmk_faces_idx": np.zeros(51, int)}
    model["static_lmk_bary_coords"] = np.full((51, 3), 1 / 3)
    model["dynamic_lmk_faces_idx"] = np.repeat(np.arange(79)[:, None], 17, 1)
    model["dynamic_lmk_bary_coords"] = np.full((79, 17, 3), 1 / 3)
    flame = FLAME(model)
    vertices = flame()

    def row(pose):
        place = flame.landmarks(vertices, pose)[0, 0]
        return (vertices[0, flame.faces].mean(1) - place).norm(dim=1).argmin().item() - 39

    for degrees, expected in ((0, 0), (12.3, 12), (-7.6, -8), (60, 39), (-80, -39)):
        assert row(yaw_pose(degrees)) == expected
    both = yaw_pose(10)
    both[:, 4] = np.deg2rad(15)
    assert row(both) == 25
    nod = torch.zeros(1, 15)
    nod[:, 0] = 0.5
    assert row(nod) == 0


def test_gradient_of_the_contour_reaches_the_vertices(flame):
    vertices = flame().requires_grad_()
    flame.landmarks(vertices, yaw_pose(20))[:, :17].sum().backward()
    assert vertices.grad.sum(1)[0] == pytest.approx([17.0] * 3, abs=1e-4)


def test_other_numbers_of_the_same_head(flame):
    """What is loaded into a head is what it then gives; offsets count in its joints, row by row."""
    moved = {name: tensor.clone() for name, tensor in flame.state_dict().items()}
    moved["v_template"] += 1.0
    head = FLAME.load(device="cpu")
    head.load_state_dict(moved)
    assert torch.allclose(head(), flame() + 1.0, atol=1e-5)

    offsets = 0.01 * torch.randn(
        3, *flame.v_template.shape, generator=torch.Generator().manual_seed(0)
    )
    pose = yaw_pose(20)
    many = flame.transforms(pose=pose, offsets=offsets)
    assert torch.allclose(many[1:2], flame.transforms(pose=pose, offsets=offsets[1:2]), atol=1e-6)
