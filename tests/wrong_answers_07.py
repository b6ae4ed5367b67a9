"""Answers to notebook 07's exercises that a learner could give, and that are wrong."""

import torch
import torch.nn.functional as F


def _losses(real, fake, logs=F.logsigmoid, mean=torch.mean):
    discriminator = -mean(logs(real)) - mean(logs(-fake))
    return discriminator, mean(logs(-fake)), -mean(logs(fake))


def logarithm_of_sigmoid(real, fake):
    """Infinite where the discriminator is sure."""
    return _losses(real, fake, lambda x: torch.sigmoid(x).log())


def sums_instead_of_means(real, fake):
    return _losses(real, fake, mean=torch.sum)


def halved_as_the_tutorial(real, fake):
    discriminator, saturating, other = _losses(real, fake)
    return discriminator / 2, saturating, other


def saturating_with_the_wrong_sign(real, fake):
    discriminator, saturating, other = _losses(real, fake)
    return discriminator, -saturating, other


def both_the_same(real, fake):
    discriminator, _, other = _losses(real, fake)
    return discriminator, other, other


def labels_swapped(real, fake):
    return _losses(fake, real)


def log_of_the_wrong_side(real, fake):
    """log(1 − f) of logits instead of probabilities, kept from being negative."""
    discriminator, _, other = _losses(real, fake)
    return discriminator, (1 - fake).clamp_min(1e-6).log().mean(), other


def _step(generator, discriminator, real, z, rate, generator_first=False):
    """The right step, or the same with the generator's move before the discriminator's."""
    generator.requires_grad_()
    discriminator.requires_grad_()

    def judge():
        fake = (z @ generator).detach()
        lost = F.softplus(-real @ discriminator).mean() + F.softplus(fake @ discriminator).mean()
        return discriminator - rate * torch.autograd.grad(lost, discriminator)[0]

    def make(judged):
        won = F.softplus(-(z @ generator) @ judged).mean()
        return generator - rate * torch.autograd.grad(won, generator)[0]

    judged = judge().detach()
    return make(discriminator if generator_first else judged).detach(), judged


def detached_in_the_generators_step(generator, discriminator, real, z, rate):
    """The pictures are cut off from the generator where it needs them: it never moves."""
    _, judged = _step(generator, discriminator, real, z, rate)
    return generator.detach(), judged


def generator_moves_first(generator, discriminator, real, z, rate):
    return _step(generator, discriminator, real, z, rate, generator_first=True)


def discriminator_frozen(generator, discriminator, real, z, rate):
    moved, _ = _step(generator, discriminator, real, z, rate)
    return moved, discriminator


def losses_added(generator, discriminator, real, z, rate):
    """One loss, one step for both."""
    generator.requires_grad_()
    discriminator.requires_grad_()
    fake = z @ generator
    total = F.softplus(-real @ discriminator).mean() + F.softplus(fake @ discriminator).mean()
    total = total + F.softplus(-fake @ discriminator).mean()
    total.backward()
    with torch.no_grad():
        return generator - rate * generator.grad, discriminator - rate * discriminator.grad


def logits_detached(generator, discriminator, real, z, rate):
    """Cut one product too late: the discriminator learns nothing about made pictures."""
    moved, _ = _step(generator, discriminator, real, z, rate)
    lost = F.softplus(-real @ discriminator).mean()
    return moved, (discriminator - rate * torch.autograd.grad(lost, discriminator)[0]).detach()


def _power(weight, u, steps, normed=True, swap=False):
    if swap:
        weight = weight.T
    for _ in range(steps):
        v = weight.T @ u
        v = F.normalize(v, dim=0) if normed else v
        u = weight @ v
        u = F.normalize(u, dim=0) if normed else u
    return u @ weight @ v


def never_normalised(weight, u, steps):
    return _power(weight, u, steps, normed=False)


def frobenius(weight, u, steps):
    """What is never below the steepest direction."""
    return weight.norm()


def the_exact_one(weight, u, steps):
    """Right in the end, not after so many steps."""
    return torch.linalg.matrix_norm(weight, 2)


def one_step_only(weight, u, steps):
    return _power(weight, u, 1)


def squared(weight, u, steps):
    return _power(weight, u, steps) ** 2


def largest_eigenvalue(weight, u, steps):
    return torch.linalg.eigvalsh(weight @ weight.T).amax()


def kernels_added(kernels, strides):
    return sum(kernels)


def forwards(kernels, strides):
    seen = 1
    for kernel, stride in zip(kernels, strides, strict=True):
        seen = (seen - 1) * stride + kernel
    return seen


def stride_times_all(kernels, strides):
    seen = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        seen = seen * stride + kernel - 1
    return seen


def without_strides(kernels, strides):
    return 1 + sum(kernel - 1 for kernel in kernels)


def _distance(made, real, diagonal=False, biased=False, scaled=True, cross=2.0):
    def kernel(a, b):
        return (a @ b.T / (a.shape[1] if scaled else 1) + 1) ** 3

    def within(a):
        k, n = kernel(a, a), len(a)
        if diagonal:
            return k.mean()
        return (k.sum() - k.diagonal().sum()) / (n * n if biased else n * (n - 1))

    return within(made) + within(real) - cross * kernel(made, real).mean()


def diagonal_kept(made, real):
    return _distance(made, real, diagonal=True)


def divided_by_all_pairs(made, real):
    return _distance(made, real, biased=True)


def not_scaled(made, real):
    return _distance(made, real, scaled=False)


def cross_counted_once(made, real):
    return _distance(made, real, cross=1.0)


def distance_of_means(made, real):
    return (made.mean(0) - real.mean(0)).square().sum()


WRONG = {
    "7.1": [
        logarithm_of_sigmoid,
        sums_instead_of_means,
        halved_as_the_tutorial,
        saturating_with_the_wrong_sign,
        both_the_same,
        labels_swapped,
        log_of_the_wrong_side,
    ],
    "7.2": [
        detached_in_the_generators_step,
        generator_moves_first,
        discriminator_frozen,
        losses_added,
        logits_detached,
    ],
    "7.3": [
        never_normalised,
        frobenius,
        the_exact_one,
        one_step_only,
        squared,
        largest_eigenvalue,
    ],
    "7.4": [
        diagonal_kept,
        divided_by_all_pairs,
        not_scaled,
        cross_counted_once,
        distance_of_means,
    ],
    "7.5": [kernels_added, forwards, stride_times_all, without_strides],
}
