import math

import numpy as np
import pytest
import torch

from course import reenact
from course.facecode import JAW, ROOT, FaceCode


@pytest.fixture(scope="module")
def people(flame):
    codes = FaceCode.random(flame, 2, torch.Generator().manual_seed(0))
    codes.pose[:] = 0.3 * torch.randn(2, 15, generator=torch.Generator().manual_seed(1))
    return codes.replace(detail=torch.randn(2, 4, generator=torch.Generator().manual_seed(2)))


def test_transfer_takes_expression_and_jaw_and_nothing_else(flame, people):
    a, b = people[0], people[1]
    both = reenact.transfer(a, b)
    assert torch.equal(both.expression, b.expression)
    assert torch.equal(both.pose[:, JAW], b.pose[:, JAW])
    for name in ("shape", "camera", "albedo", "light", "detail"):
        assert torch.equal(getattr(both, name), getattr(a, name)), name
    kept = [k for k in range(15) if not 6 <= k < 9]
    assert torch.equal(both.pose[:, kept], a.pose[:, kept])
    # what is transferred is the same displacement of a head at rest, to the hundredth of a mm
    rest = lambda code: flame(code.shape, code.expression) - flame(code.shape)  # noqa: E731
    assert 1000 * (rest(both) - rest(b)).norm(dim=-1).max() < 0.01
    turned = reenact.transfer(a, b, head=True, gaze=True)
    assert torch.equal(turned.pose, b.pose)
    assert len(reenact.transfer(a, people)) == 2


def test_transfer_between_heads_is_refused(people):
    other = people[0].replace(expression=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="different expressions"):
        reenact.transfer(people[0], other)
    with pytest.raises(ValueError, match="cannot be paired"):
        reenact.transfer(people, FaceCode.cat([people, people[0]]))


def test_exaggerate(flame, people):
    twice = reenact.exaggerate(people[0], 2.0)
    assert torch.allclose(twice.expression, 2 * people[0].expression)
    rest = reenact.exaggerate(people[0], 0.0)
    assert not rest.expression.any()
    assert not rest.pose[:, JAW].any()
    row = reenact.exaggerate(people[0], np.array([0.0, 0.5, 1.0]))
    assert torch.equal(row.expression[2:], people[0].expression)
    inside_out = reenact.exaggerate(people[0], -1.0, flame)
    assert (inside_out.expression[:, flame.expression_one_way] >= 0).all()


def test_repose(flame, people):
    turned = reenact.repose(people[0], yaw=[0, 30, -30])
    degrees = torch.rad2deg(turned.pose[:, ROOT])
    assert torch.allclose(degrees[:, 1], torch.tensor([0.0, 30, -30]), atol=1e-4)
    nose = flame.landmarks(flame(turned.shape, None, turned.pose), turned.pose)[:, 30]
    assert nose[1, 0] > nose[0, 0] > nose[2, 0]  # positive: to the picture's right
    down = reenact.repose(people[0], pitch=20)
    nose_down = flame.landmarks(flame(down.shape, None, down.pose))[0, 30]
    assert nose_down[1] < nose[0, 1]
    jaw = reenact.repose(people[0], jaw=30)
    assert jaw.pose[0, 6] == pytest.approx(math.radians(30))
    assert torch.equal(jaw.pose[:, ROOT], people[0].pose[:, ROOT])


def test_in_betweens_turn_at_constant_speed(people):
    a = reenact.repose(people[0], yaw=-60)
    b = reenact.repose(people[1], yaw=60, pitch=20)
    frames = reenact.between(a, b, np.linspace(0, 1, 9))
    for name in vars(a):
        ends = (getattr(a, name), getattr(b, name))
        for end, k in zip(ends, (0, -1), strict=True):
            assert torch.allclose(getattr(frames, name)[k], end[0], atol=1e-5), name
    from scipy.spatial.transform import Rotation

    turns = Rotation.from_rotvec(frames.pose[:, ROOT].numpy())
    steps = (turns[1:] * turns[:-1].inv()).magnitude()
    assert np.ptp(steps) < 1e-4
    line = frames.camera[:, 0].log()
    assert torch.diff(line, n=2).abs().max() < 1e-5  # equal factors


def test_ease():
    t = np.linspace(-0.5, 1.5, 41)
    for kind in reenact.EASES:
        value = reenact.ease(t, kind)
        assert value[0] == 0
        assert value[-1] == 1
        assert (np.diff(value) >= 0).all()
    speed = np.diff(reenact.ease(np.linspace(0, 1, 101)))
    assert speed[0] < 0.1 * speed.max() > speed[-1]
    with pytest.raises(ValueError, match="no ease 'bouncy'"):
        reenact.ease(0.5, "bouncy")


def test_timeline(people):
    keys = [(1.0, people[0]), (2.0, people[1]), (4.0, people[0])]
    frames = reenact.timeline(keys, [0.0, 1.0, 2.0, 3.0, 9.0])
    assert torch.allclose(frames.expression[[0, 1, 4]], people[0].expression.expand(3, -1))
    assert torch.allclose(frames.expression[2], people[1].expression[0])
    half = people.expression.mean(0)
    assert torch.allclose(frames.expression[3], half, atol=1e-6)
    with pytest.raises(ValueError, match="times that grow"):
        reenact.timeline([(0, people[0]), (0, people[1])], [0])


def test_retarget_relative_to_rest(people):
    curve = reenact.between(people[0], people[1], np.linspace(0, 1, 4))
    assert torch.equal(reenact.retarget(curve, people[1]).expression, curve.expression)
    same = reenact.retarget(curve, people[1], rest=curve[0])
    assert torch.allclose(same.expression[0], people[1].expression[0])
    assert torch.allclose(same.pose[0], people[1].pose[0], atol=1e-5)
    move = same.expression[-1] - same.expression[0]
    assert torch.allclose(move, curve.expression[-1] - curve.expression[0], atol=1e-5)
    double = reenact.retarget(curve, people[1], rest=curve[0], gain=2.0)
    assert torch.allclose(double.expression[-1] - double.expression[0], 2 * move, atol=1e-5)


def test_the_teaser_is_decas(people):
    lent = people[1]
    codes = reenact.teaser(people[0], [lent])
    yaw = torch.rad2deg(codes.pose[:, 1])
    assert torch.allclose(yaw[:7], torch.arange(0, 31, 5.0), atol=1e-4)
    assert yaw.max() == pytest.approx(30, abs=1e-3)
    assert yaw.min() == pytest.approx(-30, abs=1e-3)
    jaw = torch.rad2deg(codes.pose[:, 6])
    turned = 25
    assert torch.allclose(jaw[turned : turned + 15], torch.arange(2, 31, 2.0), atol=1e-3)
    reached = (codes.expression - lent.expression).abs().amax(1) < 1e-5
    assert reached.sum() >= 4
    assert torch.equal(codes.shape, people[0].shape.expand(len(codes), -1))
    # a cycle, without jumps
    whole = torch.cat([codes.expression, codes.expression[:1]])
    assert torch.diff(whole, dim=0).abs().max() < 0.2 * lent.expression.abs().max()
    assert len(reenact.teaser(people[0])) == 25 + 30


def test_smooth():
    ramp = torch.arange(20.0)[:, None] * torch.tensor([1.0, -2.0])
    assert torch.allclose(reenact.smooth(ramp, 100.0), ramp, atol=1e-4)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    bend = lambda x: torch.diff(x, n=2, dim=0).norm()  # noqa: E731
    assert bend(reenact.smooth(noise, 10.0)) < 0.1 * bend(noise)
    assert torch.equal(reenact.smooth(noise, 0.0), noise)
    wave = torch.cos(2 * math.pi * torch.arange(400.0) / 20)  # a wave of 20 frames …
    strength = (20 / (2 * math.pi)) ** 4  # … is halved by the strength that belongs to it
    middle = reenact.smooth(wave, strength)[100:300]
    assert middle.abs().max() == pytest.approx(0.5, abs=0.02)


def test_retarget_without_rest_is_in_proportion_to_gain(people):
    curve = people
    pose = 0.3 * torch.ones_like(curve.pose)
    curve = curve.replace(pose=pose)
    for gain in (1.0, 1.001, 0.5):
        played = reenact.retarget(curve, people[1], gain=gain)
        assert torch.allclose(played.expression, gain * curve.expression)
        assert torch.allclose(played.pose, gain * pose)
