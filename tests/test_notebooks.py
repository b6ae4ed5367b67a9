"""The house rules for notebooks that a program can check, for every notebook that exists."""

import ast
import json
import re
import statistics
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "urls"
]["Repository"]
PICTURES = ("image/png", "image/jpeg", "application/vnd.plotly.v1+json")
WIDGET = "application/vnd.jupyter.widget-view+json"

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def cells(path, kind):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == kind]


def outputs(path):
    """(cell, output) pairs of a notebook."""
    return [(cell, o) for cell in cells(path, "code") for o in cell["outputs"]]


def setup_cell(path):
    return source(cells(path, "code")[0])


def test_name_and_beginning(path):
    """Number and name agree with the title; badge, picture, card and set-up come in this order."""
    number = re.fullmatch(r"(\d\d)_[a-z0-9_]+", path.stem).group(1)
    first, card, setup = read(path)["cells"][:3]
    assert source(first).startswith(f"# {number} ")
    badge = re.search(r"colab\.research\.google\.com/github/([^)]+)\)", source(first)).group(1)
    home = REPOSITORY.removeprefix("https://github.com/")
    assert badge == f"{home}/blob/main/notebooks/{path.name}"
    assert len(re.findall(r"!\[[^\]]+\]", source(first))) >= 2, "no picture of what comes out"
    for part in ("You will be able to", "You need", "Minutes", "The question"):
        assert part in source(card)
    assert setup["cell_type"] == "code"


def test_setup_cell_is_the_same_everywhere(path):
    assert setup_cell(path) == setup_cell(NOTEBOOKS[0])
    assert REPOSITORY in setup_cell(path)


def test_sections_are_numbered(path):
    text = "\n".join(source(cell) for cell in cells(path, "markdown"))
    found = [int(n) for n in re.findall(rf"^## {int(path.stem[:2])}\.(\d+) ", text, re.MULTILINE)]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 5
    assert len(found) == len(re.findall(r"^## ", text, re.MULTILINE)), "a section has no number"


def test_imports_are_the_packages_public_names(path):
    """A name renamed in the package must not stay behind in a notebook."""
    code = "\n".join(source(cell) for cell in cells(path, "code"))
    tree = ast.parse(re.sub(r"^[%!].*$", "", code, flags=re.MULTILINE))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    found = [node for node in found if node.module.split(".")[0] == "course"]
    assert found
    for node in found:
        for name in (alias.name for alias in node.names):
            assert not name.startswith("_"), f"{node.module}.{name} is private"
        exec(ast.unparse(node), {})


def test_length(path):
    """Short cells; 00 is the ten-minute tour and has fewer cells than a lesson."""
    lengths = [len(source(cell).splitlines()) for cell in cells(path, "code")]
    assert max(lengths) <= 40
    assert statistics.median(lengths) <= 8
    count = len(read(path)["cells"])
    words = sum(len(source(cell).split()) for cell in cells(path, "markdown"))
    least_cells, least_words = (30, 800) if path.stem.startswith("00") else (50, 1500)
    assert least_cells <= count <= 90
    assert least_words <= words <= 3000
    assert path.stat().st_size < 1_000_000


def test_was_run_once_from_top_to_bottom(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


def test_outputs_are_clean(path):
    """No error, no warning, no stderr, no memory address, nobody's home folder, no SVG."""
    for cell, output in outputs(path):
        text = json.dumps(output)
        assert output["output_type"] != "error", source(cell)
        assert output.get("name") != "stderr", source(cell)
        assert "image/svg+xml" not in output.get("data", {}), source(cell)
        for pattern in (
            r"Warning\b",
            r" at 0x[0-9a-f]{6}",
            r"/home/",
            r"/Users/",
            r"/tmp/",
            r"/root/",
        ):
            assert not re.search(pattern, text), (pattern, source(cell))


def test_no_widget_state(path):
    """GitHub refuses notebooks with ``metadata.widgets`` that lacks its state."""
    assert "widgets" not in read(path)["metadata"]


def test_every_figure_is_described(path):
    for cell, output in outputs(path):
        for kind in PICTURES:
            if kind in output.get("data", {}):
                alt = output["metadata"].get(kind, {}).get("alt", "")
                assert len(alt) > 20, source(cell)
    for cell in cells(path, "markdown"):
        assert "![]" not in source(cell)


def test_widgets_are_not_compared_and_have_a_strip(path):
    """At least two panels; each drawn again as a static strip by the next code cells."""
    code = cells(path, "code")
    panels = [k for k, cell in enumerate(code) if "widgets.panel(" in source(cell)]
    assert len(panels) >= 2
    for k in panels:
        draw = re.search(r"widgets\.panel\(\s*(\w+)", source(code[k])).group(1)
        after = [source(cell) for cell in code[k : k + 3]]
        assert any(re.search(rf"strip\(\s*{draw}\b", text) for text in after), draw
    for cell, output in outputs(path):
        if WIDGET in output.get("data", {}):
            assert "nbval-ignore-output" in cell["metadata"].get("tags", []), source(cell)


def test_sliders_exist(path):
    """Slider names are arguments of the draw function that they call."""
    text = "\n".join(source(cell) for cell in cells(path, "code"))
    for draw, sliders in re.findall(r"widgets\.panel\(\s*(\w+),(.*?)\n?\)\n?(?=\n|$)", text, re.S):
        arguments = re.search(rf"def {draw}\((.*?)\):", text, re.S).group(1)
        names = re.findall(r"(\w+)=\(", sliders)
        assert names, draw
        for name in names:
            assert re.search(rf"\b{name}\b", arguments), (draw, name)
            assert name not in ("width", "seed"), "panel() has arguments of this name"


def test_questions_exist_and_are_left_to_the_learner(path):
    from course.teach.solutions import QUESTIONS, load_all

    load_all()
    text = "\n".join(source(cell) for cell in cells(path, "code"))
    asked = re.findall(r'quiz\(\s*"([^"]+)",\s*(.+?)\s*\)', text)
    number = int(path.stem[:2])
    assert sorted(name for name, _ in asked) == sorted(
        name for name in QUESTIONS if name.startswith(f"{number}.")
    )
    assert all(choice == "..." for _, choice in asked), "an answer is filled in"


def test_links_resolve(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)\s]+)\)", source(cell)):
            if not re.match(r"https?://|#|attachment:", target):
                assert (path.parent / target.split("#")[0]).exists(), target


def test_is_on_the_map(path):
    assert f"({path.name})" in (path.parent / "README.md").read_text(encoding="utf-8")
    assert f"(notebooks/{path.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_model_counts_in_the_text_are_the_models(path):
    """ "5,867 points" and the like are the numbers of the head that ships."""
    from course.flame import FLAME

    flame = FLAME.load(ROOT / "data" / "head.npz", device="cpu")
    true = {len(flame.v_template), len(flame.faces)}
    for cell in cells(path, "markdown"):
        for number in re.findall(r"(\d+,\d{3}) (?:points|vertices|triangles)", source(cell)):
            assert int(number.replace(",", "")) in true, number
