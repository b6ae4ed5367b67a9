import numpy as np
import pytest
import torch

from course import fit, photo, reenact
from course.actor import Actor, Stage, changed
from course.camera import project
from course.detail import DetailModel
from course.facecode import FaceCode
from course.render import Renderer

SIDE = 224


@pytest.fixture(scope="module")
def actor(flame):
    """A person whose photograph the model drew itself, and whose fit is the truth."""
    code = FaceCode.random(flame, 1, torch.Generator().manual_seed(21), expression=0.0)
    code.camera[:, 0] *= 0.8
    code = code.replace(detail=2 * torch.randn(1, 128, generator=torch.Generator().manual_seed(1)))
    vertices, texture = flame(code.shape), flame.albedo(code.albedo)
    drawn = Renderer(flame, SIDE)(vertices, code.camera, texture, code.light, background=(0.5,) * 3)
    marks = project(flame.landmarks(vertices), code.camera, SIDE)[..., :2].numpy()
    image = (255 * drawn.image[0].clamp(0, 1)).byte().permute(1, 2, 0).numpy()
    box = np.concatenate([marks[0].min(0), marks[0].max(0)])
    found = photo.Detection(marks[0], np.ones(68, np.float32), box, "built-in", 1)
    whole = photo.Crop(np.full(2, SIDE / 2), float(SIDE), 0.0, SIDE)
    result = fit.FitResult(code, vertices, torch.tensor([1e4]), vertices, drawn.image, drawn.image,
                           drawn.mask, [whole], marks)  # fmt: skip
    return Actor("drawn", [image], [found], result, texture[0])


def test_unchanged_codes_give_the_photograph_back(actor, flame):
    picture, _ = Stage(actor, flame, 192).pictures(changed(actor, actor.codes, flame), 0)
    away = np.abs(picture.astype(int) - actor.view(0, 192))
    assert away.mean() < 2
    assert np.allclose(changed(actor, actor.codes, flame).landmarks, actor.result.landmarks,
                       atol=0.1)  # fmt: skip


def test_wrinkles_are_those_of_the_borrowed_expression(actor, flame):
    branch = DetailModel.load(flame, device="cpu").eval()
    laugh = FaceCode.zeros(flame)
    laugh.expression[:, [flame.expression_names.index(f"smile {s}") for s in ("left", "right")]] = 2
    codes = reenact.transfer(actor.codes, laugh)
    assert torch.equal(codes.detail, actor.codes.detail)
    result = changed(actor, codes, flame)
    (plain, flat), (skin, folded) = (
        Stage(actor, flame, 128, branch=b).pictures(result, 0) for b in (None, branch)
    )
    for smooth, wrinkled in ((plain, skin), (flat, folded)):
        change = np.abs(smooth.astype(int) - wrinkled).max(-1)
        assert 3 < change.max() < 150  # seen, and no other face
        assert (change > 0).mean() < 0.5
