"""Notebook 07, the GAN discriminator: exercises and questions."""

import torch
import torch.nn.functional as F

from course.teach.solutions import solution


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ 7.1 the losses


def _loss_cases():
    return [
        (torch.tensor([0.0]), torch.tensor([0.0])),
        (torch.tensor([2.0, -1.0]), torch.tensor([-3.0, 0.5])),
        (torch.randn(64, 1, generator=_seeded(0)), torch.randn(64, 1, generator=_seeded(1)) - 2),
        (torch.tensor([[-200.0, 3.0]]), torch.tensor([[250.0, -250.0]])),  # sure, and wrong
    ]


@solution(
    "7.1",
    cases=_loss_cases,
    insight="−log σ(x) is softplus(−x): the same number, and finite where σ(x) rounds to zero.",
    hint="1 − σ(f) = σ(−f), and −log σ(x) = softplus(−x). Means over all logits, not sums.",
    tolerance=1e-4,
)
def game_losses(real, fake):
    discriminator = F.softplus(-real).mean() + F.softplus(fake).mean()
    saturating = -F.softplus(fake).mean()
    return discriminator, saturating, F.softplus(-fake).mean()


# ------------------------------------------------------------------ 7.2 find the bug: no detach


def _step_cases():
    def case(seed, noise, size, count, rate):
        g = _seeded(seed)
        shapes = ((noise, size), (size,), (count, size), (count, noise))
        return *(torch.randn(*shape, generator=g) for shape in shapes), rate

    one = [torch.tensor(v) for v in ([[0.5]], [1.0], [[2.0], [1.5]], [[1.0], [-1.0]])]
    return [(*one, 1.0), case(0, 2, 3, 5, 0.1), case(1, 4, 6, 16, 0.5), case(2, 3, 2, 8, 1.0)]


def _moved(function, generator, discriminator, real, z, rate):
    """Both players after the step, on copies."""
    return function(generator.clone(), discriminator.clone(), real, z, rate)


def faulty_gan_step(generator, discriminator, real, z, rate):
    """The step as exercise 7.2 prints it."""
    players = [generator.requires_grad_(), discriminator.requires_grad_()]
    for_generator, for_discriminator = (torch.optim.SGD([player], rate) for player in players)

    fake = z @ generator
    lost = F.softplus(-real @ discriminator).mean() + F.softplus(fake @ discriminator).mean()
    lost.backward()
    for_discriminator.step()

    fake = z @ generator
    won = F.softplus(-fake @ discriminator).mean()
    won.backward()
    for_generator.step()
    return generator.detach(), discriminator.detach()


@solution(
    "7.2",
    cases=_step_cases,
    run=_moved,
    insight="Undetached, the discriminator's loss helps the generator to be caught: near f = 0 the "
    "two slopes cancel and it stands still.",
    hint="After the first backward(), which of the two players has a slope? Which should have one?",
    bug=faulty_gan_step,
)
def gan_step(generator, discriminator, real, z, rate):
    players = [generator.requires_grad_(), discriminator.requires_grad_()]
    for_generator, for_discriminator = (torch.optim.SGD([player], rate) for player in players)

    fake = (z @ generator).detach()
    lost = F.softplus(-real @ discriminator).mean() + F.softplus(fake @ discriminator).mean()
    lost.backward()
    for_discriminator.step()

    fake = z @ generator
    won = F.softplus(-fake @ discriminator).mean()
    won.backward()
    for_generator.step()
    return generator.detach(), discriminator.detach()


# ------------------------------------------------------------------ 7.3 power iteration


def _steep_cases():
    g = _seeded(3)
    cases = [(torch.diag(torch.tensor([3.0, 1.0])), torch.tensor([0.6, 0.8]), 1)]
    for rows, columns, steps in ((2, 2, 1), (5, 3, 2), (3, 7, 5), (20, 12, 60)):
        u = torch.randn(rows, generator=g)
        cases.append((torch.randn(rows, columns, generator=g), u, steps))
    cases.append((torch.randn(4, 1, generator=g), torch.randn(4, generator=g) * 10, 1))
    return cases


@solution(
    "7.3",
    cases=_steep_cases,
    insight="Two products of a matrix and a vector a step: spectral norm costs next to nothing, "
    "and in training one step a batch is enough, since W hardly changes.",
    hint="v = Wᵀu made as long as 1, then u = Wv made as long as 1; at the end σ = uᵀWv.",
    tolerance=1e-4,
)
def steepest(weight, u, steps):
    for _ in range(steps):
        v = F.normalize(weight.T @ u, dim=0)
        u = F.normalize(weight @ v, dim=0)
    return u @ weight @ v


# ------------------------------------------------------------------ 7.4 kernel distance


def _distance_cases():
    def points(seed, *shape):
        return torch.randn(*shape, generator=_seeded(seed))

    pair = torch.tensor([[1.0], [0.0]])
    return [
        (pair, torch.tensor([[0.0], [2.0]])),
        (points(4, 3, 2), points(5, 4, 2)),
        (points(6, 20, 8), points(7, 30, 8) + 0.5),
        (points(8, 12, 5), points(9, 6, 5) * 0.2),
    ]


@solution(
    "7.4",
    cases=_distance_cases,
    insight="Without the diagonals the estimate is right on average even for few pictures, and may "
    "fall below zero.",
    hint="Three kernel matrices. From the two within a set, leave the diagonal out and divide by "
    "n(n − 1); subtract twice the mean of the third.",
    tolerance=1e-4,
)
def kernel_distance(made, real):
    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a):
        k, n = kernel(a, a), len(a)
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    return within(made) + within(real) - 2 * kernel(made, real).mean()


# ------------------------------------------------------------------ 7.5 receptive field


def _field_cases():
    return [
        ([3], [1]),
        ([3, 3], [1, 1]),
        ([3, 3], [2, 1]),
        ([4, 4, 4], [2, 1, 1]),
        ([4, 4, 4, 4, 4], [2, 2, 2, 1, 1]),
        ([7, 3, 1, 5], [2, 2, 1, 3]),
    ]


@solution(
    "7.5",
    cases=_field_cases,
    insight="Strides of early layers multiply what all later ones see: pix2pix's five layers see "
    "70 pixels.",
    hint="Go backwards from one logit: r = (r − 1) · stride + kernel, beginning with r = 1.",
)
def receptive_field(kernels, strides):
    seen = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        seen = (seen - 1) * stride + kernel
    return seen


QUESTIONS = {
    "7.q1": {
        "answer": "c",
        "a": "No: it is between them, and no face is there.",
        "b": "No: squared error asks for the mean of all faces that are possible, and the mean is "
        "not one of them: no face is that smooth.",
        "c": "Right: squared error is made small by the mean, and the mean of sharp faces is "
        "blurred. No amount of training changes what the loss asks for.",
    },
    "7.q2": {
        "answer": "a",
        "a": "Right: σ(f) of very negative f is flat, and so is log(1 − σ(f)). −log σ(f) has slope "
        "one there.",
        "b": "No: its minimum is in the same place. What differs is how steep the way there is.",
        "c": "No: the discriminator's loss is the same in both.",
    },
    "7.q3": {
        "answer": "b",
        "a": "No: it is at its lowest when the generator is worst.",
        "b": "Right: it compares two players that both move. A falling loss can mean a better "
        "discriminator or a worse generator.",
        "c": "No: at the equilibrium L_D is 2 log 2 = 1.386, and so it is at the start, where D "
        "knows nothing.",
    },
    "7.q4": {
        "answer": "b",
        "a": "No: a discriminator has never seen this person's pores, so what it asks for is some "
        "pores, not these.",
        "b": "Right: plausible is not true. Where detail cannot be known, a sharp guess is farther "
        "from the truth than a smooth one (Blau and Michaeli 2018).",
        "c": "No: both numbers are about the same pictures; they ask different questions.",
    },
}
