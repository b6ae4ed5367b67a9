"""How real does it look? Spectra, kernel distance, coverage, and distance in features.

A picture can be near its truth and look wrong, or look right and be far from it. These say how a
set of pictures differs from a set of real ones; ``metrics`` says how far a picture is from its own
truth.
"""

import torch
import torch.nn.functional as F

# ------------------------------------------------------------------ pixels


def power_spectrum(images):
    """Power (N, S/2) of square pictures (N, C, S, S) at 1, 2 … S/2 waves a picture.

    |DFT|² of picture minus mean under a Hann window, averaged over rings and channels; white noise
    of variance σ² has σ² everywhere. Photographs fall as about 1/f² (Field 1987).
    """
    side = images.shape[-1]
    if images.ndim != 4 or images.shape[-2] != side or side < 8:
        raise ValueError(f"Square pictures (N, C, S, S), S ≥ 8, are needed, not "
                         f"{tuple(images.shape)}.")  # fmt: skip
    line = torch.hann_window(side, device=images.device)
    window = line[:, None] * line
    power = torch.fft.fft2((images - images.mean((2, 3), keepdim=True)) * window).abs().square()
    power = (power / window.square().sum()).mean(1).flatten(1)
    waves = torch.fft.fftfreq(side, 1 / side, device=images.device)
    ring = (waves[:, None].square() + waves.square()).sqrt().round().long().flatten()
    total = images.new_zeros(len(images), int(ring.max()) + 1).index_add_(1, ring, power)
    return (total / torch.bincount(ring))[:, 1 : side // 2 + 1]


def detail_gap(images, real, low=0.25):
    """Decibels by which fine detail has more power than in real pictures; below 0: too smooth.

    Mean of 10 log₁₀(P / P_real), P a set's mean spectrum, from ``low`` of its frequencies on.
    """
    ours, theirs = power_spectrum(images).mean(0), power_spectrum(real).mean(0)
    start = int(low * len(ours))
    return (10 * (ours / theirs).log10())[start:].mean().item()


def sharpness(images, mask=None):
    """Mean slope (N,) between neighbouring pixels of pictures (N, C, H, W), inside a mask."""
    across = images[..., :-1, 1:] - images[..., :-1, :-1]
    down = images[..., 1:, :-1] - images[..., :-1, :-1]
    slope = (across.square() + down.square()).mean(1).sqrt()
    if mask is None:
        return slope.mean((1, 2))
    inside = mask[:, 0, :-1, :-1].expand_as(slope)
    return (slope * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1e-6)


# ------------------------------------------------------------------ features of a frozen network


def stages(network, images):
    """Maps of three stages of an ``IdentityNet``: 28, 14 and 7 cells a side of pictures at 112."""
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    x = F.interpolate(images, (112, 112), mode="bilinear", antialias=images.shape[-1] > 112)
    stem = network.votes.stem((x - 0.5) * 4)
    middle = network.votes.middle(stem)
    return stem, middle, network.votes.deep(middle)


def features(network, images, batch=100):
    """Features (N, C) of pictures: mean and spread over the picture of every channel, all stages.

    The network is frozen and was trained for something else (who is it?), which is the idea of the
    Fréchet and kernel inception distances; ours has only seen synthetic faces.
    """
    with torch.no_grad():
        parts = [
            torch.cat([f(m) for m in stages(network, part)
                       for f in (lambda m: m.mean((2, 3)), lambda m: m.std((2, 3)))], 1)
            for part in images.split(batch)
        ]  # fmt: skip
    return torch.cat(parts)


def feature_distance(network, images, truth):
    """Mean squared difference of unit feature vectors at every place and stage: a number.

    LPIPS (Zhang et al. 2018) without its learned weights, on our own network. Has a gradient, so
    it can be a loss.
    """
    pairs = zip(stages(network, images), stages(network, truth), strict=True)
    gaps = [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean()
            for a, b in pairs]  # fmt: skip
    return sum(gaps) / len(gaps)


# ------------------------------------------------------------------ sets against sets


def kernel_distance(made, real):
    """Squared maximum mean discrepancy of features (n, C) and (m, C), unbiased: a number.

    Kernel inception distance (Bińkowski et al. 2018) with its kernel k(a, b) = (a·b/C + 1)³. Each
    feature is first measured in standard deviations of the real ones. Around zero, below zero too,
    for two samples of one distribution.
    """
    middle, spread = real.mean(0), real.std(0).clamp_min(1e-6)
    made, real = ((x - middle).div(spread).double() for x in (made, real))

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a):
        k, n = kernel(a, a), len(a)
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    return (within(made) + within(real) - 2 * kernel(made, real).mean()).item()


def precision_recall(made, real, k=3):
    """Share of made features among the real ones, and of real among the made (two numbers).

    Precision is quality, recall diversity (Kynkäänniemi et al. 2019): a point is among a set if it
    is nearer to one of its points than that one's k-th neighbour is.
    """

    def among(points, others):
        reach = torch.cdist(others, others).kthvalue(k + 1, 1).values  # the nearest is itself
        return (torch.cdist(points, others) <= reach).any(1).float().mean().item()

    return among(made, real), among(real, made)
