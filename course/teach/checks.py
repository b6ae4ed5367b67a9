"""Exercises and quizzes that answer where they stand and never stop a notebook.

``@exercise("1.2")`` compares the learner's function with the course's on small, random and edge
cases, says what differs on the smallest failing one, and leaves a working function behind the name
either way. What was tried is kept in this kernel; ``progress`` prints it. What was right is kept on
this machine too (``record``), for the certificate.
"""

import contextlib
import copy
import dis
import functools
import inspect
import signal
import threading

import numpy as np
import torch

from course.teach import record, solutions
from course.teach.solutions import EXERCISES, QUESTIONS

SECONDS = 20  # a learner's function that takes longer is stopped
OPEN, RIGHT, WRONG = "open", "right", "not yet"
_state = {}


def exercise(number):
    """Decorator for a learner's function: checks it, and binds the name to one that works.

    Raises ValueError for a number that no notebook has, never for what the learner wrote.
    """
    solutions.load_all()
    if number not in EXERCISES:
        raise ValueError(
            f"There is no exercise {number}; there are {', '.join(sorted(EXERCISES))}."
        )
    entry = EXERCISES[number]

    def check(function):
        state, lines = judge(entry, function)
        _state[number] = state
        if state == RIGHT:
            record.remember(number)
        print(f"Exercise {number} · " + "\n    ".join(lines))
        if state == RIGHT:
            return function
        solved = functools.wraps(function)(
            lambda *args, **options: entry.function(*args, **options)
        )
        solved.__doc__ = function.__doc__
        return solved

    return check


def judge(entry, function):
    """State (OPEN, RIGHT or WRONG) and the lines to print for one attempt."""
    going_on = "Going on with the course's solution."
    if _is_untouched(function):
        return OPEN, ["not tried yet, going on with the course's solution"]
    if entry.bug is not None and _same_everywhere(entry, function, entry.bug):
        return OPEN, ["the bug is still in there, going on with the course's solution"]
    for case in entry.cases():
        problem = _problem(entry, function, case)
        if problem:
            return WRONG, [f"not yet. {problem}", f"Hint: {entry.hint}", going_on]
    return RIGHT, [f"correct. {entry.insight}"]


def _is_untouched(function):
    """Whether the body is nothing but a docstring and ``...``."""
    idle = {"RESUME", "RETURN_CONST", "LOAD_CONST", "RETURN_VALUE", "NOP"}
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    returned = [i.argval for i in dis.get_instructions(code) if "CONST" in i.opname]
    return {i.opname for i in dis.get_instructions(code)} <= idle and all(
        value is None or value is ... for value in returned
    )


def _same_everywhere(entry, function, other):
    for case in entry.cases():
        try:
            with time_limit(SECONDS):
                mine = entry.run(function, *copy.deepcopy(case))
            theirs = entry.run(other, *copy.deepcopy(case))
        except Exception:
            return False
        if difference(theirs, mine, entry.tolerance):
            return False
    return True


def _problem(entry, function, case):
    """None, or one sentence on what is wrong with the answer to one case."""
    expected = entry.run(entry.function, *copy.deepcopy(case))
    given = copy.deepcopy(case)
    where = f"For {_arguments(entry.function, case)}: "
    try:
        with time_limit(SECONDS):
            got = entry.run(function, *given)
    except TimeoutError:
        return f"{where}no answer after {SECONDS} seconds; is there a loop that does not end?"
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())[:200]
        return f"{where}it stopped with {type(error).__name__}: {text}"
    if got is None:
        return f"{where}nothing came back; is there a `return`?"
    if difference(list(case), list(given), 0.0):
        return f"{where}it changed its input; work on a copy (x.clone(), x.copy())."
    wrong = difference(expected, got, entry.tolerance)
    return f"{where}{wrong}" if wrong else None


def _arguments(function, case):
    """A case in words, "data = …, k = 1", with the names that the function gives its arguments."""
    named = list(inspect.signature(function).parameters.values())
    needed = sum(p.default is p.empty for p in named)
    if not needed <= len(case) <= len(named):  # a case that ``run`` unpacks in its own way
        return describe(case)
    return ", ".join(f"{p.name} = {_argument(v)}" for p, v in zip(named, case, strict=False))


def _argument(value):
    """``describe``, and what is short and plain as it is: the learner can try it."""
    plain = isinstance(value, (list, dict)) and len(value) <= 9 and _plain(value)
    return repr(value) if plain else describe(value)


def _plain(value):
    """Whether a value is made of numbers and names alone."""
    if isinstance(value, dict):
        return _plain(list(value)) and _plain(list(value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return isinstance(value, (int, float, str))


def difference(expected, got, tolerance=1e-5):
    """None when two values agree, else what was expected and what came: type, shape, then values.

    Tensors, arrays, numbers, strings, and tuples, lists and dicts of them.
    """
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            return f"expected the keys {sorted(map(str, expected))}, got {describe(got)}."
        pairs = ((f"under {k!r}: ", expected[k], got[k]) for k in expected)
        return _first_difference(pairs, tolerance)
    if isinstance(expected, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(expected):
            return f"expected {len(expected)} values, got {describe(got)}."
        pairs = ((f"value {k + 1}: ", *pair) for k, pair in
                 enumerate(zip(expected, got, strict=True)))  # fmt: skip
        return _first_difference(pairs, tolerance)
    if isinstance(expected, str) or expected is None:
        return None if expected == got else f"expected {expected!r}, got {got!r}."
    if not isinstance(expected, (torch.Tensor, np.ndarray, np.generic, bool, int, float)):
        return None  # models, generators and the like are not compared
    return _array_difference(expected, got, tolerance)


def _first_difference(pairs, tolerance):
    for label, expected, got in pairs:
        wrong = difference(expected, got, tolerance)
        if wrong:
            return label + wrong
    return None


def _array_difference(expected, got, tolerance):
    for kind, name in ((torch.Tensor, "a torch tensor"), (np.ndarray, "a numpy array")):
        if isinstance(expected, kind) and not isinstance(got, kind):
            return f"expected {name}, got {describe(got)}."
    try:
        want, have = (np.asarray(torch.as_tensor(v).detach().cpu()) for v in (expected, got))
    except (TypeError, ValueError, RuntimeError):
        return f"expected {describe(expected)}, got {describe(got)}."
    if want.shape != have.shape:
        return f"expected shape {want.shape}, got {have.shape}."
    if want.dtype.kind != have.dtype.kind and "f" in want.dtype.kind + have.dtype.kind:
        return f"expected numbers of type {want.dtype}, got {have.dtype}."
    if not want.size:
        return None
    want, have = want.astype(np.float64), have.astype(np.float64)
    scale = np.maximum(np.abs(want), 1.0)
    same = (want == have) | (np.isnan(want) & np.isnan(have))  # inf too
    with np.errstate(invalid="ignore"):  # infinity from infinity
        error = np.where(same, 0, np.abs(want - have) / scale)
    error = np.where(np.isnan(error), np.inf, error)
    if error.max() <= tolerance:
        return None
    if want.size <= 9:
        asked, given = _numbers(want), _numbers(have)
        near = f", off by up to {np.abs(want - have).max():.1g}" if asked == given else ""
        return f"expected {asked}, got {given}{near}."
    at = np.unravel_index(error.argmax(), error.shape)
    place = ", ".join(map(str, at))
    share = 100 * (error > tolerance).mean()
    return (f"expected {want[at]:.4g} at [{place}], got {have[at]:.4g}; "
            f"{share:.0f} % of the numbers differ.")  # fmt: skip


def _numbers(array):
    """A small array on one line."""
    if np.ndim(array) == 0:
        return f"{float(array):.4g}"
    text = np.array2string(np.asarray(array), precision=3, suppress_small=True, separator=", ")
    return " ".join(text.split())


def describe(value):
    """A value in a few words: small ones themselves, others by type and shape."""
    if isinstance(value, tuple):
        return ", ".join(map(describe, value)) if value else "no arguments"
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = np.asarray(torch.as_tensor(value).detach().cpu())
        if array.size <= 9:
            return _numbers(array)
        return f"{'a tensor' if isinstance(value, torch.Tensor) else 'an array'} {array.shape}"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, int, float, str)) or value is None:
        return repr(value)
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeoutError after so many seconds, where the system can (main thread, not Windows)."""
    usable = hasattr(signal, "setitimer") and (
        threading.current_thread() is threading.main_thread()
    )
    if not usable:
        yield
        return

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ------------------------------------------------------------------ quizzes


def quiz(question, choice=...):
    """Check one answer, "a", "b" or "c", and say why; ``...`` means "not answered yet".

    Raises ValueError for a question that does not exist, never for an answer.
    """
    solutions.load_all()
    if question not in QUESTIONS:
        raise ValueError(f"There is no question {question}; there are {', '.join(QUESTIONS)}.")
    entry = QUESTIONS[question]
    options = sorted(set(entry) - {"answer"})
    listed = ", ".join(f'"{option}"' for option in options[:-1]) + f' or "{options[-1]}"'
    if choice is ... or str(choice).strip() == "":
        _state.setdefault(question, OPEN)
        print(f"Question {question} · not answered yet: put {listed} in place of the dots.")
        return
    choice = str(choice).strip().lower()
    if choice in options:
        _state[question] = RIGHT if choice == entry["answer"] else WRONG
        if choice == entry["answer"]:
            record.remember(question)
        print(f"Question {question} · {entry[choice]}")
    else:
        print(f"Question {question} · {choice!r:.40} is none of the answers; choose {listed}.")


def is_right(question, choice):
    """Whether an answer is the right one."""
    solutions.load_all()
    return QUESTIONS[question]["answer"] == choice


# ------------------------------------------------------------------ progress


def progress(notebook):
    """Print what of a notebook's exercises and questions is done in this kernel."""
    solutions.load_all()
    rows = [(number, entry.function.__name__) for number, entry in sorted(EXERCISES.items())]
    rows += [(number, "question") for number in sorted(QUESTIONS)]
    rows = [row for row in rows if row[0].startswith(f"{int(notebook)}.")]
    done = sum(_state.get(number) == RIGHT for number, _ in rows)
    print(f"Notebook {int(notebook):02d}: {done} of {len(rows)} done")
    for number, name in rows:
        print(f"  {number:6s} {name:32s} {_state.get(number, OPEN)}")
    left = [number for number, _ in rows if _state.get(number) != RIGHT]
    print("Still open: " + ", ".join(left) if left else "Nothing is open. Well done.")
