"""``reconstruct`` on the frames of a film."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from scipy.io import loadmat
from skimage.data import astronaut

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
    made = tmp_path / "me"
    assert {"code.json", "me.gif", "me.glb", "me.obj", "me.mat", "me_kpt2d.csv", "me_kpt3d.csv",
            *(f"me_depth_{k:04d}.png" for k in range(4))} <= {
        p.name for p in made.iterdir()
    }  # fmt: skip
    codes = FaceCode.load(made / "code.json", "cpu")
    assert len(codes) == 4
    assert torch.equal(codes.shape, codes.shape[:1].expand(4, -1))
    assert len(iio.imread(made / "me.gif")) == 4
    rows = np.loadtxt(made / "me_kpt2d.csv", delimiter=",", skiprows=1)
    marks = rows[:, 2:].reshape(4, 68, 2)
    assert np.allclose(marks, loadmat(made / "me.mat")["landmarks2d"], atol=0.01)
    moved = (marks[-1] - marks[0]).mean(0)
    assert moved == pytest.approx([16, 0], abs=1.5)
    assert b'"animations"' in (made / "me.glb").read_bytes()
    assert len(trimesh.load(made / "me.obj", force="mesh").faces) > 1000


def test_a_picture_is_no_film(frames, tmp_path, capsys):
    picture = str(frames / "frame_8.png")
    assert main(["reconstruct", "-i", picture, "--film", "-s", str(tmp_path), *FAST]) == 2
    assert "is one picture; --film wants" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
