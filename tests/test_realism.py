import pytest
import torch

from course import realism
from course.losses import IdentityNet


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_white_noise_is_white():
    power = realism.power_spectrum(0.3 * noise(200, 2, 32, 32))
    assert power.shape == (200, 16)
    assert power.mean(0).sub(0.09).abs().max() < 0.01


def test_a_wave_stands_at_its_frequency():
    u = torch.arange(64) / 64
    wave = torch.cos(2 * torch.pi * 9 * u).expand(1, 1, 64, 64)
    assert realism.power_spectrum(wave)[0].argmax().item() == 8  # the first place is one wave
    assert torch.allclose(realism.power_spectrum(wave), realism.power_spectrum(wave.mT))
    with pytest.raises(ValueError, match="Square"):
        realism.power_spectrum(torch.zeros(1, 1, 32, 40))


def test_blurring_costs_decibels_and_sharpness():
    real = noise(20, 1, 32, 32)
    blurred = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
    assert realism.detail_gap(real, real) == 0
    assert realism.detail_gap(2 * real, real) == pytest.approx(20 * 0.30103, abs=1e-3)
    assert realism.detail_gap(blurred, real) < -5
    assert (realism.sharpness(blurred) < realism.sharpness(real)).all()


def test_sharpness_of_a_ramp_is_its_slope_inside_the_mask():
    ramp = torch.arange(10.0).expand(1, 3, 10, 10) * 0.01
    assert realism.sharpness(ramp).item() == pytest.approx(0.01, rel=1e-4)
    half, mask = ramp.clone(), torch.zeros(1, 1, 10, 10)
    half[..., 5:] = half[..., 4:5]
    mask[..., 6:] = 1
    assert realism.sharpness(half, mask).item() == 0


def test_kernel_distance():
    """Zero for one distribution on average, and more the further apart two are."""
    same = [realism.kernel_distance(noise(60, 8, seed=k), noise(60, 8, seed=k + 100))
            for k in range(10)]  # fmt: skip
    assert abs(sum(same)) / 10 < 0.03
    assert min(same) < 0, "unbiased: half of them lie below zero"
    near, far = (realism.kernel_distance(noise(60, 8) + s, noise(60, 8, seed=1)) for s in (0.5, 1))
    assert 0.1 < near < far


def test_precision_and_recall():
    real = noise(200, 2)
    assert realism.precision_recall(real, real) == (1.0, 1.0)
    one_mode = 0.1 * noise(200, 2, seed=1)  # good, and always the same
    precision, recall = realism.precision_recall(one_mode, real)
    assert precision > 0.9
    assert recall < 0.2
    wild = 6 * noise(200, 2, seed=2)  # everything, good and bad
    precision, recall = realism.precision_recall(wild, real)
    assert precision < 0.3
    assert recall > 0.7


def test_features_of_the_identity_network():
    network = IdentityNet.load()
    images = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = realism.features(network, images, batch=2)
    assert torch.allclose(found, realism.features(network, images), atol=1e-4)
    grey = realism.features(network, images[:, :1])
    assert grey.shape == found.shape
    moved = images.clone().requires_grad_()
    assert realism.feature_distance(network, images, images).item() == 0
    loss = realism.feature_distance(network, moved * 0.9, images)
    loss.backward()
    assert loss.item() > 0
    assert moved.grad.abs().sum() > 0
