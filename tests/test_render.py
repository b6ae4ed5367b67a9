import math

import numpy as np
import pytest
import torch

from course.camera import project, to_ndc
from course.facecode import FaceCode
from course.flame import FLAME
from course.render import (
    SH_CONSTANTS,
    Renderer,
    sample_texture,
    shade,
    spherical_harmonics,
    vertex_normals,
)
from course.silhouette import soft_silhouette


def ball(rings=10, segments=14):
    """A ball as a head model without blendshapes, with UV; float64."""
    theta = torch.linspace(0, math.pi, rings + 1)
    phi = torch.linspace(0, 2 * math.pi, segments + 1)
    t, p = torch.meshgrid(theta, phi, indexing="ij")
    vertices = torch.stack([t.sin() * p.sin(), t.cos(), t.sin() * p.cos()], -1).reshape(-1, 3)
    index = torch.arange(len(vertices)).view(rings + 1, segments + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = torch.stack([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)])
    faces = faces.reshape(-1, 3)
    v = vertices[faces]
    area = torch.linalg.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]).norm(dim=1)
    faces = faces[area > 1e-6]
    n = len(vertices)
    model = {
        "v_template": vertices.numpy(),
        "f": faces.numpy(),
        "shapedirs": np.zeros((n, 3, 2)),
        "n_shape": 1,
        "posedirs": np.zeros((n, 3, 36)),
        "J_regressor": np.full((5, n), 1 / n),
        "kintree_table": np.array([[-1, 0, 1, 1, 1], range(5)]),
        "weights": np.eye(5)[np.zeros(n, int)],
        "vt": torch.stack([p / (2 * math.pi), 1 - t / math.pi], -1).reshape(-1, 2).numpy(),
        "ft": faces.numpy(),
    }
    return FLAME(model).double()


def test_spherical_harmonics_against_an_integral():
    """Irradiance of the light Y_k, by summing over the sphere: c_k·H_k(n) must equal it.

    Ramamoorthi and Hanrahan 2001; DECA leaves the π out of band 0, and only there.
    """
    steps = 400
    theta = (torch.arange(steps, dtype=torch.float64) + 0.5) * math.pi / steps
    phi = (torch.arange(2 * steps, dtype=torch.float64) + 0.5) * math.pi / steps
    t, p = torch.meshgrid(theta, phi, indexing="ij")
    d = torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], -1).reshape(-1, 3)
    solid = (t.sin() * (math.pi / steps) ** 2).reshape(-1)
    x, y, z = d.unbind(1)
    one = torch.ones_like(x)
    unit = torch.stack([
        0.5 * math.sqrt(1 / math.pi) * one,
        *(math.sqrt(3 / (4 * math.pi)) * q for q in (x, y, z)),
        *(0.5 * math.sqrt(15 / math.pi) * q for q in (x * y, x * z, y * z)),
        0.25 * math.sqrt(15 / math.pi) * (x * x - y * y),
        0.25 * math.sqrt(5 / math.pi) * (3 * z * z - 1),
    ], 1)  # fmt: skip
    assert torch.allclose((unit.T * solid) @ unit, torch.eye(9).double(), atol=1e-3)
    normals = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normals = normals / normals.norm(dim=1, keepdim=True)
    cosine = (normals @ d.T).clamp_min(0)
    irradiance = (cosine * solid) @ unit
    irradiance[:, 0] /= math.pi
    assert torch.allclose(spherical_harmonics(normals), irradiance, atol=1e-3)
    assert len(SH_CONSTANTS) == 9


def test_vertex_normals_of_a_ball():
    model = ball(24, 32)
    normals = vertex_normals(model.v_template[None], model.faces)[0]
    inner = model.v_template[:, 1].abs() < 0.9
    seam = (model.v_template[:, 0].abs() < 1e-3) & (model.v_template[:, 2] > 0)
    keep = inner & ~seam
    assert (normals * model.v_template).sum(1)[keep].min() > 0.99


def test_texture_orientation():
    texture = torch.zeros(1, 3, 4, 4)
    texture[0, 0, 0, 0] = 1  # top left is u=0, v=1
    uv = torch.tensor([[[[0.1, 0.9], [0.9, 0.1]]]])
    assert sample_texture(texture, uv)[0, 0, 0].tolist() == [1, 0]


def test_light_from_the_left_lights_the_left(flame):
    code = FaceCode.zeros(flame)
    code.light[:] = 0
    code.light[:, 0], code.light[:, 1] = 1.5, -1.0  # −x is the picture's left
    picture = Renderer(flame, 96).render(code)
    columns = picture.image[0].sum(0)
    assert columns[:, :48].sum() > 1.3 * columns[:, 48:].sum()


def test_maps_belong_together(flame):
    code = FaceCode.zeros(flame, 2)
    picture = Renderer(flame, 80).render(code, background=(1, 0.5, 0), occlusion=False)
    mask = picture.mask.bool()
    assert picture.image.shape == (2, 3, 80, 80)
    assert (picture.depth[mask] > 0).all()
    assert (picture.depth[~mask] == 0).all()
    norm = picture.normal.norm(dim=1, keepdim=True)
    assert torch.allclose(norm[mask], torch.ones(mask.sum()), atol=1e-4)
    assert torch.allclose(picture.image[0, :, 0, 0], torch.tensor([1, 0.5, 0]))
    again = shade(picture.albedo, picture.normal, code.light)
    assert torch.allclose(again * mask, picture.image * mask, atol=1e-5)
    assert (picture.uv[mask[:, 0]] >= 0).all()


def test_backends_draw_the_same(flame):
    code = FaceCode.zeros(flame, 2)
    a, b = (Renderer(flame, (60, 90), k).render(code).image for k in ("torch", "numba"))
    assert (a - b).abs().max() < 1e-5


def test_gradcheck_through_the_whole_picture():
    model = ball(5, 6)
    renderer = Renderer(model, 10)
    generator = torch.Generator().manual_seed(5)

    def rand(*size):
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    weights = rand(1, 3, 10, 10)
    vertices = model.v_template[None] + 0.05 * rand(*model.v_template[None].shape)
    inputs = [vertices, torch.tensor([[0.7, 0.05, -0.03]]).double(), rand(1, 3, 6, 6),
              rand(1, 9, 3)]  # fmt: skip
    inputs = [i.requires_grad_() for i in inputs]

    def loss(*args):
        return (renderer(*args).image * weights).sum()

    # away from edges, where a pixel changes hands and the picture jumps
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-7, atol=2e-3, rtol=1e-3)


def test_finite_differences_through_a_picture_loss(flame):
    """The derivative of a photometric loss along the light and the albedo, against differences."""
    renderer = Renderer(flame, 64)
    code = FaceCode.random(flame, 1, torch.Generator().manual_seed(1))
    target = renderer.render(FaceCode.zeros(flame)).image
    step = {"light": torch.zeros(1, 9, 3), "albedo": torch.zeros(1, flame.n_albedo)}
    step["light"][0, 1], step["albedo"][0, 0] = 1.0, 1.0
    for name, direction in step.items():
        value = getattr(code, name).clone().requires_grad_()
        loss = (renderer.render(code.replace(**{name: value})).image - target).square().sum()
        loss.backward()
        slope = (value.grad * direction).sum()
        eps = 1e-2
        ends = [
            (renderer.render(code.replace(**{name: value.detach() + s * direction})).image - target)
            .double()
            .square()
            .sum()
            for s in (eps, -eps)
        ]
        assert slope.item() == pytest.approx(((ends[0] - ends[1]) / (2 * eps)).item(), rel=0.02)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_silhouette_gradient_grows_the_ball(backend):
    model = ball(16, 20).float()
    camera = torch.tensor([[0.5, 0.0, 0.0]], requires_grad=True)
    ndc = to_ndc(project(model.v_template[None], camera, 48), 48)
    alpha = soft_silhouette(ndc, model.faces, 48, 1e-4, backend)
    area = alpha.sum()
    assert area.item() == pytest.approx(math.pi * 12**2, rel=0.05)
    area.backward()
    # area = π(24 s)², so d area/ds = 2·area/s; shifting a whole ball changes nothing
    assert camera.grad[0, 0].item() == pytest.approx(4 * area.item(), rel=0.1)
    assert camera.grad[0, 1:].abs().max() < 0.05 * camera.grad[0, 0]


def test_silhouette_backends_agree(flame):
    vertices = flame()
    camera = torch.tensor([flame.default_camera])
    results = []
    for backend in ("torch", "numba"):
        ndc = to_ndc(project(vertices, camera, 64), 64).requires_grad_()
        alpha = soft_silhouette(ndc, flame.faces, 64, 1e-4, backend)
        (alpha * torch.linspace(0, 1, 64)).sum().backward()
        results.append((alpha.detach(), ndc.grad))
    assert (results[0][0] - results[1][0]).abs().max() < 1e-4
    cosine = torch.cosine_similarity(results[0][1].flatten(), results[1][1].flatten(), 0)
    assert cosine > 0.999


def test_silhouette_equals_pytorch3d():
    pytest.importorskip("pytorch3d", reason="pytorch3d is not installed")
    from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    model = ball(12, 16).float()
    ndc = to_ndc(project(model.v_template[None], torch.tensor([[0.6, 0, 0]]), 40), 40)
    sigma = 1e-3
    fragments = rasterize_meshes(
        Meshes(ndc, model.faces[None]), 40, math.log(1 / 1e-4 - 1) * sigma, 100, 0,
        perspective_correct=False,
    )  # fmt: skip

    class Parts:
        pix_to_face, zbuf, bary_coords, dists = fragments

    blend = BlendParams(sigma=sigma, background_color=(0, 0, 0))
    expected = sigmoid_alpha_blend(torch.ones(1, 40, 40, 100, 3), Parts, blend)[..., 3]
    for backend in ("torch", "numba"):
        found = soft_silhouette(ndc, model.faces, 40, sigma, backend)
        assert (found - expected).abs().max() < 1e-3


def test_bad_input(flame):
    renderer = Renderer(flame, 32)
    vertices, camera = flame(), torch.tensor([flame.default_camera])
    with pytest.raises(ValueError, match="NaN"):
        renderer(vertices * torch.nan, camera)
    with pytest.raises(ValueError, match="sigma"):
        renderer(vertices, camera, silhouette=0.0)
    with pytest.raises(ValueError, match="no rasterizer"):
        Renderer(flame, 32, "magic")
    with pytest.raises(ValueError, match="cannot be drawn"):
        Renderer(flame, 0)


@pytest.mark.parametrize("texture", [False, True])
def test_compiled_loops_have_the_gradients_of_plain_torch(flame, texture):
    """Pictures and gradients to vertices, camera, albedo, light and background; two heads."""
    generator = torch.Generator().manual_seed(2)
    shape = (2, 3, 16, 16) if texture else (2, len(flame.v_template), 3)
    values = [
        flame().repeat(2, 1, 1),
        torch.tensor([flame.default_camera, flame.default_camera]) * torch.tensor([[0.9], [1.1]]),
        torch.rand(shape, generator=generator),
        torch.rand(2, 9, 3, generator=generator),
        torch.rand(2, 3, 48, 64, generator=generator),
    ]
    weights = torch.rand(2, 11, 48, 64, generator=generator)
    results = []
    for backend in ("torch", "numba"):
        leaves = [value.clone().requires_grad_() for value in values]
        drawn = Renderer(flame, (48, 64), backend)(*leaves[:4], background=leaves[4])
        maps = [drawn.image, drawn.normal, drawn.depth, drawn.uv.permute(0, 3, 1, 2)]
        maps = torch.cat([*maps, drawn.shading[:, :2]], 1)
        (maps * weights).sum().backward()
        results.append([maps.detach(), *(leaf.grad for leaf in leaves)])
    assert (results[0][0] - results[1][0]).abs().max() < 1e-5
    for plain, compiled in zip(results[0][1:], results[1][1:], strict=True):
        assert plain.abs().max() > 0
        assert (plain - compiled).abs().max() < 2e-4 * plain.abs().max()


def test_compiled_normals_equal_plain_ones(flame):
    from course import render_numba

    vertices = flame().repeat(2, 1, 1)
    weights = torch.rand(vertices.shape, generator=torch.Generator().manual_seed(3))
    results = []
    for function in (vertex_normals, render_numba.normals):
        leaf = vertices.clone().requires_grad_()
        found = function(leaf, flame.faces)
        (found * weights).sum().backward()
        results.append((found.detach(), leaf.grad))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-4 * results[0][1].abs().max())


def test_supersampling_smooths_edges_and_keeps_the_inside(flame):
    code = FaceCode.zeros(flame)
    renderer = Renderer(flame, (40, 56))
    hard = renderer.render(code, background=(0, 1, 0)).image
    soft = renderer.render(code, background=(0, 1, 0), supersample=3)
    assert soft.image.shape == hard.shape
    assert soft.mask.shape == (1, 1, 40, 56)
    assert (soft.image - hard).abs().mean() < 0.05
    assert (soft.image - hard).abs().max() > 0.2  # at the edges
    whole = torch.nn.functional.avg_pool2d(
        Renderer(flame, (120, 168)).render(code, background=(0, 1, 0)).image, 3
    )
    assert torch.allclose(soft.image, whole, atol=1e-4)


def test_silhouette_true_and_ambient_occlusion(flame):
    code = FaceCode.zeros(flame)
    renderer = Renderer(flame, 48)
    drawn = renderer.render(code, silhouette=True)
    assert drawn.alpha.shape == (1, 1, 48, 48)
    assert torch.equal(drawn.alpha, renderer.render(code, silhouette=1e-4).alpha)
    assert renderer.render(code, silhouette=False).alpha is None
    bright = renderer.render(code, occlusion=False).image
    assert (drawn.image <= bright + 1e-5).all()
    assert drawn.image.sum() < bright.sum()
    middle = renderer.render(code, occlusion=0.5).image  # the geometric mean of both
    assert torch.allclose(middle.square(), drawn.image * bright, atol=1e-5)


def test_shapes_that_do_not_fit(flame):
    renderer = Renderer(flame, 16)
    vertices, camera = flame().repeat(2, 1, 1), torch.tensor([flame.default_camera] * 2)
    wrong = [
        ({"camera": camera[:, :2]}, "camera has shape"),
        ({"camera": camera.repeat(2, 1)}, "camera has shape"),
        ({"albedo": torch.rand(3, 3, 8, 8)}, "albedo has shape"),
        ({"albedo": torch.rand(2, 7, 3)}, "albedo has shape"),
        ({"light": torch.rand(2, 3, 9)}, "light has shape"),
        ({"background": torch.rand(2, 3, 8, 16)}, "background has shape"),
        ({"supersample": 0}, "supersample"),
        ({"vertices": vertices[:, :10]}, "faces name vertices"),
        ({"vertices": vertices[0]}, "vertices have shape"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            renderer(**{"vertices": vertices, "camera": camera, **options})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_draws_the_same(flame):
    code = FaceCode.zeros(flame)
    on_cpu = Renderer(flame, 64, "torch").render(code, silhouette=1e-4)
    there = FLAME.load(device="cuda")
    on_gpu = Renderer(there, 64).to("cuda").render(code.to("cuda"), silhouette=1e-4)
    same = (on_gpu.pix_to_face.cpu() == on_cpu.pix_to_face)[:, None]
    assert same.float().mean() > 0.999
    assert ((on_gpu.image.cpu() - on_cpu.image) * same).abs().max() < 1e-3
    assert (on_gpu.alpha.cpu() - on_cpu.alpha).abs().max() < 1e-3


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_one_row_of_vertex_colours_for_many_heads(flame, backend):
    pytest.importorskip(backend)
    code = FaceCode.zeros(flame, 2)
    code = code.replace(camera=torch.tensor([flame.default_camera]).expand(2, -1))
    vertices, skin = flame(code.shape), torch.rand(1, len(flame.v_template), 3)
    renderer = Renderer(flame, np.int64(32), backend)
    once = renderer(vertices, code.camera, skin).image
    assert torch.equal(once, renderer(vertices, code.camera, skin.expand(2, -1, -1)).image)
    assert len(code[np.int64(1)]) == 1
    with pytest.raises(ValueError, match="the batch is empty"):
        renderer(vertices[:0], code.camera[:0], skin)


def test_no_second_derivatives_in_silence(flame):
    """The compiled path has none, and says so; numbers that vanish in silence would be wrong."""
    pytest.importorskip("numba")
    vertices = flame().detach().requires_grad_()
    camera = torch.tensor([flame.default_camera])
    image = Renderer(flame, 32, "numba")(vertices, camera, None, torch.ones(1, 9, 3)).image
    (first,) = torch.autograd.grad(image.square().sum(), vertices, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()
