"""The training loop: learns, resumes, stops early, and is the same on two processes as on one."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import nn

from course import albums, landmarks, parallel, train_encoder
from course.__main__ import main
from course.backbones import FeatureExtractor
from course.encoder import FaceModel
from course.facecode import FaceCode
from course.faces import Photographer, Variety
from course.faces_camera import background_bank
from course.photo import crop_around

PHOTOS = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory, flame):
    """A shard of a few photographs under the name that the first of 240 would have."""
    folder = tmp_path_factory.mktemp("album")
    maker = Photographer(flame, Variety(**albums.VARIETY), background_bank(3), albums.SIZE)
    arrays = albums.take(maker, np.random.default_rng(0), PHOTOS // 2, 2)
    np.save(folder / "0-00000.npy", arrays.pop("images"))
    np.savez(folder / "0-00000.npz", **arrays)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    (tmp_path / "train").mkdir()
    for path in made.iterdir():
        (tmp_path / "train" / path.name).symlink_to(path)
    return tmp_path


def arguments(folder, *more):
    return ["train", "encoder", "--photos", str(PHOTOS), "--batch", "8", "--backbone", "small",
            "--hidden", "32", "--device", "cpu", "--folder", str(folder),
            "--output", str(folder / "out.pt"), *map(str, more)]  # fmt: skip


def losses(folder):
    points = json.loads((folder / "curves.json").read_text())["losses"]
    return [p["step"] for p in points], [p["loss"] for p in points]


def test_a_run_learns_and_writes_everything(folder, flame, capsys):
    assert main(arguments(folder, "--steps", 120, "--check", 60, "--rate", "3e-3")) == 0
    steps, values = losses(folder)
    assert steps == list(range(10, 121, 10))
    assert values[-1] < 0.9 * values[0]
    report = json.loads((folder / "out.json").read_text())
    assert report["steps"] == 120
    assert set(report["checks"][0]) == {"step", "shape", "expression", "landmarks %"}
    model = FaceModel.load(folder / "out.pt", flame, "cpu")
    assert model.config["confidence"]
    assert "step 60: shape" in capsys.readouterr().out
    assert not [p for p in folder.iterdir() if p.name.startswith(".tmp")]
    # nothing is lost by typing it again
    assert main(arguments(folder, "--steps", 120)) == 2
    assert "--resume" in capsys.readouterr().err


def test_an_interrupted_run_gives_the_same_losses(folder, tmp_path, monkeypatch, capsys):
    once, twice = tmp_path / "once", tmp_path / "twice"
    for place in (once, twice):
        place.mkdir()
        (place / "train").symlink_to(folder / "train")
    more = ("--steps", 8, "--check", 2)
    assert main(arguments(once, *more)) == 0
    one = train_encoder.Trainer._one

    def stops(self, parts):
        if self.step == 5:
            raise KeyboardInterrupt
        return one(self, parts)

    monkeypatch.setattr(train_encoder.Trainer, "_one", stops)
    assert main(arguments(twice, *more)) == 130
    assert not (twice / "out.pt").exists()
    monkeypatch.undo()
    assert main(arguments(twice, *more, "--resume", "--seed", 1)) == 2
    assert "other settings: seed 0" in capsys.readouterr().err
    assert main(arguments(twice, *more, "--resume")) == 0
    assert "going on from step 5 of 8" in capsys.readouterr().out
    assert losses(once)[0] == losses(twice)[0]
    # the losses since the last point of the curve were forgotten with the process
    assert losses(twice)[1][3] == pytest.approx(losses(once)[1][3], abs=1e-4)
    (twice / "checkpoint.pt").write_bytes(b"cut short")
    assert main(arguments(twice, *more, "--resume")) == 2
    assert "delete it to begin again" in capsys.readouterr().err


def test_early_stop_keeps_the_best(folder, monkeypatch):
    errors = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(train_encoder.Judge, "__call__", lambda *_: {"shape": next(errors)})
    assert main(arguments(folder, "--steps", 30, "--check", 1, "--patience", 2)) == 0
    assert json.loads((folder / "out.json").read_text())["steps"] == 4


@pytest.mark.parametrize("more", [
    ("--steps", 0), ("--batch", 40), ("--own", "."),
    ("--supervision", "weak", "--own", "nowhere"), ("--begin", "nope.pt"), ("--rate", "nan"),
    ("--threads", -1), ("--hidden", 0), ("--seed", -1),
])  # fmt: skip
def test_bad_settings_get_a_sentence(folder, more, capsys):
    assert main(arguments(folder, *more)) == 2
    assert capsys.readouterr().err.startswith("train: ")


def test_mixed_precision_learns_what_full_precision_learns(folder, tmp_path):
    found = {}
    for precision in ("full", "mixed"):
        place = tmp_path / precision
        place.mkdir()
        (place / "train").symlink_to(folder / "train")
        more = ("--steps", 30, "--check", 30, "--precision", precision, "--backbone", "points")
        assert main(arguments(place, *more)) == 0
        found[precision] = np.array(losses(place)[1])
    assert found["mixed"][-1] < 0.95 * found["mixed"][0]
    assert np.abs(found["mixed"] / found["full"] - 1).max() < 0.05
    assert not np.array_equal(found["mixed"], found["full"])


def test_mixed_supervision_on_own_photographs(folder, capsys):
    """Weak losses go to the learner's pictures, the full ones to the album's."""
    from skimage.data import astronaut

    own = folder / "own"
    (own / "eileen").mkdir(parents=True)
    for k in range(2):
        Image.fromarray(astronaut()[: 320 + 10 * k, 80:380]).save(own / "eileen" / f"{k}.png")
    Image.fromarray(np.full((64, 64, 3), 99, np.uint8)).save(own / "wall.png")
    more = ("--supervision", "mixed", "--own", own, "--steps", 2, "--check", 2, "--batch", 4)
    assert main(arguments(folder, *more)) == 0
    assert "wall.png is left out" in capsys.readouterr().out
    point = json.loads((folder / "curves.json").read_text())["losses"][0]
    assert {"shape", "own weak photometric", "own weak landmarks"} <= set(point)
    assert "own shape" not in point
    assert "weak landmarks" not in point
    weak = folder / "weak"
    more = ("--supervision", "weak", "--own", own, "--steps", 2, "--batch", 4,
            "--begin", folder / "out.pt")  # fmt: skip
    assert main(arguments(weak, *more)) == 0
    assert "own weak photometric" in (weak / "curves.json").read_text()
    before, after = (json.loads((f / "out.json").read_text()) for f in (folder, weak))
    assert after["began with"] == before


def test_head_only_leaves_the_backbone_as_it_is(folder, flame, capsys):
    """Not even BatchNorm's averages change; the head does, and a head alone cannot begin."""
    alone = folder / "alone"
    assert main(arguments(folder, "--steps", 2)) == 0
    assert main(arguments(folder, "--head_only", "--folder", alone)) != 0
    assert "--begin" in capsys.readouterr().err
    (alone / "train").mkdir(parents=True)
    for path in (folder / "train").iterdir():
        (alone / "train" / path.name).symlink_to(path)
    more = ("--steps", 6, "--head_only", "--begin", folder / "out.pt", "--output", alone / "out.pt")
    assert main(arguments(alone, *more)) == 0
    before, after = (FaceModel.load(f / "out.pt", flame).state_dict() for f in (folder, alone))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("encoder.")} <= same
    assert not any(name.startswith("reconstructor.layers") for name in same)
    report = json.loads((alone / "out.json").read_text())
    assert "--head_only" in report["command"]


def test_weak_supervision_never_looks_at_the_truth(folder, flame):
    args = SimpleNamespace(seed=0, begin=None, backbone="small", hidden=8, supervision="weak",
                           precision="full", rate=1e-3, batch=4, steps=2,
                           head_only=False)  # fmt: skip
    album = albums.Album(albums.make(folder / "train", PHOTOS), PHOTOS)
    trainer = train_encoder.Trainer(args, parallel.World(0, 1, torch.device("cpu")), album,
                                    flame=flame)  # fmt: skip
    batch, _ = trainer.batch(0)
    loss, terms = trainer.whole(batch, None)
    wrong = batch._replace(code=None, points=None)
    assert torch.equal(trainer.whole(wrong, None)[0], loss)
    assert all(name.startswith("weak ") or name == "loss" for name in terms)
    loss.backward()
    assert any(p.grad.abs().sum() > 0 for p in trainer.model.parameters() if p.grad is not None)


def test_steps_see_every_photograph_once_an_epoch():
    for pairs in (False, True):
        seen = np.concatenate([train_encoder.chosen(s, 0, 24, 8, pairs) for s in range(3)])
        assert sorted(seen) == list(range(24))
    first = train_encoder.chosen(0, 0, 24, 8, True)
    assert np.array_equal(first[::2] + 1, first[1::2])
    assert not np.array_equal(first, train_encoder.chosen(3, 0, 24, 8, True))
    assert len(train_encoder.chosen(7, 0, 3, 8, False)) == 8


def test_points_begin_where_the_landmark_network_sees_them(flame, made):
    album = albums.Album([made / "0-00000.npz"])
    # as wide, and of as many pixels, as the landmark network's own pictures
    crops = [crop_around(p, albums.CROP, upright=True) for p in album.landmarks]
    batch = album.batch(range(PHOTOS), flame, crops=crops)
    model = FeatureExtractor("points", normalize=False).eval()
    model.votes.begin_as(landmarks.load(), batch.points.mean(0))
    with torch.no_grad():
        images = torch.nn.functional.interpolate(batch.images, (112, 112), mode="area")
        found = model.votes.where(model(images))
    gap = (found - batch.points)[..., :2].norm(dim=-1)
    usual = (batch.points.mean(0) - batch.points)[..., :2].norm(dim=-1)
    assert gap[:, :68].median() < 0.5 * usual[:, :68].median()
    assert gap.median() < usual.median()


# ------------------------------------------------------------------ more processes than one


def launch(folder, *more):
    environment = os.environ | {"COURSE_QUIET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc_per_node", "2", "-m", "course", *arguments(folder, *more)]  # fmt: skip
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)  # fmt: skip


def test_two_processes_one_killed_and_resumed_are_one(folder, tmp_path):
    alone, many = tmp_path / "alone", tmp_path / "many"
    for place in (alone, many):
        place.mkdir()
        (place / "train").symlink_to(folder / "train")
    # small steps: Adam makes large differences of rounding where gradients are nearly zero
    more = ("--steps", 24, "--check", 4, "--threads", 1, "--rate", "1e-4")
    first = launch(many, *more)
    try:
        deadline = time.monotonic() + 60
        while not (many / "checkpoint.pt").is_file():
            assert first.poll() is None, first.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        workers = psutil.Process(first.pid).children()
        workers[1].kill()
        output, _ = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode != 0, output
    assert not (many / "out.pt").exists()
    second = launch(many, *more, "--resume")
    output, _ = second.communicate(timeout=90)
    assert second.returncode == 0, output
    assert "going on from step" in output
    assert main(arguments(alone, *more)) == 0
    steps, values = losses(many)
    assert (steps, len(steps)) == (losses(alone)[0], 6)
    assert values == pytest.approx(losses(alone)[1], abs=1e-4)


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(ValueError, match="cannot be shared by 2"):
        parallel.World(0, 2, torch.device("cpu")).share([1, 2, 3])
    assert parallel.World(1, 2, torch.device("cpu")).share([1, 2, 3, 4]) == [3, 4]


def test_synced_batch_norm_alone_is_batch_norm():
    one = nn.BatchNorm2d(3)
    two = parallel.synced(nn.Sequential(nn.BatchNorm2d(3)))[0]
    x = torch.randn(4, 3, 5, 5)
    assert isinstance(two, parallel.SyncedBatchNorm)
    assert torch.equal(one(x), two(x))
    assert list(one.state_dict()) == list(two.state_dict())


def test_the_linear_start_is_a_regression(flame, made):
    album = albums.Album([made / "0-00000.npz"])
    batch = album.batch(range(PHOTOS), flame)
    start = FaceCode(**{k: v.mean(0, keepdim=True) for k, v in vars(batch.code).items()})
    model = FaceModel(flame, "points", 1024, train_encoder.JOINTS, normalize=False, start=start)
    model.encoder.votes.begin_as(landmarks.load(), batch.points.mean(0))
    before = model.eval()(batch.images)
    train_encoder.begin_linear(model, batch)
    assert model.training
    after, truth = model.eval()(batch.images), batch.code
    learnt = slice(0, PHOTOS - PHOTOS // 6)
    for name in ("shape", "pose"):
        gap = [(getattr(c, name) - getattr(truth, name))[learnt].square().mean()
               for c in (before, after)]  # fmt: skip
        assert gap[1] < 0.8 * gap[0], name
    # linear: twice as far from the mean features is twice as far from the mean codes
    features = model.features(batch.images)
    middle = features[:1]
    far = middle + 2 * (features - middle)
    one, two = (model.reconstructor(f).shape - model.reconstructor(middle).shape
                for f in (features, far))  # fmt: skip
    assert torch.allclose(two, 2 * one, atol=1e-3)
