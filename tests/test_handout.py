"""Handout and slides: nothing that a learner should not see, nothing from the net, nothing cut."""

import inspect
import re
import sys

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course.__main__ import COMMANDS, main
from course.teach import handout, paper, pdf, slides
from course.teach.solutions import EXERCISES, QUESTIONS

NOTEBOOKS = paper.find()
CODE = re.compile(r"```python\n(.*?)```|`([^`\n]{40,})`", re.DOTALL)  # in hints


def words(text):
    """Text without its spaces, so that colours and line breaks make no difference."""
    return re.sub(r"\s+", "", text)


def text_of(page):
    soup = BeautifulSoup(page, "html.parser")
    for tag in soup(["style", "script"]):
        tag.extract()
    return words(soup.get_text())


def resources(page):
    """What a browser would fetch to draw a page."""
    soup = BeautifulSoup(page, "html.parser")
    found = [tag["src"] for tag in soup.select("[src]")]
    found += [tag.get("href", "") for tag in soup.select("link, use, image")]
    styles = "".join(tag.get_text() for tag in soup(["style", "script"]))
    return [f for f in found if not f.startswith("data:")] + re.findall(r"url\(|@import", styles)


@pytest.fixture(scope="module")
def copies():
    """A learner's and a teacher's copy of two notebooks."""
    paths = paper.find(["1", "03"])
    return [handout.handout(paths, teacher) for teacher in (False, True)]


def of_these(entries):
    return {number: entry for number, entry in entries.items() if number[:2] in ("1.", "3.")}


def test_only_the_teacher_sees_answers(copies):
    learner, teacher = map(text_of, copies)
    assert len(of_these(EXERCISES)) == 10
    for number, entry in of_these(EXERCISES).items():
        body = words("".join(handout.source_of(entry)[1:]))
        assert body in teacher, number
        assert body not in learner, number
        for said in (entry.insight, entry.hint):
            assert words(said) in teacher, number
            assert words(said) not in learner, number
    for number, entry in of_these(QUESTIONS).items():
        assert words(f"☒ {entry['answer']} {entry[entry['answer']]}") in teacher, number
        assert words(entry[entry["answer"]]) not in learner, number
        assert f"Question{number}☐a☐b☐c" in learner, number


def test_hints_that_are_code_stay_in_the_notebook(copies):
    learner, teacher = map(text_of, copies)
    count = 0
    for path in paper.find(["1", "3"]):
        for cell in nbformat.read(path, as_version=4).cells:
            for summary, hint in handout.DETAILS.findall(cell.source):
                if "the code" not in summary:
                    continue
                for block, span in CODE.findall(hint):
                    code = words(block or span)
                    assert code in teacher
                    assert code not in learner
                    count += 1
    assert count >= 7
    assert len(BeautifulSoup(copies[0], "html.parser").select("#hints .hints")) == 10


def test_mended_lines_are_marked(copies):
    marked = BeautifulSoup(copies[1], "html.parser").select(".solution .hll")
    assert any("world[parent] @ local" in tag.get_text() for tag in marked)


def test_handout_is_one_file_with_contents(copies):
    for page in copies:
        assert resources(page) == []
        soup = BeautifulSoup(page, "html.parser")
        assert len({tag["id"] for tag in soup.select("[id]")}) == len(soup.select("[id]"))
        targets = [tag["href"] for tag in soup.select("a[href^='#']")]
        assert len(targets) > 20
        assert all(soup.find(id=target[1:]) for target in targets)
        assert not soup.select("details, script")
        assert "not tried yet" not in page
        assert "$$" not in soup.get_text()


def test_meshes_films_and_sliders_become_pictures():
    body = handout.chapter(NOTEBOOKS[0], teacher=False)["body"]
    assert not body.select("script")
    alts = [image["alt"] for image in body.find_all("img")]
    assert "The reconstructed head as a mesh to turn with the mouse." in alts
    assert body.select(".moves")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_slides_of_every_notebook(path):
    deck = slides.slides(path)
    assert 10 <= len(deck) <= 18
    assert not [slide.heading for slide in deck if not (slide.text or slide.pictures)]
    assert deck[0].cover
    assert deck[0].pictures
    assert "Recap" in deck[-1].heading
    assert sum(len(slide.pictures) for slide in deck) >= 6
    asked = sum("class='ask'" in html for slide in deck for html, _ in slide.text)
    assert asked >= 2
    page = slides.page(path, deck)
    assert resources(page) == []
    assert "not tried yet" not in page
    for slide in deck:  # room for a person to read it from the last row
        assert sum(slides._count(html) for html, _ in slide.text if "<table" not in html) < 220


@pytest.fixture
def small(tmp_path):
    """A notebook with one cell of every slide type."""

    def markdown(source, kind):
        return new_markdown_cell(source, metadata={"slideshow": {"slide_type": kind}})

    def code(source, kind, tags=()):
        output = new_output("stream", text="Exercise 1.1 · not tried yet\n7 points\n")
        data = {"slideshow": {"slide_type": kind}, "tags": list(tags)}
        return new_code_cell(source, metadata=data, outputs=[output])

    path = tmp_path / "77_small.ipynb"
    cells = [
        markdown("# 77 · Small", "slide"),
        markdown("It was so.\n\n## 77.1 Next\n\n" + "Many words follow. " * 60, "slide"),
        markdown("**Predict:** $x^2$?\n\n### Exercise 77.1 · Try  ●○○ · 5 min", "fragment"),
        code("seven = 7", "fragment"),
        code("eight = 8", "subslide", [slides.CODE]),
        code("nine = 9", "skip"),
        new_markdown_cell("Nobody tagged this."),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_slide_types(small):
    cover, following, last = slides.slides(small)
    assert "It was so." in "".join(cover.notes)
    assert following.heading == "77.1 Next"
    (prose, now), (question, later), (printed, later_too) = following.text
    assert prose.count("Many words") == slides.WORDS // 3
    assert "Many words" in "".join(following.notes)
    assert "<math" in question
    assert (now, later, later_too) == (False, True, True)
    assert "7 points" in printed
    assert "Exercise 1.1" not in printed
    assert "seven" not in printed
    assert following.turns == ["Exercise 77.1 · Try  ●○○ · 5 min"]
    assert "eight" in last.text[0][0]
    assert "Nobody tagged this." in last.notes[0]
    assert "nine" not in slides.page(small, slides.slides(small))


def test_commands_write_one_file(small, tmp_path, capsys):
    target = tmp_path / "new" / "deck.html"
    assert main(["slides", str(small), "--output", str(target)]) == 0
    assert "3 slides" in capsys.readouterr().out
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in target.parent.iterdir()] == ["deck.html"]
    assert {"handout", "slides"} <= set(COMMANDS)


@pytest.mark.parametrize("command", [
    ["handout", "99"], ["slides", "nothing"], ["handout", "1", "--output", "paper.doc"],
])  # fmt: skip
def test_bad_input_is_one_sentence(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(handout, "handout", lambda paths, teacher: "")
    assert main(command) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.endswith(".\n")
    assert not list(tmp_path.iterdir())


def test_notebooks_that_are_none(tmp_path):
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    with pytest.raises(ValueError, match="not a Jupyter notebook"):
        paper.read(paper.find([broken])[0])
    empty = tmp_path / "empty.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A")]), empty)
    with pytest.raises(ValueError, match="No cell of empty"):
        slides.slides(empty)
    with pytest.raises(ValueError, match="cannot be translated"):
        paper.mathml(r"\nosuchcommand x", "inline")


def test_pdf_without_a_browser_says_what_to_do(tmp_path, monkeypatch):
    old = tmp_path / "deck.pdf"
    old.write_bytes(b"old")
    monkeypatch.setattr(pdf, "browser", lambda: None)
    with pytest.raises(ValueError, match=r"write deck\.html instead, open it in a browser"):
        pdf.save("<p>x", old)
    assert old.read_bytes() == b"old"


@pytest.mark.skipif(pdf.browser() is None, reason="no Chromium on this machine")
def test_pdf(tmp_path):
    pdf.save("<style>p { break-after: page }</style><p>one<p>two", tmp_path / "two.pdf")
    assert (tmp_path / "two.pdf").read_bytes().startswith(b"%PDF")
    assert [p.name for p in tmp_path.iterdir()] == ["two.pdf"]


def test_draw_mesh():
    """A green square in front of a red one, as Plotly stores them."""
    x, y = [-1, 1, 1, -1] * 2, [-1, -1, 1, 1] * 2
    trace = {"x": x, "y": y, "z": [0] * 4 + [-1] * 4, "i": [0, 0, 4, 4], "j": [1, 2, 5, 6],
             "k": [2, 3, 6, 7], "vertexcolor": ["#00ff00"] * 4 + ["#ff0000"] * 4}  # fmt: skip
    picture = paper.draw_mesh(trace, side=40, turn=0.0)
    red, green, blue = picture[20, 20]
    assert green > 100 > max(red, blue)
    assert (picture[0, 0] == 255).all()
    assert picture.shape == (40, 40, 3)
    assert picture.dtype == np.uint8


def test_solutions_are_printed_without_decorators():
    for number, entry in EXERCISES.items():
        first = handout.source_of(entry)[0]
        assert first.startswith(f"def {entry.function.__name__}("), number
        assert inspect.getsource(entry.function).startswith("@solution")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_half_a_pdf_is_none(tmp_path, monkeypatch):
    """On a full disk a browser leaves half of one and says that all is well."""
    (tmp_path / "browser").write_text(
        '#!/bin/sh\nfor a; do case $a in --print-to-pdf=*) echo "%PDF-1.4" > "${a#*=}"; esac; done'
    )
    (tmp_path / "browser").chmod(0o755)
    monkeypatch.setattr(pdf, "browser", lambda: str(tmp_path / "browser"))
    (tmp_path / "deck.pdf").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"could not print the page; write deck\.html instead"):
        pdf.save("<p>x", tmp_path / "deck.pdf")
    assert (tmp_path / "deck.pdf").read_bytes() == b"old"
