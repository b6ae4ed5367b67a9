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


def transposed(picture, kernels, stride, padding):
    """x for y in the kernel."""
    return F.conv2d(picture[None], kernels.transpose(2, 3), None, stride, padding)[0]


def border_repeated(picture, kernels, stride, padding):
    padded = F.pad(picture[None], (padding,) * 4, mode="replicate")
    return F.conv2d(padded, kernels, None, stride)[0]


def slices_too_short(picture, kernels, stride, padding):
    """The slices end after as many pixels as the map has numbers, whatever the stride."""
    padded, size = F.pad(picture, (padding,) * 4), kernels.shape[-1]
    rows, columns = ((n - size) // stride + 1 for n in padded.shape[1:])
    out = torch.zeros(len(kernels), rows, columns)
    for i in range(size):
        for j in range(size):
            seen = padded[:, i : i + rows : stride, j : j + columns : stride]
            out += torch.einsum("kc,chw->khw", kernels[:, :, i, j], seen)
    return out


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


def half_kernels(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += kernel // 2 * step
        step *= stride
    return field


def strides_added(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step += stride
    return field


def newest_stride_only(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step = stride
    return field


def returned_too_early(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
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


def padding_left_out(x, first, second):
    return F.relu(x + F.conv2d(F.relu(F.conv2d(x, first)), second))


def way_around_one_layer(x, first, second):
    inner = F.relu(F.conv2d(x, first, padding=1))
    return F.relu(inner + F.conv2d(inner, second, padding=1))


def order_exchanged(x, first, second):
    inner = F.relu(F.conv2d(x, second, padding=1))
    return F.relu(x + F.conv2d(inner, first, padding=1))


def added_in_place(x, first, second):
    x += F.conv2d(F.relu(F.conv2d(x, first, padding=1)), second, padding=1)
    return F.relu(x)


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


def by_alphabet(outputs, start, scale, sizes):
    parts = (start + scale * outputs).split([sizes[name] for name in sorted(sizes)], 1)
    return dict(zip(sorted(sizes), parts, strict=True))


def split_rows(outputs, start, scale, sizes):
    parts = (start + scale * outputs).split(list(sizes.values()))
    return dict(zip(sizes, parts, strict=True))


def equal_pieces(outputs, start, scale, sizes):
    parts = (start + scale * outputs).chunk(len(sizes), 1)
    return dict(zip(sizes, parts, strict=True))


def the_other_way(outputs, start, scale, sizes):
    parts = ((outputs - start) / scale).split(list(sizes.values()), 1)
    return dict(zip(sizes, parts, strict=True))


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


def memory_frozen(model, image):
    """Nothing is rewritten any more, but the picture is still its own mean."""
    model[1].momentum = 0
    with torch.no_grad():
        return model(image.unsqueeze(0))[0].numpy()


def memory_off(model, image):
    model.eval()
    model[1].running_mean = model[1].running_var = None
    with torch.no_grad():
        return model(image.unsqueeze(0))[0].numpy()


def warmed_up(model, image):
    """Training mode until the memory has got used to the picture."""
    with torch.no_grad():
        for _ in range(20):
            model(image.unsqueeze(0))
    return eval_afterwards(model.eval(), image)


def gradients_kept(model, image):
    model.eval()
    return model(image.unsqueeze(0))[0].numpy()


WRONG = {
    "2.1": [flipped, stride_forgotten, padding_forgotten, channels_apart, batch_left_in, transposed,
            border_repeated, slices_too_short],
    "2.2": [strides_forgotten, kernels_multiplied, stride_too_early, kernel_not_less_one,
            half_kernels, strides_added, newest_stride_only, returned_too_early],
    "2.3": [no_way_around, relu_before_the_sum, nothing_between, relu_of_the_input,
            padding_left_out, way_around_one_layer, order_exchanged, added_in_place],
    "2.4": [scaled_start, without_start, without_scale, always_from_the_front, by_alphabet,
            split_rows, equal_pieces, the_other_way],
    "2.5": [eval_afterwards, two_copies, batch_kept, memory_erased, memory_frozen, memory_off,
            warmed_up, gradients_kept],
}  # fmt: skip
