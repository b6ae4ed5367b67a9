"""What is solved is kept across notebooks, and drawn."""

import datetime
import json

import numpy as np
import pytest

from course.teach import certificate, checks, record
from course.teach.certificate import tasks, titles


@pytest.fixture
def file(monkeypatch, tmp_path):
    for name in ("CI", "COURSE_QUIET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "kept" / "progress.json"))
    monkeypatch.setattr(checks, "_state", {})
    return tmp_path / "kept" / "progress.json"


def test_right_answers_are_remembered_by_other_kernels(file, capsys):
    checks.quiz("1.q1", "wrong")
    assert record.solved() == {}
    right = next(c for c in "abc" if checks.is_right("1.q1", c))
    checks.quiz("1.q1", next(c for c in "abc" if c != right))
    assert not file.exists()
    checks.quiz("1.q1", right)
    checks.exercise("1.1")(checks.EXERCISES["1.1"].function)
    today = datetime.date.today().isoformat()
    assert json.loads(file.read_text()) == {"1.1": today, "1.q1": today}


def test_a_damaged_file_stops_nobody(file):
    file.parent.mkdir()
    file.write_text("[half a")
    assert record.solved() == {}
    record.remember("1.2")
    assert list(record.solved()) == ["1.2"]


def test_where_nobody_watches_nothing_is_kept(file, monkeypatch):
    monkeypatch.setenv("COURSE_QUIET", "1")
    record.remember("1.1")
    assert not file.exists()


def test_every_notebook_has_its_title_and_tasks():
    found = titles()
    assert found[1] == "FLAME"
    assert all(found.values())
    exercises, questions = tasks(1)
    assert "1.1" in exercises
    assert "1.q1" in questions
    assert not any(n.startswith("10.") for n in exercises)


def test_solved_tasks_and_the_portrait_are_seen():
    day, head = datetime.date(2026, 1, 2), np.full((40, 40, 3), (200, 20, 220), np.uint8)
    empty = certificate.certificate("Ada Example", done=(), day=day)
    some = certificate.certificate("Ada Example", head, ["1.1", "1.q1"], day)
    assert empty.shape == some.shape == (960, 1400, 3)
    full = certificate.certificate("Ada Example", done=tasks(1)[0], day=day)
    green = lambda picture: int((picture == [0, 158, 115]).all(-1).sum())  # noqa: E731
    one = green(some) - green(empty)
    assert one > 50  # pixels of a dot
    assert green(full) - green(empty) > 3 * one
    assert (some == [200, 20, 220]).all(-1).sum() > 100_000


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "A\U0010ffff"])
def test_impossible_names_are_refused_in_a_sentence(name):
    with pytest.raises(ValueError, match=r"name of 1 to 60|No font here"):
        certificate.certificate(name)
