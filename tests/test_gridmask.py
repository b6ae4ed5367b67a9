import itertools
import time
from typing import NamedTuple

import pytest
import torch

from course import gridmask
from course.facecode import FaceCode
from course.gridmask import (
    CutMix,
    Cutout,
    GridMask,
    Mixup,
    RandomErasing,
    grid_mask,
    keep_ratio,
    measured_ratio,
    tutorial_mask,
)

ALL = (GridMask, Cutout, RandomErasing, Mixup, CutMix)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=8, size=48):
    return torch.rand(count, 3, size, size, generator=seeded(9))


def by_loops(height, width, x, y, d, length):
    """A straight grid by its definition, pixel by pixel."""
    keep = torch.ones(height, width)
    for row, column in itertools.product(range(height), range(width)):
        if (column - x) % d < d - length and (row - y) % d < d - length:
            keep[row, column] = 0
    return keep


@pytest.mark.parametrize("size", [224, (300, 411), 512])
def test_the_tutorials_grid_to_the_pixel(size):
    height, width = (size, size) if isinstance(size, int) else size
    expected = torch.ones(height, width)
    for top in range(50, height, 180):
        for left in range(50, width, 180):
            expected[top : top + 80, left : left + 80] = 0
    found = tutorial_mask(size)
    assert torch.equal(found, expected[None, None])
    assert found.shape == (1, 1, height, width)


def test_tutorials_ratio():
    assert keep_ratio(100 / 180) == pytest.approx(0.802, abs=5e-4)
    assert measured_ratio(tutorial_mask(1800)).item() == pytest.approx(keep_ratio(100 / 180))


def test_straight_grids_are_their_definition():
    g = seeded(1)
    for _ in range(12):
        d = int(torch.randint(3, 40, (), generator=g))
        x, y, length = torch.randint(0, d, (3,), generator=g).tolist()
        found = grid_mask((37, 52), x, y, length / d, d)
        assert torch.equal(found[0, 0], by_loops(37, 52, x, y, d, length)), (d, x, y, length)


def test_many_at_once_are_each_alone():
    x, y, d = torch.tensor([3, 0, 7]), torch.tensor([1, 2, 0]), torch.tensor([10, 16, 9])
    r, angle = torch.tensor([0.5, 0.6, 0.4]), torch.tensor([0.0, 33.0, 200.0])
    together = grid_mask(64, x, y, r, d, angle)
    for k in range(3):
        alone = grid_mask(64, x[k], y[k], r[k], d[k], angle[k])
        assert torch.equal(together[k : k + 1], alone)


def test_bands_are_rounded_up():
    assert gridmask.band(10, 0.55) == 6
    assert gridmask.band(180, 100 / 180) == 100  # though 180 · (100/180) > 100


def test_ratio_of_large_turned_grids():
    """What is measured is the formula's share, at any angle and offset."""
    g = seeded(2)
    for r in (0.3, 0.5, 0.6, 0.8):
        x, y, angle = (torch.rand(6, generator=g) * k for k in (20, 20, 360))
        found = measured_ratio(grid_mask(800, x, y, r, 20, angle))
        assert found.sub(keep_ratio(r)).abs().max() < 0.01


def test_turning():
    straight = grid_mask(80, 4, 7, 0.5, 16)
    assert torch.equal(grid_mask(80, 4, 7, 0.5, 16, 360), straight)
    quarter = grid_mask(80, 4, 7, 0.5, 16, 90)
    assert torch.equal(quarter, straight.rot90(-1, (2, 3)))  # clockwise as seen
    assert not torch.equal(grid_mask(80, 4, 7, 0.5, 16, 20), straight)


def test_everything_and_nothing():
    assert grid_mask(20, 3, 3, 1.0, 8).min() == 1
    assert grid_mask(20, 3, 3, 0.0, 8).max() == 0
    for r, d in ((1.2, 8), (-0.5, 8), (0.5, 0)):
        with pytest.raises(ValueError, match="grid needs"):
            grid_mask(20, 0, 0, r, d)


@pytest.mark.parametrize("kind", ALL)
def test_one_interface(kind):
    images, before = pictures(), pictures()
    targets = torch.rand(8, 5, generator=seeded(3))
    found = kind(probability=1.0)(images, seeded(), targets)
    again = kind(probability=1.0)(images, seeded(), targets)
    assert torch.equal(images, before), "its input has changed"
    assert torch.equal(found.images, again.images)
    assert found.images.shape == images.shape
    assert found.keep.shape == (8, 1, 48, 48)
    assert 0 <= found.keep.min() <= found.keep.max() <= 1
    assert not torch.equal(found.images, images)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    mixes = kind in (Mixup, CutMix)
    assert torch.equal(found.targets, targets) != mixes
    assert kind()(images, seeded(), None).targets is None
    nothing = kind(probability=0.0)(images, seeded(), targets)
    assert torch.equal(nothing.images, images)
    assert torch.allclose(nothing.targets, targets)
    assert nothing.keep.min() == 1
    inside = images.clone()
    assert kind(probability=1.0)(inside, seeded(), out=inside).images is inside
    assert torch.equal(inside, found.images)


@pytest.mark.parametrize("kind", ALL)
def test_the_ramp(kind):
    ramped = kind(probability=0.8, ramp=100)
    assert [ramped.chance(s) for s in (0, 50, 100, 1000)] == pytest.approx([0, 0.4, 0.8, 0.8])
    assert ramped.chance() == kind(probability=0.8).chance(0) == 0.8
    images = pictures(400, 32)
    assert torch.equal(ramped(images, seeded(), step=0).images, images)
    changed = (ramped(images, seeded(), step=50).keep.amin((1, 2, 3)) < 1).float().mean()
    assert changed == pytest.approx(0.4, abs=0.08)


def test_what_hides_shows_the_picture_or_the_fill():
    images = pictures()
    for kind in (GridMask, Cutout, RandomErasing):
        for fill in (0.0, 0.5):
            found = kind(probability=1.0, fill=fill)(images, seeded())
            keep = found.keep.expand_as(images) == 1
            assert torch.equal(found.images[keep], images[keep])
            assert (found.images[~keep] == fill).all()
    erased = RandomErasing(probability=1.0)(images, seeded())
    hidden = erased.images[erased.keep.expand_as(images) == 0]
    assert hidden.std() > 0.2  # noise
    assert {0.0, 1.0} == set(erased.keep.unique().tolist())


def test_sizes_of_what_is_hidden():
    inside = Cutout(side=0.5).mask(4000, (40, 40), seeded())
    assert measured_ratio(inside).min() >= 0.75  # never more than the whole square
    middle = 1 - measured_ratio(inside).mean()
    assert middle == pytest.approx(0.25 * (7 / 8) ** 2, abs=0.01)  # edges cut an eighth off
    share = 1 - measured_ratio(RandomErasing().mask(4000, (64, 64), seeded()))
    assert share.min() > 0.01
    assert share.max() < 0.36
    grid = measured_ratio(GridMask().mask(2000, (96, 96), seeded())).mean()
    assert grid == pytest.approx(keep_ratio(0.6), abs=0.02)


def test_mixing_keeps_accounts():
    """A target that is the picture's own mean is mixed as the picture is."""
    images = torch.rand(16, 1, 1, 1, generator=seeded(4)).expand(-1, 3, 32, 32).contiguous()
    means = images.mean((1, 2, 3))
    for kind in (Mixup, CutMix):
        found = kind()(images, seeded(5), means)
        assert torch.allclose(found.images.mean((1, 2, 3)), found.targets, atol=1e-5)
    kinds = {"a": means, "b": (means[:, None], [means])}
    mixed = Mixup()(images, seeded(5), kinds).targets
    assert torch.equal(mixed["a"], mixed["b"][1][0])
    with pytest.raises(ValueError, match="one-hot"):
        CutMix()(images, seeded(), torch.arange(16))


def test_face_codes_are_mixed(flame):
    code = FaceCode.random(flame, 6, seeded())
    found = CutMix()(pictures(6), seeded(1), code).targets
    assert isinstance(found, FaceCode)
    assert found.shape.shape == code.shape.shape
    assert not torch.equal(found.shape, code.shape)


def test_is_quick():
    """Of the processor's time, so that a busy machine does not matter; ``python -m course
    benchmark`` shows milliseconds on a free one."""
    images = torch.rand(32, 3, 224, 224)
    augment = GridMask(probability=1.0)
    augment(images, seeded(), out=images)
    times = []
    for k in range(5):
        start = time.process_time()
        augment(images, seeded(k), out=images)
        times.append(time.process_time() - start)
    assert min(times) < 0.03


def test_named_targets_stay_named():
    class Targets(NamedTuple):
        code: torch.Tensor
        extra: tuple

    targets = Targets(torch.eye(4), (torch.ones(4, 2),))
    found = gridmask.Mixup()(torch.rand(4, 3, 8, 8), torch.Generator().manual_seed(0), targets)
    assert isinstance(found.targets, Targets)
    assert torch.allclose(found.targets.extra[0], torch.ones(4, 2))
