"""Files written whole or not at all, and whether anybody watches."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PureWindowsPath

import numpy as np

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


def cached_arrays(path, key, make):
    """Arrays by name from ``make()``, kept in the .npz ``path`` for as long as ``key`` is the same.

    Where the folder cannot be written to, they are kept in ``~/.cache/face-course``; where that
    cannot either, they are made anew each time.
    """
    elsewhere = Path.home() / ".cache" / "face-course"
    mark = hashlib.sha256(key.encode()).hexdigest()
    places = (path, elsewhere / f"{path.stem}-{mark[:12]}.npz")
    for place in places:
        found = read_cached(place, mark)
        if found is not None:
            return found
    arrays = make()
    for place in places:
        try:
            with atomic_path(place) as temporary, open(temporary, "wb") as file:
                np.savez(file, cache_key=mark, **arrays)
            break
        except OSError:
            continue
    return arrays


def read_cached(path, mark):
    """What ``cached_arrays`` kept at ``path`` under the mark of its key, or None."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["cache_key"]) == mark:
                return {name: file[name] for name in file.files if name != "cache_key"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # absent or damaged: it is made anew
    return None
