"""Answers to notebook 04's exercises that a learner could give, and that are wrong."""

import torch


def not_shares(points, truth, weights):
    return (weights * (points - truth).abs().mean(-1)).sum(-1).mean()


def mean_of_weighted(points, truth, weights):
    """Divided by the number of points instead of the weights' sum."""
    return (weights * (points - truth).abs().mean(-1)).mean()


def euclidean(points, truth, weights):
    distance = (points - truth).norm(dim=-1)
    return (weights / weights.sum() * distance).sum(-1).mean()


def no_weights(points, truth, weights):
    return (points - truth).abs().mean()


def signs_cancel(points, truth, weights):
    return (weights / weights.sum() * (points - truth).mean(-1)).sum(-1).mean().abs()


def summed_over_axes(points, truth, weights):
    return (weights / weights.sum() * (points - truth).abs().sum(-1)).sum(-1).mean()


def in_half_pictures(points, truth, weights):
    """With the factor that is asked for later."""
    return (weights / weights.sum() * (points - truth).abs().mean(-1)).sum(-1).mean() * 2 / 96


def weights_changed(points, truth, weights):
    weights /= weights.sum()
    return (weights * (points - truth).abs().mean(-1)).sum(-1).mean()


def no_mask(image, photo, mask):
    return (image - photo).abs().mean()


def one_mask_for_all(image, photo, mask):
    """All pictures' pixels in one pot: large faces count more."""
    difference = (image - photo).abs().mean(1, keepdim=True)
    return (difference * mask).sum() / mask.sum().clamp_min(1e-6)


def three_colours_too_many(image, photo, mask):
    difference = (image - photo).abs()
    return ((difference * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1e-6)).mean()


def empty_ones_left_out(image, photo, mask):
    """A picture in which nothing counts is not counted, instead of costing zero."""
    difference = (image - photo).abs().mean(1, keepdim=True)
    inside = mask.sum((1, 2, 3))
    return ((difference * mask).sum((1, 2, 3)) / inside)[inside > 0].mean()


def divided_by_nothing(image, photo, mask):
    """0/0 for a face that is not there."""
    difference = (image - photo).abs().mean(1, keepdim=True)
    return ((difference * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).mean()


def mended_afterwards(image, photo, mask):
    """0/0 made 0: the loss is right, its gradient is NaN."""
    difference = (image - photo).abs().mean(1, keepdim=True)
    return ((difference * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).nan_to_num(0).mean()


def chosen_afterwards(image, photo, mask):
    """The same by torch.where."""
    difference, inside = (image - photo).abs().mean(1, keepdim=True), mask.sum((1, 2, 3))
    each = (difference * mask).sum((1, 2, 3)) / inside
    return torch.where(inside > 0, each, 0.0).mean()


def _gaussian(chroma, mean, precision):
    offset = chroma - mean
    return 0.5 * ((offset @ precision) * offset).sum(1).mean()


def no_logarithm(colours, mean, precision):
    red, green, blue = colours.unbind(1)
    return _gaussian(torch.stack([red / green, blue / green], 1), mean, precision)


def over_blue(colours, mean, precision):
    red, green, blue = colours.log().unbind(1)
    return _gaussian(torch.stack([red - blue, green - blue], 1), mean, precision)


def squared_distance(colours, mean, precision):
    """Without the precision: every direction as usual as the other."""
    red, green, blue = colours.log().unbind(1)
    return _gaussian(torch.stack([red - green, blue - green], 1), mean, torch.eye(2))


def inverted_again(colours, mean, precision):
    """Takes the precision for the covariance."""
    red, green, blue = colours.log().unbind(1)
    chroma = torch.stack([red - green, blue - green], 1)
    return _gaussian(chroma, mean, torch.linalg.inv(precision))


def every_pair(colours, mean, precision):
    """d P dᵀ of all pairs of colours, a table (N, N), instead of its diagonal."""
    red, green, blue = colours.log().unbind(1)
    offset = torch.stack([red - green, blue - green], 1) - mean
    return 0.5 * (offset @ precision @ offset.T).mean()


def not_halved(colours, mean, precision):
    red, green, blue = colours.log().unbind(1)
    return 2 * _gaussian(torch.stack([red - green, blue - green], 1), mean, precision)


def everybody_the_same(shape, person):
    return (shape - shape.mean(0)).square().mean()


def toward_zero(shape, person):
    return shape.square().mean()


def per_person_mean(shape, person):
    """Each person counts the same, however many photographs."""
    parts = [shape[person == p] for p in person.unique()]
    return torch.stack([(part - part.mean(0)).square().mean() for part in parts]).mean()


def people_are_counted_from_zero(shape, person):
    """NaN where a number between is nobody's."""
    parts = [shape[person == p] for p in range(int(person.max()) + 1)]
    return sum((part - part.mean(0)).square().sum() for part in parts) / shape.numel() + 0 * sum(
        part.mean() for part in parts
    )


def summed_over_codes(shape, person):
    return shape.shape[1] * per_row(shape, person)


def per_row(shape, person):
    same = (person[:, None] == person[None]).to(shape)
    return (shape - same @ shape / same.sum(1, keepdim=True)).square().mean()


def neighbours(shape, person):
    """Each row against the next one of the batch."""
    return (shape[1:] - shape[:-1]).square().mean()


WRONG = {
    "4.1": [
        not_shares, mean_of_weighted, euclidean, no_weights, signs_cancel, summed_over_axes,
        in_half_pictures, weights_changed,
    ],
    "4.2": [
        no_mask, one_mask_for_all, three_colours_too_many, divided_by_nothing, empty_ones_left_out,
        mended_afterwards, chosen_afterwards,
    ],
    "4.3": [
        no_logarithm, over_blue, squared_distance, not_halved, inverted_again, every_pair,
    ],
    "4.4": [
        everybody_the_same, toward_zero, per_person_mean, neighbours,
        people_are_counted_from_zero, summed_over_codes,
    ],
}  # fmt: skip
