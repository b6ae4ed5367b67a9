"""The commands ``transfer`` and ``teaser`` on pictures, films and codes."""

from types import SimpleNamespace

import imageio.v3 as iio
import khronos
import numpy as np
import pytest
import torch
import trimesh
from scipy.io import loadmat
from skimage.data import astronaut

from course import reconstruct, reconstruct_film, reenact
from course.__main__ import main
from course.facecode import JAW, FaceCode
from course.rasterize import available_backends
from course.transfer import expressions

FAST = ["--device", "cpu", "--detector", "built-in", "--no-refine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, flame):
    """A portrait, codes of a grin with an open mouth, and a film of four frames."""
    folder = tmp_path_factory.mktemp("faces")
    portrait = astronaut()[:300, 60:360]
    iio.imwrite(folder / "me.png", portrait)
    grin = FaceCode.zeros(flame)
    grin.expression[:, [flame.expression_names.index(f"smile {s}") for s in ("left", "right")]] = 2
    grin.pose[:, 6] = 0.3
    (folder / "grin").mkdir()
    grin.save(folder / "grin" / "code.json")
    (folder / "film").mkdir()
    for k in range(4):
        iio.imwrite(folder / "film" / f"{k}.png", np.roll(portrait, 3 * k, 1))
    (folder / "wall.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def made(folder):
    """A transfer with every file, asked for by Windows-style paths."""
    flags = [f"--save{name}" for name in ("Obj", "Kpt", "Depth", "Mat", "Images", "Vis")]
    me, grin = (str(folder / name).replace("/", "\\") for name in ("me.png", "grin/code.json"))
    out = str(folder / "out").replace("/", "\\")
    assert main(["transfer", "-i", me, "-e", grin, "-s", out, *FAST, *flags]) == 0
    return folder / "out" / "me_grin"


def test_codes_are_called_after_their_folder(tmp_path):
    paths = [
        tmp_path / who / name for who in ("me", "you") for name in ("code.json", "teaser.json")
    ]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [name for name, _ in expressions(paths)] == ["me", "me_2", "you", "you_2"]


def test_the_promised_files(made):
    names = {p.name.removeprefix("me_grin") for p in made.iterdir()}
    assert {"_vis.png", ".obj", ".mtl", ".glb", "_kpt2d.txt", "_kpt3d.txt", "_depth.png", ".mat",
            "code.json", "_texture.png", "_geometry.png"} <= names  # fmt: skip
    assert not [p for p in made.parent.iterdir() if p.name != "me_grin"]


def test_the_expression_came_and_the_person_stayed(folder, made, flame):
    grin = FaceCode.load(folder / "grin" / "code.json", "cpu")
    code = FaceCode.load(made / "code.json", "cpu")
    assert torch.equal(code.expression, grin.expression)
    assert torch.equal(code.pose[:, JAW], grin.pose[:, JAW])
    assert code.shape.abs().max() > 0.1
    assert np.allclose(loadmat(made / "me_grin.mat")["expression"], grin.expression)
    mesh = trimesh.load(made / "me_grin.obj", force="mesh", process=False)
    assert len(mesh.faces) == len(flame.faces)
    points = np.loadtxt(made / "me_grin_kpt3d.txt")
    assert points[66, 1] < points[62, 1] - 0.008  # the lips are more than 8 mm apart
    vis = iio.imread(made / "me_grin_vis.png")
    before, after = vis[:, :448], vis[:, 456 : 456 + 448]  # codes have no picture of their own
    changed = np.abs(before.astype(int) - after).sum(-1) > 40
    assert 0.02 < changed.mean() < 0.5
    assert not changed[:40].any()  # the photograph around the face is left alone


def test_a_still_that_becomes_a_film(folder, made):
    scene = trimesh.load(made / "me_grin.glb")
    assert len(scene.geometry) == 1
    assert b'"animations"' in (made / "me_grin.glb").read_bytes()


def test_films_both_ways(folder, tmp_path):
    """A film with a still's expression, a still with a film's, and what cannot be read."""
    grin, film, me = folder / "grin" / "code.json", folder / "film", folder / "me.png"
    out = ["-s", str(tmp_path), *FAST, "--saveObj", "false"]
    assert main(["transfer", "-i", str(film), "-e", str(grin), *out]) == 0
    code = FaceCode.load(tmp_path / "film_grin" / "code.json", "cpu")
    assert len(code) == 4
    assert (code.shape == code.shape[:1]).all()
    assert len(iio.imread(tmp_path / "film_grin" / "film_grin.gif")) == 4
    assert main(["transfer", "-i", str(me), "-e", str(film), str(folder / "wall.png"), "--clip",
                 "--every", "2", *out]) == 2  # fmt: skip
    assert len(FaceCode.load(tmp_path / "me_film" / "code.json", "cpu")) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film_grin", "me_film"]


def test_a_film_with_every_file_and_one_without_pictures(folder, tmp_path, flame, monkeypatch):
    asked, drawn = [], reconstruct_film.depth_picture
    monkeypatch.setattr(reconstruct_film, "depth_picture",
                        lambda *args: asked.append(args[3]) or drawn(*args))  # fmt: skip
    flags = ["--saveDepth", "--saveMat", "--saveImages", "--rasterizer_type", "torch"]
    paths = ["-i", str(folder / "film"), "-e", str(folder / "grin" / "code.json")]
    command = ["transfer", *paths, "--every", "2", *FAST, "-s"]
    assert main([*command, str(tmp_path / "all"), *flags]) == 0
    made = tmp_path / "all" / "film_grin"
    frames = [f"film_grin{kind}_{k:04d}.png" for kind in ("", "_depth") for k in range(2)]
    assert {*frames, "film_grin.obj", "film_grin.glb", "film_grin.gif", "film_grin_kpt2d.csv",
            "film_grin_kpt3d.csv", "film_grin.mat", "film_grin_texture.png", "code.json"} <= {
        p.name for p in made.iterdir()
    }  # fmt: skip
    assert asked == ["torch"] * 2
    depth = iio.imread(made / frames[2])
    assert depth.dtype == np.uint16
    assert depth.max() == 65535
    content = loadmat(made / "film_grin.mat")
    code = FaceCode.load(made / "code.json", "cpu")
    assert np.allclose(content["expression"], code.expression, atol=1e-5)
    marks = np.loadtxt(made / "film_grin_kpt2d.csv", delimiter=",", skiprows=1)[:, 2:]
    assert np.allclose(marks.reshape(2, 68, 2), content["landmarks2d"], atol=0.01)
    points = np.loadtxt(made / "film_grin_kpt3d.csv", delimiter=",", skiprows=1)
    assert points.shape == (2 * 68, 5)
    lips = points[:, 2:].reshape(2, 68, 3)[:, [62, 66], 1]
    assert (lips[:, 1] < lips[:, 0] - 0.008).all()  # the grin opens the mouth
    rest = trimesh.load(made / "film_grin.obj", force="mesh", process=False)
    assert len(rest.faces) == len(flame.faces)
    off = [f"--save{name}=false" for name in ("Obj", "Kpt", "Vis")]
    assert main([*command, str(tmp_path / "none"), *off]) == 0
    assert [p.name for p in (tmp_path / "none" / "film_grin").iterdir()] == ["code.json"]


def test_depth_is_drawn_by_the_rasterizer_that_was_asked_for(flame):
    seen = SimpleNamespace(images=torch.zeros(1, 3, 32, 32), codes=FaceCode.zeros(flame),
                           seen=flame())  # fmt: skip
    depth = reconstruct.depth_picture(flame, seen, 0, "torch")
    assert depth.shape == (32, 32)
    with pytest.raises(ValueError, match="none"):
        reconstruct.depth_picture(flame, seen, 0, "none")


@pytest.fixture(scope="module")
def teased(folder):
    """A teaser with a grin, twice."""
    out, grins = folder / "teaser", [str(folder / "grin" / "code.json")] * 2
    command = ["teaser", "-i", str(folder / "me.png"), "-e", *grins, "-s", str(out), *FAST]
    assert main([*command, "--size", "48"]) == 0
    return out / "me"


def test_teaser(folder, teased):
    assert {"teaser.gif", "teaser.glb", "teaser.json"} <= {p.name for p in teased.iterdir()}
    codes = FaceCode.load(teased / "teaser.json", "cpu")
    grins = FaceCode.load(folder / "grin" / "code.json", "cpu")
    assert len(codes) == len(reenact.teaser(codes[0], [grins, grins]))
    frames = iio.imread(teased / "teaser.gif")
    assert frames.shape[1:3] == (48, 3 * 48 + 16)
    assert (frames[:, :, :48] == frames[:1, :, :48]).all()  # the photograph stands still
    face = frames[:, :, 56:104].astype(int)
    assert np.abs(face[6] - face[0]).mean() > 3  # 30 degrees
    assert np.abs(face[0] - face[-1]).mean() < 1  # and back: a cycle


def test_khronos_accepts_what_they_write(made, teased):
    khronos.accepts(made / "me_grin.glb")
    khronos.accepts(teased / "teaser.glb")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transfer", "-e", "/no/such.jpg"], "There is no picture or folder"),
        (["transfer", "-e", "/no/such.mp4"], "There is no file or folder"),
        (["transfer", "-i", "/no/such.mp4", "-e", "GRIN"], "neither a folder of frames nor a"),
        (["transfer", "-i", "WALL", "-e", "GRIN"], "not a picture that can be read"),
        (["transfer", "-e", "GRIN", "--rasterizer_type", "pytorch3d"], "not installed; here there"),
        (["teaser", "-e", "/no/such.mp4"], "is a film; transfer plays films"),
        (["teaser", "-i", "clip.mp4"], "clip.mp4 is a film; transfer plays films"),
        (["teaser", "--size", "8"], "needs 32 pixels"),
        (["teaser", "--fps", "inf"], "--fps goes from 0.01 to 240"),
        (["teaser", "--fps", "nan"], "--fps goes from 0.01 to 240"),
        (["transfer", "-e", "OTHER"], "it belongs to the head FLAME 2020, not to built-in"),
    ],
)
def test_bad_arguments(arguments, message, folder, tmp_path, capsys):
    if "pytorch3d" in arguments and "pytorch3d" in available_backends():
        pytest.skip("pytorch3d is installed here")
    other = folder / "other.json"
    FaceCode.load(folder / "grin" / "code.json", "cpu").save(other, head="FLAME 2020")
    words = {
        "OTHER": str(other),
        "GRIN": str(folder / "grin" / "code.json"),
        "WALL": str(folder / "wall.png"),
    }
    arguments = [words.get(a, a) for a in arguments]
    assert main([*arguments, "-s", str(tmp_path / "out"), *FAST]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
