import os
import subprocess
import sys

import pytest
import torch

from course.camera import project, to_ndc
from course.files import DATA
from course.flame import yaw_pose
from course.rasterize import Fragments, available_backends, barycentric_at, rasterize


def head(flame, yaws=(0,), size=224):
    pose = torch.cat([yaw_pose(y) for y in yaws])
    camera = torch.tensor([flame.default_camera]).expand(len(yaws), -1)
    return to_ndc(project(flame(pose=pose), camera, size), size)


def soup(count=200, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(batch, 3 * count, 3, generator=generator) * 2.6 - 1.3
    vertices[..., 2] = vertices[..., 2] + 1  # some triangles are behind the camera
    return vertices, torch.arange(3 * count).view(count, 3)


def agree(a: Fragments, b: Fragments):
    same = a.pix_to_face == b.pix_to_face
    assert same.float().mean() >= 0.9999
    assert (a.barycentric - b.barycentric)[same].abs().max() < 1e-5
    assert (a.zbuf - b.zbuf)[same].abs().max() < 1e-5


def by_brute_force(vertices, faces, size):
    """Every triangle at every pixel, in float64: slow and hard to get wrong."""
    batch, count = len(vertices), len(faces)
    corners = vertices.double()[:, faces]
    centre = 1 - (2 * torch.arange(size, dtype=torch.float64) + 1) / size
    py, px = torch.meshgrid(centre, centre, indexing="ij")
    flat = corners.reshape(-1, 1, 3, 3).expand(-1, size * size, -1, -1).reshape(-1, 3, 3)
    weights = barycentric_at(flat, px.flatten().repeat(batch * count),
                             py.flatten().repeat(batch * count))  # fmt: skip
    depth = (weights * flat[..., 2]).sum(-1)
    hidden = (weights.amin(-1) <= 0) | (flat[..., 2].amin(-1) < 1e-8)
    depth = depth.masked_fill(hidden, torch.inf).view(batch, count, size, size)
    z, face = depth.min(1)
    face = face + torch.arange(batch).view(-1, 1, 1) * count
    return torch.where(z.isinf(), -1, face)


@pytest.mark.parametrize("backend", available_backends())
def test_against_brute_force(backend):
    vertices, faces = soup(60)
    found = rasterize(vertices, faces, 48, backend)
    expected = by_brute_force(vertices, faces, 48)
    assert (found.pix_to_face == expected).float().mean() > 0.999


@pytest.mark.parametrize("backend", available_backends())
def test_one_triangle_by_hand(backend):
    # a right triangle over the lower left half of a 4×4 picture; +X is left, +Y is up
    vertices = torch.tensor([[[1.01, 1.3, 1.0], [1.01, -1.01, 2.0], [-1.3, -1.01, 3.0]]])
    found = rasterize(vertices, torch.tensor([[0, 1, 2]]), 4, backend)
    lower_left = torch.ones(4, 4).tril().bool()
    assert ((found.pix_to_face[0] == 0) | ~lower_left).all()
    assert (found.pix_to_face[0][~lower_left] == -1).all()
    assert (found.zbuf[0][~lower_left] == -1).all()
    inside = found.pix_to_face[0] == 0
    assert torch.allclose(found.barycentric[0][inside].sum(-1), torch.ones(inside.sum()))
    assert found.zbuf[0, 3, 3] > found.zbuf[0, 3, 0] > 1


def test_torch_and_numba_agree(flame):
    a, b = (rasterize(head(flame, (0, 30, -60)), flame.faces, 224, k) for k in ("torch", "numba"))
    assert torch.equal(a.pix_to_face, b.pix_to_face)
    agree(a, b)


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (1, 7), (33, 33)])
@pytest.mark.parametrize("cull", [False, True])
def test_backends_agree_on_a_soup(size, cull):
    vertices, faces = soup()
    results = [rasterize(vertices, faces, size, k, cull) for k in ("torch", "numba")]
    assert torch.equal(results[0].pix_to_face, results[1].pix_to_face)
    assert results[0].pix_to_face.shape == (2, *size)
    covered = (results[0].pix_to_face >= 0).float().mean()
    assert 0 < covered <= 1


@pytest.mark.parametrize("size", [112, (48, 80), (80, 48)])
@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_equals_pytorch3d(flame, size, cull, backend):
    pytest.importorskip("pytorch3d", reason="pytorch3d is not installed")
    vertices = head(flame, (20,), size)
    agree(
        rasterize(vertices, flame.faces, size, backend, cull),
        rasterize(vertices, flame.faces, size, "pytorch3d", cull),
    )
    vertices, faces = soup()
    agree(
        rasterize(vertices, faces, size, backend, cull),
        rasterize(vertices, faces, size, "pytorch3d", cull),
    )


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_ties_go_to_the_first_triangle(backend):
    vertices = torch.tensor([[[0.9, 0.9, 1.0], [0.9, -0.9, 1.0], [-0.9, -0.9, 1.0]]])
    faces = torch.tensor([[0, 1, 2]] * 3)
    found = rasterize(vertices, faces, 16, backend).pix_to_face
    assert set(found.unique().tolist()) == {-1, 0}


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_gradients(backend):
    vertices, faces = soup(6, seed=4, batch=1)
    vertices[..., 2] = vertices[..., 2].abs() + 0.5
    vertices = vertices.double().requires_grad_()
    weights = torch.rand(1, 12, 12, 4, generator=torch.Generator().manual_seed(1)).double()

    def picture(v):
        found = rasterize(v, faces, 12, backend)
        return (torch.cat([found.barycentric, found.zbuf.unsqueeze(-1)], -1) * weights).sum()

    assert torch.autograd.gradcheck(picture, vertices, eps=1e-7, atol=1e-4)


def test_nothing_in_view():
    vertices = torch.full((1, 3, 3), 5.0)
    for backend in ("torch", "numba"):
        found = rasterize(vertices, torch.tensor([[0, 1, 2]]), 8, backend)
        assert (found.pix_to_face == -1).all()
        assert (found.zbuf == -1).all()


def test_threads_stay_as_they_were(flame):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        rasterize(head(flame), flame.faces, 32, "numba")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def in_a_new_process(code, **environment):
    """Run Python code in a fresh interpreter; returns what it printed, fails if it failed."""
    setting = {**os.environ, "PYTHONPATH": str(DATA.parent), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=setting, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


A_TRIANGLE = """
import os, sys, threading, torch
torch.set_num_threads(2)
from course.rasterize import rasterize
v, f = torch.tensor([[[.9, .9, 1.], [.9, -.9, 1.], [-.9, -.9, 1.]]]), torch.tensor([[0, 1, 2]])
def covered():
    return int((rasterize(v, f, 16, "numba").pix_to_face >= 0).sum())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_can_rasterize():
    """As a DataLoader's workers do; GNU OpenMP would end the child."""
    code = """
first = covered()
child = os.fork()
if child == 0:
    os._exit(0 if covered() == first else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    in_a_new_process(A_TRIANGLE + code)


@pytest.mark.parametrize("layer", ["workqueue", "default"])
def test_threads_can_rasterize_at_the_same_time(layer):
    code = """
found = []
def go():
    for _ in range(50):
        found.append(covered())
threads = [threading.Thread(target=go) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(found), len(set(found)))
"""
    assert in_a_new_process(A_TRIANGLE + code, NUMBA_THREADING_LAYER=layer).split() == ["200", "1"]


def test_a_cache_that_cannot_be_written():
    """A read-only installation: numba finds no folder for its machine code and compiles anew."""
    code = """
from numba.core import caching
caching.CacheImpl._locator_classes = []
"""
    in_a_new_process(code + A_TRIANGLE + "torch.set_num_threads(1)\nassert covered() > 50")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_finds_the_same(flame):
    ndc = head(flame, (0, 30))
    on_cpu = rasterize(ndc, flame.faces, 128, "torch")
    on_gpu = rasterize(ndc.cuda(), flame.faces.cuda(), 128)
    assert on_gpu.zbuf.is_cuda
    agree(Fragments(*(t.cpu() for t in vars(on_gpu).values())), on_cpu)


def test_bad_input():
    vertices, faces = soup(4)
    broken = vertices.clone()
    broken[0, 2, 1] = torch.nan
    cases = [
        (broken, faces, 8, "auto", "NaN"),
        (vertices[:, :0], faces, 8, "auto", "empty"),
        (vertices, faces[:0], 8, "auto", "empty"),
        (vertices, faces + 1, 8, "auto", "0…11"),
        (vertices, faces - 1, 8, "auto", "0…11"),
        (vertices, faces, 0, "auto", "cannot be drawn"),
        (vertices[0], faces, 8, "auto", "vertices have shape"),
        (vertices, faces.T, 8, "auto", "faces have shape"),
        (vertices, faces, 8, "opengl", "no rasterizer 'opengl'"),
    ]
    if "pytorch3d" not in available_backends():
        cases.append((vertices, faces, 8, "pytorch3d", "not installed; here there are: numba"))
    for case in cases:
        with pytest.raises(ValueError, match=case[-1]):
            rasterize(*case[:-1])
