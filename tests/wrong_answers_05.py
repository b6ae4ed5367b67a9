"""Answers to notebook 05's exercises that a learner could give, and that are wrong."""

import numpy as np


def uphill(gradient, x, rate, steps):
    path = [x]
    for _ in range(steps):
        x = x + rate * gradient(x)
        path.append(x)
    return np.stack(path)


def start_left_out(gradient, x, rate, steps):
    path = []
    for _ in range(steps):
        x = x - rate * gradient(x)
        path.append(x)
    return np.stack(path)


def one_place(gradient, x, rate, steps):
    """In place: every row of the path is the same array."""
    x, path = x.copy(), []
    path.append(x)
    for _ in range(steps):
        x -= rate * gradient(x)
        path.append(x)
    return np.stack(path)


def gradient_of_the_start(gradient, x, rate, steps):
    g, path = gradient(x), [x]
    for _ in range(steps):
        path.append(path[-1] - rate * g)
    return np.stack(path)


def spoils_the_start(gradient, x, rate, steps):
    path = [x.copy()]
    for _ in range(steps):
        x -= rate * gradient(x)
        path.append(x.copy())
    return np.stack(path)


def not_corrected(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return x - alpha * m / (np.sqrt(v) + epsilon), m, v


def corrected_is_kept(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """Right for the first step; the memory is then corrected again and again."""
    m = (beta1 * m + (1 - beta1) * g) / (1 - beta1**t)
    v = (beta2 * v + (1 - beta2) * g**2) / (1 - beta2**t)
    return x - alpha * m / (np.sqrt(v) + epsilon), m, v


def without_root(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return x - alpha * m / (1 - beta1**t) / (v / (1 - beta2**t) + epsilon), m, v


def epsilon_inside(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return x - alpha * m / (1 - beta1**t) / np.sqrt(v / (1 - beta2**t) + epsilon), m, v


def one_scale_for_all(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """The square of the whole gradient's length instead of each number's."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g**2).sum()
    return x - alpha * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon), m, v


def counts_from_zero(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return x - alpha * m / (1 - beta1 ** (t + 1)) / (
        np.sqrt(v / (1 - beta2 ** (t + 1))) + epsilon), m, v  # fmt: skip


def betas_of_the_text(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """0.9 and 0.999 whatever is given."""
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    return x - alpha * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + epsilon), m, v


def betas_swapped(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = beta2 * m + (1 - beta2) * g
    v = beta1 * v + (1 - beta1) * g**2
    return x - alpha * m / (1 - beta2**t) / (np.sqrt(v / (1 - beta1**t)) + epsilon), m, v


def old_means(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """Steps with the means from before this gradient."""
    step = alpha * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
    return x - step, beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2


def wrong_weight(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = beta1 * m + g
    v = beta2 * v + g**2
    return x - alpha * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon), m, v


def changes_m(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m *= beta1
    m += (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return x - alpha * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon), m, v


def _walk(gradient, x, alpha, steps, mean, square):
    m, v, path = np.zeros_like(x), np.zeros_like(x), [x]
    for t in range(1, steps + 1):
        g = gradient(x)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        x = x - alpha * mean(m, t) / (np.sqrt(square(v, t)) + 1e-8)
        path.append(x)
    return np.stack(path)


def only_m(gradient, x, alpha, steps):
    return _walk(gradient, x, alpha, steps, lambda m, t: m / (1 - 0.9**t), lambda v, t: v)


def only_v(gradient, x, alpha, steps):
    return _walk(gradient, x, alpha, steps, lambda m, t: m, lambda v, t: v / (1 - 0.999**t))


def from_zero(gradient, x, alpha, steps):
    """Counts its steps from 0: divides by nothing, so guards, and is one step late."""
    return _walk(gradient, x, alpha, steps, lambda m, t: m / (1 - 0.9 ** max(t - 1, 1)),
                 lambda v, t: v / (1 - 0.999 ** max(t - 1, 1)))  # fmt: skip


def begins_at_the_gradient(gradient, x, alpha, steps):
    """Memories that begin at the first gradient instead of a correction."""
    m, path = gradient(x), [x]
    v = m**2
    for _ in range(steps):
        g = gradient(x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - alpha * m / (np.sqrt(v) + 1e-8)
        path.append(x)
    return np.stack(path)


def corrected_memory(gradient, x, alpha, steps):
    m, v, path = np.zeros_like(x), np.zeros_like(x), [x]
    for t in range(1, steps + 1):
        g = gradient(x)
        m = (0.9 * m + 0.1 * g) / (1 - 0.9**t)
        v = (0.999 * v + 0.001 * g**2) / (1 - 0.999**t)
        x = x - alpha * m / (np.sqrt(v) + 1e-8)
        path.append(x)
    return np.stack(path)


def smaller_alpha(gradient, x, alpha, steps):
    """Hides the long first step."""
    return _walk(gradient, x, alpha / 3.16, steps, lambda m, t: m, lambda v, t: v)


def multiplied(gradient, x, alpha, steps):
    return _walk(gradient, x, alpha, steps, lambda m, t: m * (1 - 0.9**t),
                 lambda v, t: v * (1 - 0.999**t))  # fmt: skip


def arrived(times, at):
    return (times[None, :] <= at[:, None]).mean(1)


def at_the_time_still(times, at):
    return (times[None, :] >= at[:, None]).mean(1)


def never_left_out(times, at):
    """Drops the runs that never arrive: the favourite mistake."""
    finite = times[np.isfinite(times)]
    if not len(finite):
        return np.zeros(len(at))
    return (finite[None, :] > at[:, None]).mean(1)


def counted(times, at):
    return (times[None, :] > at[:, None]).sum(1)


def other_way(a, b, picks_a, picks_b):
    return ratio_of(np.median, b, a, picks_b, picks_a, [0.025, 0.975])


def ratio_of(middle, a, b, picks_a, picks_b, ends):
    ratios = middle(a[picks_a], axis=1) / middle(b[picks_b], axis=1)
    low, high = np.quantile(ratios, ends)
    return float(low), float(high)


def of_means(a, b, picks_a, picks_b):
    return ratio_of(np.mean, a, b, picks_a, picks_b, [0.025, 0.975])


def ninety(a, b, picks_a, picks_b):
    return ratio_of(np.median, a, b, picks_a, picks_b, [0.05, 0.95])


def extremes(a, b, picks_a, picks_b):
    return ratio_of(np.median, a, b, picks_a, picks_b, [0, 1])


def over_draws(a, b, picks_a, picks_b):
    """Median over the wrong axis: over experiments, not over runs."""
    ratios = np.median(a[picks_a], axis=0).min() / np.median(b[picks_b], axis=0)
    return float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975))


def of_standard_deviations(a, b, picks_a, picks_b):
    ratios = np.median(a[picks_a], axis=1) / np.median(b[picks_b], axis=1)
    return ratios.mean() - 1.96 * ratios.std(), ratios.mean() + 1.96 * ratios.std()


def ends_against_ends(a, b, picks_a, picks_b):
    """An interval of each, then the ratio of their ends: too wide."""
    ends_a, ends_b = (np.quantile(np.median(t[p], axis=1), [0.025, 0.975])
                      for t, p in ((a, picks_a), (b, picks_b)))  # fmt: skip
    return ends_a[0] / ends_b[1], ends_a[1] / ends_b[0]


def not_drawn(a, b, picks_a, picks_b):
    ratio = float(np.median(a) / np.median(b))
    return ratio, ratio


WRONG = {
    "5.1": [uphill, start_left_out, one_place, gradient_of_the_start, spoils_the_start],
    "5.2": [
        not_corrected,
        corrected_is_kept,
        without_root,
        epsilon_inside,
        betas_swapped,
        old_means,
        wrong_weight,
        changes_m,
        one_scale_for_all,
        counts_from_zero,
        betas_of_the_text,
    ],
    "5.3": [
        only_m, only_v, from_zero, smaller_alpha, multiplied, begins_at_the_gradient,
        corrected_memory,
    ],
    "5.4": [arrived, at_the_time_still, never_left_out, counted],
    "5.5": [
        other_way, of_means, ninety, extremes, over_draws, not_drawn, of_standard_deviations,
        ends_against_ends,
    ],
}  # fmt: skip
