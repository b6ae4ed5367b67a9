"""``python -m course experiment NAME``: the long version of a notebook's experiment.

A grid of runs, settings × seeds, in processes side by side. Each finished run is kept: the same
command goes on where it was stopped. What comes out is data/results/NAME.csv, one row a
measurement, which the notebook reads with ``read`` and plots.

joblib and not Ray: runs on one machine that share nothing need a pool of processes, which is all of
joblib (one small package); Ray brings a server and a cluster's worth of parts.

An experiment is a module of this package, named in EXPERIMENTS, with ``COLUMNS``, a function
``one(setting, seed, **options)`` -> list of dicts, ``add_arguments(parser)`` and ``run(args)``.
"""

import csv
import hashlib
import importlib
import json
import math
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from course.files import DATA, any_path, atomic_path, check_folder, digest, quiet, write_text
from course.workers import spread

# name: (module, one line of help)
EXPERIMENTS = {
    "optimizers": ("course.experiments.optimizers", "SGD against Adam: steps, seconds, rates"),
    "asm": ("course.experiments.asm", "bones against components, mm per parameter"),
    "benchmark": ("course.experiments.benchmark", "heads from photographs, in mm, after NoW"),
    "gridmask": ("course.experiments.gridmask", "what hiding parts of pictures teaches an encoder"),
    "detail": ("course.experiments.detail", "skin detail with and without a discriminator"),
}
RESULTS = DATA / "results"
RUNS = DATA.parent / "runs" / "experiments"

# what every row has beside the experiment's own COLUMNS; minutes are one run's, from its beginning
COMMON = {"seed": int, "steps": int, "minutes": float, "machine": str}


def add_arguments(parser):
    """One sub-command an experiment."""
    names = parser.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
    for name, (module, text) in EXPERIMENTS.items():
        sub, module = names.add_parser(name, help=text, description=text), _module(module)
        sub.add_argument("--seeds", type=int, default=getattr(module, "SEEDS", 5),
                         help="runs of each setting")  # fmt: skip
        sub.add_argument("--workers", type=int, default=1, help="runs side by side")
        sub.add_argument("--threads", type=int, default=1, help="threads of each run")
        sub.add_argument("--folder", type=any_path, default=RUNS / name,
                         help="where finished runs are kept")  # fmt: skip
        sub.add_argument("--output", type=any_path, default=RESULTS / f"{name}.csv")
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)


def run(args):
    if min(args.seeds, args.workers, args.threads) < 1:
        raise ValueError("--seeds, --workers and --threads start at 1.")
    if args.output and args.output.is_dir():
        raise ValueError(f"--output names a file, but {args.output} is a folder.")
    check_folder(args.folder)
    return args.run(args)


def _module(name):
    return importlib.import_module(name)


# ------------------------------------------------------------------ running


def run_grid(one, settings, seeds, folder, workers=1, threads=1, options=None, title="runs"):
    """Run ``one(setting, seed, **options)`` for all settings × seeds.

    one       a function of a module (other processes import it) that returns a list of dicts,
              each with "steps"; "seed", "minutes", "machine" and the setting are added where it
              does not give them itself
    settings  dicts of plain values · seeds  integers · options  plain values, the same for all
    folder    keeps a file a finished run; a run whose file is there is not run again, unless a
              file that ``options`` name has other content since
    Returns the rows of all runs. A run that fails stops the rest; finished ones are kept.
    The seed changes slowest, so that what is stopped early has whole comparisons, and so that a
    machine that slows down slows all settings down.
    """
    options = options or {}
    jobs = [(setting, int(seed)) for seed in seeds for setting in settings]
    content = {name: _content(value) for name, value in options.items()}  # read once for all runs
    paths = [Path(folder) / f"{_key(one, *job, content)}.json" for job in jobs]
    missing = [(path, *job) for path, job in zip(paths, jobs, strict=True) if not path.is_file()]
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=title, disable=quiet())
    with bar:
        calls = [(one, *job, options, threads) for job in missing]
        for _ in spread(_finish, calls, workers, threads=threads):
            bar.update()
    return [row for path in paths for row in json.loads(path.read_text("utf-8"))["rows"]]


def _key(one, setting, seed, options):
    """A run's name: the same for the same work, whatever the order of its settings."""
    what = [f"{one.__module__}.{one.__qualname__}", setting, seed, options]
    text = json.dumps(what, sort_keys=True, default=str)
    return f"{seed}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _content(option):
    """A file's content in place of its name: results with other weights are not these."""
    if isinstance(option, (list, tuple)):
        return [_content(o) for o in option]
    named = isinstance(option, (str, Path)) and os.path.isfile(option)
    return digest(option) if named else option


def _finish(one, path, setting, seed, options, threads):
    """One run, and its file."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    rows = one(setting, seed, **options)
    known = {"seed": seed, "machine": machine(threads, options.get("device")),
             "minutes": round((time.perf_counter() - start) / 60, 4)} | setting  # fmt: skip
    kept = {"run": setting | {"seed": seed}, "options": options, "rows": [known | r for r in rows]}
    write_text(path, json.dumps(kept, indent=1, default=_plain) + "\n")


def _plain(value):
    """numpy's and torch's numbers, paths: as JSON has them."""
    return value.item() if hasattr(value, "item") else str(value)


def machine(threads=None, device=None):
    """In a few words: what the times of a row were taken on."""
    threads = torch.get_num_threads() if threads is None else threads
    return (f"{platform.system()} {platform.machine()}, {threads} of {os.cpu_count()} threads, "
            f"{device or 'cpu'}, torch {torch.__version__.split('+')[0]}")  # fmt: skip


# ------------------------------------------------------------------ results


class Table(dict):
    """{column: array (rows,)}; text columns are arrays of str, missing floats are NaN."""

    def __len__(self):
        return len(next(iter(self.values()), ()))

    def where(self, **equal):
        """The rows whose columns have these values."""
        chosen = np.ones(len(self), bool)
        for name, value in equal.items():
            chosen &= self[name] == value
        return Table({name: column[chosen] for name, column in self.items()})


def columns(name):
    """{column: type} of an experiment's CSV."""
    return dict(_module(EXPERIMENTS[name][0]).COLUMNS) | COMMON


def write(path, rows, schema):
    """Rows (dicts) as CSV, whole or not at all.

    ``schema`` is {column: str, int, float or bool}. A float may be missing, None or NaN: an empty
    cell. Raises ValueError for anything else that is missing, unknown or of another type.
    """
    lines = []
    for row in rows:
        unknown = set(row) - set(schema)
        if unknown:
            raise ValueError(f"No column {sorted(unknown)[0]!r} in the schema.")
        lines.append([_cell(row.get(name), name, kind) for name, kind in schema.items()])
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(schema)
        writer.writerows(lines)
    return Path(path)


def _cell(value, name, kind):
    if kind is float:
        if value is None or math.isnan(value):
            return ""
        return f"{float(value):.6g}"
    numbers = {int: (int, np.integer), bool: (bool, np.bool_), str: str}
    if not isinstance(value, numbers[kind]) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"Column {name!r} holds {kind.__name__}s; this is {value!r}.")
    return str(kind(value))


def read_csv(path, schema):
    """What ``write`` wrote, as a Table. Raises ValueError if it is not of that schema."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing; type: "
                                f"python -m course experiment {Path(path).stem}")  # fmt: skip
    with Path(path).open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    if head != list(schema):
        raise ValueError(f"{path} has the columns {head}; {list(schema)} are needed.")
    if not lines or any(len(line) != len(head) for line in lines):
        raise ValueError(f"{path} is damaged: it has no rows, or rows of different length.")
    table = Table()
    for (name, kind), cells in zip(schema.items(), zip(*lines, strict=True), strict=True):
        try:
            table[name] = np.array([_value(cell, kind) for cell in cells])
        except (ValueError, KeyError):
            raise ValueError(f"{path}: column {name!r} holds more than {kind.__name__}s.") from None
    return table


def _value(cell, kind):
    if kind is float:
        return float(cell) if cell else math.nan
    return {"True": True, "False": False}[cell] if kind is bool else kind(cell)


def read(name, path=None):
    """The results of experiment ``name`` that ship with the course, as a Table."""
    return read_csv(path or RESULTS / f"{name}.csv", columns(name))
