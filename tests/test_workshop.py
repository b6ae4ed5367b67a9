"""WORKSHOP.md and GLOSSARY.md against the notebooks: what they name is there, plans add up."""

import functools
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from course.__main__ import COMMANDS
from course.benchmark_notebooks import COLUMNS, OUTPUT
from course.experiments import read_csv
from course.teach.solutions import EXERCISES, QUESTIONS, load_all

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
GUIDE = (FOLDER / "WORKSHOP.md").read_text(encoding="utf-8")
PLANS, LESSONS = GUIDE.split("\n## How to run a lesson\n")
CHINESE = "[一-鿿]+"
BRACKET = re.compile(rf"\(([^()\n]*{CHINESE}[^()\n]*)\)")
load_all()


@functools.cache
def cells(number):
    """[(section, source with outputs, is it text)] of a notebook; section 0 is before the first."""
    (path,) = (p for p in NOTEBOOKS if int(p.name[:2]) == number)
    found, section = [], 0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text, is_text = "".join(cell["source"]), cell["cell_type"] == "markdown"
        if is_text:  # one cell may end a section and begin the next
            parts = re.split(rf"(?m)^(?=## {number}\.\d)", text)
            for part in parts:
                head = re.match(rf"## {number}\.(\d+) ", part)
                section = int(head[1]) if head else section
                found.append((section, part, True))
        else:
            printed = [str(output) for output in cell["outputs"]]
            found.append((section, "\n".join([text, *printed]), False))
    return found


def sections(number):
    return {section for section, *_ in cells(number)} - {0}


def lesson(number):
    """One notebook's part of the guide."""
    return re.search(rf"(?ms)^## {number:02d} · .*?(?=^## |\Z)", LESSONS)[0]


def named(text):
    """{(notebook, section)} that a text names, ranges such as §3.2–§3.4 filled in."""
    found = set()
    for first, last in re.findall(r"§(\d+\.\d+)(?:–§(\d+\.\d+))?", text):
        notebook, begin = map(int, first.split("."))
        other, end = map(int, (last or first).split("."))
        assert (other, begin <= end) == (notebook, True), f"§{first}–§{last}"
        found |= {(notebook, k) for k in range(begin, end + 1)}
    return found


def tables(text):
    """Every table of a text as a list of rows, each a list of cells; the first row is the head."""
    for block in re.findall(r"(?m)(?:^\|.*\|\n)+", text):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                for line in block.splitlines()]  # fmt: skip
        yield [rows[0], *rows[2:]]


def test_sections_exercises_and_questions_exist():
    for notebook, section in named(GUIDE):
        assert section in sections(notebook), f"§{notebook}.{section}"
    for listed in re.findall(r"[Ee]xercises? ((?:\d+\.\d(?:, | and | or |; )?)+)", GUIDE):
        for number in re.findall(r"\d+\.\d", listed):
            assert number in EXERCISES, number
    for number in re.findall(r"\d+\.q\d", GUIDE):
        assert number in QUESTIONS, number
    assert not re.search(r"§ |§§|section \d", GUIDE), "sections are written §3.2"


def test_commands_exist():
    for path in (FOLDER / "WORKSHOP.md", FOLDER / "README.md", ROOT / "README.md"):
        for name in re.findall(r"python -m course ([a-z-]+)", path.read_text(encoding="utf-8")):
            assert name in COMMANDS, f"{path.name}: {name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_leaves_nothing_out(path):
    """Every section, exercise and question; minutes that fill the slot; answers as the course's."""
    number = int(path.name[:2])
    text = lesson(number)
    assert {s for n, s in named(text) if n == number} == sections(number)
    about_exercises = text.partition("**Exercises.**")[2].partition("**Quiz.**")[0]
    for exercise in (n for n in EXERCISES if n.startswith(f"{number}.")):
        assert re.search(rf"(?<!\S){exercise}:\s", about_exercises), exercise
    answers = dict(re.findall(r"(\d+\.q\d) ([abc])\b", text.partition("**Quiz.**")[2]))
    asked = [n for n in QUESTIONS if n.startswith(f"{number}.")]
    assert answers == {n: QUESTIONS[n]["answer"] for n in asked}
    slot = next(t for t in tables(text) if t[0][0] == "min")
    assert sum(int(row[0]) for row in slot[1:]) == (30 if number == 0 else 90)
    assert text.count("⌨") == (0 if number == 0 else 2)
    assert "Long cells: " in text or number == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_cell_prints_stands_in_the_section_named(path):
    number = int(path.name[:2])
    (table,) = (t for t in tables(lesson(number)) if t[0][-1] == "see")
    assert len(table) > 3
    for row in table[1:]:
        ((_, section),) = named(row[0])
        there = "\n".join(text for k, text, _ in cells(number) if k == section)
        for label in re.findall(r"`([^`]+)`", row[-1]):
            assert label in there.replace("\\n", " "), (row[0], label)


def test_plans_add_up():
    plans = re.findall(r"(?ms)^### (.+?) · (\d+) minutes\n(.*?)(?=^###? |\Z)", PLANS)
    assert len(plans) == 4
    for name, minutes, text in plans:
        (table,) = tables(text)
        assert sum(int(row[0]) for row in table[1:]) == int(minutes), name
    weeks, minutes, text = re.search(
        r"(?ms)^### Eight weeks · (\d) × (\d+) minutes\n(.*?)(?=^## )", PLANS
    ).groups()
    (table,) = tables(text)
    assert sum(int(head.split()[0]) for head in table[0] if head.endswith(" min")) == int(minutes)
    assert [row[0] for row in table[1:]] == [str(k + 1) for k in range(int(weeks))]


@functools.cache
def lesson_minutes():
    """{(notebook, section): minutes} of the lessons; a row's minutes are shared by its sections."""
    minutes = {}
    for path in NOTEBOOKS:
        slot = next(t for t in tables(lesson(int(path.name[:2]))) if t[0][0] == "min")
        for row in slot[1:]:
            here = named(row[1])
            minutes |= dict.fromkeys(here, int(row[0]) / len(here))
    return minutes


def needed(text):
    """Minutes that the lessons give to the sections a plan names; groups work side by side."""
    each = Counter()
    for notebook, section in named(text):  # what a lesson sends home has no minutes
        each[notebook] += lesson_minutes().get((notebook, section), 0)
    return max(each.values(), default=0) if "groups" in text else sum(each.values())


def test_plans_have_time_for_what_they_name():
    """At most a fifth less than the lessons: "exercise 10.3 together" saves that, no more."""
    assert sum(lesson_minutes().values()) == pytest.approx(30 + 90 * 10)
    slots = []
    for head, *rows in tables(PLANS):
        if head[0] == "minutes":
            slots += [(row[0], row[1] + row[2] * ("groups" in row[2])) for row in rows]
        elif head[0] == "week":
            columns = [k for k, name in enumerate(head) if name.endswith(" min")]
            slots += [(head[k].split()[0], row[k]) for row in rows for k in columns]
    assert len(slots) > 60
    short = [(m, needed(text), text) for m, text in slots if int(m) < 0.8 * needed(text)]
    assert not short


def test_every_prediction_has_a_row():
    """Where a notebook says **Predict**, the guide says what comes out."""
    for path in NOTEBOOKS:
        number = int(path.name[:2])
        asked = {
            (number, k) for k, text, is_text in cells(number) if is_text and "**Predict" in text
        }
        (table,) = (t for t in tables(lesson(number)) if t[0][-1] == "see")
        assert asked <= set().union(*(named(row[0]) for row in table[1:]))


def test_memory_and_cores_are_what_was_measured():
    """The hub's figures against data/results/notebooks.csv; measured again, they change."""
    rows = read_csv(OUTPUT, COLUMNS)
    text = " ".join(PLANS.partition("**Memory.**")[2].partition("On Kubernetes")[0].split())
    assert set(rows["threads"]) == {2}
    assert "made with 2 threads" in text
    assert 'OMP_NUM_THREADS": "1"' in PLANS  # as many threads as cores, of the 30 that are advised

    held = sorted(zip(rows["memory_mb"] / 1000, rows["notebook"], strict=True))[::-1]
    (most, first), (next_most, second) = ((gb, name[:2]) for gb, name in held[:2])
    limit = int(re.search(r"limits\.memory (\d+)G", PLANS)[1])
    for sentence in (
        f"peak is {first}'s with {most:.1f} GB (",
        f"the next is {second}'s with {next_most:.1f} GB.",
        f"A limit of {limit}G has room for these two",
        f"{limit * 1.024**3 - most - next_most:.1f} GB more for JupyterLab",
        f"30 learners need {30 * most:.0f} GB in {first}, {30 * (most + next_most):.0f} GB where",
        f"at most {30 * next_most:.0f} GB in another notebook",
    ):
        assert sentence in text, sentence
    assert 30 * most + 30 < int(re.search(r"take (\d+) GB", text)[1])  # 1 GB for JupyterLab each

    def minutes(seconds):
        return f"{int(seconds // 60)}:{int(seconds % 60):02d} min"

    at = int(np.argmax(rows["cpu_seconds"] / rows["seconds"]))
    name, took, spent = (rows[c][at] for c in ("notebook", "seconds", "cpu_seconds"))
    whole = rows["cpu_seconds"].sum() / rows["seconds"].sum()
    for sentence in (
        f"{whole:.2f} times as much over all notebooks, {spent / took:.2f} times for {name[:2]}",
        f"60 cores for 30 learners give the table's times: {minutes(took)} for all of {name[:2]}",
        f"30 cores, one each, give about the processor time: {minutes(spent)}",
        f"15 cores, one for two, give twice that: {minutes(2 * spent)}",
    ):
        assert sentence in text, sentence


def anchor(heading):
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ["WORKSHOP.md", "GLOSSARY.md", "README.md", "../README.md"])
def test_links_work(name):
    path = FOLDER / name
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, place = target.partition("#")
        if re.match(r"https?://", target):
            continue
        there = (path.parent / file) if file else path
        assert there.exists(), target
        if place:
            headings = re.findall(r"(?m)^#+ (.+)$", there.read_text(encoding="utf-8"))
            assert place in map(anchor, headings), target


def glossary():
    """{Chinese: (English, file name)}."""
    text = (FOLDER / "GLOSSARY.md").read_text(encoding="utf-8")
    (table, *_) = tables(text)
    rows = [(row[1], row[0], re.search(r"\((.+)\)", row[4])[1]) for row in table[1:]]
    for column in (0, 1):  # one translation a term, and one term a translation
        assert max(Counter(row[column] for row in rows).values()) == 1
    assert [row[1].lower() for row in rows] == sorted(row[1].lower() for row in rows)
    return {chinese: (english, file) for chinese, english, file in rows}


def test_every_chinese_term_is_in_the_glossary():
    """With the same characters, behind the same English word, first where the glossary says."""
    known, first = glossary(), {}
    for path in NOTEBOOKS:
        text = "\n".join(t for _, t, is_text in cells(int(path.name[:2])) if is_text)
        for bracket in BRACKET.finditer(text):
            near = text[max(0, bracket.start() - 70) : bracket.end()].lower()
            for term in re.findall(CHINESE, bracket[1]):
                assert term in known, f"{path.name}: {term}"
                first.setdefault(term, path.name)
                words = re.findall(r"[a-z]{3,}", known[term][0].lower())
                assert any(word[:4] in near for word in words), f"{path.name}: {term}, {near}"
        alone = re.findall(CHINESE, re.sub(r"\([^()\n]*\)", "", text))
        assert not alone, f"{path.name}: {alone} outside brackets"
    assert {term: file for term, (_, file) in known.items()} == first


def card(number, line):
    """A line of a notebook's card."""
    return re.search(rf"\*\*{line}\*\* \| (.*?) \|", cells(number)[1][1])[1]


def test_the_map_is_what_the_cards_say():
    """Arrows, dotted arrows and the table's last column: what each notebook needs, what helps."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    needs, helps = Counter(), Counter()
    for line in diagram.splitlines()[1:]:
        begin, arrow, end = re.split(r" (-->|-\.->) ", line)
        for one in re.findall(r"n(\d\d)\b", begin):
            for other in re.findall(r"n(\d\d)\b", end):
                (needs if arrow == "-->" else helps)[one, other] += 1
    from_cards, dotted = Counter(), Counter()
    for number in range(1, len(NOTEBOOKS)):
        needed, _, helpful = card(number, "You need").partition(". ")[0].partition("; ")
        from_cards.update((n, f"{number:02d}") for n in re.findall(r"\b\d\d\b", needed))
        dotted.update((n, f"{number:02d}") for n in re.findall(r"\b\d\d\b", helpful))
    assert (needs, helps) == (from_cards, dotted)
    (table,) = (t for t in tables(text) if t[0][-1] == "needs")
    listed = {(n, row[0]) for row in table[1:] for n in re.findall(r"\d\d", row[-1].split(";")[0])}
    assert listed == set(from_cards)


def test_the_readmes_table_has_minutes_and_badges():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (table,) = (t for t in tables(text) if "minutes" in t[0])
    for path, row in zip(NOTEBOOKS, table[1:], strict=True):
        number = path.name[:2]
        assert row[0] == number
        assert card(int(number), "Minutes").startswith(f"about {row[3]},")
        assert row[4].endswith(f"[{number}]")
        badge = re.search(rf"(?m)^\[{number}\]: (\S+)$", text)[1]
        assert badge in cells(int(number))[0][1]
