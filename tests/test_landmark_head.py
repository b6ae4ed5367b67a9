"""The head reduced to its landmarks: nothing that the landmarks see is lost."""

import pytest
import torch

from course.facecode import FaceCode
from course.flame import FLAME
from course.landmark_head import landmark_head


def landmarks_and_gradient(flame, code):
    shape = code.shape.clone().requires_grad_()
    points = flame.landmarks(flame(shape, code.expression, code.pose), code.pose)
    weights = torch.linspace(-1, 1, points.numel()).view_as(points)
    (gradient,) = torch.autograd.grad((points * weights).sum(), shape)
    return points.detach(), gradient


def test_same_landmarks_and_gradients_at_every_turn():
    flame = FLAME.load(device="cpu")
    small = landmark_head(flame)
    code = FaceCode.random(flame, 12, torch.Generator().manual_seed(0))
    code.pose[:, :6] = torch.randn(12, 6, generator=torch.Generator().manual_seed(1)) * 0.3
    code.pose[:, 1] += torch.linspace(-0.8, 0.8, 12)
    code.pose[:, 6] = torch.linspace(0, 0.4, 12)  # the jaw
    (whole, slope), (part, small_slope) = (landmarks_and_gradient(f, code) for f in (flame, small))
    assert torch.allclose(whole, part, atol=1e-6)
    assert torch.allclose(slope, small_slope, atol=1e-5)
    assert 5 * len(small.v_template) < len(flame.v_template)


def test_a_head_without_landmarks_is_refused():
    flame = FLAME.load(device="cpu")
    flame.has_landmarks = False
    with pytest.raises(ValueError, match="68-landmark"):
        landmark_head(flame)
