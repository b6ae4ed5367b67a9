import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from course import asm_bones, asm_weights
from course.asm import ALL, ASM, BINDING, MOTION, AsmCode
from course.asm_fit import AdaptiveHead, fit_landmarks, fit_scan, fit_vertices
from course.facecode import FaceCode
from course.flame import rodrigues
from course.metrics import scan_to_mesh
from course.render import Renderer, vertex_normals

GENERATOR = 5


@pytest.fixture(scope="module")
def asm(flame):
    return ASM(flame)


@pytest.fixture(scope="module")
def code(asm):
    """Two faces far from rest, every field changed."""
    generator = torch.Generator().manual_seed(GENERATOR)
    return asm.code(torch.randn(2, asm.size(), generator=generator))


def only(asm, bone, **changes):
    """A code at rest but for one bone."""
    code = asm.zeros()
    for name, value in changes.items():
        getattr(code, name)[0, asm.names.index(bone)] = torch.tensor(value)
    return code


# ------------------------------------------------------------------ bones


def test_the_tree(flame, asm):
    names, parents, twins = asm_bones.tree()
    assert len(names) == len(set(names)) == 84
    assert asm_bones.depths(parents).max() == 3
    assert (parents[1:] < np.arange(1, 84)).all(), "parents come first"
    assert np.array_equal(twins[twins], np.arange(84))
    for bone, twin in enumerate(twins):
        assert parents[twin] == twins[parents[bone]] or parents[bone] < 0
    flip = torch.tensor([-1.0, 1, 1])
    assert torch.allclose(asm.pivot[asm.twins] * flip, asm.pivot, atol=1e-4)


def test_bones_are_where_their_names_say(flame, asm):
    marks = flame.landmarks(flame.v_template[None])[0]
    known = {"nose tip": 30, "mouth corner left": 54, "eye outer corner right": 36,
             "upper lip": 51, "lower lip": 57, "brow inner left": 22}  # fmt: skip
    for bone, mark in known.items():
        away = (asm.pivot[asm.names.index(bone)] - marks[mark]).norm()
        assert away < 0.004, bone
    weights = asm.weights(asm.zeros())[0]
    for bone, mask in {"ear left": "ears", "nose tip": "nose", "larynx": "neck",
                       "parietal right": "scalp", "cheek left": "face"}.items():  # fmt: skip
        assert flame.masks[mask][weights[asm.names.index(bone)].argmax()], bone


def test_other_heads_and_fewer_bones(flame):
    few = ASM(flame, gaussians=1, bones=["nose tip", "chin"])
    assert few.names == ["root", "head", "nose", "nose tip", "jaw", "chin"]
    assert torch.equal(few(few.zeros())[0], flame.v_template)
    assert few.size(MOTION) == 6 * 9
    with pytest.raises(ValueError, match="no bone 'tail'"):
        ASM(flame, bones=["tail"])
    with pytest.raises(ValueError, match="texture coordinates"):
        ASM(SimpleNamespace(has_uv=False, has_landmarks=True, name="bare"))


# ------------------------------------------------------------------ weights


def test_one_gaussian_is_the_density_it_says():
    spread = torch.tensor([[-3.0, -2.5, 0.02]])
    factor = asm_weights.factors(spread)
    assert torch.allclose(asm_weights.raw_factors(factor), spread, atol=1e-4)
    middle, amplitude = torch.tensor([[0.3, 0.6]]), torch.tensor([-1.0])
    uv = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.3
    found = asm_weights.polynomials(middle, factor, amplitude) @ asm_weights.monomials(uv)
    truth = torch.distributions.MultivariateNormal(middle, scale_tril=factor).log_prob(uv)
    assert torch.allclose(found[0], truth - 1, atol=2e-3, rtol=1e-4)


def test_weights_sum_to_one_and_mirror(flame, asm, code):
    weights = asm.weights(code)
    assert weights.shape == (2, 84, len(flame.v_template))
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(2, weights.shape[2]), atol=1e-5)
    v = flame.v_template
    other = torch.cdist(v * torch.tensor([-1.0, 1, 1]), v).argmin(1)
    rest = asm.weights(asm.zeros())[0]
    assert torch.allclose(rest[asm.twins][:, other], rest, atol=1e-4)
    eye = flame.masks["left_eyeball"]
    assert (weights[:, asm.names.index("eye left")][:, eye] == 1).all(), "eyeballs are rigid"


def test_weights_begin_like_the_falloff_along_the_skin(flame, asm):
    skeleton = asm_bones.place(flame)
    wanted = torch.tensor(skeleton.falloff / skeleton.falloff.sum(0)).float()
    found = asm.weights(asm.zeros())[0][:, skeleton.skin]
    apart = (found - wanted).abs().sum(0)  # 0: the same, 2: other bones altogether
    assert apart.mean() < 0.4
    lips = asm.names.index("upper lip"), asm.names.index("lower lip")
    lower = asm.weights(asm.zeros())[0][:, torch.tensor(skeleton.vertex[lips[1]])]
    assert lower[lips[0]] < 0.3 * lower[lips[1]], "the way between the lips is through the mouth"


# ------------------------------------------------------------------ motion


def test_at_rest_nothing_moves_wherever_bones_and_weights_are(flame, asm, code):
    still = {name: torch.zeros_like(getattr(code, name)) for name in MOTION}
    assert (asm(dataclasses.replace(code, **still)) - flame.v_template).abs().max() < 1e-6


def test_the_formula_bone_by_bone(flame, asm, code):
    """v′ = Σ_j w_j M_j B_j⁻¹ v with 4×4 matrices, one bone after another."""
    single = asm(code)[1]
    names = [field.name for field in dataclasses.fields(code)]
    asm = ASM(flame).double()
    code = AsmCode(**{name: getattr(code, name).double() for name in names})
    weights, pivots = asm.weights(code)[1], asm.pivots(code)[1]
    world, total = [], 0
    ones = torch.ones(len(flame.v_template), 1)
    points = torch.cat([flame.v_template, ones], 1).double()
    for bone, parent in enumerate(asm.parents):

        def at(p):
            matrix = torch.eye(4).to(points)
            matrix[:3, 3] = p
            return matrix

        local = torch.eye(4).to(points)
        local[:3, :3] = rodrigues(code.rotation[1, bone]) @ code.scale[1, bone].exp().diag()
        local[:3, 3] = code.translation[1, bone]
        way = pivots[bone] if parent < 0 else pivots[bone] - pivots[parent]
        world.append((torch.eye(4).to(points) if parent < 0 else world[parent]) @ at(way) @ local)
        total = total + weights[bone, :, None] * (points @ (world[-1] @ at(-pivots[bone])).T)
    assert torch.allclose(asm(code)[1], total[:, :3], atol=1e-9)
    assert torch.allclose(single.double(), total[:, :3], atol=2e-5)


def test_a_bone_carries_its_region_and_its_children(flame, asm):
    moved = asm(only(asm, "nose tip", translation=[0.0, 0.0, 0.01]))[0] - flame.v_template
    share = asm.weights(asm.zeros())[0, asm.names.index("nose tip")]
    assert torch.allclose(moved[:, 2], 0.01 * share, atol=1e-6)
    root = asm(only(asm, "root", translation=[0.01, 0.02, 0.0]))[0] - flame.v_template
    assert torch.allclose(root, torch.tensor([0.01, 0.02, 0.0]), atol=1e-6), "all of the head"
    whole = asm(only(asm, "root", scale=[0.1, 0.1, 0.1]))[0]
    pivot = asm.pivot[0]
    assert torch.allclose(whole - pivot, (flame.v_template - pivot) * np.exp(0.1), atol=1e-6)


def test_binding_moves_pivot_and_weights(asm):
    slid = only(asm, "nose tip", anchor=[0.0, 0.02])
    bone = asm.names.index("nose tip")
    way = asm.pivots(slid)[0, bone] - asm.pivot[bone]
    assert 0.002 < way[1] < 0.01, "up the bridge"
    assert way[2] < -0.001, "and back along it"
    assert (asm.weights(slid) - asm.weights(asm.zeros())).abs().max() > 0.05


def test_mirrored(flame, asm, code):
    flip, v = torch.tensor([-1.0, 1, 1]), flame.v_template
    other = torch.cdist(v * flip, v).argmin(1)
    found = asm(asm.mirrored(code))
    assert torch.allclose(found, asm(code)[:, other] * flip, atol=1e-4)
    again = asm.mirrored(asm.mirrored(code))
    for name in ALL:
        assert torch.allclose(getattr(again, name), getattr(code, name))


def test_codes_of_unit_variance(asm):
    assert asm.size() == 84 * (9 + 2 + 6 * 3) == 2436, "the paper's J·(9 + 2 + 6K)"
    assert asm.size(MOTION + BINDING) == 84 * 11
    z = torch.zeros(1, asm.size(MOTION)).requires_grad_()
    assert torch.equal(asm(asm.code(z, MOTION))[0], asm.v_template)
    with pytest.raises(ValueError, match="is needed"):
        asm.code(torch.zeros(1, 5))
    draw = torch.randn(200, asm.size(MOTION), generator=torch.Generator().manual_seed(2))
    code = asm.code(draw, MOTION)
    apart = code.translation - asm.mirrored(code).translation
    alike = code.translation + asm.mirrored(code).translation
    assert (apart.std() / alike.std()).item() == pytest.approx(0.4, abs=0.05)
    assert (code.mean == 0).all()


def test_gradients_reach_every_field(asm):
    generator = torch.Generator().manual_seed(3)
    double = ASM(asm.flame[0], gaussians=2, bones=["nose tip", "cheek left"]).double()
    z = (0.3 * torch.randn(1, double.size(), generator=generator)).double()
    pull = torch.randn(1, len(asm.v_template), 3, generator=generator).double()

    def energy(z):
        return (double(double.code(z)) * pull).sum()

    z.requires_grad_()
    (slope,) = torch.autograd.grad(energy(z), z)
    begin = 0
    with torch.no_grad():
        for name in ALL:
            count = double.size((name,))
            at = begin + int(slope[0, begin : begin + count].abs().argmax())
            step = torch.zeros_like(z)
            step[0, at] = 1e-5
            numeric = (energy(z + step) - energy(z - step)) / 2e-5
            assert slope[0, at].item() == pytest.approx(numeric.item(), rel=1e-3), name
            begin += count


# ------------------------------------------------------------------ fits


@pytest.fixture(scope="module")
def target(flame, asm):
    """A head that no linear model was shown: bones drawn from the prior, then turned and moved."""
    z = torch.randn(1, asm.size(MOTION), generator=torch.Generator().manual_seed(7))
    rest = asm(asm.code(z, MOTION))[0]
    return rest @ rodrigues(torch.tensor([0.05, 0.1, 0.0])).T + torch.tensor([0.01, 0.0, 0.02])


def face_mm(flame, fitted, target):
    return 1000 * (fitted.vertices - target).norm(dim=1)[flame.masks["face"]].mean().item()


def test_fit_to_vertices(flame, asm, target):
    bones = fit_vertices(AdaptiveHead(flame, asm, MOTION), target, steps=30)
    linear = fit_vertices(flame, target, steps=30)
    assert face_mm(flame, bones, target) < 0.6 * face_mm(flame, linear, target)
    assert bones.error[-1] < 0.3 * bones.error[0]
    turned = bones.rest @ rodrigues(bones.turn).T + bones.shift
    assert torch.allclose(turned, bones.vertices, atol=1e-6)


def test_fit_to_landmarks_and_scan(flame, asm, target):
    head = AdaptiveHead(flame, asm, MOTION)
    marks = flame.landmarks(target[None])[0]
    begin = fit_landmarks(head, marks, steps=25)
    assert begin.error[-1] < 0.5 * begin.error[0]
    skin = torch.randperm(len(target), generator=torch.Generator().manual_seed(1))
    normals = vertex_normals(target[None], flame.faces)[0]
    found = fit_scan(head, target[skin], normals[skin], marks, steps=30)
    face, faces = flame.masks["face"], flame.faces.numpy()
    away = [scan_to_mesh(target[face][::4], f.vertices, faces).mean() for f in (begin, found)]
    assert away[1] < 0.6 * away[0]
    with pytest.raises(ValueError, match="100 points"):
        fit_scan(head, target[:5], normals[:5], marks)


def test_the_adaptive_head_is_a_flame(flame, asm):
    """Expression, pose, landmarks, codes and the renderer take it as they take the linear one."""
    head = AdaptiveHead(flame, asm, MOTION)
    code = FaceCode.zeros(head, 2)
    assert code.shape.shape == (2, 756)
    code.pose[:, 6] = 0.3
    code.expression[0, 0] = 2.0
    posed = head(code.shape, code.expression, code.pose)
    assert torch.allclose(posed, flame(None, code.expression, code.pose), atol=1e-6)
    assert torch.equal(head(code.shape)[0], flame.v_template)
    picture = Renderer(head, 24).render(code)
    assert picture.image.shape == (2, 3, 24, 24)
    with pytest.raises(AttributeError):
        _ = head.no_such_thing


def test_offsets_move_the_head_before_it_is_posed(flame):
    """What a blendshape adds, given as an offset: the same head, joints and all."""
    code = FaceCode.random(flame, 2, torch.Generator().manual_seed(4))
    pose = code.pose + 0.2
    offsets = torch.einsum("vck,nk->nvc", flame.shapedirs, code.shape)
    assert torch.allclose(flame(None, code.expression, pose, offsets),
                          flame(code.shape, code.expression, pose), atol=1e-5)  # fmt: skip


def test_the_adaptive_head_gives_as_many_heads_as_codes(flame, asm):
    """Of one face expanded to many rows too; its joints move with its bones."""
    head = AdaptiveHead(flame, asm, MOTION)
    shape = 0.5 * torch.randn(1, head.n_shape, generator=torch.Generator().manual_seed(0))
    expression, pose = torch.zeros(1, flame.n_expression), torch.zeros(1, 15)
    for rows in (shape.expand(3, -1), shape.repeat(3, 1)):
        assert torch.allclose(
            head(rows, expression, pose), head(shape).expand(3, -1, -1), atol=1e-6
        )
        assert head.joints(rows).shape == (3, 5, 3)
        assert head.transforms(rows, pose=pose).shape == (3, 5, 3, 4)
    offsets = torch.zeros(3, len(flame.v_template), 3)
    assert torch.allclose(head(shape, offsets=offsets), head(shape).expand(3, -1, -1), atol=1e-6)
    rest = head(shape)
    assert torch.allclose(head.joints(shape), flame.J_regressor @ rest, atol=1e-6)
    pose[:, 6] = 0.4
    turned = head.transforms(shape, pose=pose)
    points = torch.einsum("njab,nvb->njva", turned[..., :3], rest) + turned[..., None, :, 3]
    skinned = torch.einsum("vj,njva->nva", flame.lbs_weights, points)
    correctives = head(shape, pose=pose) - skinned
    assert correctives.norm(dim=-1).max() < 0.02
