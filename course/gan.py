"""Generative adversarial networks: generators, discriminators, what each wants, a slow average.

A generator makes pictures, a discriminator gives them logits: above zero it says "real", below
"made". Pictures are (N, C, H, W) in 0…1 everywhere. The game of Goodfellow et al. 2014, with what
was found to keep it going: DCGAN (Radford et al. 2016), verdicts on patches (Isola et al. 2017),
spectral norm (Miyato et al. 2018), R1 (Mescheder et al. 2018) and averaged generators.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from course.optim import running_average

KINDS = ("saturating", "non-saturating", "hinge")
LEAST_PATCH_SIDE = 32  # pixels: a patch discriminator halves up to three times

# ------------------------------------------------------------------ what each player wants


def generator_loss(fake_logits, kind="non-saturating"):
    """What the generator makes small; logits f = D(G(z)) of any shape.

    saturating       E log(1 − σ(f)), the minimax game: no slope where D is sure (f ≪ 0)
    non-saturating   −E log σ(f) (both Goodfellow et al. 2014)
    hinge            −E f (Lim and Ye 2017; Miyato et al. 2018)
    Raises ValueError for any other kind.
    """
    if kind == "saturating":
        return -F.softplus(fake_logits).mean()
    if kind == "non-saturating":
        return F.softplus(-fake_logits).mean()
    if kind == "hinge":
        return -fake_logits.mean()
    raise ValueError(f"There is no loss {kind!r}; there are {', '.join(KINDS)}.")


def discriminator_loss(real_logits, fake_logits, kind="non-saturating"):
    """What the discriminator makes small; logits r = D(x) and f = D(G(z)) of any shape.

    −E log σ(r) − E log(1 − σ(f)), and for "hinge" E max(0, 1 − r) + E max(0, 1 + f).
    f must come from pictures that were detached, or from no_grad: this is not the generator's
    loss. Raises ValueError for an unknown kind.
    """
    if kind == "hinge":
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    if kind in KINDS:
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    raise ValueError(f"There is no loss {kind!r}; there are {', '.join(KINDS)}.")


def r1_penalty(discriminator, real):
    """½ E ‖∇ₓ D(x)‖² on real pictures (N, …), D the mean of a picture's logits; times γ it is R1.

    Mescheder et al. 2018: where the data is, the discriminator should be flat. ``real`` may be
    anything that the discriminator takes, points (N, 2) too.
    """
    real = real.detach().requires_grad_()
    verdict = discriminator(real).flatten(1).mean(1).sum()
    (slope,) = torch.autograd.grad(verdict, real, create_graph=True)
    return 0.5 * slope.square().flatten(1).sum(1).mean()


class EMA:
    """A running average of a model's weights, see ``optim.running_average``.

    ``model`` is the average, in eval mode and without gradients: use it as the model itself.
    """

    def __init__(self, model, decay=0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"A decay is from 0 to below 1, not {decay}.")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0

    def update(self, model):
        """Move the average towards ``model``, after each of its steps."""
        self.steps += 1
        running_average(self.model, model, self.steps, self.decay, early=(1, 10))


# ------------------------------------------------------------------ the tutorial's networks


class MLPGenerator(nn.Module):
    """The tutorial's: noise (N, latent) → 128 → 256 → 512 → 1024 → pictures (N, C, size, size).

    Fully connected: no layer knows which pixels are neighbours.
    """

    def __init__(self, latent=100, size=28, channels=1):
        super().__init__()
        self.latent, self.shape = latent, (channels, size, size)
        layers, inputs = [], latent
        for width in (128, 256, 512, 1024):
            layers.append(nn.Linear(inputs, width))
            if len(layers) > 1:
                layers.append(nn.BatchNorm1d(width))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, math.prod(self.shape)))

    def forward(self, z):
        return (self.layers(z).tanh().view(-1, *self.shape) + 1) / 2


class MLPDiscriminator(nn.Module):
    """The tutorial's: pictures (N, C, size, size) → 512 → 256 → one logit (N, 1).

    ``norm``: "spectral", or None.
    """

    def __init__(self, size=28, channels=1, norm=None):
        super().__init__()
        if norm not in ("spectral", None):
            raise ValueError(f"The mlp discriminator takes spectral norm or none, not {norm!r}.")
        normed = _norm(norm)
        layers, inputs = [], channels * size * size
        for width in (512, 256):
            layers += [normed(nn.Linear(inputs, width)), nn.LeakyReLU(0.2, inplace=True)]
            inputs = width
        self.layers = nn.Sequential(*layers, normed(nn.Linear(inputs, 1)))

    def forward(self, images):
        return self.layers(2 * images.flatten(1) - 1)


# ------------------------------------------------------------------ convolutional networks


class DCGenerator(nn.Module):
    """Noise (N, latent) → a small map → doubled until (N, C, size, size) (Radford et al. 2016).

    width     channels of the last map but the picture; each map before has twice as many
    upsample  "transposed": convolutions with stride 2 and kernel 4, which 2 divides, so that every
              pixel is reached equally often; "resize": nearest neighbour, then 3 × 3 (Odena et al.
              2016)
    size      is 2ᵏ times 4 to 7
    """

    def __init__(self, latent=100, size=28, channels=1, width=32, upsample="transposed"):
        super().__init__()
        self.latent, self.side = latent, _first_side(size)
        doublings = int(math.log2(size // self.side))
        self.widths = [width * 2**k for k in reversed(range(doublings))]
        first = 2 * self.widths[0]
        self.start = nn.Linear(latent, first * self.side**2)
        layers, inputs = [nn.BatchNorm2d(first), nn.ReLU(inplace=True)], first
        for outputs in self.widths:
            layers += [_doubling(inputs, outputs, upsample), nn.BatchNorm2d(outputs),
                       nn.ReLU(inplace=True)]  # fmt: skip
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, channels, 3, 1, 1))
        _dcgan_start(self)

    def forward(self, z):
        x = self.start(z).view(len(z), -1, self.side, self.side)
        return (self.layers(x).tanh() + 1) / 2


class DCDiscriminator(nn.Module):
    """Pictures (N, C, size, size) → halved until 4 to 7 pixels a side → one logit (N, 1).

    norm: "batch" as in the paper (never on the first map), "spectral", or None.
    """

    def __init__(self, size=28, channels=1, width=32, norm="batch"):
        super().__init__()
        side = _first_side(size)
        layers, inputs = [], channels
        for k in range(int(math.log2(size // side))):
            outputs = width * 2**k
            layers += _halving(inputs, outputs, norm, first=k == 0)
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.verdict = _norm(norm)(nn.Linear(inputs * side**2, 1))
        _dcgan_start(self)

    def forward(self, images):
        return self.verdict(self.layers(2 * images - 1).flatten(1))


class PatchDiscriminator(nn.Module):
    """Pictures (N, C, H, W) of any size from 32 → a logit for each patch (N, 1, h, w).

    The discriminator of pix2pix (Isola et al. 2017): every logit sees ``receptive_field`` pixels a
    side and no more, so it judges skin, edges and noise, and leaves the whole face to other losses.

    channels  of the pictures · width  channels of the first map, doubled by each layer up to 8
    times · layers  1, 2 or 3 halvings: patches of 16, 34 or 70 pixels
    norm      "spectral", "batch", "instance" or None
    Raises ValueError for pictures of other channels, or below 32 pixels a side.
    """

    def __init__(self, channels=3, width=64, layers=3, norm="spectral"):
        super().__init__()
        if layers not in (1, 2, 3):
            raise ValueError(f"A patch discriminator has 1, 2 or 3 halvings, not {layers}.")
        self.channels, stages, inputs = channels, [], channels
        for k in range(layers + 1):
            outputs = width * min(2**k, 8)
            stages += _halving(inputs, outputs, norm, first=k == 0, stride=2 if k < layers else 1)
            inputs = outputs
        self.layers = nn.Sequential(*stages, _norm(norm)(nn.Conv2d(inputs, 1, 4, 1, 1)))
        _dcgan_start(self)

    def forward(self, images):
        if images.shape[1] != self.channels or min(images.shape[2:]) < LEAST_PATCH_SIDE:
            raise ValueError(f"Pictures are (N, {self.channels}, H, W), {LEAST_PATCH_SIDE} pixels "
                             f"a side or more, not {tuple(images.shape)}.")  # fmt: skip
        return self.layers(2 * images - 1)

    @property
    def receptive_field(self):
        """Pixels a side of what one logit sees."""
        seen = 1
        for layer in reversed(self.layers):
            if isinstance(layer, nn.Conv2d):
                seen = (seen - 1) * layer.stride[0] + layer.kernel_size[0]
        return seen


# ------------------------------------------------------------------ parts


def _first_side(size):
    """The side, 4 to 7 pixels, that doubles up to ``size``."""
    side = size
    while side > 7 and side % 2 == 0:
        side //= 2
    if not 4 <= side <= 7 or side == size:
        raise ValueError(f"Pictures have 2, 4, 8, … times 4 to 7 pixels a side (28, 32, 64), "
                         f"not {size}.")  # fmt: skip
    return side


def _norm(norm):
    """What is done to a layer's weights."""
    if norm not in ("spectral", "batch", "instance", None):
        raise ValueError(f"There is no norm {norm!r}; there are spectral, batch, instance, None.")
    return spectral_norm if norm == "spectral" else nn.Identity()


def _doubling(inputs, outputs, upsample):
    if upsample == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
    if upsample == "resize":
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, 1, 1))
    raise ValueError(f"There is no upsampling {upsample!r}; there are transposed and resize.")


def _halving(inputs, outputs, norm, first, stride=2):
    """A 4 × 4 convolution, normalised (activations of the first map never are), LeakyReLU."""
    layers = [_norm(norm)(nn.Conv2d(inputs, outputs, 4, stride, 1))]
    if norm == "batch" and not first:
        layers.append(nn.BatchNorm2d(outputs))
    if norm == "instance" and not first:
        layers.append(nn.InstanceNorm2d(outputs, affine=True))
    return [*layers, nn.LeakyReLU(0.2, inplace=True)]


@torch.no_grad()
def _dcgan_start(model):
    """Weights from N(0, 0.02²), scales of norms from N(1, 0.02²) (Radford et al. 2016)."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            if not nn.utils.parametrize.is_parametrized(module):  # spectral norm divides it out
                module.weight.normal_(0, 0.02)
        elif isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)):
            module.weight.normal_(1, 0.02)
