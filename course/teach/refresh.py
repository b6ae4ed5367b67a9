"""``python -m course.teach.refresh notebooks/00_start_here.ipynb``: run notebooks, keep outputs.

Widget state is taken out again: GitHub refuses notebooks with half of it, and nobody needs it.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from course.files import write_text


def refresh(path):
    """Run one notebook from its own folder and write it back, whole or not at all."""
    os.environ["COURSE_QUIET"] = "1"
    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}}).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    write_text(path, nbformat.writes(notebook) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        refresh(name)
