"""Do notebooks print what is committed on any number of threads, and time after time?

    python tests/steadiness.py          # every notebook on 1, 2 and 4 threads, on 2 three times
    python tests/steadiness.py 00 05    # some of them

Each run is ``pytest --nbval`` of one notebook. Too long for every push: CI does it once a week.
Exit code 1 when a cell differed.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=[""], help="how their file names begin")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 2, 2, 4],
                        help="of each run, one after the other")  # fmt: skip
    args = parser.parse_args(argv)
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    paths = [path for path in paths if path.name.startswith(tuple(args.names))]
    if not paths:
        parser.error(f"no notebook's name begins with {' or '.join(args.names)}")
    found = [same(path, n) for path in paths for n in args.threads]
    return 0 if all(found) else 1


def same(path, threads):
    """Run one notebook, say which cells differed and how; whether none did."""
    clock = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "-p", "no:cacheprovider", path]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    cells = ", ".join(re.findall(r"^FAILED \S+::(Cell \d+)", done.stdout, re.MULTILINE))
    found = f"differs: {cells}" if done.returncode else "same"
    print(f"{path.stem:30s} {threads} threads {time.perf_counter() - clock:5.0f} s  {found}",
          flush=True)  # fmt: skip
    if done.returncode:
        print(done.stdout, done.stderr, flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
