"""Files written whole or not at all, what a training keeps, and whether anybody watches."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PureWindowsPath

import numpy as np

DATA = Path(__file__).resolve().parent.parent / "data"
# what systems say when a disk, a share of it, or a file's largest size is full
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
NO_MEMORY_TEXTS = ("can't allocate memory", "not enough memory", "out of memory")
FULL_TEXTS = [*(f"[Errno {number}]" for number in FULL), "[WinError 112]"]


class WriteError(OSError):
    """A file that could not be written; the message is one sentence."""


def quiet():
    """No progress bars where nobody watches."""
    return bool(os.environ.get("COURSE_QUIET") or os.environ.get("CI"))


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary sibling of ``path``; move it into place on success, delete it on failure.

    The temporary file keeps the suffix, because many writers choose their format by it. Raises
    WriteError where the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    with _room_for(path):
        with _reachable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
        try:
            os.close(handle)
            yield Path(name)
            with _reachable(path):
                os.chmod(name, 0o644)  # mkstemp makes private files
                os.replace(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


@contextlib.contextmanager
def whole_folder(target):
    """Yield a temporary folder; what is in it moves to the folder ``target`` on success only.

    Files of an older run that the new one lacks stay. Stopped among the moves, it undoes them.
    Raises WriteError as ``atomic_path``.
    """
    with _room_for(target):
        with _reachable(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            workplace = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
        try:
            yield workplace
            with _reachable(target):
                if target.is_dir():
                    _move_all(workplace, target)
                else:
                    workplace.chmod(0o755)  # mkdtemp makes private folders
                    workplace.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(workplace)


def _move_all(source, target):
    """Move what is in a folder into another that is there: all of it, or nothing."""
    names = [path.name for path in source.iterdir()]
    aside = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (target / name).replace(aside / name)
            (source / name).replace(target / name)
    except BaseException:
        for name in names:  # what lies where says how far it came
            if not (source / name).exists():
                (target / name).replace(source / name)
            if (aside / name).exists():
                (aside / name).replace(target / name)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


@contextlib.contextmanager
def _reachable(path):
    """Say in a sentence what stands in the way of ``path``."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}.") from None


@contextlib.contextmanager
def _room_for(path):
    """Say in a sentence that the disk became full while ``path`` was written."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not full(error):
            raise
        told = WriteError(f"{path} was not written, the disk is full; make room and type the same "
                          "again.")  # fmt: skip
        told.errno = errno.ENOSPC
        raise told from None


def no_memory(error):
    """Whether an exception means that the memory is full; torch's is a RuntimeError."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY_TEXTS)
    )


def full(error):
    """Whether an exception, or what a program said, means that a disk is full.

    numpy's and torch's do not say so; shutil's hold the texts of all files that failed.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    text = str(error)
    if any(part in text for part in FULL_TEXTS):
        return True
    numpys = "requested and" in text and "written" in text
    return numpys or "inline_container" in text or "PytorchStreamWriter" in text


@contextlib.contextmanager
def checkpoint(path, device="cpu", settings=None):
    """Yield what a training keeps in the file ``path``, to go on from.

    Raises ValueError where that is damaged, even if it shows only inside (something is missing or
    does not fit), and where its "settings" are not those asked for.
    """
    import torch  # here: most who write files need none

    damaged = f"{path} is damaged; delete it to begin again."
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        if no_memory(error):
            raise
        raise ValueError(damaged) from None
    try:
        differ = [k for k, v in (settings or {}).items() if state["settings"].get(k) != v]
        if differ:
            found = ", ".join(f"{name} {state['settings'].get(name)}" for name in differ)
            raise ValueError(f"{path} is of a run with other settings: {found}; give those or "
                             "another folder, or delete it to begin again.")  # fmt: skip
        yield state
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:
        if no_memory(error):
            raise
        raise ValueError(damaged) from None


def save_training(path, parts, settings, **more):
    """Write what a training goes on from, whole or not at all: the states of ``parts`` {name:
    module or optimizer}, the settings that tell runs apart, and numbers and lists."""
    import torch

    state = {name: part.state_dict() for name, part in parts.items()}
    with atomic_path(path) as temporary:
        torch.save(state | more | {"settings": settings}, temporary)


def load_training(path, parts, settings, more, device="cpu"):
    """Give ``parts`` the states of ``save_training``; returns what it was told beside, by the names
    ``more``. Raises ValueError as ``checkpoint`` does."""
    with checkpoint(path, device, settings) as state:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return [state[name] for name in more]


def any_path(text):
    r"""A path as it was typed, on any system: ``faces\me.jpg`` is found on Linux too."""
    path = Path(text)
    if os.sep == "/" and "\\" in str(text) and not path.exists():
        path = Path(PureWindowsPath(text).as_posix())
    return path


def check_folder(folder):
    """Make a folder where it is missing; raises WriteError, before long work, where that or a file
    in it cannot be written."""
    with _reachable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def write_text(path, text):
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def weights_path(asked, shipped, folder):
    """Where trained weights go: as ``asked``; else where the course looks for them, ``shipped``,
    but into ``folder`` if there are some already."""
    return Path(asked or (Path(folder) / shipped.name if shipped.exists() else shipped))


def write_report(weights, report, shipped):
    """What is known of trained weights, as JSON beside them; prints where both are."""
    beside = weights.with_suffix(".json")
    write_text(beside, json.dumps(report, indent=1) + "\n")
    print(f"wrote {weights} and {beside.name}")
    if weights.resolve() != shipped.resolve():
        print(f"The course goes on with {shipped}; to use the new ones, copy both files there.")


def digest(path):
    """Twelve letters that stand for a file's content, of its SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


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
