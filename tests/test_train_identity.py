"""The identity network's training: learns, goes on, and is judged on people set aside."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from course import albums, train_identity
from course.__main__ import main
from course.encoder import FaceModel
from course.facecode import FaceCode
from course.losses import IdentityNet

PEOPLE = 16


@pytest.fixture
def folder(tmp_path):
    """An album whose people differ by colour alone."""
    rng = np.random.default_rng(0)
    n = 2 * PEOPLE
    colours = rng.integers(30, 225, (PEOPLE, 1, 1, 3)).repeat(2, 0)
    images = colours + rng.integers(-20, 21, (n, albums.SIZE, albums.SIZE, 3))
    marks = np.zeros((n, 68, 2), np.float32)
    marks[:] = np.stack([np.linspace(30, 110, 68), np.linspace(30, 110, 68)], -1)
    marks[:, 36:42], marks[:, 42:48] = (50, 60), (90, 60)
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "0-00000.npy", images.clip(0, 255).astype(np.uint8))
    sizes = {"shape": (80,), "expression": (29,), "pose": (15,), "camera": (3,), "albedo": (14,),
             "light": (9, 3)}  # fmt: skip
    arrays = {name: np.zeros((n, *size), np.float32) for name, size in sizes.items()}
    arrays["shape"][:, :3] = (colours[:, 0, 0] - 127) / 50
    np.savez(tmp_path / "train" / "0-00000.npz", **arrays, landmarks=marks,
             points=np.zeros((n, albums.POINTS, 3), np.float32), yaw=np.zeros(n, np.float32),
             person=np.arange(PEOPLE).repeat(2))  # fmt: skip
    torch.manual_seed(0)
    encoder("points").save(tmp_path / "encoder.pt")
    return tmp_path


def encoder(backbone):
    start = FaceCode(
        *(torch.zeros(1, *size) for size in ((80,), (29,), (15,), (3,), (14,), (9, 3)))
    )
    return FaceModel(backbone=backbone, hidden=8, start=start)


def arguments(folder, *more):
    return ["train", "identity", "--photos", str(2 * PEOPLE), "--batch", "12", "--device", "cpu",
            "--folder", str(folder), "--output", str(folder / "id.pt"),
            "--begin", str(folder / "encoder.pt"),
            *map(str, more)]  # fmt: skip


def test_a_run_learns_goes_on_and_reports(folder, capsys, monkeypatch):
    assert main(arguments(folder, "--steps", 6)) == 0
    report = json.loads((folder / "id.json").read_text())
    assert report["steps"] == 6
    assert report["checks"]["people"] == 2
    assert report["loss"] < np.log(11)  # finding one of eleven others by chance
    assert IdentityNet.load(folder / "id.pt")(torch.rand(1, 3, 112, 112)).shape == (1, 94)
    assert main(arguments(folder, "--steps", 6, "--resume")) == 0
    assert "going on from step 6 of 6" in capsys.readouterr().out
    assert main(arguments(folder, "--steps", 7, "--resume")) == 2
    assert main(arguments(folder, "--steps", 0)) == 2
    capsys.readouterr()
    encoder("small").save(folder / "small.pt")
    small = ["--resume", "--begin", str(folder / "small.pt")]
    assert main([*arguments(folder, "--steps", 6), *small]) == 2
    assert "has the backbone small" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_alike(folder, monkeypatch, capsys):
    steps, checkpoint = ("--steps", 6), folder / train_identity.CHECKPOINT
    assert main(arguments(folder, *steps, "--output", folder / "once.pt")) == 0
    checkpoint.unlink()
    rate = train_identity.rate

    def stops(highest, step, steps):
        if step == 3:
            raise KeyboardInterrupt
        return rate(highest, step, steps)

    with monkeypatch.context() as patch:
        patch.setattr(train_identity, "rate", stops)
        assert main(arguments(folder, *steps)) == 130
    assert "is on disk; the same with --resume goes on.\n" in capsys.readouterr().err
    assert not (folder / "id.pt").exists()
    kept = checkpoint.read_bytes()
    # nothing is lost by typing it again
    assert main(arguments(folder, *steps)) == 2
    said = capsys.readouterr().err
    assert said == (f"train: {checkpoint} is there from an earlier run; add --resume to go on, or "
                    "delete it.\n")  # fmt: skip
    assert checkpoint.read_bytes() == kept
    checkpoint.write_bytes(b"cut short")
    assert main(arguments(folder, *steps, "--resume")) == 2
    said = capsys.readouterr().err
    assert said == f"train: {checkpoint} is damaged; delete it to begin again.\n"
    checkpoint.write_bytes(kept)
    assert main(arguments(folder, *steps, "--resume")) == 0
    assert "going on from step 3 of 6" in capsys.readouterr().out
    once, twice = (IdentityNet.load(folder / name).state_dict() for name in ("once.pt", "id.pt"))
    assert all(torch.allclose(once[name], twice[name], atol=1e-3) for name in once)


def test_the_judge_knows_perfect_and_blind(folder):
    album = albums.Album([folder / "train" / "0-00000.npz"])

    class Colour(nn.Module):
        def forward(self, images):
            return nn.functional.normalize(images.mean((2, 3)) - 0.5, dim=1)

    class Blind(nn.Module):
        def forward(self, images):
            return torch.ones(len(images), 3) / 3**0.5

    good = train_identity.judge(Colour(), album, 8, "cpu")
    assert good["people"] == 12
    assert good["finds"] > 0.9
    assert good["pairs"] > 0.95
    assert train_identity.judge(Blind(), album, 8, "cpu")["pairs"] == 0.5
