import numpy as np
import pytest
import torch

from course import landmarks
from course.landmarks import INPUT, MIRROR, UNIT, LandmarkNet, landmark_loss


def test_mirror_is_its_own_inverse(flame):
    assert [MIRROR[k] for k in MIRROR] == list(range(68))
    rest = flame.landmarks(flame())[0].numpy()
    assert np.abs(rest[MIRROR] * [-1, 1, 1] - rest).max() < 2.5e-3  # the head is symmetric


def test_shapes_and_size():
    net = LandmarkNet()
    points, log_sigma = net(torch.rand(2, 3, INPUT, INPUT))
    assert points.shape == (2, 68, 2)
    assert log_sigma.shape == (2, 68)
    assert landmarks.WEIGHTS.stat().st_size <= 12e6


def test_loss_by_hand():
    truth = torch.zeros(1, 68, 2)
    sure, unsure = torch.full((1, 68), -1.0), torch.zeros(1, 68)
    assert landmark_loss(truth, sure, truth) < landmark_loss(truth, unsure, truth)
    far = truth + UNIT * 3
    assert landmark_loss(far, sure, truth) > landmark_loss(far, unsure, truth)
    one = torch.zeros(1, 68, 2)
    one[..., 0] = UNIT  # one unit off at σ = 1: 0 + ½, and 0.7·(1 − 0.05)/2 of smooth L1
    assert landmark_loss(one, unsure, truth).item() == pytest.approx(0.5 + 0.7 * 0.95 / 2, abs=1e-4)


def test_the_box_may_be_loose():
    """The same points from a box shifted by 15 %, 0.7 and 1.5 times as large, and a turned face."""
    import cv2
    from skimage.data import astronaut

    net, image = landmarks.load(), astronaut()
    box = np.array([180, 85, 270, 180.0])
    reference, _ = landmarks.predict(net, image, box)
    side = np.ptp(reference, axis=0).max()
    for shift in ((0.15, 0), (-0.15, 0), (0, 0.15), (0, -0.15)):
        moved = box + np.tile(shift, 2) * 90
        points, _ = landmarks.predict(net, image, moved)
        assert np.linalg.norm(points - reference, axis=1).mean() < 0.03 * side, shift
    for scale in (0.7, 1.5):
        middle = np.tile((box[:2] + box[2:]) / 2, 2)
        points, _ = landmarks.predict(net, image, middle + (box - middle) * scale)
        assert np.linalg.norm(points - reference, axis=1).mean() < 0.03 * side, scale
    for degrees in (-30, 30):
        turn = cv2.getRotationMatrix2D((225.0, 133.0), degrees, 1.0)
        turned = cv2.warpAffine(image, turn, (512, 512))
        points, _ = landmarks.predict(net, turned, box)
        expected = reference @ turn[:, :2].T + turn[:, 2]
        assert np.linalg.norm(points - expected, axis=1).mean() < 0.04 * side, degrees


def test_missing_and_damaged_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m course train landmarks"):
        landmarks.load(tmp_path / "none.pt")
    path = tmp_path / "bad.pt"
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"bad\.pt does not hold"):
        landmarks.load(path)
