"""``python -m course handout``: the notebooks as one document to print, for learners or teachers.

The learner's copy has room to write under each exercise, boxes to tick for each question, and the
hints on its last pages; hints that are code stay in the notebooks. ``--teacher`` prints the
solutions (``course.teach.solutions``), every hint, and each question's answers with their reasons.
"""

import ast
import base64
import html
import inspect
import re
from pathlib import Path

from nbformat.v4 import new_markdown_cell
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from course.teach import paper, solutions
from course.teach.pdf import save
from course.teach.solutions import EXERCISES, QUESTIONS

DETAILS = re.compile(r"<details>\s*<summary>(.*?)</summary>(.*?)</details>\n?", re.DOTALL)
ASKED = re.compile(r"""\bquiz\(\s*["']([^"']+)["']""")
GIVEN = re.compile(r"""@exercise\(\s*["']([^"']+)["']""")
SAID = re.compile(r"^(?:Exercise|Question) [\w.]+ · .*\n?(?:    .*\n?)*", re.MULTILINE)
HEADING = re.compile(r"^### (Exercise .*)$", re.MULTILINE)
LEFT_OUT = re.compile(r"^# Setup: the same in every notebook|^progress\(", re.MULTILINE)


def add_arguments(parser):
    parser.add_argument("notebooks", nargs="*", metavar="NB",
                        help="03, 03_differentiable_rendering or a file; or all")  # fmt: skip
    parser.add_argument("--teacher", action="store_true",
                        help="with solutions, hints and the answers to the questions")  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", default=None,
                        help="FILE.html or FILE.pdf (default results/handout.html, for teachers "
                             "results/handout_teacher.html)")  # fmt: skip


def run(args):
    output = args.output or f"results/handout{'_teacher' if args.teacher else ''}.html"
    paths = paper.find(args.notebooks)
    save(handout(paths, args.teacher), output)
    copy = "teacher's copy, with solutions" if args.teacher else "learner's copy, without answers"
    print(f"{output}: {len(paths)} notebook{'s' * (len(paths) > 1)}, {copy}")


def handout(paths, teacher=False):
    """The document of some notebooks as one page of HTML that needs no other file."""
    solutions.load_all()
    chapters = [chapter(path, teacher) for path in paths]
    numbers = {path.name: c["anchor"] for path, c in zip(paths, chapters, strict=True)}
    for c in chapters:
        link(c["body"], numbers)
    cover = base64.b64encode((paper.ROOT / "data" / "reconstruction.jpg").read_bytes()).decode()
    return paper.template("handout.html.j2", chapters=chapters, teacher=teacher, cover=cover)


def chapter(path, teacher):
    """One notebook: title, anchor, sections (anchor, title), body (parsed HTML) and hints.

    ``hints`` are (exercise's heading, HTML) pairs for the last pages; the teacher's stay in place.
    """
    notebook = paper.read(path)
    hints, cells, heading = [], [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = [heading, *HEADING.findall(cell.source)][-1]
            found = DETAILS.findall(cell.source)
            if found and not teacher:
                cell.source = DETAILS.sub("", cell.source) + "\n\n" + _where(heading)
                hints.append((heading, _anchor(heading), _hints(found)))
            else:
                cell.source = DETAILS.sub(_opened, cell.source)
            cells.append(cell)
        elif not LEFT_OUT.search(cell.source):
            cells += worked(cell, teacher)
    body = paper.render(cells, notebook.metadata, path.parent)
    anchor, sections = f"n{path.stem[:2]}", []
    for k, tag in enumerate(body.find_all("h2")):
        tag["id"] = f"{anchor}-{k + 1}"
        sections.append((tag["id"], tag.get_text()))
    for tag in body.find_all("h3"):
        if tag.get_text().startswith("Exercise"):
            tag["id"] = f"at-{_anchor(tag.get_text())}"
    return {"anchor": anchor, "title": paper.title(notebook), "sections": sections, "body": body,
            "hints": hints}  # fmt: skip


def worked(cell, teacher):
    """A code cell as paper has it, a list: questions before it, answers or room to write after it.

    What the checker printed, and what only moves on a screen, goes.
    """
    questions = [number for number in ASKED.findall(cell.source) if number in QUESTIONS]
    entries = [EXERCISES[n] for n in GIVEN.findall(cell.source) if n in EXERCISES]
    cells = []
    if questions:
        boxes = "".join(question(number, teacher) for number in questions)
        cells.append(new_markdown_cell(f'<div class="questions">{boxes}</div>', id=f"{cell.id}-q"))
        lines = [line for line in cell.source.splitlines() if not ASKED.match(line.strip())]
        cell.source = "\n".join(lines).strip()
    answers = [solved(entry, cell.source) if teacher else room(entry) for entry in entries]
    outputs = [paper.html_output(answer) for answer in answers]
    for output in cell.outputs:
        if output.output_type == "stream":
            output.text = SAID.sub("", output.text)
            outputs += [output] if output.text.strip() else []
        else:
            outputs += filter(None, [paper.still(output)])
    if "widgets.panel(" in cell.source:
        note = "In the notebook, sliders call this function; some of their pictures:"
        outputs.append(paper.html_output(f"<p class='moves'>{note}</p>"))
    cell.outputs = outputs
    return cells + ([cell] if cell.source or outputs else [])


def question(number, teacher):
    """Boxes to tick; for the teacher, the right one ticked and the reason for every answer."""
    entry = QUESTIONS[number]
    options = sorted(set(entry) - {"answer"})
    if not teacher:
        boxes = " ".join(f"<span class='box'>☐ {option}</span>" for option in options)
        return f"<p class='quiz'><b>Question {number}</b> {boxes}</p>"
    rows = ""
    for option in options:
        kind, box = ("right", "☒") if option == entry["answer"] else ("other", "☐")
        rows += f"<li class='{kind}'>{box} <b>{option}</b> {html.escape(entry[option])}</li>"
    return f"<div class='quiz'><b>Question {number}</b><ul>{rows}</ul></div>"


def room(entry):
    """Lines to write on, as many as the course's solution has, and some more."""
    count = min(18, len(source_of(entry)) + 3)
    rules = "<div class='rule'></div>" * count
    name = "Mended" if entry.bug else "Your answer"
    return f"<div class='answer'><p>{name} to {entry.number}:</p>{rules}</div>"


def solved(entry, source):
    """The course's solution in colour, mended lines marked, with the checker's hint and insight."""
    lines = source_of(entry)
    marked = []
    if entry.bug:
        old = {line.split("#")[0].strip() for line in source.splitlines()}
        marked = [k + 1 for k, line in enumerate(lines) if line.split("#")[0].strip() not in old]
    code = highlight("\n".join(lines), PythonLexer(), HtmlFormatter(hl_lines=marked))
    said = (("Hint after a wrong answer", entry.hint), ("Said when it is right", entry.insight))
    words = "".join(f"<p><b>{label}:</b> {html.escape(text)}</p>" for label, text in said)
    return f"<div class='solution'><p><b>Solution {entry.number}</b></p>{code}{words}</div>"


def source_of(entry):
    """The lines of an exercise's solution, without its decorator."""
    lines = inspect.getsource(entry.function).splitlines()
    return lines[ast.parse("\n".join(lines)).body[0].lineno - 1 :]


def link(body, numbers):
    """Make links among notebooks links within the document; other files cannot come along."""
    for tag in body.find_all("a", href=True):
        if re.match(r"https?:|mailto:|#", tag["href"]):
            continue
        anchor = numbers.get(Path(tag["href"].split("#")[0]).name)
        if anchor:
            tag["href"] = f"#{anchor}"
        else:
            tag.unwrap()


def _anchor(heading):
    return "exercise-" + re.search(r"Exercise ([\w.]+)", heading + " Exercise x").group(1)


def _where(heading):
    return f'<p class="where"><a href="#{_anchor(heading)}">Hints: on the last pages</a></p>'


def _hints(found):
    """A learner's hints as HTML; one that is code is the answer, and stays in the notebook."""
    parts = []
    for summary, text in found:
        if "```" not in text and "code" not in summary.lower():
            parts.append(f"<p class='hint'><b>{summary}</b></p>{paper.markdown(text)}")
    return "".join(parts)


def _opened(match):
    """A folded hint, unfolded: a quotation."""
    lines = f"**{match.group(1)}**\n\n{match.group(2).strip()}".splitlines()
    return "\n".join(f"> {line}" for line in lines) + "\n\n"
