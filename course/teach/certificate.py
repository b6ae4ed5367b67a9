"""A certificate of what a learner has solved, drawn on the learner's own machine."""

import datetime
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager

from course.export import to_uint8
from course.teach import record, solutions
from course.teach.figures import COLOURS, STYLE
from course.teach.solutions import EXERCISES, QUESTIONS

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
# tried in this order for a name; DejaVu comes with matplotlib
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "SimHei",
         "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS")  # fmt: skip
INK, GREY, GOLD = "#22303c", "#8a949d", "#b8892b"
MARKS = ("o", 10, COLOURS[2]), ("s", 8.5, COLOURS[1])  # exercises, questions
LONGEST = 60  # characters of a name
CLAIM = ("made on the learner's own machine by the course's exercises; nobody else has checked it, "
         "and nothing was sent anywhere")  # fmt: skip


def titles():
    """Notebook number → title, as its first line says."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
        line = "".join(first).splitlines()[0]
        found[int(path.stem[:2])] = re.split(r"[:,]", line.split("·", 1)[-1])[0].strip()
    return found


def tasks(notebook):
    """Numbers of a notebook's exercises, and of its questions."""
    solutions.load_all()
    start = f"{notebook}."
    return tuple(sorted(n for n in kind if n.startswith(start)) for kind in (EXERCISES, QUESTIONS))


def certificate(name, portrait=None, done=None, day=None):
    """A picture (H, W, 3) uint8 of all notebooks with what is solved in each.

    name      the learner's · portrait  (3, S, S) in 0…1 or (S, S, 3) uint8: the learner's head
    done      numbers that are solved; None: what this machine remembers · day  a date, None: today
    Raises ValueError for a name that is empty, too long, or that no font here can write.
    """
    name = " ".join(str(name).split())
    if not 0 < len(name) <= LONGEST:
        raise ValueError(f"A certificate needs a name of 1 to {LONGEST} characters.")
    font = _font_for(name)
    done = set(record.solved() if done is None else done)
    rows = [(number, title, *tasks(number)) for number, title in titles().items()]
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure = plt.figure(figsize=(14, 9.6), dpi=100, facecolor="#fdfcf8")
        try:
            _frame(figure, name, font, rows, done, day or datetime.date.today())
            if portrait is not None:
                axis = figure.add_axes((0.055, 0.26, 0.27, 0.27 * 14 / 9.6))
                axis.imshow(to_uint8(portrait))
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set(visible=True, color=GOLD, linewidth=2)
            figure.canvas.draw()
            return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
        finally:
            plt.close(figure)


def _frame(figure, name, font, rows, done, day):
    """Everything but the portrait."""
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, 14), ylim=(0, 9.6))
    page.axis("off")
    for inset, width in ((0.22, 3), (0.34, 1)):
        page.add_patch(plt.Rectangle((inset, inset), 14 - 2 * inset, 9.6 - 2 * inset, fill=False,
                                     edgecolor=GOLD, linewidth=width))  # fmt: skip
    page.text(7, 8.75, "Learn 3D face reconstruction", ha="center", fontsize=30, color=INK)
    page.text(7, 8.45, "worked through by", ha="center", fontsize=12, color=GREY)
    size = min(30, 900 / len(name) / (2 if font else 1))
    font = font and font_manager.FontProperties(fname=font, size=size)
    page.text(7, 7.9, name, ha="center", va="center", fontsize=size, color=COLOURS[0],
              fontproperties=font)  # fmt: skip
    left, top, step = 5.1, 7.05, 5.35 / max(len(rows), 1)
    for k, (number, title, exercises, questions) in enumerate(rows):
        y = top - k * step
        page.text(left, y, f"{number:02d}", color=GREY, va="center", fontsize=13)
        page.text(left + 0.5, y, title, color=INK, va="center", fontsize=13)
        for j, n in enumerate(exercises + questions):
            marker, size, colour = MARKS[n in questions]
            inside, edge = (colour, colour) if n in done else ("white", "#c3c9ce")
            page.plot(10.05 + 0.3 * j, y, marker, markersize=size, color=inside,
                      markeredgecolor=edge)  # fmt: skip
    numbers = [[n for row in rows for n in row[k]] for k in (2, 3)]
    texts = [f"{kind}  {sum(n in done for n in column)} of {len(column)}"
             for kind, column in zip(("exercises", "questions"), numbers, strict=True)]  # fmt: skip
    for x, (marker, size, colour), text in zip((5.2, 8.2), MARKS, texts, strict=True):
        page.plot(x, 1.35, marker, markersize=size, color=colour)
        page.text(x + 0.25, 1.35, text, va="center", fontsize=15, color=INK)
    page.text(13.3, 1.35, day.isoformat(), ha="right", va="center", fontsize=14, color=INK)
    page.text(7, 0.62, CLAIM, ha="center", fontsize=10.5, color=GREY)


def _font_for(name):
    """None where matplotlib's own font can write a name, else the file of one that can."""
    own = font_manager.findfont(FONTS[0])
    if _writes(own, name):
        return None
    here = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    for family in FONTS[1:]:
        if family in here and _writes(here[family], name):
            return here[family]
    raise ValueError(f"No font here has all the characters of {name}; write it in Latin letters.")


def _writes(file, text):
    font = font_manager.get_font(file)
    return all(font.get_char_index(ord(c)) for c in text)
