"""The course's own answers: exercises and quiz questions, one module a notebook.

Every module ``nXX.py`` registers its exercises with ``@solution`` and lists its ``QUESTIONS``.
Spoilers live here, so that a notebook's text can stay free of them.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import torch

EXERCISES, QUESTIONS = {}, {}


@dataclass
class Exercise:
    """One exercise: the course's function and how another one is compared with it.

    cases()         list of argument tuples, the smallest first, edge cases among them
    run(f, *case)   what is compared; f(*case) unless an exercise says otherwise
    bug             for "find the bug": the function as the notebook prints it
    """

    number: str
    function: Callable
    cases: Callable
    insight: str
    hint: str
    tolerance: float = 1e-5
    run: Callable = lambda function, *case: function(*case)
    bug: Callable | None = None


def solution(number, *, cases, insight, hint, **options):
    """Register the decorated function as the course's answer to exercise ``number``."""

    def register(function):
        if number in EXERCISES:
            raise ValueError(f"Exercise {number} is registered twice.")
        EXERCISES[number] = Exercise(number, function, cases, insight, hint, **options)
        return function

    return register


def with_slope(function, first, *rest, needed=False):
    """A loss's or a mask's value; an error where that is a number and its gradient by ``first`` is
    NaN, or, if one is ``needed``, missing."""
    first = first.clone().requires_grad_()
    answer = function(first, *rest)
    if not isinstance(answer, torch.Tensor):
        return answer
    if needed and not answer.requires_grad:
        raise ValueError("the answer has no gradient: no detach(), no NumPy")
    if answer.requires_grad and answer.isfinite().all():
        (slope,) = torch.autograd.grad(answer.sum(), first)
        if not slope.isfinite().all():
            raise ValueError("the values are right, their gradient is NaN: no 0/0, no log 0")
    return answer.detach()


def load_all():
    """Import every notebook's module once and collect its exercises and questions."""
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        questions = importlib.import_module(f"{__name__}.{module}").QUESTIONS
        QUESTIONS.update(questions)
