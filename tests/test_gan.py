import pytest
import torch
from torch import nn

from course import gan


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=4, channels=1, size=28, seed=0):
    return torch.rand(count, channels, size, size, generator=seeded(seed))


# ------------------------------------------------------------------ losses


def test_losses_are_their_formulas():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([-3.0, 0.5])
    sigma = torch.sigmoid
    wanted = -(sigma(real).log().mean() + (1 - sigma(fake)).log().mean())
    for kind in ("saturating", "non-saturating"):
        assert gan.discriminator_loss(real, fake, kind).item() == pytest.approx(wanted.item())
    saturating = (1 - sigma(fake)).log().mean().item()
    assert gan.generator_loss(fake, "saturating").item() == pytest.approx(saturating)
    assert gan.generator_loss(fake).item() == pytest.approx(-sigma(fake).log().mean().item())
    assert gan.discriminator_loss(real, fake, "hinge").item() == pytest.approx(1.0 + 0.75)
    assert gan.generator_loss(fake, "hinge").item() == pytest.approx(1.25)


def test_losses_stay_finite_where_the_discriminator_is_sure():
    sure = torch.tensor([1000.0])
    for kind in gan.KINDS:
        assert gan.generator_loss(-sure, kind).isfinite()
        assert gan.discriminator_loss(-sure, sure, kind).isfinite()


def test_slopes_where_the_discriminator_is_sure():
    """The saturating loss has none, the others the full one."""
    slopes = {}
    for kind in gan.KINDS:
        fake = torch.tensor([-20.0], requires_grad=True)
        gan.generator_loss(fake, kind).backward()
        slopes[kind] = -fake.grad.item()
    assert 0 < slopes["saturating"] < 1e-6
    assert slopes["non-saturating"] == pytest.approx(1, abs=1e-4)
    assert slopes["hinge"] == 1


def test_unknown_losses():
    for call in (gan.generator_loss, lambda f, k: gan.discriminator_loss(f, f, k)):
        with pytest.raises(ValueError, match="no loss 'wgan'"):
            call(torch.zeros(1), "wgan")


def test_r1_of_a_plane_is_its_slope():
    """D(x) = a·x has the slope a everywhere; over patches it is that of their mean."""
    plane = nn.Linear(2, 1)
    points = torch.randn(7, 2, generator=seeded())
    penalty = gan.r1_penalty(plane, points)
    assert penalty.item() == pytest.approx(0.5 * plane.weight.square().sum().item())
    penalty.backward()
    assert torch.allclose(plane.weight.grad, plane.weight)
    patches = nn.Conv2d(1, 1, 2, 2)  # four patches of a 4 × 4 picture
    by_hand = 0.5 * patches.weight.square().sum().item() / 4
    assert gan.r1_penalty(patches, pictures(3, 1, 4)).item() == pytest.approx(by_hand)


# ------------------------------------------------------------------ the average


def test_average_is_its_recursion():
    model = nn.Linear(1, 1, bias=False)
    average = gan.EMA(model, decay=0.5)
    value = model.weight.item()
    for step, weight in enumerate((1.0, 3.0, -2.0, 8.0), 1):
        nn.init.constant_(model.weight, weight)
        average.update(model)
        keep = min(0.5, (1 + step) / (10 + step))
        value = keep * value + (1 - keep) * weight
        assert average.model.weight.item() == pytest.approx(value, rel=1e-5)
    assert not average.model.training
    assert not average.model.weight.requires_grad
    with pytest.raises(ValueError, match="decay is from 0"):
        gan.EMA(model, 1.0)


def test_average_keeps_the_statistics_of_batch_norm():
    model = gan.MLPGenerator(latent=4, size=8)
    average = gan.EMA(model, 0.9)
    model(torch.randn(16, 4, generator=seeded()))
    average.update(model)
    found, before = average.model.layers[3], model.layers[3]
    assert found.num_batches_tracked == 1
    assert not torch.equal(found.running_mean, torch.zeros(256))
    assert not torch.equal(found.running_mean, before.running_mean)


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize("size", [28, 32, 48])
@pytest.mark.parametrize("build", [gan.MLPGenerator, gan.DCGenerator])
def test_generators(build, size):
    images = build(latent=10, size=size, channels=3)(torch.randn(2, 10, generator=seeded()))
    assert images.shape == (2, 3, size, size)
    assert images.min() >= 0
    assert images.max() <= 1


def test_the_tutorials_networks_have_its_sizes():
    widths = [m.out_features for m in gan.MLPGenerator().layers if isinstance(m, nn.Linear)]
    assert widths == [128, 256, 512, 1024, 784]
    linear = [m for m in gan.MLPDiscriminator().layers if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linear] == [784, 512, 256]


@pytest.mark.parametrize("build", [gan.MLPDiscriminator, gan.DCDiscriminator])
def test_discriminators(build):
    for norm in ("spectral", None):
        assert build(size=28, channels=1, norm=norm)(pictures()).shape == (4, 1)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_patch_sees_as_much_as_it_says(layers):
    """One logit's slope on the picture is zero beyond its receptive field, and not within."""
    torch.manual_seed(0)
    net = gan.PatchDiscriminator(1, 4, layers, norm=None)
    assert net.receptive_field == {1: 16, 2: 34, 3: 70}[layers]
    image = pictures(1, 1, 160).requires_grad_()
    verdict = net(image)
    middle = verdict.shape[-1] // 2
    verdict[0, 0, middle, middle].backward()
    rows = image.grad[0, 0].abs().amax(1).nonzero()
    assert (rows.max() - rows.min() + 1).item() == net.receptive_field


@pytest.mark.parametrize("norm", ["spectral", "batch", "instance", None])
@pytest.mark.parametrize("size", [(32, 32), (57, 80)])
def test_patches_of_any_size(norm, size):
    net = gan.PatchDiscriminator(2, 8, norm=norm)
    verdict = net(torch.rand(2, 2, *size, generator=seeded()))
    assert verdict.shape[:2] == (2, 1)
    assert min(verdict.shape[2:]) >= 2
    for wrong in ((2, 3, 40, 40), (2, 2, 31, 64)):
        with pytest.raises(ValueError, match="32 pixels"):
            net(torch.zeros(wrong))


def test_spectral_norm_leaves_no_layer_steeper_than_one():
    torch.manual_seed(0)
    net = gan.MLPDiscriminator(norm="spectral")
    for _ in range(40):  # each pass is one step of the power iteration
        net(pictures())
    for layer in net.layers[::2]:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.02)


def test_transposed_convolutions_reach_every_pixel_equally():
    """No checkerboard at the start: with all weights alike the inside of the map is even."""
    layer = gan.DCGenerator(latent=4).layers[2]
    nn.init.ones_(layer.weight)
    inside = layer(torch.ones(1, layer.in_channels, 7, 7))[0, 0, 2:-2, 2:-2]
    assert inside.std() < 1e-3 * inside.mean()


def test_bad_sizes_and_names():
    for size in (4, 30, 36, 9):
        with pytest.raises(ValueError, match="4 to 7 pixels"):
            gan.DCGenerator(size=size)
    for call, what in (
        (lambda: gan.DCGenerator(upsample="bilinear"), "no upsampling"),
        (lambda: gan.DCDiscriminator(norm="layer"), "no norm"),
        (lambda: gan.PatchDiscriminator(layers=5), "1, 2 or 3"),
    ):
        with pytest.raises(ValueError, match=what):
            call()


def test_both_players_losses_reach_their_own_weights():
    """Every weight gets a slope from its player's loss, with spectral norm and R1; no other's."""
    torch.manual_seed(0)
    judge = gan.PatchDiscriminator(1, 4, 1)
    real, z = pictures(4, 1, 56), torch.randn(4, 8, generator=seeded())
    generator = gan.DCGenerator(8, size=56, width=4)
    fake = generator(z)
    loss = gan.discriminator_loss(judge(real), judge(fake.detach()), "hinge")
    (loss + 10 * gan.r1_penalty(judge, real)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in judge.parameters())
    assert all(p.grad is None for p in generator.parameters())
    gan.generator_loss(judge(fake), "hinge").backward()
    assert all(p.grad.abs().sum() > 0 for p in generator.parameters() if p.ndim > 1)


@pytest.mark.parametrize("latent", [100, 128, 512])
def test_the_tutorials_generator_normalises_three_layers(latent):
    layers = gan.MLPGenerator(latent).layers
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in layers) == 3
    assert not isinstance(layers[1], nn.BatchNorm1d)
