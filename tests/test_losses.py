"""Losses against hand-made numbers, and what each of them is blind to."""

import inspect

import pytest
import torch

from course import losses
from course.facecode import FaceCode
from course.metrics import apply, rigid_align


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_loss_says_what_it_needs():
    own = {name for name, thing in vars(losses).items()
           if inspect.isfunction(thing) and thing.__module__ == "course.losses"
           and not name.startswith("_")}  # fmt: skip
    helpers = {"landmark_weights", "swap_shapes", "needs_table", "contrast"}
    assert own - helpers | {"SkinColour"} == set(losses.NEEDS)
    table = losses.needs_table()
    assert len(table.splitlines()) == len(losses.NEEDS)
    for name in own:
        assert getattr(losses, name).__doc__, name


def test_shape_mse_is_in_square_millimetres():
    truth = torch.zeros(2, 4, 3)
    moved = truth.clone()
    moved[0, 0, 2] = 0.002
    assert losses.shape_mse(moved, truth).item() == pytest.approx(4 / 8)
    weights = torch.tensor([4.0, 0, 0, 0])
    assert losses.shape_mse(moved, truth, weights).item() == pytest.approx(16 / 8)


def test_surface_metric_is_the_aligned_error(flame):
    """Without the normals it is the mean square distance after the best alignment."""
    metric = losses.SurfaceMetric(flame, slide=1.0)
    metric.gram = metric.gram.double()
    face = flame.masks["face"]
    codes = 0.3 * torch.randn(3, flame.n_shape, generator=gen())
    mean = flame()[0, face].double().numpy()
    for code in codes:
        head = flame(code[None])[0, face].double().numpy()
        left = 1000 * (apply(rigid_align(head, mean, scale=False), head) - mean)
        wish = (left**2).sum(-1).mean()
        got = metric(code[None].double(), torch.zeros(1, flame.n_shape).double()).item()
        assert got == pytest.approx(wish, rel=0.06)  # small rotations only


def test_surface_metric_counts_normals_most(flame):
    loose, strict = (losses.SurfaceMetric(flame, slide=s) for s in (1.0, 0.0))
    codes, zero = torch.randn(4, flame.n_shape, generator=gen()), torch.zeros(4, flame.n_shape)
    assert 0 < strict(codes, zero) < loose(codes, zero)
    unaligned = losses.SurfaceMetric(flame, aligned=False, slide=1.0)
    head = flame(codes) - flame()
    face = flame.masks["face"]
    wish = losses.shape_mse(head[:, face], 0 * head[:, face])
    assert unaligned(codes, zero).item() == pytest.approx(wish.item(), rel=1e-4)


def test_expression_metric(flame):
    metric = losses.SurfaceMetric(flame, "expressiondirs", aligned=False)
    assert metric.gram.shape == (flame.n_expression,) * 2


def test_landmark_weights_are_decas():
    weights = losses.landmark_weights()
    assert weights[[0, 5, 11, 20, 28, 30, 31, 33, 40, 48, 50, 54, 62]].tolist() == [
        1, 2, 2, 1, 1.5, 3, 3, 1.5, 1, 3, 1.5, 3, 1.5]  # fmt: skip


def test_landmark_loss():
    truth = torch.rand(2, 68, 2, generator=gen()) * 100
    assert losses.landmark_loss(truth + torch.tensor([3.0, 1.0]), truth, 100).item() == (
        pytest.approx(2.0 * 2 / 100, rel=1e-5)
    )
    tip, ear = truth.clone(), truth.clone()
    tip[:, 30] += 5
    ear[:, 0] += 5
    ratio = losses.landmark_loss(tip, truth, 100) / losses.landmark_loss(ear, truth, 100)
    assert ratio.item() == pytest.approx(3, rel=1e-4)


@pytest.mark.parametrize(("loss", "pairs"), [
    (losses.eye_closure, [(37, 41), (38, 40), (43, 47), (44, 46)]),
    (losses.lip_distance, [(61, 67), (62, 66), (63, 65)]),
])  # fmt: skip
def test_openings_do_not_care_where_they_are(loss, pairs):
    truth = torch.rand(1, 68, 2, generator=gen()) * 100
    assert loss(truth + 7, truth, 100).item() == pytest.approx(0, abs=1e-6)
    wider = truth.clone()
    for up, low in pairs:
        way = truth[0, up] - truth[0, low]
        wider[0, up] = truth[0, low] + way * (1 + 2 / way.norm())
    assert loss(wider, truth, 100).item() == pytest.approx(2 * 2 / 100, rel=1e-3)


@pytest.mark.parametrize("loss", [losses.photometric_l1, losses.photometric_l21])
def test_photometric_losses_only_look_inside_the_mask(loss):
    image, photo = torch.rand(2, 2, 3, 8, 8, generator=gen())
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:5, 2:5] = 1
    inside = loss(image, photo, mask)
    outside = image.clone()
    outside[:, :, 6:] = 9
    assert torch.equal(loss(outside, photo, mask), inside)
    assert loss(photo, photo, mask).item() == pytest.approx(0, abs=1e-6)
    # the size of the mask does not change what a uniform error is worth
    small = torch.zeros_like(mask)
    small[:, :, 3, 3] = 1
    off = photo + 0.1
    assert loss(off, photo, mask).item() == pytest.approx(loss(off, photo, small).item(), rel=1e-4)
    assert loss(image, photo, 0 * mask).item() == 0


def test_photometric_values_and_robustness():
    photo, mask = torch.zeros(1, 3, 2, 2), torch.ones(1, 1, 2, 2)
    image = photo.clone()
    image[0, :, 0, 0] = torch.tensor([0.3, 0.0, 0.4])
    assert losses.photometric_l1(image, photo, mask).item() == pytest.approx(0.7 / 3 / 4)
    assert losses.photometric_l21(image, photo, mask).item() == pytest.approx(0.5 / 4, abs=1e-3)
    image.requires_grad_()
    losses.photometric_l21(image, image.detach(), mask).backward()
    assert image.grad.isfinite().all()  # no division by zero where the colours agree


def test_silhouette_is_one_minus_overlap():
    a, b = torch.zeros(2, 1, 1, 4, 4)
    a[..., :2], b[..., 1:3] = 1, 1
    assert losses.silhouette(a, b).item() == pytest.approx(1 - 4 / 12)
    assert losses.silhouette(a, a).item() == pytest.approx(0, abs=1e-6)


def test_feature_consistency_ignores_length():
    f = torch.rand(3, 8, generator=gen())
    assert losses.feature_consistency(f, 5 * f).item() == pytest.approx(0, abs=1e-6)
    assert losses.feature_consistency(f, -f).item() == pytest.approx(2)


def test_priors():
    codes = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    assert losses.gaussian_prior(codes).item() == pytest.approx(0.25 * (1 + 4 + 9))
    assert losses.mean_absolute(codes).item() == pytest.approx(1.5)


def test_shape_consistency_is_within_people():
    shape = torch.tensor([[0.0], [2.0], [7.0]])
    groups = torch.tensor([4, 4, 9])
    assert losses.shape_consistency(shape, groups).item() == pytest.approx((1 + 1 + 0) / 3)
    assert losses.shape_consistency(shape, torch.arange(3)).item() == 0


def test_swapped_shapes_stay_in_the_family(flame):
    code = FaceCode.random(flame, 6, gen())
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    swapped = losses.swap_shapes(code, groups, gen(1))
    assert not torch.equal(swapped.shape, code.shape)
    assert torch.equal(swapped.expression, code.expression)
    for person in (0, 1):
        rows = groups == person
        assert torch.equal(swapped.shape[rows].sort(0).values, code.shape[rows].sort(0).values)


def test_symmetry():
    texture = torch.rand(1, 3, 4, 4, generator=gen())
    even = (texture + texture.flip(-1)) / 2
    assert losses.symmetry(even).item() == pytest.approx(0, abs=1e-6)
    assert losses.symmetry(texture) > 0
    assert losses.symmetry(texture, torch.zeros(1, 1, 4, 4)).item() == 0


def test_skin_colour_knows_the_heads_own_people(flame):
    prior = losses.SkinColour(flame)
    brown, green = torch.tensor([[0.6, 0.42, 0.34]]), torch.tensor([[0.3, 0.7, 0.3]])
    own = flame.albedo_mean[:, 200:210, 250:262].mean((1, 2))[None]
    assert prior(own) < prior(brown) + 3 < prior(green)
    assert prior(0.5 * brown).item() == pytest.approx(
        prior(brown).item(), rel=1e-3
    )  # no brightness
    picture = brown[:, :, None, None].expand(1, 3, 4, 4)
    assert prior(picture).item() == pytest.approx(prior(brown).item(), rel=1e-4)
    # what it says of its own people: two dimensions, half a unit each
    codes = torch.randn(64, flame.n_albedo, generator=gen(3))
    skin = (flame.uv_masks["skin"] > 0.5).float()[None, None]
    textures = torch.nn.functional.interpolate(flame.albedo(codes), skin.shape[-2:], mode="area")
    mean = prior(textures, skin.expand(64, -1, -1, -1)).item()
    assert 0.4 < mean < 2.5


def test_light_and_flatness():
    light = torch.rand(2, 9, 1, generator=gen()).expand(-1, -1, 3)
    assert losses.white_light(light).item() == pytest.approx(0, abs=1e-6)
    tinted = light.clone()
    tinted[:, 0, 0] += 0.3
    assert losses.white_light(tinted).item() == pytest.approx(0.06 / 9, rel=1e-4)
    texture = torch.full((1, 3, 4, 4), 0.4)
    mask = torch.ones(1, 1, 4, 4)
    assert losses.texture_flatness(texture, mask).item() == pytest.approx(0, abs=1e-9)
    texture[0, :, 0] = 0.8
    assert losses.texture_flatness(texture, mask).item() == pytest.approx(3 * 0.16 * 3 / 16)
    mask[:, :, 0] = 0
    assert losses.texture_flatness(texture, mask).item() == pytest.approx(0, abs=1e-9)


def test_contrast_wants_the_other_photograph():
    person = torch.tensor([0, 0, 1, 1])
    apart = torch.eye(2)[[0, 0, 1, 1]]
    mixed = torch.eye(2)[[0, 1, 0, 1]]
    assert losses.contrast(apart, person) < 0.01 < 5 < losses.contrast(mixed, person)


def test_identity_loss_and_its_file(tmp_path):
    torch.manual_seed(0)
    net = losses.IdentityNet().eval()
    torch.nn.init.zeros_(net.project.bias)  # untrained, it would outweigh what the pictures say
    path = tmp_path / "identity.pt"
    with pytest.raises(FileNotFoundError, match="train identity"):
        losses.IdentityNet.load(path)
    path.write_bytes(b"?")
    with pytest.raises(ValueError, match="does not hold"):
        losses.IdentityNet.load(path)
    net.save(path)
    assert path.stat().st_size < 5e6
    frozen = losses.IdentityNet.load(path)
    photo = torch.rand(2, 3, 112, 112, generator=gen())
    assert torch.allclose(net(photo), frozen(photo), atol=2e-2)
    assert torch.allclose(frozen(photo).norm(dim=1), torch.ones(2), atol=1e-5)
    image = torch.rand(2, 3, 112, 112, generator=gen(1)).requires_grad_()
    loss = losses.identity(image, photo, frozen)
    loss.backward()
    assert loss > losses.identity(photo, photo, frozen)
    assert image.grad.abs().sum() > 0
    assert all(p.grad is None for p in frozen.parameters())


def test_what_landmarks_cannot_see(flame):
    """Depth: a flattened face has the same frontal landmarks."""
    marks = flame.landmarks(flame())[..., :2]
    flat = flame.landmarks(flame() * torch.tensor([1, 1, 0.5]))[..., :2]
    assert losses.landmark_loss(flat, marks, 1.0).item() == pytest.approx(0, abs=1e-6)


def test_what_pixels_cannot_see(flame):
    """Twice the light on half the albedo."""
    from course.render import Renderer

    renderer, code = Renderer(flame, 32), FaceCode.zeros(flame)
    vertices, albedo = flame(), flame.albedo()
    one = renderer(vertices, code.camera, albedo, code.light)
    two = renderer(vertices, code.camera, albedo / 2, 2 * code.light)
    assert losses.photometric_l1(one.image, two.image, one.mask).item() < 1e-6
