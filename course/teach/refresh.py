"""``python -m course.teach.refresh notebooks/00_start_here.ipynb``: run notebooks, keep outputs.

Outputs are a learner's on the first day: the built-in head, nothing solved yet. Widget state is
taken out again: GitHub refuses notebooks with half of it, and nobody needs it.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from course.files import write_text
from course.flame_files import BUILT_IN


def refresh(path):
    """Run one notebook from its own folder and write it back, whole or not at all."""
    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}})
    with tempfile.TemporaryDirectory() as empty:
        mine = {"COURSE_QUIET": "1", "COURSE_FLAME": str(BUILT_IN),
                "COURSE_PROGRESS": str(Path(empty) / "progress.json")}  # fmt: skip
        client.execute(env=os.environ | mine)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    write_text(path, nbformat.writes(notebook) + "\n")


if __name__ == "__main__":
    absent = [name for name in sys.argv[1:] if not Path(name).is_file()]
    if absent:
        sys.exit(f"There is no notebook {absent[0]}.")
    for name in sys.argv[1:]:
        refresh(name)
