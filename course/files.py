"""Files written whole or not at all, and whether anybody watches."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path, PureWindowsPath

DATA = Path(__file__).resolve().parent.parent / "data"


def quiet():
    """No progress bars where nobody watches."""
    return bool(os.environ.get("COURSE_QUIET") or os.environ.get("CI"))


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary sibling of ``path``; move it into place on success, delete it on failure.

    The temporary file keeps the suffix, because many writers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)  # mkstemp makes private files
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


@contextlib.contextmanager
def whole_folder(target):
    """Yield a temporary folder; its files move to the folder ``target`` on success only.

    Files of an older run that the new one lacks stay.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        yield workplace
        if target.is_dir():
            for path in workplace.iterdir():
                path.replace(target / path.name)
        else:
            workplace.chmod(0o755)  # mkdtemp makes private folders
            workplace.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(workplace)


def any_path(text):
    r"""A path as it was typed, on any system: ``faces\me.jpg`` is found on Linux too."""
    path = Path(text)
    if os.sep == "/" and "\\" in str(text) and not path.exists():
        path = Path(PureWindowsPath(text).as_posix())
    return path


def write_text(path, text):
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
