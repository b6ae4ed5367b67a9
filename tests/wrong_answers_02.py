"""Answers to notebook 02's exercises that a learner could give, and that are wrong."""

import torch
import torch.nn.functional as F


def flipped(picture, kernels, stride, padding):
    """The convolution of signal processing, with the kernel turned round."""
    return F.conv2d(picture[None], kernels.flip(2, 3), None, stride, padding)[0]


def stride_forgotten(picture, kernels, stride, padding):
    return F.conv2d(picture[None], kernels, None, 1, padding)[0]


def padding_forgotten(picture, kernels, stride, padding):
    return F.conv2d(picture[None], kernels, None, stride)[0]


def channels_apart(picture, kernels, stride, padding):
    """The first colour only."""
    return F.conv2d(picture[None, :1], kernels[:, :1], None, stride, padding)[0]


def batch_left_in(picture, kernels, stride, padding):
    return F.conv2d(picture[None], kernels, None, stride, padding)


def strides_forgotten(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def kernels_multiplied(layers):
    field = 1
    for kernel, _ in layers:
        field *= kernel
    return field


def stride_too_early(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        field += (kernel - 1) * step
    return field


def kernel_not_less_one(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += kernel * step
        step *= stride
    return field


def no_way_around(x, first, second):
    return F.relu(F.conv2d(F.relu(F.conv2d(x, first, padding=1)), second, padding=1))


def relu_before_the_sum(x, first, second):
    return x + F.relu(F.conv2d(F.relu(F.conv2d(x, first, padding=1)), second, padding=1))


def nothing_between(x, first, second):
    return F.relu(x + F.conv2d(F.conv2d(x, first, padding=1), second, padding=1))


def relu_of_the_input(x, first, second):
    inner = F.relu(F.conv2d(x, first, padding=1))
    return F.relu(x) + F.conv2d(inner, second, padding=1)


def scaled_start(outputs, start, scale, sizes):
    parts = (scale * (start + outputs)).split(list(sizes.values()), 1)
    return dict(zip(sizes, parts, strict=True))


def without_start(outputs, start, scale, sizes):
    return dict(zip(sizes, (scale * outputs).split(list(sizes.values()), 1), strict=True))


def without_scale(outputs, start, scale, sizes):
    return dict(zip(sizes, (start + outputs).split(list(sizes.values()), 1), strict=True))


def always_from_the_front(outputs, start, scale, sizes):
    values = start + scale * outputs
    return {name: values[:, :size] for name, size in sizes.items()}


def eval_afterwards(model, image):
    with torch.no_grad():
        out = model(image.unsqueeze(0))[0].numpy()
    model.eval()
    return out


def two_copies(model, image):
    """BatchNorm wants a batch, so it gets one."""
    with torch.no_grad():
        return model(torch.stack([image, image]))[0].numpy()


def batch_kept(model, image):
    model.eval()
    with torch.no_grad():
        return model(image.unsqueeze(0)).numpy()


def memory_erased(model, image):
    """Statistics of zero and one, as before any training."""
    model.eval()
    model[1].reset_running_stats()
    with torch.no_grad():
        return model(image.unsqueeze(0))[0].numpy()


WRONG = {
    "2.1": [flipped, stride_forgotten, padding_forgotten, channels_apart, batch_left_in],
    "2.2": [strides_forgotten, kernels_multiplied, stride_too_early, kernel_not_less_one],
    "2.3": [no_way_around, relu_before_the_sum, nothing_between, relu_of_the_input],
    "2.4": [scaled_start, without_start, without_scale, always_from_the_front],
    "2.5": [eval_afterwards, two_copies, batch_kept, memory_erased],
}
