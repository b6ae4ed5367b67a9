"""``python -m course benchmark --notebooks``: how long each notebook takes, and how much memory.

Every notebook is run once in a kernel of its own; what it prints is thrown away. The figures go to
data/results/notebooks.csv, and as a table between two marks into notebooks/README.md.
"""

import contextlib
import datetime
import os
import subprocess
import threading
import time

import nbformat
import numpy as np
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from course.experiments import RESULTS, read_csv, write
from course.files import DATA, quiet, write_text

FOLDER = DATA.parent / "notebooks"
OUTPUT = RESULTS / "notebooks.csv"
MARKS = "<!-- times: python -m course benchmark --notebooks -->", "<!-- end of times -->"
EVERY = 0.5  # seconds from one look at the processes to the next
COLUMNS = {
    "notebook": str,  # its file's name
    "seconds": float,  # from the kernel's start to the end of the last cell
    "cpu_seconds": float,  # of all threads of the kernel and of what it starts
    "memory_mb": float,  # the most that they held at one time
    "others": float,  # processor cores that other programs used meanwhile, on average
    "threads": int,
    "machine": str,
    "versions": str,
    "date": str,
}


class NotebookError(Exception):
    """A notebook does not run to its end; the message says which cell fails."""


def run(threads, machine, versions):
    """Run all notebooks of FOLDER, write OUTPUT and the table; exit code.

    ``machine`` and ``versions`` say in words what it is measured on. When a notebook fails, the
    others are run all the same, but nothing is written: exit code 1. Raises ValueError where there
    are no notebooks, or no place for the table in their README.
    """
    readme, paths = FOLDER / "README.md", sorted(FOLDER.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"There are no notebooks in {FOLDER}.")
    before, _, after = parts(readme)
    known = {"threads": threads, "machine": machine, "versions": versions,
             "date": datetime.date.today().isoformat()}  # fmt: skip
    rows, failed = [], 0
    for path in tqdm(paths, "notebooks", disable=quiet()):
        try:
            rows.append(measure(path, threads) | known)
            tqdm.write("{notebook:36s}{seconds:8.1f} s{cpu_seconds:8.1f} s of processor"
                       "{memory_mb:8.0f} MB".format(**rows[-1]))  # fmt: skip
        except NotebookError as error:
            failed += 1
            tqdm.write(str(error))
    if failed:
        print(f"{failed} of {len(paths)} notebooks failed: nothing is written.")
        return 1
    write(OUTPUT, rows, COLUMNS)
    write_text(readme, before + table(read_csv(OUTPUT, COLUMNS)) + after)
    print(f"wrote {OUTPUT} and the table in {readme}")
    return 0


def measure(path, threads):
    """Run one notebook: the first five COLUMNS. Raises NotebookError."""
    notebook, count = nbformat.read(path, as_version=4), 0
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": path.parent}})
    quietly = os.environ | {"OMP_NUM_THREADS": str(threads), "COURSE_QUIET": "1"}
    try:
        with Meter() as meter, client.setup_kernel(env=quietly, stderr=subprocess.DEVNULL):
            for k, cell in enumerate(notebook.cells):
                count += cell.cell_type == "code"
                client.execute_cell(cell, k)
            found = meter.read()
    except CellExecutionError as error:
        raise NotebookError(f"{path.name} fails in [{count}]: {error.ename}: "
                            f"{error.evalue}") from None  # fmt: skip
    except RuntimeError as error:  # no kernel, or it died, of too little memory for example
        raise NotebookError(f"{path.name} fails in [{count}]: {error}") from None
    return {"notebook": path.name} | found


class Meter(threading.Thread):
    """What the processes take that this one starts from now on: a context."""

    def __init__(self):
        super().__init__(daemon=True)
        self.own = psutil.Process()
        self.older = {process.pid for process in self.own.children(recursive=True)}
        self.spent, self.peak = {}, 0  # processor seconds of each process, bytes
        self.lock, self.stopped = threading.Lock(), threading.Event()

    def __enter__(self):
        self.clock, self.busy = time.perf_counter(), _busy()
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()

    def run(self):
        while not self.stopped.wait(EVERY):
            self.look()

    def look(self):
        held = 0
        with self.lock:
            for process in self.own.children(recursive=True):
                if process.pid not in self.older:
                    with contextlib.suppress(psutil.Error):  # it may have just ended
                        times = process.cpu_times()
                        self.spent[process.pid] = times.user + times.system
                        held += process.memory_info().rss
            self.peak = max(self.peak, held)

    def read(self):
        """Seconds, processor seconds, megabytes, and cores that others used, until now."""
        self.look()
        seconds, spent = time.perf_counter() - self.clock, sum(self.spent.values())
        others = (_busy() - self.busy - spent) / seconds
        return {"seconds": seconds, "cpu_seconds": spent, "memory_mb": self.peak / 1e6,
                "others": max(0.0, others)}  # fmt: skip


def _busy():
    """Seconds that all cores together have worked since the machine was started."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0.0)


# ------------------------------------------------------------------ the table


def parts(readme):
    """A README's text up to the first mark, between the marks, and from the second one on."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = text.partition(MARKS[0])
    between, end, after = rest.partition(MARKS[1])
    if not end:
        raise ValueError(f"{readme} needs the lines {MARKS[0]} and {MARKS[1]}: the table goes "
                         "between them.")  # fmt: skip
    return before + begin, between, end + after


def table(rows):
    """The Table of COLUMNS as Markdown."""
    one = {name: column[0] for name, column in rows.items()}
    lines = [
        "",
        "## How long they take",
        "",
        "| notebook | time | processor time | memory |",
        "|---|---|---|---|",
    ]
    for name, *values in zip(*(rows[c] for c in list(COLUMNS)[:4]), strict=True):
        lines.append(f"| [{name[:2]}]({name}) | {_amounts(*values)} |")
    whole = rows["seconds"].sum(), rows["cpu_seconds"].sum(), rows["memory_mb"].max()
    lines.append(f"| all; the most memory | {_amounts(*whole)} |")
    return "\n".join([
        *lines, "",
        f"Measured on {one['date']} with {one['threads']} threads on {one['machine']} "
        f"({one['versions']}); other programs kept {np.mean(rows['others']):.1f} cores busy "
        "meanwhile. `python -m course benchmark --notebooks` measures it on yours.", "",
    ])  # fmt: skip


def _amounts(seconds, spent, memory):
    times = (f"{int(s // 60)}:{int(s % 60):02d} min" for s in (seconds, spent))
    return f"{' | '.join(times)} | {memory / 1000:.1f} GB"
