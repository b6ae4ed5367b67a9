"""Every exercise three ways: as the notebook prints it, solved, and with typical wrong answers.

Wrong answers of notebook NN are in tests/wrong_answers_NN.py: WRONG maps an exercise's number to
functions, each of which a learner could have written.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from course.teach import checks, solutions

ROOT = Path(__file__).resolve().parent.parent
solutions.load_all()


def stubs():
    """Exercise number → (notebook, source of the cell that holds its stub)."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code":
                for number in re.findall(r'^@exercise\("([^"]+)"\)', source, re.MULTILINE):
                    found[number] = (path, source)
    return found


def wrong_answers():
    found = []
    for path in sorted(Path(__file__).parent.glob("wrong_answers_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found += [(number, f) for number, functions in module.WRONG.items() for f in functions]
    return found


STUBS, WRONG = stubs(), wrong_answers()
IMPORT = re.compile(r"(?:from course|import (?:torch|numpy|math)|from (?:torch|math)).*")


def imports_of(path):
    """What a notebook's code cells import, run, so that a stub's cell can be run alone."""
    space = {"torch": torch}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            lines = [IMPORT.match(line) for line in "".join(cell["source"]).splitlines()]
            for line in filter(None, lines):
                exec(line.group(), space)
    return space


def test_every_exercise_stands_in_its_notebook():
    assert set(STUBS) == set(solutions.EXERCISES)
    for number, (path, source) in STUBS.items():
        assert int(path.stem[:2]) == int(number.split(".")[0])
        name = solutions.EXERCISES[number].function.__name__
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{number} is not called {name}"


@pytest.mark.parametrize("number", sorted(STUBS))
def test_untouched(number, capsys):
    path, source = STUBS[number]
    space = imports_of(path) | {"exercise": checks.exercise}
    start = source.index("@exercise")
    exec(source[start:], space)
    out = capsys.readouterr().out
    assert f"Exercise {number} · " in out
    assert "going on with the course's solution" in out
    entry = solutions.EXERCISES[number]
    for case in entry.cases():  # the name is bound to something that works
        expected = entry.run(entry.function, *case)
        got = entry.run(space[entry.function.__name__], *case)
        assert checks.difference(expected, got, entry.tolerance) is None


@pytest.mark.parametrize("number", sorted(STUBS))
def test_solved(number):
    entry = solutions.EXERCISES[number]
    state, lines = checks.judge(entry, entry.function)
    assert state == checks.RIGHT, lines
    assert len(entry.insight) > 20
    assert len(entry.hint) > 10


@pytest.mark.parametrize(("number", "function"), WRONG, ids=lambda v: getattr(v, "__name__", v))
def test_wrong_answers_are_caught(number, function):
    state, lines = checks.judge(solutions.EXERCISES[number], function)
    assert state == checks.WRONG, lines
    assert "Hint: " in lines[1]
    assert len(lines[0]) < 500


def test_three_wrong_answers_each():
    for number in solutions.EXERCISES:
        assert sum(n == number for n, _ in WRONG) >= 3, number


@pytest.mark.parametrize("number", sorted(STUBS))
def test_three_hints_in_the_text(number):
    path, _ = STUBS[number]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    at = next(k for k, c in enumerate(cells) if f'@exercise("{number}")' in "".join(c["source"]))
    around = "\n".join("".join(c["source"]) for c in cells[max(0, at - 2) : at + 3])
    assert around.count("<details>") >= 3
    assert "●" in around
    assert re.search(r"\d+ min", around)
