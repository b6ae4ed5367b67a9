import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from course import metrics


def test_rigid_align_finds_a_similarity():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(40, 3))
    rotation = Rotation.from_rotvec([0.3, -1.2, 0.5]).as_matrix()
    target = 1.7 * source @ rotation.T + [1, -2, 3]
    s, r, t = metrics.rigid_align(source, target)
    assert s == pytest.approx(1.7)
    assert np.allclose(r, rotation)
    assert np.allclose(metrics.apply((s, r, t), source), target)


def test_rigid_align_never_mirrors():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(30, 3))
    _, rotation, _ = metrics.rigid_align(source, source * [-1, 1, 1])
    assert np.linalg.det(rotation) == pytest.approx(1)
    with pytest.raises(ValueError, match="matching"):
        metrics.rigid_align(source, source[:5])


def test_scan_to_mesh_measures_to_the_surface():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]])
    points = np.array([[0.2, 0.2, 0.5], [2, 0, 0], [0.1, 0.1, 0]])
    distance = metrics.scan_to_mesh(points, vertices, [[0, 1, 2]])
    assert np.allclose(distance, [0.5, 1, 0], atol=1e-9)


def test_scan_to_mesh_is_as_exact_in_metres_as_in_millimetres(flame):
    head, other = (flame(shape=torch.full((1, 3), k))[0].numpy().astype(float) for k in (1.5, -1.5))
    faces = flame.faces.numpy()
    metres = metrics.scan_to_mesh(other[::40], head, faces)
    millimetres = metrics.scan_to_mesh(1000 * other[::40], 1000 * head, faces)
    assert np.allclose(1000 * metres, millimetres, atol=1e-7)


def test_identity_error_ignores_place_and_size(flame):
    truth = flame.v_template.numpy()
    moved = 1.1 * truth @ Rotation.from_rotvec([0, 0.4, 0]).as_matrix().T + [0.1, 0, 0]
    assert metrics.identity_error(moved, truth, flame)[0] < 1e-3
    other = flame(shape=torch.full((1, 3), 2.0))[0].numpy()
    assert metrics.identity_error(other, truth, flame)[0] > 0.3


def test_nme_and_psnr_by_hand():
    truth = np.zeros((68, 2))
    truth[45] = [100, 0]
    assert metrics.nme(truth + np.array([3, 4]), truth) == pytest.approx(5)
    a, b = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.1)
    assert metrics.psnr(a, b) == pytest.approx(20)
    mask = torch.zeros(1, 4, 4)
    with pytest.raises(ValueError, match="empty"):
        metrics.psnr(a, b, mask)
