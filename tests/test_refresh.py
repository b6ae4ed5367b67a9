"""Stored outputs are nobody's: what the developer solved, and another head, stay out of them."""

import json
import os

import nbformat

from course.teach.refresh import refresh

SOURCE = """import os
from course.flame_files import BUILT_IN, find
from course.teach import record
print(record.solved(), find() == BUILT_IN, os.environ["COURSE_QUIET"])
record.remember("1.2")"""


def test_a_developers_progress_and_head_do_not_leak(tmp_path, monkeypatch):
    progress = tmp_path / "progress.json"
    progress.write_text(json.dumps({"1.1": "2026-01-01"}))
    monkeypatch.setenv("COURSE_PROGRESS", str(progress))
    monkeypatch.setenv("COURSE_FLAME", str(tmp_path / "somebodys.pkl"))
    monkeypatch.delenv("COURSE_QUIET", raising=False)
    path = tmp_path / "notebook.ipynb"
    cell = nbformat.v4.new_code_cell(SOURCE)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {}}), path)
    refresh(path)
    found = nbformat.read(path, as_version=4)
    assert found.cells[0].outputs[0].text.split("\n")[0] == "{} True 1"
    assert found.cells[0].execution_count == 1
    assert "execution" not in found.cells[0].metadata
    assert "widgets" not in found.metadata
    assert json.loads(progress.read_text()) == {"1.1": "2026-01-01"}
    assert os.environ["COURSE_PROGRESS"] == str(progress)
    assert "COURSE_QUIET" not in os.environ
