"""Answers to notebook 06's exercises that a learner could give, and that are wrong."""

import numpy as np
import torch


def _umeyama(source, target, centre=True, mirror=False, transposed=False, scale="umeyama"):
    p, q = source.mean(0), target.mean(0)
    a, b = (source - p, target - q) if centre else (source, target)
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    sign = 1.0 if mirror else np.sign(np.linalg.det(u) * np.linalg.det(vt))
    signs = np.array([1.0, sign])
    rotation = u @ np.diag(signs) @ vt
    rotation = rotation.T if transposed else rotation
    s = {
        "umeyama": (d * signs).sum() / (a**2).sum(1).mean(),
        "unsigned": d.sum() / (a**2).sum(1).mean(),
        "spread": b.std() / a.std(),
        "sum": (d * signs).sum() / (a**2).sum(),
    }[scale]
    return s, rotation, q - s * rotation @ p


def mirrors_allowed(source, target):
    return _umeyama(source, target, mirror=True, scale="unsigned")


def sign_forgotten_in_the_scale(source, target):
    return _umeyama(source, target, scale="unsigned")


def not_centred(source, target):
    return _umeyama(source, target, centre=False)


def turned_back(source, target):
    return _umeyama(source, target, transposed=True)


def scale_from_spreads(source, target):
    """Right without noise."""
    return _umeyama(source, target, scale="spread")


def sum_instead_of_mean(source, target):
    return _umeyama(source, target, scale="sum")


def shift_without_rotation(source, target):
    s, rotation, _ = _umeyama(source, target)
    return s, rotation, target.mean(0) - source.mean(0)


def matrix_instead_of_parts(source, target):
    s, rotation, t = _umeyama(source, target)
    return np.column_stack([s * rotation, t])


def x_not_reset(picture, x, y, l, gap):  # noqa: E741
    """The step is where it belongs, but only the first row of squares is drawn."""
    out = picture.copy()
    height, width = out.shape
    while y < height:
        while x < width:
            out[y : y + l, x : x + l] = 0
            x += l + gap
        y += l + gap
    return out


def step_still_inside(picture, x, y, l, gap):  # noqa: E741
    out = picture.copy()
    height, width = out.shape
    while y < height:
        left = x
        while left < width:
            for v in range(y, min(y + l, height)):
                out[v, left : left + l] = 0
                left += l + gap
        y += l + gap
    return out


def gap_as_period(picture, x, y, l, gap):  # noqa: E741
    out = picture.copy()
    for top in range(y, len(out), gap):
        for left in range(x, out.shape[1], gap):
            out[top : top + l, left : left + l] = 0
    return out


def squares_before_the_first(picture, x, y, l, gap):  # noqa: E741
    """The remainder has squares to the left of x and above y too."""
    out = picture.copy()
    v, u = np.indices(out.shape)
    out[((u - x) % (l + gap) < l) & ((v - y) % (l + gap) < l)] = 0
    return out


def never_ends(picture, x, y, l, gap):  # noqa: E741
    """y is stepped in the loop over x: a picture that begins beside the grid has no end."""
    out, turns = picture.copy(), 0
    while y < len(out):
        left = x
        while left < out.shape[1]:
            out[y : y + l, left : left + l] = 0
            left += l + gap
            y += l + gap
        turns += 1
        if turns > 1000:
            raise TimeoutError("this would go on for ever")
    return out


def changes_the_picture(picture, x, y, l, gap):  # noqa: E741
    for top in range(y, len(picture), l + gap):
        for left in range(x, picture.shape[1], l + gap):
            picture[top : top + l, left : left + l] = 0
    return picture


def _grid(size, x, y, l, d, both=True, invert=False, swap=False, side=None):  # noqa: E741
    at = torch.arange(size)
    x, y, l, d = (value[:, None] for value in (x, y, l, d))  # noqa: E741
    side = d - l if side is None else l
    across, down = (at - x) % d < side, (at - y) % d < side
    if swap:
        across, down = down, across
    pair = down[:, :, None], across[:, None, :]
    hidden = (pair[0] & pair[1]) if both else (pair[0] | pair[1])
    return hidden.float() if invert else 1 - hidden.float()


def either_hides(size, x, y, l, d):  # noqa: E741
    return _grid(size, x, y, l, d, both=False)


def hidden_instead_of_kept(size, x, y, l, d):  # noqa: E741
    return _grid(size, x, y, l, d, invert=True)


def rows_for_columns(size, x, y, l, d):  # noqa: E741
    return _grid(size, x, y, l, d, swap=True)


def squares_of_l(size, x, y, l, d):  # noqa: E741
    return _grid(size, x, y, l, d, side="l")


def truth_values(size, x, y, l, d):  # noqa: E741
    return _grid(size, x, y, l, d) > 0


def remainder_in_the_wrong_place(size, x, y, l, d):  # noqa: E741
    at = torch.arange(size)
    x, y, l, d = (value[:, None] for value in (x, y, l, d))  # noqa: E741
    across, down = (at % d - x).abs() < d - l, (at % d - y).abs() < d - l
    return 1 - (down[:, :, None] & across[:, None, :]).float()


def of_the_picture(keep, parts):
    return torch.einsum("nhw,phw->np", 1 - keep, parts) / keep[0].numel()


def what_is_kept(keep, parts):
    return torch.einsum("nhw,phw->np", keep, parts) / parts.sum((1, 2))


def parts_first(keep, parts):
    return torch.einsum("nhw,phw->pn", 1 - keep, parts) / parts.sum((1, 2))[:, None]


def of_what_is_hidden(keep, parts):
    hidden = torch.einsum("nhw,phw->np", 1 - keep, parts)
    return hidden / (1 - keep).sum((1, 2))[:, None].clamp_min(1)


def summed_over_parts(keep, parts):
    return torch.einsum("nhw,phw->n", 1 - keep, parts) / parts.sum()


WRONG = {
    "6.1": [
        mirrors_allowed,
        sign_forgotten_in_the_scale,
        not_centred,
        turned_back,
        scale_from_spreads,
        sum_instead_of_mean,
        shift_without_rotation,
        matrix_instead_of_parts,
    ],
    "6.2": [
        x_not_reset,
        step_still_inside,
        gap_as_period,
        squares_before_the_first,
        never_ends,
        changes_the_picture,
    ],
    "6.3": [
        either_hides,
        hidden_instead_of_kept,
        rows_for_columns,
        squares_of_l,
        truth_values,
        remainder_in_the_wrong_place,
    ],
    "6.4": [of_the_picture, what_is_kept, parts_first, of_what_is_hidden, summed_over_parts],
}
