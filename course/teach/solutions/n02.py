"""Notebook 02, the encoder: exercises and questions."""

import torch
import torch.nn.functional as F
from torch import nn

from course.teach.solutions import solution


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ 2.1 convolution


def _convolution_cases():
    g = _generator()
    step = torch.tensor([[[0.0, 0, 1], [0, 0, 1], [0, 0, 1]]])
    slope = torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]])
    return [
        (step, slope, 1, 0),
        (step, slope, 1, 1),
        (torch.rand(3, 5, 7, generator=g), torch.randn(2, 3, 3, 3, generator=g), 1, 1),
        (torch.rand(2, 9, 8, generator=g), torch.randn(4, 2, 5, 5, generator=g), 2, 2),
        (torch.rand(4, 6, 6, generator=g), torch.randn(3, 4, 1, 1, generator=g), 2, 0),
    ]


@solution(
    "2.1",
    cases=_convolution_cases,
    insight="One small set of weights serves every place of the picture: that is the whole trick.",
    hint="Pad first. For each offset (i, j) of the kernel take every stride-th pixel of the padded "
    "picture from there on, and add kernel[:, :, i, j] times it.",
    tolerance=1e-4,
)
def convolve(picture, kernels, stride, padding):
    size = kernels.shape[-1]
    padded = F.pad(picture, (padding,) * 4)
    rows = (padded.shape[1] - size) // stride + 1
    columns = (padded.shape[2] - size) // stride + 1
    out = picture.new_zeros(len(kernels), rows, columns)
    for i in range(size):
        for j in range(size):
            seen = padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            out = out + torch.einsum("kc,chw->khw", kernels[:, :, i, j], seen[:, :rows, :columns])
    return out


# ------------------------------------------------------------------ 2.2 receptive field


def _field_cases():
    layers = [
        [(3, 1)],
        [(3, 1), (3, 1)],
        [(3, 2), (3, 1)],
        [(2, 2), (3, 2), (3, 1)],
        [(7, 2), (3, 2), (3, 1), (3, 1), (1, 2), (5, 3)],
        [],
    ]
    return [(case,) for case in layers]


@solution(
    "2.2",
    cases=_field_cases,
    insight="Kernels add, strides multiply: halving early is what makes a network see far.",
    hint="Keep two numbers: the field, and how far apart neighbours of the newest map are in the "
    "picture. A layer's stride counts for the layers after it.",
)
def receptive_field(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step *= stride
    return field


# ------------------------------------------------------------------ 2.3 residual block


def _residual_cases():
    g = _generator(1)
    one = torch.tensor([[[[2.0, -1.0]]]])
    unit = torch.zeros(1, 1, 3, 3)
    unit[..., 1, 1] = 1

    def block(channels, size):
        return (
            torch.randn(2, channels, size, size, generator=g),
            0.3 * torch.randn(channels, channels, 3, 3, generator=g),
            0.3 * torch.randn(channels, channels, 3, 3, generator=g),
        )

    return [(one, unit, -2 * unit + 0.0), (one, unit, 0 * unit), block(3, 5), block(8, 4)]


@solution(
    "2.3",
    cases=_residual_cases,
    insight="With the second convolution at zero the block passes its input on: depth costs "
    "nothing to begin with.",
    hint="Both convolutions with padding=1; one relu between them, and one after the sum.",
    tolerance=1e-4,
)
def residual(x, first, second):
    inner = F.relu(F.conv2d(x, first, padding=1))
    return F.relu(x + F.conv2d(inner, second, padding=1))


# ------------------------------------------------------------------ 2.4 outputs to codes


def _decode_cases():
    g = _generator(2)
    small = {"camera": 3, "pose": 2}
    sizes = {"shape": 4, "camera": 3, "light": 27}
    return [
        (
            torch.tensor([[0.0, 0, 0, 1, -1]]),
            torch.tensor([9.0, 0, 0, 0, 0]),
            torch.tensor([2.0, 0.1, 0.1, 0.3, 0.3]),
            small,
        ),
        (
            torch.randn(5, 34, generator=g),
            torch.randn(34, generator=g),
            torch.rand(34, generator=g) + 0.1,
            sizes,
        ),
    ]


@solution(
    "2.4",
    cases=_decode_cases,
    insight="At output zero every picture shows the start, and a step of one is one usual step.",
    hint="First values = start + scale · outputs, then split the columns in the order of sizes.",
)
def decode(outputs, start, scale, sizes):
    values = start + scale * outputs
    return dict(zip(sizes, values.split(list(sizes.values()), 1), strict=True))


# ------------------------------------------------------------------ 2.5 find the bug: eval()


def _network(width, seed):
    """A tiny encoder whose BatchNorm has seen other pictures; in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4),
        )  # fmt: skip
        for _ in range(5):
            net(torch.rand(16, 3, 8, 8) * 2 - 0.5)
    return net.train()


def _predict_cases():
    g = _generator(3)
    return [
        (_network(4, 0), torch.rand(3, 8, 8, generator=g)),
        (_network(6, 1), torch.rand(3, 8, 12, generator=g) * 0.2),
        (_network(4, 2).eval(), torch.rand(3, 8, 8, generator=g)),
    ]


def _run_predict(function, model, image):
    """What comes out, what comes out the second time, and what it did to BatchNorm's memory."""
    return {
        "the answer": function(model, image),
        "the answer when asked again": function(model, image),
        "BatchNorm's mean afterwards": model[1].running_mean,
        "BatchNorm's variance afterwards": model[1].running_var,
    }


def faulty_predict_one(model, image):
    """The prediction as exercise 2.5 prints it."""
    with torch.no_grad():
        return model(image.unsqueeze(0))[0].numpy()


@solution(
    "2.5",
    cases=_predict_cases,
    run=_run_predict,
    insight="In training mode BatchNorm normalises by the batch, which here is the picture itself, "
    "and every prediction also rewrites its memory.",
    hint="no_grad stops gradients. What tells BatchNorm that training is over?",
    bug=faulty_predict_one,
    tolerance=1e-4,
)
def predict_one(model, image):
    model.eval()
    with torch.no_grad():
        return model(image.unsqueeze(0))[0].numpy()


QUESTIONS = {
    "2.q1": {
        "answer": "b",
        "a": "No: the kernel has 3 · 3 · 3 = 27 weights for each of 32 outputs, at any size.",
        "b": "Right: 3 · 3 weights, 3 input channels, 32 kernels. The picture's size is not in it.",
        "c": "No: that would be one weight for each pixel of each output map.",
    },
    "2.q2": {
        "answer": "c",
        "a": "No: they are larger than those of the net with a way around, and point nowhere.",
        "b": "No: it fails on the training pictures themselves, so this is no overfitting.",
        "c": "Yes: the deeper net could copy the shallow one, but descent finds it late. "
        "The way around makes copying the starting point.",
    },
    "2.q3": {
        "answer": "a",
        "a": "Right: an error of zero on what it has seen shows that code, loss and descent work.",
        "b": "No: held-out faces stayed where the mean face is, or became worse.",
        "c": "No: a small network does it too, which is what makes it a test of the code.",
    },
    "2.q4": {
        "answer": "b",
        "a": "No: all members share the pictures, the basis and the loss; errors they share do "
        "not show.",
        "b": "Yes: where the members agree on something wrong, the spread is small and says "
        "nothing.",
        "c": "No: agreement does not make an answer wrong; it says little either way.",
    },
}
