import numpy as np
import pytest
import torch

from course import experiments, faces_covers, metrics
from course.__main__ import main
from course.experiments import gridmask
from course.facecode import FaceCode
from course.faces import Photographer, Variety
from course.faces_camera import background_bank
from course.faces_scene import HAND, MASK

TINY = {"people": 4, "photos": 40, "batch": 8, "steps": 2}


@pytest.fixture(scope="module")
def maker(flame):
    gridmask._maker.kept = Photographer(flame, bank=background_bank(6), size=96)
    yield gridmask._maker.kept
    del gridmask._maker.kept


@pytest.fixture(scope="module")
def shelf(maker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gridmask") / "photographs"
    before = gridmask.SHARD
    gridmask.SHARD = 20
    for name, count in (("album", 40), ("clean", 4), ("hand", 4), ("mask", 4), ("rare", 4)):
        gridmask.make(folder, name, count)
    yield folder
    gridmask.SHARD = before


# ------------------------------------------------------------------ hands and masks


def covers(flame, kind, seed=0):
    code = FaceCode.random(flame, 1, torch.Generator().manual_seed(seed))
    head = flame(code.shape, code.expression)
    marks = flame.landmarks(head)[0].numpy() * 1000
    points = head[0].numpy() * 1000
    return getattr(faces_covers, kind)(np.random.default_rng(seed), points, marks), marks, points


@pytest.mark.parametrize("seed", range(6))
def test_a_mask_covers_nose_mouth_and_chin_and_not_the_eyes(flame, seed):
    parts, marks, _ = covers(flame, "surgical_mask", seed)
    assert {part.material for part in parts} == {MASK}
    sheet = parts[0].points.reshape(15, 49, 3)
    middle = sheet[:, 24]
    for k in (30, 33, 51, 57):  # the cloth is before nose tip, nose base and lips
        row = np.abs(middle[:, 1] - marks[k, 1]).argmin()
        assert middle[row, 2] > marks[k, 2]
    assert sheet[..., 1].max() < marks[36:48, 1].mean() + 4
    assert sheet[..., 1].min() < marks[57, 1] - 15


@pytest.mark.parametrize("seed", range(6))
def test_a_hand_is_before_the_face_and_near_it(flame, seed):
    parts, _, points = covers(flame, "hand", seed)
    assert {part.material for part in parts} == {HAND}
    assert len(parts) == 7
    hand = np.concatenate([part.points for part in parts])
    assert np.isfinite(hand).all()
    on_face = hand[(np.abs(hand[:, 0]) < 50) & (np.abs(hand[:, 1] + 40) < 60)]
    gap = [z - points[np.linalg.norm(points[:, :2] - (x, y), axis=1) < 8, 2].max()
           for x, y, z in on_face[::40]]  # fmt: skip
    assert np.mean(np.array(gap) > -6) > 0.8
    assert np.median(gap) < 60


def test_covers_change_only_what_they_cover(maker):
    """The same seed with a hand: the same person, and another picture in a part of it."""
    maker.variety = Variety(**gridmask.PLAIN | {"camera": False})
    code = maker.person(np.random.default_rng(3))
    bare = maker(np.random.default_rng(5), code)
    maker.variety = Variety(**gridmask.PLAIN | {"camera": False, "hands": 1.0})
    held = maker(np.random.default_rng(5), code)
    assert np.array_equal(bare.vertices, held.vertices)
    changed = np.abs(bare.image.astype(float) - held.image).max(-1) > 12
    assert changed.mean() > 0.05


# ------------------------------------------------------------------ the experiment


def test_photographs(shelf):
    images, code, rare = gridmask.load(shelf, "album", 40)
    assert images.shape == (40, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert len(code) == len(rare) == 40
    assert code.albedo[~rare, 0].max() <= gridmask.MOST + 1e-6
    _, dark, rare = gridmask.load(shelf, "rare", 4)
    assert rare.all()
    assert dark.albedo[:, 0].min() >= gridmask.DARK_SKIN
    clean, hand = (gridmask.load(shelf, n, 4)[1] for n in ("clean", "hand"))
    assert torch.equal(clean.shape, hand.shape), "the same people"
    assert torch.equal(clean.expression, hand.expression)


def test_spoilt(shelf):
    images, _, _ = gridmask.load(shelf, "clean", 4)
    dark, blurred = (gridmask.spoilt(images, n) for n in ("dark", "blurred"))
    plain = gridmask.spoilt(images, "clean")
    assert dark.mean() < 0.5 * plain.mean()
    rough = [(x[..., 1:] - x[..., :-1]).abs().mean() for x in (plain, blurred)]
    assert rough[1] < 0.5 * rough[0]
    assert torch.equal(dark, gridmask.spoilt(images, "dark"))


def test_errors_are_millimetres(flame):
    code = FaceCode.random(flame, 3, torch.Generator().manual_seed(1))
    assert gridmask.errors(flame, code, code).max() < 1e-3
    other = FaceCode.random(flame, 3, torch.Generator().manual_seed(2))
    found = gridmask.errors(flame, code, other, rest=True)
    face = flame.masks["face"].numpy()
    for k in range(3):
        a, b = (flame(c.shape[k : k + 1])[0, face].numpy() for c in (code, other))
        laid = metrics.apply(metrics.rigid_align(a, b, scale=False), a)
        assert found[k] == pytest.approx(1000 * np.linalg.norm(laid - b, axis=1).mean(), rel=1e-3)
    turned = code.replace(pose=code.pose + torch.tensor([0.3] * 3 + [0.0] * 12))
    assert gridmask.errors(flame, turned, code, rest=True).max() < 1e-3
    assert gridmask.errors(flame, turned, code).min() > 5, "a turned head is another picture"
    moved = code.replace(camera=code.camera + 0.1)
    assert gridmask.errors(flame, moved, code).max() < 1e-3


@pytest.mark.parametrize("name", gridmask.SETTINGS)
def test_every_setting_trains(shelf, flame, name):
    album = gridmask.load(shelf, "album", 40)
    model = gridmask.train(name, 0, album, flame, steps=2, batch=8)
    found = gridmask.predict(model, gridmask.spoilt(album[0], "clean")).shape
    assert found.isfinite().all()
    if name == "balanced":
        model = gridmask.train(name, 0, album, flame, steps=2, batch=8)
        again = gridmask.predict(model, gridmask.spoilt(album[0], "clean")).shape
        assert torch.allclose(found, again, atol=1e-5)


def test_augmentations_do_what_their_names_say(shelf, flame):
    images, code, _ = gridmask.load(shelf, "album", 40)
    images = images.float() / 255
    g = torch.Generator().manual_seed(0)
    same, kept = gridmask.augmentation("none", 10)(images, code, flame, g, 5)
    assert torch.equal(same, images)
    assert kept is code
    shares = {}
    for name in ("Cutout", "GridMask"):
        augment = gridmask.augmentation(name, 10)
        hidden = [augment(torch.ones_like(images), code, flame, g, 5)[0] for _ in range(40)]
        shares[name] = 1 - torch.cat(hidden).mean().item()
    assert shares["Cutout"] == pytest.approx(shares["GridMask"], abs=0.015)
    early, _ = gridmask.augmentation("GridMask, ramp", 10)(images, code, flame, g, 0)
    assert torch.equal(early, images)
    _, codes = gridmask.augmentation("flips and colour", 10)(images, code, flame, g, 5)
    moved = (codes.pose != code.pose).any(1)
    assert 5 < moved.sum() < 35
    assert (codes.pose[moved, 1] == -code.pose[moved, 1]).all()
    assert torch.equal(codes.pose[~moved], code.pose[~moved])
    with pytest.raises(ValueError, match="no augmentation"):
        gridmask.augmentation("gird", 10)


def test_command_and_schema(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(gridmask, "SHARD", 20)
    monkeypatch.setattr(gridmask, "SETTINGS", ("none", "GridMask"))
    monkeypatch.setattr(gridmask, "experiment", _few(gridmask.experiment))
    path = tmp_path / "gridmask.csv"
    command = ["experiment", "gridmask", "--seeds", "2", "--folder", str(tmp_path / "runs"),
               "--output", str(path)]  # fmt: skip
    for name, value in TINY.items():
        command += [f"--{name}", str(value)]
    assert main(command) == 0
    table = experiments.read("gridmask", path)
    assert len(table) == 2 * 2 * 2
    assert set(table["condition"]) == {"clean", "blurred"}
    assert (table["face_mm"] > 0).all()
    assert main([*command[:-8], "--photos", "3", "--batch", "8"]) == 2


def _few(experiment):
    def few(*args, **options):
        return experiment(*args, **options, settings=("none", "GridMask"),
                          conditions=("clean", "blurred"))  # fmt: skip

    return few


def test_the_results_that_ship():
    """Whole comparisons: every setting, condition and seed once, with that command's columns."""
    if not (experiments.RESULTS / "gridmask.csv").is_file():
        pytest.skip("not run yet")
    table = experiments.read("gridmask")
    seeds = sorted(set(table["seed"]))
    assert len(seeds) >= 3
    assert len(table) == len(seeds) * len(gridmask.SETTINGS) * len(gridmask.CONDITIONS)
    for setting in gridmask.SETTINGS:
        for condition in gridmask.CONDITIONS:
            rows = table.where(augmentation=setting, condition=condition)
            assert sorted(rows["seed"]) == seeds
    for name in ("steps", "photos", "people"):
        assert len(set(table[name])) == 1
    assert (table["shape_mm"] > 0).all()
    assert np.isfinite(table["face_mm"]).all()
