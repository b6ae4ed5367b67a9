"""Fine skin: how it is drawn, its synthetic truth, the networks that predict it."""

import json

import pytest
import torch
import torch.nn.functional as F

from course.detail import SIZE, DetailModel, fine_part
from course.detail_truth import SkinMaker
from course.facecode import FaceCode
from course.relief import WINDOW, Relief, uv_gradients
from course.render import Renderer, vertex_normals


@pytest.fixture(scope="module")
def relief(flame):
    return Relief(flame)


@pytest.fixture(scope="module")
def maker(flame):
    return SkinMaker(flame, 256)


@pytest.fixture(scope="module")
def skin(maker):
    return maker(5, age=0.6)


@pytest.fixture(scope="module")
def model(flame):
    torch.manual_seed(0)
    return DetailModel(flame).eval()


def action(flame, **strengths):
    """Expression codes (1, E) with some actions, both sides."""
    code = torch.zeros(1, flame.n_expression)
    for name, value in strengths.items():
        code[0, flame.expression_columns(name.replace("_", " "))] = value
    return code


# ------------------------------------------------------------------ drawing


def test_no_detail_is_the_coarse_picture(flame, relief):
    code = FaceCode.random(flame, 2, torch.Generator().manual_seed(1))
    renderer = Renderer(flame, 96)
    flat = relief.draw(renderer, code, torch.zeros(2, 4, 256, 256), (0.2, 0.4, 0.6))
    coarse = renderer.render(code, background=(0.2, 0.4, 0.6)).image
    assert torch.allclose(flat, coarse, atol=1e-5)


def test_gradients_of_uv_on_the_surface(flame):
    """Along an edge of a flat sheet, u and v change by ∇u·e and ∇v·e."""
    sheet = flame.v_template.new_zeros(1, 4, 3)
    sheet[0, :, 0], sheet[0, :, 1] = torch.tensor([0, 2.0, 2, 0]), torch.tensor([0, 0, 3.0, 3])

    class Sheet:
        faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
        ft = faces
        vt = torch.stack([0.5 * sheet[0, :, 0] + 0.1 * sheet[0, :, 1], 0.2 * sheet[0, :, 1]], 1)

    found = uv_gradients(Sheet, sheet)
    assert torch.allclose(found[0], torch.tensor([0.5, 0.1, 0, 0, 0.2, 0]).expand(4, 6), atol=1e-5)


def test_relief_bends_normals_as_moved_vertices_do(flame, relief):
    """A broad bump drawn as relief is lit as one made of real vertices, better than none is."""
    vertices = flame()
    u, v = torch.meshgrid(torch.linspace(0, 1, 256), torch.linspace(1, 0, 256), indexing="xy")
    left, bottom, side = WINDOW
    away = (left + side * u - 0.5) ** 2 + (bottom + side * v - 0.735) ** 2  # from the forehead
    bump = 0.002 * torch.exp(-away / (2 * 0.03**2))
    maps = torch.zeros(1, 4, 256, 256)
    maps[0, 0] = bump
    at = torch.zeros(len(flame.v_template), 2)
    at[flame.faces.reshape(-1)] = flame.vt[flame.ft.reshape(-1)]
    place = (at - torch.tensor([left, bottom])) / side
    grid = torch.stack([2 * place[:, 0] - 1, 1 - 2 * place[:, 1]], -1)[None, None]
    height = F.grid_sample(maps[:, :1], grid, align_corners=False)[0, 0, 0]
    moved = vertices + vertex_normals(vertices, flame.faces) * height[None, :, None]
    code = FaceCode.zeros(flame)
    code.light[:, 1] = 0.8  # from the side, where bumps show
    renderer = Renderer(flame, 160)
    clay = torch.full((1, 3, 8, 8), 0.5)
    draw = lambda v: renderer(v, code.camera, clay, code.light).image  # noqa: E731
    wanted, flat = draw(moved), draw(vertices)
    found = relief.draw(renderer, code, maps, vertices=vertices, albedo=clay)
    assert (flat - wanted).abs().max() > 0.03
    assert (found - wanted).square().mean() < 0.1 * (flat - wanted).square().mean()


def test_crops_of_a_canvas_and_gradients(flame, relief):
    code = FaceCode.random(flame, 1, torch.Generator().manual_seed(2))
    vertices = flame(code.shape, code.expression, code.pose)
    rendering = Renderer(flame, 96)(vertices, code.camera, flame.albedo(code.albedo))
    canvas = relief.canvas(rendering, vertices)
    maps = (1e-4 * torch.randn(1, 4, 256, 256)).requires_grad_()
    whole = relief.paint(canvas, maps, code.light)
    crop = relief.paint(canvas[..., 20:60, 30:70], maps, code.light)
    assert torch.allclose(whole[..., 20:60, 30:70], crop, atol=1e-6)
    crop.sum().backward()
    assert maps.grad[:, 0].abs().sum() > 0
    assert maps.grad[:, 1:].abs().sum() > 0


def test_unwrapping_puts_a_colour_where_it_is(flame, relief):
    """A picture drawn from a texture of UV places unwraps to those places."""
    code = FaceCode.zeros(flame)
    at = (torch.arange(512) + 0.5) / 512
    v, u = torch.meshgrid(1 - at, at, indexing="ij")
    texture = torch.stack([u, v, 0 * u])[None]
    vertices = flame()
    image = Renderer(flame, 256)(vertices, code.camera, texture).image
    colours, seen = relief.unwrap(image, vertices, code.camera)
    wanted = relief.window(texture) * seen
    assert 0.3 < seen.mean() < 0.9
    assert ((colours - wanted).abs().sum(1) / seen.mean()).mean() < 0.01


# ------------------------------------------------------------------ the truth


def test_people_differ_and_repeat(maker, skin):
    code, pose = torch.zeros(1, maker.flame.n_expression), torch.zeros(1, 15)
    again, other = maker(5, age=0.6), maker(6, age=0.6)
    assert torch.equal(skin(code, pose), again(code, pose))
    assert (skin(code, pose) - other(code, pose))[:, 0].abs().max() > 1e-4
    assert skin(code, pose).shape == (1, 4, 256, 256)
    assert skin(code, pose, 128).shape == (1, 4, 128, 128)


def depth_at(maker, skin, expression, u, v, jaw=0.0):
    """Deepest displacement in mm near a place of UV."""
    pose = torch.zeros(1, 15)
    pose[:, 6] = jaw
    maps = skin(expression, pose) * maker.relief.mask
    column, row = maker._pixel(torch.tensor([[u, v]]).numpy())
    r, c = int(row[0]), int(column[0])
    return -1000 * maps[0, 0, r - 8 : r + 9, c - 8 : c + 9].min().item()


def test_folds_deepen_with_their_muscles(flame, maker, skin):
    rest = action(flame)
    for u, v, moves in (
        (0.405, 0.385, {"smile": 2.0}),  # nose to mouth
        (0.335, 0.606, {"squint": 2.0}),  # beside the eye
        (0.43, 0.74, {"outer_brow_up": 2.0}),  # forehead
        (0.50, 0.675, {"brow_down": 2.0}),  # between the brows
    ):
        before = depth_at(maker, skin, rest, u, v)
        assert depth_at(maker, skin, action(flame, **moves), u, v) > before + 0.03, moves
    before = depth_at(maker, skin, rest, 0.405, 0.385)
    assert depth_at(maker, skin, rest, 0.405, 0.385, jaw=0.35) > before + 0.03
    # one side smiles alone
    code = torch.zeros(1, flame.n_expression)
    code[0, flame.expression_names.index("smile left")] = 2.0
    moved = flame(expression=code)[0] - flame()[0]
    right = moved.norm(dim=1) @ flame.v_template[:, 0] > 0  # which side of the picture it is on
    sides = [depth_at(maker, skin, code, u, 0.385) - depth_at(maker, skin, rest, u, 0.385)
             for u in (0.405, 0.595)]  # fmt: skip
    assert sides[int(right)] > 0.05
    assert abs(sides[1 - int(right)]) < 0.01


def test_age_folds_the_face_at_rest(flame, maker):
    rest = action(flame)
    young, old = (depth_at(maker, maker(3, age=a), rest, 0.405, 0.385) for a in (0.0, 1.0))
    assert old > young + 0.15


# ------------------------------------------------------------------ the networks


def test_detail_moves_with_expression_and_jaw(flame, model):
    code = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(3))
    rest, pose = action(flame), torch.zeros(1, 15)
    turned, opened = pose.clone(), pose.clone()
    turned[:, :3], opened[:, 6] = 0.4, 0.3
    maps = model(rest, pose, code)
    assert maps.shape == (1, 4, 256, 256)
    assert maps[:, 0].abs().max() < 0.002
    assert torch.equal(maps, model(rest, turned, code))  # turning the head folds nothing
    for other in (model(rest, opened, code), model(action(flame, smile=2.0), pose, code)):
        assert (maps - other).abs().max() > 1e-5
    assert model(torch.cat([rest, rest]), pose, code).shape[0] == 2
    with pytest.raises(ValueError, match="detail has shape"):
        model(rest, pose, code[:, :5])


def test_encoder_ignores_broad_light(model):
    generator = torch.Generator().manual_seed(0)
    residual = 0.1 * torch.randn(1, 3, 128, 128, generator=generator)
    seen = torch.ones(1, 1, 128, 128)
    slope = torch.linspace(-0.3, 0.3, 128).expand(1, 3, 128, 128)
    kept = fine_part(residual, seen)
    assert (fine_part(residual + slope, seen) - kept)[..., 16:-16, 16:-16].abs().max() < 0.03
    assert kept[..., 16:-16, 16:-16].std() > 0.08


def test_saved_and_damaged_models(flame, model, tmp_path):
    path = tmp_path / "detail.pt"
    model.save(path)
    again = DetailModel.load(flame, path, "cpu")
    arguments = action(flame, smile=1.0), torch.zeros(1, 15), torch.ones(1, SIZE)
    assert torch.allclose(again(*arguments), model(*arguments), atol=1e-4)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="does not hold a detail model"):
        DetailModel.load(flame, path)
    with pytest.raises(FileNotFoundError, match="train detail"):
        DetailModel.load(flame, tmp_path / "none.pt")


# ------------------------------------------------------------------ in a FaceCode


def test_facecodes_with_and_without_detail(flame, tmp_path):
    code = FaceCode.random(flame, 2)
    assert code.detail.shape == (2, 0)
    assert code[0].detail.shape == (1, 0)
    code.save(tmp_path / "old.json")
    assert "detail" not in json.loads((tmp_path / "old.json").read_text())
    assert FaceCode.load(tmp_path / "old.json", "cpu").detail.shape == (2, 0)
    full = code.replace(detail=torch.randn(2, 7))
    full.save(tmp_path / "new.json")
    again = FaceCode.load(tmp_path / "new.json", "cpu")
    assert torch.allclose(again.detail, full.detail, atol=1e-5)
    assert FaceCode.cat([full, full])[3].detail.shape == (1, 7)
    with pytest.raises(ValueError, match="same number of rows"):
        code.replace(detail=torch.randn(3, 7))
