"""Exercises never block: what the checker says to every kind of answer."""

import time

import numpy as np
import pytest
import torch

from course.teach import checks, solutions
from course.teach.solutions import Exercise


def scale(x, factor):
    """x (n,) times factor."""
    return x * factor


def cases():
    return [(torch.tensor([1.0, 2.0]), 3.0), (torch.arange(60.0).view(6, 10), -1.5)]


@pytest.fixture
def entry(monkeypatch):
    entry = Exercise("99.1", scale, cases, "Scaling keeps directions.", "multiply")
    monkeypatch.setattr(checks, "SECONDS", 0.3)
    monkeypatch.setitem(solutions.EXERCISES, "99.1", entry)
    monkeypatch.setitem(solutions.QUESTIONS, "99.q1", {"answer": "a", "a": "Yes: so.", "b": "No."})
    monkeypatch.setattr(checks, "_state", {})
    return entry


def said(capsys, function):
    bound = checks.exercise("99.1")(function)
    return capsys.readouterr().out, bound


def test_untouched(entry, capsys):
    def scale(x, factor):
        """x (n,) times factor."""
        ...

    out, bound = said(capsys, scale)
    assert out == "Exercise 99.1 · not tried yet, going on with the course's solution\n"
    assert torch.equal(bound(torch.ones(2), 2.0), torch.full((2,), 2.0))
    assert bound.__doc__ == scale.__doc__


def test_returning_the_dots_is_untouched_too(entry, capsys):
    def scale(x, factor):
        return ...

    assert "not tried yet" in said(capsys, scale)[0]


def test_right(entry, capsys):
    def mine(x, factor):
        return factor * x

    out, bound = said(capsys, mine)
    assert out == "Exercise 99.1 · correct. Scaling keeps directions.\n"
    assert bound is mine


def no_return(x, factor):
    x * factor


def raises(x, factor):
    return x[99]


def wrong_shape(x, factor):
    return (x * factor).sum()


def wrong_type(x, factor):
    return (x * factor).numpy()


def wrong_kind(x, factor):
    return (x * factor).long()


def wrong_values(x, factor):
    return x + factor


def wrong_on_large(x, factor):
    return x * abs(factor)


def in_place(x, factor):
    return x.mul_(factor)


def never_ends(x, factor):
    while True:
        pass


def nan(x, factor):
    return x * float("nan")


def exits(x, factor):
    raise SystemExit("bye")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_return, "nothing came back; is there a `return`?"),
        (raises, "it stopped with IndexError: index 99 is out of bounds"),
        (wrong_shape, r"expected shape (2,), got ()."),
        (wrong_type, "expected a torch tensor, got [3., 6.]."),
        (wrong_kind, "expected numbers of type float32, got int64."),
        (wrong_values, "For x = [1., 2.], factor = 3.0: expected [3., 6.], got [4., 5.]."),
        (
            wrong_on_large,
            "For x = a tensor (6, 10), factor = -1.5: expected -1.5 at [0, 1], got 1.5; ",
        ),
        (in_place, "it changed its input; work on a copy"),
        (never_ends, "is there a loop that does not end?"),
        (nan, "expected [3., 6.], got [nan, nan]."),
        (exits, "it stopped with SystemExit: bye"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_wrong(entry, capsys, function, words):
    start = time.perf_counter()
    out, bound = said(capsys, function)
    assert out.startswith("Exercise 99.1 · not yet. For ")
    assert words in out
    assert "\n    Hint: multiply\n    Going on with the course's solution.\n" in out
    assert torch.equal(bound(torch.ones(2), 2.0), torch.full((2,), 2.0))
    assert time.perf_counter() - start < 2


def test_find_the_bug(entry, capsys, monkeypatch):
    def printed(x, factor):
        return x * factor * factor

    monkeypatch.setattr(entry, "bug", lambda x, factor: x * factor**2)
    assert "the bug is still in there" in said(capsys, printed)[0]
    assert "not yet" in said(capsys, wrong_values)[0]
    assert "correct" in said(capsys, lambda x, factor: x * factor)[0]


def test_progress_tells_what_is_open(entry, capsys):
    checks.progress(99)
    assert "Notebook 99: 0 of 2 done" in capsys.readouterr().out
    said(capsys, wrong_values)
    checks.quiz("99.q1", "a")
    capsys.readouterr()
    checks.progress("99")
    out = capsys.readouterr().out
    assert "1 of 2 done" in out
    assert out.count("not yet") == 1
    assert out.endswith("Still open: 99.1\n")
    said(capsys, scale)
    checks.progress(99)
    assert "Nothing is open. Well done." in capsys.readouterr().out


def test_a_value_in_place_of_a_letter(entry, capsys):
    """A forgotten pair of quotes hands over whatever has that name."""
    checks.quiz("99.q1", np.zeros(2000))
    said_ = capsys.readouterr().out
    assert "is none of the answers; choose" in said_
    assert len(said_) < 150


def test_unknown_numbers(entry):
    with pytest.raises(ValueError, match=r"no exercise 98\.7"):
        checks.exercise("98.7")
    with pytest.raises(ValueError, match=r"no question 98\.q7"):
        checks.quiz("98.q7", "a")


def test_an_exercise_is_registered_once():
    solutions.load_all()
    register = solutions.solution("99.2", cases=cases, insight="", hint="")
    register(scale)
    with pytest.raises(ValueError, match="twice"):
        register(scale)
    del solutions.EXERCISES["99.2"]


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        ({"a": 1}, {"b": 1}, "expected the keys ['a'], got a dict of 1."),
        ({"a": 1.0}, {"a": 2.0}, "under 'a': expected 1, got 2."),
        ((1.0, 2.0), 1.0, "expected 2 values, got 1.0."),
        ((1.0, 2.0), (1.0, 3.0), "value 2: expected 2, got 3."),
        ("yes", "no", "expected 'yes', got 'no'."),
        (np.ones(2), [1, 1], "expected a numpy array, got a list of 2."),
        (1.0, "one", "expected 1.0, got 'one'."),
        (np.zeros(3), np.zeros(4), "expected shape (3,), got (4,)."),
        (np.ones(2), np.float64(2.5), "expected a numpy array, got 2.5."),
        (np.ones(2), np.ones(2) + 4e-5, "expected [1., 1.], got [1., 1.], off by up to 4e-05."),
    ],
)
def test_difference(expected, got, words):
    assert checks.difference(expected, got) == words
    assert checks.difference(expected, expected) is None


def test_a_case_is_told_with_the_names_of_its_arguments():
    def step(x, rate=0.1, *, decay=0.0):
        pass

    assert checks._arguments(step, (3.0,)) == "x = 3.0"
    assert checks._arguments(step, (3.0, 0.5)) == "x = 3.0, rate = 0.5"
    assert checks._arguments(step, ()) == "no arguments"
    assert checks._arguments(step, (1, 2, 3, 4)) == "1, 2, 3, 4"


@pytest.mark.filterwarnings("error")
def test_infinity_equals_infinity_only():
    """Times of what never happens."""
    a = np.array([1.0, np.inf])
    assert checks.difference(a, a.copy()) is None
    for other in ([1.0, 2.0], [1.0, -np.inf], [1.0, np.nan], [np.inf, np.inf]):
        assert checks.difference(a, np.array(other)), other


def test_small_errors_pass_and_nan_equals_nan():
    a = np.array([1.0, np.nan, 1e6])
    assert checks.difference(a, a * (1 + 1e-7)) is None
    assert checks.difference(a, a * 1.01)


def test_what_is_short_and_plain_is_shown():
    """A learner can try the case that failed; long lists and other things are only named."""
    assert checks._arguments(lambda a, b: a, ([3, 3], [2, 1])) == "a = [3, 3], b = [2, 1]"
    assert checks._arguments(lambda a: a, ([1] * 10,)) == "a = a list of 10"
    assert checks._arguments(lambda a: a, ([(2, 2), (3, 1)],)) == "a = [(2, 2), (3, 1)]"
    assert checks._arguments(lambda a: a, ({"shape": 4},)) == "a = {'shape': 4}"
    assert checks._arguments(lambda a: a, ([torch.zeros(1)],)) == "a = a list of 1"
