"""Processes that work for this one and end with it: on Ctrl-C, when it fails, when it is killed."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import warnings
from functools import cache
from multiprocessing.connection import wait

import cv2
import joblib
import torch
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

IDLE = 20  # seconds after which a worker without work gives its memory back
TRACKER = "ignore:resource_tracker"  # the beginning of the warnings of joblib's tidying process
GLANCE = 0.5  # seconds between two looks whether the parent is there
# a worker that has grown is replaced by a new one, and none of its jobs is lost: nothing to tell
warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)


def spread(one, jobs, workers=1, ordered=False, threads=1):
    """Yield ``one(*job)`` for every job, from processes of ``threads`` threads side by side.

    one  a function of a module: other processes import it · jobs  tuples of arguments · ordered
    results in the order of the jobs, not as they come. One worker is this process itself, whose
    numbers of threads are given back. Raises what a job raises, and OSError when a worker was
    killed.
    """
    jobs = list(jobs)
    if min(workers, len(jobs)) <= 1:
        before = torch.get_num_threads(), cv2.getNumThreads()
        try:
            yield from (one(*job) for job in jobs)
        finally:
            torch.set_num_threads(before[0])
            cv2.setNumThreads(before[1])
        return
    pool = joblib.Parallel(min(workers, len(jobs)),
                           return_as="generator" if ordered else "generator_unordered")  # fmt: skip
    done = False
    try:
        with joblib.parallel_config("loky", inner_max_num_threads=threads,
                                    idle_worker_timeout=IDLE):  # fmt: skip
            with _undisturbed():
                results = pool(joblib.delayed(_followed)(one, *job) for job in jobs)
            yield from results
        done = True
    except TerminatedWorkerError:
        raise OSError("A worker process was killed, most likely for want of memory; type the same "
                      "again with fewer --workers.") from None  # fmt: skip
    finally:
        if not done:
            get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)


def _followed(one, *job):
    """A job in a worker, which leaves Ctrl-C to its parent and ends when that does."""
    _follow()
    return one(*job)


@cache
def _follow():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(number):
    if os.name == "nt":
        wait([multiprocessing.parent_process().sentinel])
    else:
        while os.getppid() == number:
            time.sleep(GLANCE)
    os._exit(1)


@contextlib.contextmanager
def _undisturbed():
    """Processes that are started inside never see Ctrl-C, not even while they import, and joblib's
    does not complain when the others are killed."""
    told = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = f"{told},{TRACKER}" if told else TRACKER
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else None
    try:
        yield
    finally:
        os.environ.pop("PYTHONWARNINGS")
        if told:
            os.environ["PYTHONWARNINGS"] = told
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
