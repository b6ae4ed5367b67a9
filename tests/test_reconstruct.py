import json
import socket

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from scipy.io import loadmat
from skimage.data import astronaut

from course import fit
from course.__main__ import main
from course.encoder import FaceModel
from course.facecode import FaceCode


def few(patch):
    for name in ("STEPS", "STEPS_FROM_START"):
        patch.setattr(fit, name, {"landmarks": 40, 56: 15, 112: 0})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer steps, and no network."""
    few(monkeypatch)

    def offline(*_, **__):
        raise OSError("unreachable")

    monkeypatch.setattr(socket, "create_connection", offline)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The sample photograph with every file that can be saved."""
    folder = tmp_path_factory.mktemp("out")
    patch = pytest.MonkeyPatch()
    few(patch)
    flags = [f"--save{name}" for name in ("Obj", "Kpt", "Depth", "Mat", "Images", "Vis")]
    assert main(["reconstruct", "-s", str(folder), "--device", "cpu", *flags]) == 0
    patch.undo()
    return folder / "astronaut"


def test_the_promised_files(made):
    names = {p.name for p in made.iterdir()}
    for name in ("_vis.png", ".obj", ".mtl", ".glb", "_kpt2d.txt", "_detected.txt", "_kpt3d.txt",
                 "_depth.png", ".mat"):  # fmt: skip
        assert f"astronaut{name}" in names
    assert "code.json" in names
    assert not list(made.parent.glob(".tmp-*"))


def test_landmark_files(made):
    model = np.loadtxt(made / "astronaut_kpt2d.txt")
    detected = np.loadtxt(made / "astronaut_detected.txt")
    space = np.loadtxt(made / "astronaut_kpt3d.txt")
    assert model.shape == detected.shape == (68, 2)
    assert space.shape == (68, 3)
    assert np.linalg.norm(model - detected, axis=1).mean() < 6  # pixels of the photograph


def test_meshes_open_textured(made):
    for kind in ("obj", "glb"):
        mesh = trimesh.load(made / f"astronaut.{kind}", force="mesh", process=False)
        assert len(mesh.faces) > 10_000
        uv = np.asarray(mesh.visual.uv)
        assert len(uv) == len(mesh.vertices)
        assert uv.min() >= 0
        assert uv.max() <= 1
        material = mesh.visual.material
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        assert image is not None
        assert np.asarray(image).std() > 10
        outward = (mesh.vertex_normals * (mesh.vertices - mesh.vertices.mean(0))).sum(1)
        assert (outward > 0).mean() > 0.8
    assert b'"NORMAL"' in (made / "astronaut.glb").read_bytes()  # else viewers show facets
    text = (made / "astronaut.mtl").read_text()
    picture = next(line.split()[1] for line in text.splitlines() if line.startswith("map_Kd"))
    assert (made / picture).is_file()


def test_code_and_mat_agree(made):
    code = FaceCode.load(made / "code.json")
    mat = loadmat(made / "astronaut.mat")
    assert np.allclose(mat["shape"], code.shape.numpy(), atol=1e-5)
    assert mat["faces"].min() == 1  # MATLAB counts from one
    assert json.loads((made / "code.json").read_text())["head"]


def test_pictures(made):
    panel = iio.imread(made / "astronaut_vis.png")
    assert panel.shape[0] > 800
    depth = iio.imread(made / "astronaut_depth.png")
    assert depth.dtype == np.uint16
    assert 0.1 < (depth > 0).mean() < 0.9


def test_names_with_spaces_and_characters(tmp_path, capsys):
    source = tmp_path / "我的 脸 photo.png"
    iio.imwrite(source, astronaut()[:300])
    assert main(["reconstruct", "-i", str(source), "-s", str(tmp_path / "out put")]) == 0
    out = capsys.readouterr().out
    assert "landmark NME" in out
    assert "PSNR" in out
    assert "seconds" in out
    folder = tmp_path / "out put" / "我的 脸 photo"
    mesh = trimesh.load(folder / "我的 脸 photo.obj", force="mesh")
    image = mesh.visual.material.image
    assert image is not None


def test_no_face_writes_nothing(tmp_path, capsys):
    source = tmp_path / "wall.png"
    iio.imwrite(source, np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    out = tmp_path / "out"
    assert main(["reconstruct", "-i", str(source), "-s", str(out)]) == 2
    assert "wall: No face was found" in capsys.readouterr().out
    assert not out.exists()


def test_a_folder_goes_on_past_a_bad_picture(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"broken")
    iio.imwrite(folder / "b.png", astronaut()[:300])
    out = tmp_path / "out"
    assert main(["reconstruct", "-i", str(folder), "-s", str(out), "--saveObj", "false"]) == 2
    text = capsys.readouterr().out
    assert "a: a.jpg is not a picture" in text
    assert (out / "b" / "b_vis.png").is_file()
    assert not (out / "b" / "b.obj").exists()
    assert not (out / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "/no/such/picture.jpg"], "There is no picture or folder"),
        (["--rasterizer_type", "pytorch3d"], "not installed"),
        (["--device", "cuda"], "no CUDA"),
        (["--face", "3"], "no face number 3"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, capsys):
    import torch

    from course.rasterize import available_backends

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    if "pytorch3d" in arguments and "pytorch3d" in available_backends():
        pytest.skip("pytorch3d is installed here")
    assert main(["reconstruct", "-s", str(tmp_path / "out"), *arguments]) == 2
    caught = capsys.readouterr()
    assert message in caught.out + caught.err
    assert not (tmp_path / "out").exists()


def test_a_failure_half_way_leaves_the_old_folder(tmp_path, monkeypatch, capsys):
    source = tmp_path / "me.png"
    iio.imwrite(source, astronaut()[:300])
    out = tmp_path / "out"
    assert main(["reconstruct", "-i", str(source), "-s", str(out), "--saveVis", "false"]) == 0
    before = {p.name: p.read_bytes() for p in (out / "me").iterdir()}

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("course.export.save_glb", full)
    assert main(["reconstruct", "-i", str(source), "-s", str(out), "--saveVis", "false"]) == 2
    assert "disk full" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in (out / "me").iterdir()} == before
    assert [p.name for p in out.iterdir()] == ["me"]


# ------------------------------------------------------------------ the encoder


def codes(folder):
    return FaceCode.load(folder / "astronaut" / "code.json")


def test_the_encoder_alone_and_as_a_start(flame, tmp_path, capsys):
    torch.manual_seed(0)
    model = FaceModel(flame, "small")
    with torch.no_grad():
        model.reconstructor.layers[2].bias[:3] = torch.tensor([1.5, -1.0, 0.5])
    model.save(tmp_path / "encoder.pt")
    command = ["reconstruct", "--saveVis", "false", "--saveObj", "false", "--device", "cpu", "-s"]
    given = ["--encoder", str(tmp_path / "encoder.pt")]
    assert main([*command, str(tmp_path / "a"), *given, "--no-refine"]) == 0
    alone = codes(tmp_path / "a")
    assert torch.allclose(alone.shape[0, :3], torch.tensor([1.5, -1.0, 0.5]), atol=0.2)
    assert "encoder " in capsys.readouterr().out
    assert main([*command, str(tmp_path / "b"), *given]) == 0
    assert not torch.allclose(codes(tmp_path / "b").shape, alone.shape)
    assert "encoder " in capsys.readouterr().out
    assert main([*command, str(tmp_path / "c"), "--no-encoder"]) == 0
    assert "encoder " not in capsys.readouterr().out


def test_an_encoder_that_cannot_be_used(tmp_path, capsys, monkeypatch):
    command = ["reconstruct", "--saveVis", "false", "--saveObj", "false", "-s", str(tmp_path)]
    assert main([*command, "--no-encoder", "--no-refine"]) == 2
    assert main([*command, "--encoder", str(tmp_path / "none.pt")]) == 2
    monkeypatch.setattr("course.reconstruct.WEIGHTS", tmp_path / "none.pt")
    assert main([*command, "--no-refine"]) == 2
    assert "train encoder" in capsys.readouterr().err
    assert main(command) == 0
    assert "starting from the mean face" in capsys.readouterr().out
