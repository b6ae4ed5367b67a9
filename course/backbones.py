"""Backbones: convolutional networks that turn a picture into features.

Written here with torchvision's parameter names and numerics, so that its weights (and those of
everybody who built on it) load strictly. Each is a row of named stages.
"""

import re
from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from course.landmarks import LandmarkNet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEAST_SIDE = 32  # pixels: every backbone halves the picture five times


def _conv(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def _named(**modules):
    return nn.Sequential(OrderedDict(modules))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions f with a way around them: relu(f(x) + x) (He et al. 2016).

    ``skip=False`` closes the way around: a block of the paper's plain network.
    """

    expansion = 1

    def __init__(self, inputs, width, stride=1, skip=True):
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _way_around(inputs, width, stride) if skip else None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y if self.downsample is None else y + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """A residual block that squeezes: 1×1 to ``width`` channels, 3×3, 1×1 to four times as many.

    The stride is in the 3×3 convolution, as in torchvision (the paper has it in the first 1×1).
    """

    expansion = 4

    def __init__(self, inputs, width, stride=1):
        super().__init__()
        outputs = self.expansion * width
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = _way_around(inputs, outputs, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def _way_around(inputs, outputs, stride):
    """The identity, or a 1×1 convolution where the block changes the size of what it is given."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _resnet(block, counts, **options):
    """A residual network's stages (He et al. 2016) with ``counts`` blocks in its four layers."""
    stages = {"conv1": _conv(3, 64, 7, 2), "bn1": nn.BatchNorm2d(64), "relu": nn.ReLU(),
              "maxpool": nn.MaxPool2d(3, 2, 1)}  # fmt: skip
    inputs = 64
    for k, count in enumerate(counts):
        width, blocks = 64 * 2**k, []
        for number in range(count):
            stride = 2 if k and not number else 1
            blocks.append(block(inputs, width, stride, **options))
            inputs = width * block.expansion
        stages[f"layer{k + 1}"] = nn.Sequential(*blocks)
    return stages


class DenseLayer(nn.Sequential):
    """What it is given, and ``growth`` new channels beside it (Huang et al. 2017)."""

    def __init__(self, inputs, growth=32):
        super().__init__(OrderedDict(
            norm1=nn.BatchNorm2d(inputs), relu1=nn.ReLU(inplace=True),
            conv1=_conv(inputs, 4 * growth, 1),
            norm2=nn.BatchNorm2d(4 * growth), relu2=nn.ReLU(inplace=True),
            conv2=_conv(4 * growth, growth, 3),
        ))  # fmt: skip

    def forward(self, x):
        return torch.cat([x, super().forward(x)], 1)


def _densenet(counts, growth=32):
    """DenseNet's stages (Huang et al. 2017): dense blocks with halving transitions between."""
    channels = 2 * growth
    stages = {"conv0": _conv(3, channels, 7, 2), "norm0": nn.BatchNorm2d(channels),
              "relu0": nn.ReLU(), "pool0": nn.MaxPool2d(3, 2, 1)}  # fmt: skip
    for k, count in enumerate(counts, 1):
        layers = {
            f"denselayer{i + 1}": DenseLayer(channels + i * growth, growth) for i in range(count)
        }
        stages[f"denseblock{k}"] = _named(**layers)
        channels += count * growth
        if k < len(counts):
            stages[f"transition{k}"] = _named(
                norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True),
                conv=_conv(channels, channels // 2, 1), pool=nn.AvgPool2d(2),
            )  # fmt: skip
            channels //= 2
    return {"features": _named(**stages, norm5=nn.BatchNorm2d(channels)), "relu": nn.ReLU()}


def _small_cnn(widths=(32, 64, 128, 256, 256)):
    """Five times: a 3×3 convolution that halves the picture, BatchNorm, ReLU."""
    inputs = (3, *widths)
    return {
        f"block{k + 1}": nn.Sequential(
            _conv(inputs[k], width, 3, 2), nn.BatchNorm2d(width), nn.ReLU()
        )
        for k, width in enumerate(widths)
    }


class PointVotes(LandmarkNet):
    """The landmark network, voting on more points and on their depth; what it sees as features.

    Features (N, 3K + C + 1568, 1, 1): of K points how far each is from where it usually is, ×10
    (−1…1 across the picture: right, down, towards the viewer); C channels that say what the whole
    picture looks like; a coarse map of 7×7 cells, for shading. That dense landmarks tell a face's
    form is from Wood et al. 2022.
    """

    points = 192  # the first 68 are the landmarks
    channels, cells_across, per_cell = 176, 7, 32
    sharp = 3 * points + channels  # features before the coarse map

    def __init__(self):
        super().__init__()
        self.vote[1] = nn.Conv2d(self.vote[1].in_channels, 4 * self.points, 1)
        nn.init.normal_(self.vote[1].weight, std=0.005)
        nn.init.zeros_(self.vote[1].bias)
        self.squeeze = nn.Sequential(
            _conv(self.channels, self.per_cell, 1), nn.BatchNorm2d(self.per_cell), nn.ReLU()
        )
        self.register_buffer("usual", torch.zeros(1, self.points, 3))

    def begin_as(self, trained, usual):
        """Start from a trained LandmarkNet; ``usual`` (K, 3) is where the points mostly are.

        New points begin to be looked for where the landmarks nearest to them are found.
        """
        own, given = self.state_dict(), trained.state_dict()
        same = {k: v for k, v in given.items() if own[k].shape == v.shape}
        near = torch.cdist(usual[:, :2], usual[:68, :2]).argmin(1)
        for name in ("vote.1.weight", "vote.1.bias"):
            votes = given[name].unflatten(0, (68, 4))[near].clone()
            votes[:, 3] = 0  # there it voted on its doubt, here it votes on depth
            same[name] = votes.flatten(0, 1)
        offset = usual[:, :2] - usual[near, :2]
        same["vote.1.bias"].view(-1, 4)[:, 1:3] += 2 * offset
        same["vote.1.bias"].view(-1, 4)[:, 3] = usual[:, 2]
        self.load_state_dict(own | same | {"usual": usual[None]})

    def forward(self, images):
        middle = self.middle(self.stem((images - 0.5) * 4))
        deep = self.deep(middle)
        high, wide = middle.shape[-2:]
        features = self.from_middle(middle) + F.interpolate(self.from_deep(deep), (high, wide))
        features = features + self.context(deep.mean((2, 3)))[:, :, None, None]
        votes = self.vote(F.relu(features)).flatten(2)
        with torch.autocast(votes.device.type, enabled=False):  # half a number is half a pixel here
            points = self._points(votes.float(), high, wide)
        coarse = F.adaptive_avg_pool2d(self.squeeze(deep), self.cells_across)
        parts = [points.flatten(1), deep.mean((2, 3)), coarse.flatten(1)]
        return torch.cat(parts, 1)[:, :, None, None]

    def _points(self, votes, high, wide):
        # by planes (N, K, cells), not by slices: their gradients need no zeros to be filled in
        sure, *places = votes.unflatten(1, (self.points, 4)).unbind(2)
        attention = (2 * sure).softmax(-1)
        x, y, z = ((place * attention).sum(-1) for place in places)
        middle_x, middle_y = (
            (torch.arange(n, device=votes.device) + 0.5) / n * 2 - 1 for n in (wide, high)
        )
        cells = torch.stack(torch.meshgrid(middle_x, middle_y, indexing="xy")).flatten(1)
        plane = torch.stack([x, y], -1) / 2 + attention @ cells.T
        return 10 * (torch.cat([plane, z.unsqueeze(-1)], -1) - self.usual)

    def where(self, features):
        """The points (N, K, 3) among features (N, 3K + …), −1…1 across the picture."""
        points = features[:, : 3 * self.points].unflatten(1, (self.points, 3))
        return points / 10 + self.usual


# name: how to build its stages, channels of its features
BACKBONES = {
    "small": (_small_cnn, 256),
    "resnet18": (partial(_resnet, BasicBlock, (2, 2, 2, 2)), 512),
    "resnet34": (partial(_resnet, BasicBlock, (3, 4, 6, 3)), 512),
    "plain34": (partial(_resnet, BasicBlock, (3, 4, 6, 3), skip=False), 512),
    "resnet50": (partial(_resnet, Bottleneck, (3, 4, 6, 3)), 2048),
    "densenet121": (partial(_densenet, (6, 12, 24, 16)), 1024),
    # the only one that looks for something in particular; takes colours as they are
    "points": (
        lambda: {"votes": PointVotes()},
        PointVotes.sharp + PointVotes.cells_across**2 * PointVotes.per_cell,
    ),
}


class FeatureExtractor(nn.Sequential):
    """Pictures (N, 3, H, W) in 0…1 → features (N, ``channels``), averaged over the last map.

    ``backbone`` is one of BACKBONES; the children are its stages, under torchvision's names.
    ``normalize`` subtracts ImageNet's mean colour and divides by its spread, which torchvision's
    weights expect and DECA's do not. Raises ValueError for an unknown backbone.
    """

    def __init__(self, backbone="resnet18", normalize=True):
        if backbone not in BACKBONES:
            raise ValueError(f"There is no backbone {backbone!r}; there are "
                             f"{', '.join(BACKBONES)}.")  # fmt: skip
        build, channels = BACKBONES[backbone]
        super().__init__(OrderedDict(build()))
        self.backbone, self.channels, self.normalize = backbone, channels, normalize
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015: the signal keeps its size through convolution and ReLU
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images):
        """Features (N, channels). Raises ValueError for anything but (N, 3, ≥32, ≥32) floats."""
        return super().forward(self._input(images)).mean((2, 3))

    def maps(self, images):
        """What each stage leaves of the pictures, {name: (N, C, h, w)}: to look inside."""
        x, found = self._input(images), {}
        for name, stage in self.named_children():
            parts = stage.named_children() if name == "features" else [(name, stage)]
            for part, module in parts:
                x = found[part] = module(x)
        return found

    def _input(self, images):
        good = torch.is_tensor(images) and images.is_floating_point() and images.ndim == 4
        if not good or images.shape[1] != 3 or min(images.shape[2:]) < LEAST_SIDE:
            kind = f"{images.dtype} {tuple(images.shape)}" if torch.is_tensor(images) else images
            raise ValueError(f"Pictures are (N, 3, H, W) floats in 0…1, at least {LEAST_SIDE} "
                             f"pixels a side; this is {kind}.")  # fmt: skip
        return (images - self.mean) / self.std if self.normalize else images

    def load_state_dict(self, state_dict, *args, **options):
        """As every module's, and torchvision's files load as they are.

        Their classifier (fc, classifier) is left out; old DenseNet files say norm.1 for norm1.
        """
        state = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name): tensor
            for name, tensor in state_dict.items()
            if not name.startswith(("fc.", "classifier."))
        }
        return super().load_state_dict(state, *args, **options)
