"""``python -m course slides``: a notebook's tagged cells as slides, in one file that works offline.

A cell is on the slides if its metadata says so as Jupyter does (``slideshow.slide_type``; in
JupyterLab: the property inspector): ``slide`` and ``subslide`` begin a new one, ``fragment`` comes
with the next key, ``-`` belongs to the slide before. Cells marked ``skip`` or not at all stay away.

Slides show less than the notebook: of a code cell its pictures and what it prints (with the tag
``slide-code`` its code too), of a text its heading, formulas, lists, tables, claims, predictions,
and as much prose as fits. The rest of the notebook's prose is in the speaker's notes.
"""

import base64
import io
import re

from bs4 import BeautifulSoup
from PIL import Image

from course.teach import paper
from course.teach.handout import DETAILS, SAID
from course.teach.pdf import save

STARTS, GOES_ON, CODE = ("slide", "subslide"), ("fragment", "-"), "slide-code"
ASK = re.compile(r"<strong>(?:Predict|Claim|A question|Two questions)")
CHECK = re.compile(r"^.*: True\n?", re.MULTILINE)  # what a cell prints about itself
WORDS, ITEMS = 60, 90  # words of prose on one slide, and of a list
LINES = 12  # printed by one cell
WIDE = 1.9  # pictures wider than that for one high stand under the text, others beside it
ACROSS, LEAST = 1168, 270  # pixels: a slide's width, and how high pictures that share one must be


class Slide:
    """One slide: its section's heading, parts (HTML, whether it comes later), and notes."""

    def __init__(self, heading):
        self.heading, self.text, self.pictures, self.notes, self.turns = heading, [], [], [], []
        self.cover = False

    @property
    def beside(self):
        """Whether its one picture stands beside the text: there is text, and it is not wide."""
        lone = bool(self.text) and len(self.pictures) == 1 and not self.cover
        return lone and shape(self.pictures[0][0]) < WIDE

    @property
    def caption(self):
        """What stands under pictures that have no text: their descriptions."""
        if self.text:
            return ""
        images = [BeautifulSoup(html, "html.parser").img for html, _ in self.pictures]
        return " ".join(image["alt"] for image in images)

    def finish(self):
        """Take away a last sentence that leads to something that is not on the slide."""
        html, later = self.text[-1] if self.text and not self.pictures else ("", False)
        if html.endswith(":</p>"):
            kept, rest = _sentences(html[3:-4], _count(html) - 1)
            self.text[-1:] = [(f"<p>{kept}</p>", later)] if kept else []
            self.notes.insert(0, f"<p>{rest}</p>")

    def has_room(self, html):
        """Whether one more picture leaves all of them large enough."""
        wide = sum(shape(picture) for picture, _ in self.pictures)
        return not self.pictures or ACROSS / (wide + shape(html)) >= LEAST


def add_arguments(parser):
    parser.add_argument("notebook", metavar="NB",
                        help="03, 03_differentiable_rendering or a file")  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", default=None,
                        help="FILE.html or FILE.pdf (default results/NB_slides.html)")  # fmt: skip


def run(args):
    (path,) = paper.find([args.notebook])
    deck = slides(path)
    output = args.output or f"results/{path.stem}_slides.html"
    save(page(path, deck), output)
    print(f"{output}: {len(deck)} slides; arrow keys or a clicker turn them, N shows the notes")


def page(path, deck):
    """The slides as one page of HTML that needs no other file."""
    return paper.template("slides.html.j2", slides=deck, title=paper.title(paper.read(path)))


def slides(path):
    """The slides of the notebook in a file. Raises ValueError when no cell is tagged for one."""
    notebook, deck, section = paper.read(path), [], ""
    for cell in notebook.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        shown = kind in STARTS + GOES_ON and (deck or kind in STARTS)
        if cell.cell_type == "code":
            if shown:
                if kind in STARTS:
                    deck.append(Slide(section))
                for html in outputs(cell):
                    if "<img" not in html:
                        deck[-1].text.append((html, kind == "fragment"))
                    else:
                        if not deck[-1].has_room(html):
                            deck.append(Slide(section))
                        deck[-1].pictures.append((html, kind == "fragment"))
            continue
        cell.source = DETAILS.sub("", cell.source)
        parts = [(part, part.find(["h1", "h2", "h3"], recursive=False))
                 for part in _split(paper.render([cell], folder=path.parent))]  # fmt: skip
        lone = not any(heading and not _exercise(heading) for _, heading in parts)
        for part, heading in parts:
            if _exercise(heading):
                if deck:
                    deck[-1].turns.append(heading.decode_contents())
                continue
            if heading and heading.name != "h3":
                section = heading.decode_contents()
            begins = shown and kind in STARTS and bool(heading or (lone and part.contents))
            if begins:
                deck.append(Slide(heading.decode_contents() if heading else section))
                deck[-1].cover = bool(heading and heading.name == "h1")
            if deck:
                _put(deck[-1], part, begins or (shown and kind in GOES_ON), kind == "fragment")
    for slide in deck:
        slide.finish()
    deck = [slide for slide in deck if slide.cover or slide.text or slide.pictures]
    if not deck:
        raise ValueError(
            f"No cell of {path.name} is tagged for a slide; give cells a slide type in JupyterLab."
        )
    return deck


def outputs(cell):
    """What a code cell shows on a slide: a list of HTML."""
    shown = []
    if CODE in cell.metadata.get("tags", []):
        code = cell.copy()
        code.outputs = []
        shown.append(str(paper.render([code])))
    seen = [paper.still(output, film=True) for output in cell.outputs]
    drawn = any(output and output.output_type != "stream" for output in seen)
    for output in filter(None, seen):
        if output.output_type == "stream":
            text = SAID.sub("", output.text)
            text = CHECK.sub("", text) if drawn and ": False" not in text else text
            output.text = "\n".join(text.strip("\n").splitlines()[:LINES])
            if not output.text.strip():
                continue
        lone = cell.copy()
        lone.source, lone.outputs = "", [output]
        shown.append(str(paper.render([lone]).select_one(".output_area")))
    return shown


def shape(html):
    """Width over height of a part's picture."""
    data = BeautifulSoup(html, "html.parser").img["src"].split(",", 1)[1]
    width, height = Image.open(io.BytesIO(base64.b64decode(data))).size
    return width / height


def _exercise(heading):
    return bool(heading) and heading.get_text().startswith("Exercise")


def _split(page):
    """A rendered text as what stands before its first heading, and one piece a heading."""
    pieces = [BeautifulSoup("", "html.parser")]
    for tag in list(page.select_one(".text_cell_render").find_all(recursive=False)):
        if tag.name in ("h1", "h2", "h3"):
            pieces.append(BeautifulSoup("", "html.parser"))
        pieces[-1].append(tag.extract())
    return pieces


def _put(slide, part, shown, later):
    """Put a text's parts on a slide, or in its notes."""
    tags = [tag for tag in part.find_all(recursive=False) if tag.name not in ("h1", "h2", "h3")]
    if not shown:
        slide.notes += map(str, tags)
        return
    room = WORDS - sum(map(_questions, tags))
    for tag in tags:
        asked = ASK.search(str(tag))
        if tag.find("img"):
            slide.pictures.append((str(tag), later))
        elif tag.name in ("ul", "ol") and _count(str(tag)) > ITEMS:
            slide.notes.append(str(tag))
            slide.text.append((_shorter(tag), later))
            room = 0
        elif tag.name in ("table", "ul", "ol", "div") or tag.find("math", display="block"):
            slide.text.append((str(tag), later))
            room = 0
        else:
            prose, question = _cut_at(tag, asked.start()) if asked else (tag.decode_contents(), "")
            kept, rest = _sentences(prose, room)
            room = 0 if rest else room - _count(kept)
            question, more = _claim(question)
            slide.text += [(f"<p>{kept}</p>", later)] if kept else []
            slide.text += [(f"<p class='ask'>{question}</p>", later)] if question else []
            slide.notes += [f"<p>{left}</p>" for left in (rest, more) if left]


def _count(html):
    """Words in HTML; a formula is one."""
    return len(re.sub(r"<math.*?</math>|<[^>]+>", " x ", html, flags=re.DOTALL).split())


def _questions(tag):
    """Words of the questions and claims in a paragraph."""
    asked = ASK.search(str(tag))
    return _count(_claim(str(tag)[asked.start() :])[0]) if asked and tag.name == "p" else 0


def _claim(html):
    """A question or claim, and what else its paragraph says under another bold word."""
    end = re.search(r"(?<=[.?!])\s+<strong>(?!Predict)", html)
    return (html[: end.start()], html[end.start() :].strip()) if end else (html, "")


def _sentences(html, room):
    """As many whole sentences as there is room for (words), and the others.

    What a tag encloses stays together; what has no full stop leads to something that is cut off.
    """
    sentences, kept = re.split(r"(?<=[.:?!])\s+(?=[A-Z<(*\"])", html.strip()), []
    while sentences and _count(" ".join([*kept, sentences[0]])) <= room:
        kept.append(sentences.pop(0))
    while kept and (_open(" ".join(kept)) or not re.search(r"[.:?!)\"](</\w+>)*$", kept[-1])):
        sentences.insert(0, kept.pop())
    return " ".join(kept), " ".join(sentences)


def _shorter(items):
    """A long list with the first sentence or two of each item."""
    entries = items.find_all("li", recursive=False)
    for entry in entries:
        for paragraph in entry.find_all("p"):
            paragraph.unwrap()
        html = entry.decode_contents().strip()
        tries = (_sentences(html, room)[0] for room in (ITEMS // len(entries), 30, 45, ITEMS))
        kept = next(filter(None, tries), html)
        entry.clear()
        entry.append(BeautifulSoup(kept, "html.parser"))
    return str(items)


def _open(html):
    """Whether a tag is opened in some HTML and not closed."""
    return html.count("</") != len(re.findall(r"<\w", html))


def _cut_at(tag, place):
    """A paragraph's HTML before and from a place in it."""
    html = str(tag)
    opened = html.index(">") + 1
    return html[opened:place].strip(), html[place : html.rindex("</")].strip()
