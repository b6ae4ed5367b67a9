"""Codes of heads that the encoder was not made for."""

import numpy as np
import pytest
import stand_in
import torch
from skimage.data import astronaut

from course import encode, fit, metrics, photo
from course.camera import project
from course.facecode import FaceCode
from course.flame import FLAME, yaw_pose
from course.flame_files import SHAPES
from course.photo import crop_around

FLIP = torch.tensor([-1.0, 1, 1])


@pytest.fixture(scope="module")
def lopsided():
    """The built-in head with a wave in it and without names: no vertex has its mirror image."""
    model = stand_in.built_in()
    rest = model["v_template"]
    model["v_template"] = rest + 2e-4 * np.sin(rest[:, [1, 2, 0]] * 80 + [0, 1, 2])
    model = {k: v for k, v in model.items() if k in SHAPES or not k.startswith("expression_")}
    model.pop("expression_names", None)
    return FLAME(model, "lopsided")


def test_the_nearest_mirror_image_where_there_is_none(lopsided, flame):
    assert encode.parity(lopsided) is None
    generator = torch.Generator().manual_seed(0)
    code = FaceCode.random(lopsided, 1, generator)
    code.expression[0, flame.expression_names.index("smile left")] = 2.0
    code = code.replace(pose=yaw_pose(20))
    other = encode.mirrored(code, lopsided)
    there = encode.mirrored(code, flame)  # whose codes are the same, but for the wave
    assert torch.allclose(other.pose, there.pose)
    assert torch.allclose(other.light, there.light)
    moves = [f(c.shape, c.expression) - f() for f, c in ((lopsided, other), (flame, there))]
    assert 1000 * (moves[0] - moves[1]).norm(dim=-1).mean() < 0.1
    left = 1000 * (moves[0] - (lopsided(code.shape, code.expression) - lopsided())).norm(dim=-1)
    assert left.mean() > 0.5  # it is another face


def test_what_is_kept_of_a_head_follows_it():
    head = FLAME.load(device="cpu")
    before = encode.parity(head), encode._look(head)[1]
    assert encode.parity(head) is before[0]
    head.double()  # moved within memory, as .to() moves it to another device
    after = encode.parity(head), encode._look(head)[1]
    for old, new in zip(before, after, strict=True):
        assert (old.dtype, new.dtype) == (torch.float32, torch.float64)
        assert torch.allclose(old.double(), new)


def test_no_encoder_no_guess(flame):
    assert encode.first_guess(None, [astronaut()], [None], flame) == (None, None)


def test_without_an_encoder_landmarks_are_read(flame):
    image = astronaut()
    found = photo.detect(image, detector="built-in")
    moved = np.roll(image, 12, 1)
    marks = [found.points, found.points + np.array([12, 0])]
    crops = [crop_around(m, 200) for m in marks]
    for given in (crops, None):
        code, trust = encode.read_faces(None, [image, moved], marks, flame, given)
        assert trust is None
        assert torch.equal(code.shape[0], code.shape[1])
        used, side = (crops, 200) if given else ([crop_around(m, fit.IMAGE_SIZE) for m in marks],
                                                 fit.IMAGE_SIZE)  # fmt: skip
        vertices = flame(code.shape, code.expression, code.pose)
        drawn = project(flame.landmarks(vertices, code.pose), code.camera, side)[..., :2].numpy()
        for crop, points, true in zip(used, drawn, marks, strict=True):
            assert metrics.nme(crop.to_photo(points), true) < 6
    assert not torch.equal(code.albedo, 0 * code.albedo)  # colours are the photograph's
