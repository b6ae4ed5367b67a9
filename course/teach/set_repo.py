"""``python -m course set-repo OWNER/NAME``: point badges and set-up cells at another repository.

The one place that holds the address is ``[project.urls]`` in pyproject.toml; everything else
repeats it, and is rewritten here (a fork for a workshop, say).
"""

import re
import tomllib
from pathlib import Path

from course.files import write_text

ROOT = Path(__file__).resolve().parents[2]
HOST = "https://github.com/"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/(?!\.+$)[\w.-]+")


def add_arguments(parser):
    parser.add_argument("url", metavar="OWNER/NAME", help="the repository, or its address")


def current(root=ROOT):
    """The repository's address as pyproject.toml has it."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]["urls"]["Repository"]


def places(root=ROOT):
    """Files that repeat the address; last the one that holds it: what was stopped can go on."""
    files = [root / "README.md", *(root / "notebooks").glob("*.ipynb")]
    return [*files, *(root / "notebooks").glob("*.md"), root / "pyproject.toml"]


def run(args, root=ROOT):
    short_new = args.url.removeprefix(HOST).removesuffix("/").removesuffix(".git")
    if not NAME.fullmatch(short_new):
        raise ValueError(f"{args.url} is not of the form OWNER/NAME or {HOST}OWNER/NAME.")
    short_old = current(root).removeprefix(HOST)
    changed = 0
    for path in places(root):
        text = path.read_text(encoding="utf-8")
        # owner/name stands in badges too; the folder that Colab clones into keeps its name
        new = re.sub(rf"{re.escape(short_old)}(?![\w-])", short_new, text)
        if new != text:
            write_text(path, new)
            changed += 1
    print(f"{HOST}{short_old} → {HOST}{short_new}: {changed} files rewritten")
    return 0
