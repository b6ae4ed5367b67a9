"""``reconstruct`` on the frames of a film."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from scipy.io import loadmat
from skimage.data import astronaut

from course import reconstruct_film
from course.__main__ import main
from course.facecode import FaceCode

FAST = ["--device", "cpu", "--detector", "built-in", "--no-refine"]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Five frames in which a portrait moves to the right, the second without a face."""
    folder = tmp_path_factory.mktemp("films") / "me"
    folder.mkdir()
    portrait = astronaut()[:300, 60:360]
    for k in range(5):
        frame = np.full_like(portrait, 128) if k == 1 else np.roll(portrait, 4 * k, 1)
        iio.imwrite(folder / f"frame_{k + 8}.png", frame)
    return folder


def test_one_head_for_all_frames(frames, tmp_path, capsys):
    command = ["reconstruct", "-i", str(frames), "--film", "-s", str(tmp_path), *FAST]
    assert main([*command, "--saveMat", "--saveDepth"]) == 0
    said = capsys.readouterr().out
    assert "frame frame_9 is left out" in said
    assert "4 frames, one head" in said
    made = tmp_path / "me_film"
    assert {"code.json", *(f"me_film{end}" for end in (".gif", ".glb", ".obj", ".mat", "_kpt2d.csv",
            "_kpt3d.csv")), *(f"me_film_depth_{k:04d}.png" for k in range(4))} <= {
        p.name for p in made.iterdir()
    }  # fmt: skip
    codes = FaceCode.load(made / "code.json", "cpu")
    assert len(codes) == 4
    assert torch.equal(codes.shape, codes.shape[:1].expand(4, -1))
    assert len(iio.imread(made / "me_film.gif")) == 4
    rows = np.loadtxt(made / "me_film_kpt2d.csv", delimiter=",", skiprows=1)
    marks = rows[:, 2:].reshape(4, 68, 2)
    assert np.allclose(marks, loadmat(made / "me_film.mat")["landmarks2d"], atol=0.01)
    moved = (marks[-1] - marks[0]).mean(0)
    assert moved == pytest.approx([16, 0], abs=1.5)
    assert b'"animations"' in (made / "me_film.glb").read_bytes()
    assert len(trimesh.load(made / "me_film.obj", force="mesh").faces) > 1000


def test_a_picture_is_no_film(frames, tmp_path, capsys):
    picture = str(frames / "frame_8.png")
    assert main(["reconstruct", "-i", picture, "--film", "-s", str(tmp_path), *FAST]) == 2
    assert "is one picture; --film wants" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_names_never_meet(tmp_path):
    """A telephone's photograph and its film have one name; folders may hold more of them."""
    (tmp_path / "b").mkdir()
    paths = [tmp_path / name for name in ("me.png", "me.mp4", "b/me.mp4", "b/me_film.png")]
    for path in paths:
        path.touch()
    films, pictures = reconstruct_film.divide(paths, False)
    assert pictures == [("me", paths[0]), ("me_film", paths[3])]
    assert films == [("me_film_2", paths[1]), ("me_film_3", paths[2])]
    assert reconstruct_film.divide(paths[1:2], False)[1] == []
    assert reconstruct_film.divide(None, False)[1][0][0] == "astronaut"


def test_what_is_left_out(frames, tmp_path, capsys):
    """A film that cannot be read stops no other; --resume leaves a finished one alone."""
    wall = tmp_path / "wall"
    wall.mkdir()
    iio.imwrite(wall / "1.png", np.full((64, 64, 3), 128, np.uint8))
    out = tmp_path / "out"
    quick = [*FAST, *(f"--save{what}=false" for what in ("Vis", "Obj", "Kpt"))]
    command = ["reconstruct", "-i", str(wall), str(frames), "--film", "-s", str(out), *quick]
    assert main(command) == 2
    assert "wall_film: No frame shows a face." in capsys.readouterr().out
    assert [p.name for p in out.iterdir()] == ["me_film"]

    code = out / "me_film" / "code.json"
    code.write_text("mine")
    assert main([*command[:2], *command[3:], "--resume"]) == 0
    assert "1 of 1 films are there already" in capsys.readouterr().out
    assert code.read_text() == "mine"

    assert main(["reconstruct", "-i", str(wall / "1.png"), "nope.mp4", *FAST]) == 2
    caught = capsys.readouterr()
    assert "There is no film nope.mp4" in caught.err
    assert not caught.out  # nothing was tried before
