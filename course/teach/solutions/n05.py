"""Notebook 05, SGD against Adam: exercises and questions."""

import numpy as np

from course.teach.solutions import solution

# ------------------------------------------------------------------ functions to walk on


def _bowl(x):
    return x * np.array([1.0, 25.0])[: x.size]


def _turned(x):
    return np.array([[5.0, 4.0, 0.0], [4.0, 5.0, 0.5], [0.0, 0.5, 0.2]]) @ x - 1.0


def _wave(x):
    return np.sin(3 * x) + 0.1 * x


# ------------------------------------------------------------------ 5.1 gradient descent


def _descend_cases():
    return [
        (_bowl, np.array([2.0]), 0.5, 3),
        (_bowl, np.array([10.0, 1.0]), 0.05, 10),
        (_turned, np.array([1.0, -2.0, 3.0]), 0.1, 20),
        (_wave, np.array([0.3, 1.0, -2.0, 4.0]), 0.2, 15),
        (_bowl, np.array([1.0, 1.0]), 0.05, 0),
    ]


@solution(
    "5.1",
    cases=_descend_cases,
    insight="Three lines, and every optimiser of this notebook is a change to one of them.",
    hint="The path begins with the start itself: steps + 1 rows, stacked into one array.",
)
def descend(gradient, x, rate, steps):
    path = [x]
    for _ in range(steps):
        x = x - rate * gradient(x)
        path.append(x)
    return np.stack(path)


# ------------------------------------------------------------------ 5.2 one step of Adam


def _adam_cases():
    rng = np.random.default_rng(0)
    one, zero = np.array([3.0]), np.zeros(1)
    many = rng.normal(size=(4, 5))
    return [
        (one, np.array([0.5]), zero, zero, 1),
        (one, np.array([-40.0]), zero, zero, 1),
        (np.ones(3), rng.normal(size=3), 0.1 * rng.normal(size=3), rng.random(3), 7),
        (many, 100 * rng.normal(size=(4, 5)), many, rng.random((4, 5)) * 1e4, 2),
        (np.ones(2), np.array([0.0, 1e-9]), np.zeros(2), np.zeros(2), 1),
        (np.ones(3), rng.normal(size=3), rng.normal(size=3), rng.random(3), 1000, 0.3, 0.8, 0.95),
    ]


@solution(
    "5.2",
    cases=_adam_cases,
    insight="The first step is alpha long whatever the gradient's size: m̂ = g and √v̂ = |g|.",
    hint="In this order: new m, new v, divide both by 1 − βᵗ, step. ε is added to the root of v̂.",
    tolerance=1e-9,
)
def adam_step(x, g, m, v, t, alpha=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return x - alpha * m_hat / (np.sqrt(v_hat) + epsilon), m, v


# ------------------------------------------------------------------ 5.3 find the bug


def _walk_cases():
    return [
        (_bowl, np.array([5.0]), 0.1, 1),
        (_bowl, np.array([10.0, 1.0]), 0.1, 5),
        (_wave, np.array([0.3, -1.0, 4.0]), 0.02, 60),
        (_turned, np.array([1.0, -2.0, 3.0]), 0.05, 200),
    ]


def faulty_walk(gradient, x, alpha, steps):
    """Adam as exercise 5.3 prints it."""
    m, v, path = np.zeros_like(x), np.zeros_like(x), [x]
    for _ in range(1, steps + 1):
        g = gradient(x)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        x = x - alpha * m / (np.sqrt(v) + 1e-8)
        path.append(x)
    return np.stack(path)


@solution(
    "5.3",
    cases=_walk_cases,
    insight="Without it the first step is 0.1/√0.001 = 3.16 times alpha, and the next ones longer.",
    hint="Both means begin at zero. After one step, what is m, and what should it be? The same for "
    "v; t counts from 1.",
    tolerance=1e-5,  # the hats drawn into alpha, as in Kingma and Ba's section 2, are right too
    bug=faulty_walk,
)
def adam_walk(gradient, x, alpha, steps):
    m, v, path = np.zeros_like(x), np.zeros_like(x), [x]
    for t in range(1, steps + 1):
        g = gradient(x)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        x = x - alpha * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        path.append(x)
    return np.stack(path)


# ------------------------------------------------------------------ 5.4 survival


def _survival_cases():
    rng = np.random.default_rng(1)
    times = rng.integers(1, 30, 40) * 10.0
    times[::7] = np.inf
    return [
        (np.array([20.0, 40.0, np.inf]), np.array([0.0, 20.0, 30.0, 100.0])),
        (np.array([5.0]), np.array([4.0, 5.0, 6.0])),
        (times, np.arange(0.0, 320.0, 10.0)),
        (np.full(4, np.inf), np.array([1.0, 1e9])),
    ]


@solution(
    "5.4",
    cases=_survival_cases,
    insight="A run that never arrives keeps the curve up for ever; a mean would have no value.",
    hint="Still running is times > at, a row for each moment; the mean goes over all runs, "
    "those that never arrive (inf) too.",
)
def still_running(times, at):
    return (times[None, :] > at[:, None]).mean(1)


# ------------------------------------------------------------------ 5.5 bootstrap


def _interval_cases():
    rng = np.random.default_rng(2)
    same = np.array([[0, 1, 2]])
    wide = rng.lognormal(0, 1, 7)
    return [
        (np.array([1.0, 2.0, 6.0]), np.array([2.0, 4.0, 5.0]), same, same),
        (wide, rng.lognormal(1, 0.2, 5), rng.integers(0, 7, (400, 7)),
         rng.integers(0, 5, (400, 5))),
        (rng.random(8) + 5, rng.random(8) + 4, rng.integers(0, 8, (99, 8)),
         rng.integers(0, 8, (99, 8))),
    ]  # fmt: skip


def _as_pair(function, *case):
    """Two numbers, however they are packed: a tuple or an array."""
    found = function(*case)
    return None if found is None else tuple(map(float, np.atleast_1d(found)))


@solution(
    "5.5",
    cases=_interval_cases,
    run=_as_pair,
    insight="Draw runs with replacement, compute the ratio anew, keep the middle 95 % of answers.",
    hint="times[picks] has one made-up experiment a row: median over axis 1, then the ratio a / b, "
    "then the quantiles 0.025 and 0.975.",
)
def ratio_interval(a, b, picks_a, picks_b):
    ratios = np.median(a[picks_a], axis=1) / np.median(b[picks_b], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


QUESTIONS = {
    "5.q1": {
        "answer": "b",
        "a": "No: it gets no slower, it leaves: above the limit the steep direction never arrives.",
        "b": "Yes: each step multiplies the steep coordinate by 1 − ηλ, and that is below −1.",
        "c": "No: there ηλ is far below 2; the flat direction is the one that still converges.",
    },
    "5.q2": {
        "answer": "c",
        "a": "No: that is SGD, whose step is the rate times the gradient.",
        "b": "No: the root of v grows by the same factor as m, not faster.",
        "c": "Right: m̂/√v̂ does not change when all gradients are multiplied. Only ε would notice.",
    },
    "5.q3": {
        "answer": "c",
        "a": "No: a cheap step that leads nowhere is not cheap.",
        "b": "No: nearly, but steps differ in cost, and an untuned rate decides the race.",
        "c": "Right: the same target, each at its best rate, many seeds, with an interval.",
    },
    "5.q4": {
        "answer": "b",
        "a": "No: two seeds of one and the same optimiser may differ by as much.",
        "b": "Right: that much is known. What another seed, machine or target gives is not.",
        "c": "No: 7.8815 to 6.7326 is 14.6 %, and even that is one pair of runs.",
    },
}
