"""``python -m course COMMAND``: one command line for everything the notebooks do."""

import argparse
import importlib
import os
import signal
import sys

from course.files import no_memory

# command -> (module with add_arguments(parser) and run(args) -> exit code, one line of help)
COMMANDS = {
    "reconstruct": ("course.reconstruct", "turn photographs into textured 3D faces"),
    "transfer": ("course.transfer", "give a face the expressions of others, as picture or film"),
    "teaser": ("course.teaser", "a film of a face that turns and borrows expressions"),
    "doctor": ("course.doctor", "show what is installed, what is missing and how to get it"),
    "benchmark": ("course.benchmark", "time the rasterizers and the skinning on this machine"),
    "train": ("course.train", "train the networks that ship with the course"),
    "experiment": ("course.experiments", "run the long version of a notebook's experiment"),
    "gan": ("course.train_gan", "train a GAN on small pictures of faces"),
    "evaluate": ("course.evaluate", "measure an encoder on people that it has never seen"),
    "handout": ("course.teach.handout", "print the notebooks, for learners or with solutions"),
    "slides": ("course.teach.slides", "make slides of a notebook, in one file that works offline"),
    "offline": ("course.teach.offline", "make a folder for a class without a network"),
    "set-repo": ("course.teach.set_repo", "point badges and links at another repository"),
    "build-head": ("course.head.build", "sculpt the built-in head and write data/head.npz"),
}
FINISHED = "what was finished is on disk"


def main(argv=None):
    """Parse ``argv`` and run one command; returns the exit code (2: bad input or no room to write,
    130: Ctrl-C, or kill)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = next(iter(argv), "")
    try:
        return _run(argv)
    except OSError as error:
        told = f"{error.filename}: {error.strerror}." if error.filename else error
        print(f"{command}: {told}", file=sys.stderr)
        return 2
    except ValueError as error:  # bad input: one sentence, no traceback
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not no_memory(error):
            raise
        print(f"{command}: There is not enough memory for that; ask for less, in size or number.",
              file=sys.stderr)  # fmt: skip
        return 2
    except KeyboardInterrupt as stop:
        print(f"\n{command}: stopped; {str(stop) or FINISHED}.", file=sys.stderr)
        return 130


def _run(argv):
    parser = argparse.ArgumentParser(prog="python -m course", description=__doc__.split(": ")[1])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if name in argv[:1]:  # only the chosen command pays for its imports
            importlib.import_module(module).add_arguments(sub)
    args = parser.parse_args(argv)
    try:
        return importlib.import_module(COMMANDS[args.command][0]).run(args) or 0
    except KeyboardInterrupt:
        if "resume" in args:
            raise KeyboardInterrupt(f"{FINISHED}; the same with --resume goes on") from None
        raise


if __name__ == "__main__":
    if "WORLD_SIZE" not in os.environ:  # torchrun ends its processes its own way
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # kill, too, leaves no litter
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a console without → is no bad input
    sys.exit(main())
