import numpy as np
import pytest
import torch

from course import faces
from course.camera import project
from course.faces import Photographer, Variety
from course.faces_camera import background_bank, fractal_noise
from course.faces_scene import HAIR_STYLES, hair_or_hat


@pytest.fixture(scope="module")
def bank():
    return background_bank(8)


@pytest.fixture(scope="module")
def photographer(flame, bank):
    return Photographer(flame, Variety(), bank, size=96)


@pytest.fixture(scope="module")
def photos(photographer):
    rng = np.random.default_rng(4)
    return [photographer(rng) for _ in range(40)]


def test_the_same_seed_gives_the_same_photograph(photographer):
    first, again = (photographer(np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.landmarks, again.landmarks)
    other = photographer(np.random.default_rng(10))
    assert not np.array_equal(first.image, other.image)


def test_photographs_vary(photos):
    images = np.stack([p.image for p in photos])
    assert images.shape == (40, 96, 96, 3)
    assert images.dtype == np.uint8
    means = images.mean((1, 2, 3))
    assert means.std() > 15
    yaws = np.array([p.yaw for p in photos])
    assert np.ptp(yaws) > 60
    boxes = np.array([np.ptp(p.landmarks, axis=0).max() for p in photos])
    assert boxes.max() > 1.7 * boxes.min()


def test_landmarks_are_the_projected_landmarks_of_the_truth(flame, photos):
    for photo in photos[:8]:
        vertices = torch.from_numpy(photo.vertices)[None]
        on_head = flame.landmarks(vertices, photo.code.pose)[0].numpy()
        # the camera is a pinhole: nearest vertices project next to their landmarks
        near = np.linalg.norm(photo.vertices[:, None] - on_head[None, 27:48], axis=-1).argmin(0)
        gap = np.linalg.norm(photo.pixels[near, :2] - photo.landmarks[27:48], axis=1)
        size = np.ptp(photo.landmarks, axis=0).max()
        assert gap.max() < 0.06 * size


def test_the_code_reproduces_the_truth(flame, photos):
    for photo in photos[:4]:
        again = flame(photo.code.shape, photo.code.expression, photo.code.pose)[0].numpy()
        assert np.abs(again - photo.vertices).max() < 1e-5


def test_a_studio_photograph_is_nearly_weak_perspective(flame, bank):
    studio = Photographer(flame, Variety.plain(), bank, size=96)
    photo = studio(np.random.default_rng(1))
    vertices = torch.from_numpy(photo.vertices)[None]
    marks = flame.landmarks(vertices, photo.code.pose)
    pixels = project(marks, photo.code.camera, 96)[0, :, :2].numpy()
    assert np.linalg.norm(pixels - photo.landmarks, axis=1).mean() < 1.5


def test_hair_of_every_style_covers_the_crown():
    rng = np.random.default_rng(0)
    for style in HAIR_STYLES:
        if style in ("none", "painted"):
            continue
        parts = hair_or_hat(rng, style, (74.0, 85.0, 92.0, 32.0, -2.0))
        points = parts[0].points
        assert np.isfinite(points).all()
        assert points[:, 1].max() > 110
        assert parts[0].triangles.max() < len(points)
        assert len(parts) == (2 if style == "brimmed hat" else 1)


def test_a_fixed_person(photographer):
    code = photographer.person(np.random.default_rng(3))
    shots = [photographer(np.random.default_rng(k), code) for k in (1, 2)]
    assert torch.equal(shots[0].code.shape, shots[1].code.shape)
    assert not np.array_equal(shots[0].image, shots[1].image)


def test_painted_lips_are_of_two_tones_and_leave_the_skin(flame, bank):
    maker = Photographer(flame, Variety.plain(), bank, size=96)
    rng = np.random.default_rng(2)
    lip, upper = np.array([0, 1, 1, 0.5]), np.array([0, 1, 0, 1.0])
    before = np.tile([0.2, 0.1, 0.08], (4, 1))
    ratios = []
    for _ in range(60):
        after, shine = faces._painted_lips(rng, before, lip, upper, before[0])
        assert np.array_equal(after[0], before[0])
        assert ((after >= 0) & (after <= 0.9)).all()
        assert 0 <= shine <= 0.8
        ratios.append(np.log(after[1] / after[2]).mean())
    assert np.median(ratios) < -0.2  # the upper is the darker one
    assert np.std(ratios) > 0.2
    # the row between the lips lies between those of the landmarks' triangles
    rows = (1 - flame.vt[flame.ft][..., 1].mean(1).numpy()) * maker.lips.shape[0]
    marks = rows[flame.static_lmk_faces_idx.numpy()]  # of landmarks 17 to 67
    assert marks[51 - 17] < maker.lip_row < marks[57 - 17]


def test_landmarks_follow_brows_that_are_painted_lower(flame, bank):
    maker = Photographer(flame, Variety.plain(), bank, size=96)
    vertices = flame()
    marks = flame.landmarks(vertices)[0]
    same = maker._lower_brows(vertices[0], 0.0)
    assert (same - marks[17:27]).norm(dim=1).max() < 1e-4
    to_eyes = (marks[17:27, 1].mean() - marks[36:48, 1].mean()).item()
    for lower in (-0.1, 0.2, 0.4):
        moved = maker._lower_brows(vertices[0], lower)
        down = (marks[17:27, 1] - moved[:, 1]).mean().item()
        assert down == pytest.approx(lower * to_eyes, abs=0.15 * to_eyes)
        assert (moved[:, 0] - marks[17:27, 0]).abs().max() < 0.007  # as the texture runs
    # and the picture shows hair where the landmarks are: darker than the skin above it
    maker.variety, darker = Variety(brows=1.0, occluders=0.0, max_yaw=10.0, hair=("none",)), []
    rng = np.random.default_rng(2)
    for _ in range(12):
        photo = maker(rng)
        grey, size = photo.image.mean(-1), np.ptp(photo.landmarks, axis=0).max()
        u, v = photo.landmarks[[18, 19, 20, 23, 24, 25]].T
        at = [grey[np.clip(v + off * size, 0, 95).astype(int), np.clip(u, 0, 95).astype(int)].mean()
              for off in (0, -0.1)]  # fmt: skip
        darker.append(at[0] < at[1])
    assert np.mean(darker) > 0.6


def test_shouts_open_the_mouth(flame, bank):
    maker = Photographer(flame, Variety(shouts=1.0), bank, size=96)
    rng = np.random.default_rng(0)
    jaws = torch.stack([maker.person(rng).pose[0, 6] for _ in range(10)])
    assert ((jaws >= 0.2) & (jaws <= 0.6)).all()


def test_noise_and_backgrounds(bank):
    rng = np.random.default_rng(0)
    smooth, rough = (fractal_noise(rng, 64, 64, r) for r in (2.0, 0.3))
    assert 0 <= smooth.min() <= smooth.max() <= 1
    assert np.abs(np.diff(smooth)).mean() < np.abs(np.diff(rough)).mean()
    assert bank.shape == (8, 256, 256, 3)
