"""A page written as HTML, or printed to PDF by a browser that is on this machine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from course.files import atomic_path, write_text

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
            "msedge", "microsoft-edge")  # fmt: skip
ELSEWHERE = (  # where they are when they are not on the path
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
FLAGS = ("--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
         "--no-pdf-header-footer", "--generate-pdf-document-outline")  # fmt: skip
SECONDS = 900  # eleven notebooks are some two hundred pages


def browser():
    """A Chromium (or relative) that can print, or None."""
    found = [shutil.which(name) for name in BROWSERS]
    found += [path for path in ELSEWHERE if Path(path).is_file()]
    return next(filter(None, found), None)


def save(page, output):
    """Write a page of HTML to ``FILE.html``, or print it to ``FILE.pdf``; whole or not at all.

    Raises ValueError for another suffix, and for PDF where no browser can print.
    """
    output = Path(output)
    if output.suffix.lower() == ".html":
        write_text(output, page)
    elif output.suffix.lower() == ".pdf":
        to_pdf(page, output)
    else:
        raise ValueError(f"{output} ends neither in .html nor in .pdf.")


def to_pdf(page, output):
    """Print a page of HTML to a file by a browser without a window."""
    program = browser()
    otherwise = f"write {output.stem}.html instead, open it in a browser and print it from there."
    if program is None:
        raise ValueError(f"No Chromium, Chrome or Edge here that could make a PDF; {otherwise}")
    flags = list(FLAGS)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium has none for root
    with tempfile.TemporaryDirectory() as folder, atomic_path(output) as copy:
        source, printed = Path(folder) / "page.html", Path(folder) / "page.pdf"
        source.write_text(page, encoding="utf-8")
        command = [program, *flags, f"--user-data-dir={folder}/profile",
                   f"--print-to-pdf={printed}", source.as_uri()]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            done = None
        if done is None or done.returncode or not _whole(printed):
            raise ValueError(f"{Path(program).name} could not print the page; {otherwise}")
        shutil.copyfile(printed, copy)


def _whole(pdf):
    """Whether a PDF has its end: on a full disk a browser leaves half of one, and says nothing."""
    return pdf.is_file() and b"%%EOF" in pdf.read_bytes()[-1024:]
