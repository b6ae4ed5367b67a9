"""Notebook 04, loss functions and weak supervision: exercises and questions."""

import torch

from course.teach.solutions import solution, with_slope


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ 4.1 weighted landmarks


def _landmark_cases():
    g = _generator()
    truth = torch.tensor([[[10.0, 10.0], [20.0, 10.0]]])
    moved = truth + torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
    many = torch.rand(4, 68, 2, generator=g) * 112
    return [
        (moved, truth, torch.tensor([3.0, 1.0])),
        (truth, moved, torch.tensor([1.0, 1.0])),
        (torch.cat([moved, truth]), torch.cat([truth, truth]), torch.tensor([2.0, 6.0])),
        (many + torch.randn(many.shape, generator=g), many, torch.rand(68, generator=g) + 0.5),
    ]


@solution(
    "4.1",
    cases=_landmark_cases,
    insight="Weights are shares of one whole: doubling all of them changes nothing.",
    hint="(|du| + |dv|)/2 of each point times its share of the weights, summed; mean over faces.",
)
def weighted_distance(points, truth, weights):
    share = weights / weights.sum()
    return (share * (points - truth).abs().mean(-1)).sum(-1).mean()


# ------------------------------------------------------------------ 4.2 find the bug: masked mean


def _masked_cases():
    g = _generator(1)
    small, large = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    small[..., :2, :2] = 1
    grey, black = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 3, 4, 4)
    wrong = black + (1 - small)  # wrong outside the mask only
    images, photos = (torch.rand(3, 3, 6, 6, generator=g) for _ in range(2))
    masks = (torch.rand(3, 1, 6, 6, generator=g) > 0.6).float()
    empty = masks.clone()
    empty[1] = 0  # a face that is not in its picture
    return [
        (grey, black, small),
        (grey, black, large),
        (wrong, black, small),
        (images, photos, masks),
        (images, photos, empty),
    ]


def faulty_masked_l1(image, photo, mask):
    """The loss as exercise 4.2 prints it."""
    difference = (image - photo).abs().mean(1, keepdim=True)
    return (difference * mask).mean()


@solution(
    "4.2",
    cases=_masked_cases,
    run=with_slope,
    insight="Divided by the pixels that count, a small face is no better for being small.",
    hint="Divide by how many pixels were compared, in each picture; an empty mask costs 0.",
    bug=faulty_masked_l1,
)
def masked_l1(image, photo, mask):
    difference = (image - photo).abs().mean(1, keepdim=True)
    inside = mask.sum((1, 2, 3)).clamp_min(1e-6)
    return ((difference * mask).sum((1, 2, 3)) / inside).mean()


# ------------------------------------------------------------------ 4.3 how unusual is a colour


def _colour_cases():
    g = _generator(2)
    mean, precision = torch.tensor([0.3, -0.2]), torch.tensor([[4.0, 1.0], [1.0, 9.0]])
    round_ = torch.eye(2)
    return [
        (torch.tensor([[0.5, 0.5, 0.5]]), torch.zeros(2), round_),
        (torch.tensor([[0.8, 0.5, 0.4]]), torch.zeros(2), round_),
        (torch.tensor([[0.8, 0.5, 0.4], [0.2, 0.6, 0.2]]), mean, precision),
        (torch.rand(20, 3, generator=g) * 0.8 + 0.1, mean, precision),
    ]


@solution(
    "4.3",
    cases=_colour_cases,
    insight="A ratio of two colours forgets the brightness; a Gaussian then says what is usual.",
    hint="First the two chroma numbers ln(R/G) and ln(B/G), then ½ dᵀ P d of d = chroma − mean.",
)
def unusual_colour(colours, mean, precision):
    red, green, blue = colours.log().unbind(1)
    offset = torch.stack([red - green, blue - green], 1) - mean
    return 0.5 * ((offset @ precision) * offset).sum(1).mean()


# ------------------------------------------------------------------ 4.4 shape consistency


def _consistency_cases():
    g = _generator(3)
    pair = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    return [
        (pair, torch.tensor([0, 0])),
        (pair, torch.tensor([0, 1])),  # two people may differ
        (torch.randn(3, 4, generator=g), torch.tensor([7, 2, 7])),
        (torch.randn(12, 80, generator=g), torch.tensor([0, 1, 2, 3] * 3)),
        (torch.randn(6, 5, generator=g), torch.tensor([4, 4, 4, 4, 1, 1])),
    ]


@solution(
    "4.4",
    cases=_consistency_cases,
    insight="Nobody says which shape is right: the photographs of one person only have to agree.",
    hint="Subtract from each row the mean of its own person's rows, then take the mean square.",
)
def disagreement(shape, person):
    same = (person[:, None] == person[None]).to(shape)
    mean = same @ shape / same.sum(1, keepdim=True)
    return (shape - mean).square().mean()


QUESTIONS = {
    "4.q1": {
        "answer": "b",
        "a": "No: a wider jaw moves the contour's landmarks sideways, and that is seen.",
        "b": "Yes: seen straight from the front, moving along the line of sight moves no landmark.",
        "c": "No: a smile moves the corners of the mouth in the picture.",
    },
    "4.q2": {
        "answer": "c",
        "a": "No: the pixels are the same in both cases, however many there are.",
        "b": "No: L2,1 weighs differences; here there is none to be weighed.",
        "c": "Yes: only the product is in the picture. Something else must say what is usual.",
    },
    "4.q3": {
        "answer": "a",
        "a": "Right: without a prior, what no landmark holds drifts: nothing brings it back.",
        "b": "No: with a prior the landmark loss ends higher, and yet the face is better.",
        "c": "No: a prior knows no photograph. It says what faces are like, not what this one is.",
    },
    "4.q4": {
        "answer": "b",
        "a": "No: the mean of three is at most as wrong as they are on average.",
        "b": "Yes: what all members get wrong in the same way shows in no spread.",
        "c": "No: each had other weights, clicks and order, so they do differ.",
    },
}
