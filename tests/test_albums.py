"""Albums: codes, points and crops agree with each other, and shards are made once."""

import math

import numpy as np
import pytest
import torch

from course import albums
from course.camera import project
from course.facecode import FaceCode
from course.faces import Photographer, Variety
from course.faces_camera import background_bank
from course.flame import folded
from course.photo import Crop, crop_around
from course.render import Renderer


@pytest.fixture(scope="session")
def maker(flame):
    variety = Variety(**albums.VARIETY | {"distance": (1.5, 2.5)})
    return Photographer(flame, variety, background_bank(3), albums.SIZE)


@pytest.fixture(scope="session")
def taken(maker):
    return albums.take(maker, np.random.default_rng(0), people=4, each=2)


class Loose(albums.Album):
    """An album in memory."""

    def __init__(self, arrays):
        self.pictures = arrays["images"]
        self.code = FaceCode(**{n: torch.from_numpy(arrays[n]) for n in albums.FIELDS})
        self.landmarks, self.points = arrays["landmarks"], arrays["points"]
        self.person, self.yaw = arrays["person"], arrays["yaw"]

    def image(self, k):
        return self.pictures[k]


@pytest.fixture(scope="session")
def album(taken):
    return Loose(taken)


def marks(flame, code, size):
    vertices = flame(code.shape, code.expression, code.pose)
    return project(flame.landmarks(vertices, code.pose), code.camera, size)[..., :2]


def off(found, truth):
    """Median landmark error in % of the eye distance."""
    ocular = (truth[:, 36] - truth[:, 45]).norm(dim=-1)
    return 100 * ((found - truth).norm(dim=-1).mean(1) / ocular).median().item()


def test_a_person_keeps_face_and_colour_only(taken):
    assert taken["images"].shape == (8, albums.SIZE, albums.SIZE, 3)
    assert taken["person"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for name in ("shape", "albedo"):
        assert np.array_equal(taken[name][0], taken[name][1])
        assert not np.array_equal(taken[name][0], taken[name][2])
    assert not np.array_equal(taken["expression"][0], taken["expression"][1])
    assert not taken["pose"][:, 3:6].any()


def test_the_code_explains_the_landmarks(flame, album):
    truth = torch.from_numpy(album.landmarks)
    assert off(marks(flame, album.code, albums.SIZE), truth) < 2  # perspective is what is left


def test_points_are_the_landmarks_and_the_surface(flame, album):
    code = album.code
    vertices = flame(code.shape, code.expression, code.pose)
    pixels = project(vertices, code.camera, albums.SIZE)
    places = torch.cat([project(flame.landmarks(vertices, code.pose), code.camera, albums.SIZE),
                        pixels[:, albums.surface_points(flame)]], 1)  # fmt: skip
    truth = torch.from_numpy(album.points)
    assert truth.shape == (8, albums.POINTS, 3)
    assert (places[..., :2] - truth[..., :2]).abs().median() < 1.5
    depth = -places[..., 2] * albums.SIZE / 2
    depth = depth - depth[:, :68].mean(1, keepdim=True)
    assert (depth - truth[..., 2]).abs().mean() < 1.0


def test_surface_points_are_spread_over_the_face(flame):
    chosen = albums.surface_points(flame)
    assert len(set(chosen.tolist())) == albums.POINTS - 68
    assert flame.masks["face"][chosen].all()
    gaps = torch.cdist(flame.v_template[chosen], flame.v_template[chosen])
    gaps.fill_diagonal_(1)
    assert gaps.min() > 0.004


def test_folding_the_neck_keeps_the_faces_turn(flame):
    pose = torch.zeros(2, 15)
    pose[:, :6] = torch.randn(2, 6, generator=torch.Generator().manual_seed(0)) * 0.3
    straight = folded(pose)
    assert not straight[:, 3:6].any()
    a, b = (flame.landmarks(flame(pose=p), straight) for p in (pose, straight))
    gap = (a - a.mean(1, keepdim=True)) - (b - b.mean(1, keepdim=True))
    assert 1000 * gap.norm(dim=-1).mean() < 1.5  # mm; the chin feels the neck


def test_codes_follow_the_crop(flame, album):
    rngs = [np.random.default_rng(k) for k in range(8)]
    batch = album.batch(range(8), flame, rngs)
    assert batch.images.shape == (8, 3, albums.CROP, albums.CROP)
    assert off(marks(flame, batch.code, albums.CROP), batch.landmarks) < 2
    inside = (batch.points[:, :68, :2] + 1) * albums.CROP / 2
    assert torch.allclose(inside, batch.landmarks, atol=1e-3)
    turned = batch.points[:, 68:].isnan().all(2).all(1)  # mirrored ones
    assert 0 < turned.sum() < 8
    assert not batch.points[~turned].isnan().any()
    straight = album.batch(range(8), flame)
    same = (batch.code.shape == straight.code.shape).all(1)
    assert torch.equal(same, ~turned)
    level = straight.landmarks[:, 36:42].mean(1) - straight.landmarks[:, 42:48].mean(1)
    assert level[:, 1].abs().max() < 1e-3


def test_seen_in_and_back(flame, album):
    crops = [crop_around(p, albums.CROP, albums.CROP_SCALE, True) for p in album.landmarks]
    matrices = np.stack([c.matrix for c in crops])
    full = np.concatenate([matrices, np.tile([[[0, 0, 1.0]]], (8, 1, 1))], 1)
    there = albums.seen_in(album.code, matrices, albums.SIZE, flame)
    back = np.linalg.inv(full)[:, :2]
    again = albums.seen_in(there, back, albums.CROP, flame, out=albums.SIZE)
    assert torch.allclose(again.camera, album.code.camera, atol=1e-4)
    assert torch.allclose(again.pose, album.code.pose, atol=1e-4)


def test_light_explains_the_picture(flame, album):
    picture = torch.from_numpy(album.pictures).permute(0, 3, 1, 2).float() / 255
    renderer = Renderer(flame, albums.SIZE)
    plain = album.code.replace(light=FaceCode.zeros(flame, 8).light)
    errors = []
    for code in (plain, album.code):
        drawn = renderer.render(code)
        gap = ((drawn.image - picture).abs() * drawn.mask).sum((1, 2, 3)) / drawn.mask.sum()
        errors.append(gap.sum().item())
    assert errors[1] < 0.6 * errors[0]


def test_shards_are_made_once_and_numbered_through(tmp_path, monkeypatch, maker):
    monkeypatch.setattr(albums, "SHARD", 4)
    monkeypatch.setattr(albums._make_shard, "maker", maker, raising=False)
    paths = albums.make(tmp_path, 6, 2, seed=3)
    assert [p.name for p in paths] == ["3-00000.npz", "3-00001.npz"]
    before = [p.stat().st_mtime_ns for p in paths]
    assert albums.make(tmp_path, 8, 2, seed=3) == paths
    assert [p.stat().st_mtime_ns for p in paths] == before
    album = albums.Album(paths, 6)
    assert len(album) == 6
    assert album.person.tolist() == [0, 0, 1, 1, 2, 2]
    again = albums.take(maker, np.random.default_rng([3, 1]), 2, 2)
    assert np.array_equal(album.image(5), again["images"][1])
    with pytest.raises(ValueError, match="3 a person"):
        albums.make(tmp_path, 6, 3)


@pytest.mark.parametrize("degrees", [10, 60])
def test_a_turned_crop_turns_the_lamps(flame, degrees):
    """Drawn with the code as seen in it, the head looks as the crop of its picture does."""
    generator = torch.Generator().manual_seed(0)
    code = FaceCode.zeros(flame).replace(camera=torch.tensor([flame.default_camera]))
    code.camera[:, 0] *= 0.6
    code.light[:] = 0.3 * torch.randn(1, 9, 3, generator=generator)
    code.light[:, 0] = 3.0
    picture = Renderer(flame, 256).render(code, supersample=2).image
    photo = (255 * picture[0].permute(1, 2, 0)).round().byte().numpy()
    crop = Crop(np.array([128.0, 128.0]), 200.0, math.radians(degrees), albums.CROP)
    seen = albums.seen_in(code, crop.matrix[None], 256, flame)
    drawn = Renderer(flame, albums.CROP).render(seen)
    gap = (drawn.image[0] - crop.apply(photo)).abs().mean(0)[drawn.mask[0, 0] > 0.5]
    assert gap.mean() < 0.01
