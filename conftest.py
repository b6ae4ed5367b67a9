"""What a bare ``pytest --nbval`` needs so that it is right: quiet, offline, headless, seeded."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("COURSE_QUIET", "1")  # progress bars off
os.environ.setdefault("PYTHONHASHSEED", "0")

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # workers side by side share the cores
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = max(1, (cores or 2) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))

# nbval compares these outputs by their text; pictures and widgets have none worth comparing
NOT_COMPARED = ("image/png", "image/jpeg", "image/gif", "application/vnd.jupyter.widget-view+json")


def pytest_collectstart(collector):
    """Extend what nbval leaves out of its comparison."""
    if getattr(collector, "fspath", None) and str(collector.fspath).endswith(".ipynb"):
        collector.skip_compare = (*getattr(collector, "skip_compare", ()), *NOT_COMPARED)
