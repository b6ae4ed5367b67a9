import pytest
import torch

from course.camera import fit_camera, perspective, project, to_ndc


def test_weak_perspective_by_hand():
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.05]]])
    pixels = project(points, torch.tensor([[5.0, 0.0, 0.0]]), 100)
    assert pixels[0, 0, :2].tolist() == [50, 50]
    assert pixels[0, 1, :2].tolist() == [75, 50]  # x goes right
    assert pixels[0, 2, :2].tolist() == [50, 25]  # y up is v down
    assert pixels[0, 2, 2] < pixels[0, 0, 2]  # nearer to the viewer: smaller depth


def test_shift_is_inside_the_scale_and_the_shorter_side_counts():
    points = torch.zeros(1, 1, 3)
    pixels = project(points, torch.tensor([[2.0, 0.1, 0.2]]), (100, 200))
    assert torch.allclose(pixels[0, 0, :2], torch.tensor([100 + 50 * 0.2, 50 - 50 * 0.4]))


def test_perspective_far_away_is_weak_perspective():
    points = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    distance, scale = 5000.0, 4.0
    near = perspective(points, torch.tensor([distance]), torch.tensor([scale * distance]), 100)
    weak = project(points, torch.tensor([[scale, 0.0, 0.0]]), 100)
    assert (near[..., :2] - weak[..., :2]).abs().max() < 0.02


def test_ndc_is_pytorch3ds():
    pixels = torch.tensor([[[0.0, 0.0, 3.0], [200.0, 100.0, 3.0]]])
    ndc = to_ndc(pixels, (100, 200))
    assert ndc[0].tolist() == [[2, 1, 3], [-2, -1, 3]]  # +X left, +Y up


def test_fit_camera_finds_the_camera():
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(2, 68, 3, generator=generator) * 0.1
    camera = torch.tensor([[6.0, 0.02, -0.03], [9.0, -0.01, 0.04]])
    pixels = project(points, camera, (120, 160))[..., :2]
    assert torch.allclose(fit_camera(points, pixels, (120, 160)), camera, atol=1e-4)
    weights = torch.ones(2, 68)
    pixels[:, 0], weights[:, 0] = 1e4, 0  # a point without weight has no say
    assert torch.allclose(fit_camera(points, pixels, (120, 160), weights), camera, atol=1e-4)


@pytest.mark.parametrize("size", [0, (0, 5), (5, -1)])
def test_a_picture_needs_pixels(size):
    with pytest.raises(ValueError, match="cannot be drawn"):
        project(torch.zeros(1, 1, 3), torch.ones(1, 3), size)
