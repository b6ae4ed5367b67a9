"""Notebooks on paper and on the wall: what ``handout`` and ``slides`` share.

nbconvert renders the cells. Its own pages fetch MathJax, require.js and reveal.js from the net;
these need no net: formulas become MathML (latex2mathml), which every browser draws itself, pictures
are inlined, and what moves only in a notebook (meshes, sliders) becomes a picture or goes.
"""

import base64
import functools
import html
import io
import mimetypes
import re
from pathlib import Path

import jinja2
import nbformat
import numpy as np
import torch
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_output
from PIL import Image, ImageSequence
from pygments.formatters import HtmlFormatter

from course.export import to_uint8
from course.files import any_path
from course.rasterize import rasterize
from course.render import vertex_normals

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
TEMPLATES = Path(__file__).parent / "templates"
PLOTLY, GIF = "application/vnd.plotly.v1+json", "image/gif"
WIDGET = "application/vnd.jupyter.widget-view+json"
BADGE = re.compile(r"\[!\[[^\]]*\]\(https?://[^)]*badge[^)]*\)\]\([^)]*\)\s*")
FILM_FRAMES = 5
CODE_STYLE = HtmlFormatter(style="friendly").get_style_defs(".highlight")


# ------------------------------------------------------------------ notebooks


def find(names=()):
    """Paths of the named notebooks (``3``, ``03``, ``03_differentiable_rendering``, a file).

    Without names, of all. Raises ValueError for a name that no notebook has.
    """
    here = {path.stem: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    if not names:
        return list(here.values())
    return [_find_one(str(name), here) for name in names]


def _find_one(name, here):
    path = any_path(name)
    if path.suffix == ".ipynb" and path.is_file():
        return path
    stem = path.name.removesuffix(".ipynb")
    number = stem.zfill(2) if stem.isdigit() else stem
    for known, file in here.items():
        if number in (known, known[:2]):
            return file
    raise ValueError(f"There is no notebook {name}; there are {', '.join(here)}.")


def read(path):
    """The notebook in a file, with cell ids that are unique among notebooks, and no badge.

    Raises ValueError for a file that is no notebook.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat has no one kind of error for "not a notebook"
        raise ValueError(f"{path} is not a Jupyter notebook.") from error
    for k, cell in enumerate(notebook.cells):
        cell.id = f"n{path.stem[:2]}-{k}"
        if cell.cell_type == "markdown":
            cell.source = BADGE.sub("", cell.source)
    return notebook


def title(notebook):
    """The notebook's first heading, as text."""
    lines = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("# ")), "Untitled")


# ------------------------------------------------------------------ what moves


def still(output, film=False):
    """An output as paper can show it, or None: a mesh drawn, a GIF as a row of frames.

    With ``film`` a GIF keeps moving. Sliders go; every notebook draws theirs as a strip.
    """
    data = output.get("data", {})
    if WIDGET in data:
        return None
    if PLOTLY in data:
        alt = output.metadata.get(PLOTLY, {}).get("alt", "A mesh.")
        return picture_output(draw_mesh(data[PLOTLY]["data"][0]), alt)
    if GIF in data and film:
        alt = output.metadata.get(GIF, {}).get("alt", "A film.")
        return html_output(f'<img alt="{html.escape(alt)}" src="data:{GIF};base64,{data[GIF]}">')
    if GIF in data:
        alt = output.metadata.get(GIF, {}).get("alt", "A film.")
        return picture_output(film_strip(base64.b64decode(data[GIF])), alt)
    return output


def html_output(text):
    """A cell's output that is HTML."""
    return new_output("display_data", data={"text/html": text})


def picture_output(picture, alt):
    """A cell's output that is a picture (H, W, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    data = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
    return new_output("display_data", data=data, metadata={"image/png": {"alt": alt}})


def film_strip(gif, frames=FILM_FRAMES):
    """Frames of a film (bytes of a GIF), evenly spaced, side by side: (H, frames·W, 3) uint8."""
    every = [
        np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(Image.open(io.BytesIO(gif)))
    ]
    chosen = np.linspace(0, len(every) - 1, min(frames, len(every))).round().astype(int)
    return np.hstack([every[k] for k in chosen])


def draw_mesh(trace, side=560, turn=13.0):
    """A Plotly ``mesh3d`` trace as a picture (side, side, 3) uint8, lit from the upper left."""
    x, y, z, *corners = (torch.from_numpy(_numbers(trace[key])) for key in "xyzijk")
    vertices, faces = torch.stack([x, y, z], -1).float(), torch.stack(corners, -1).long()
    vertices = vertices - (vertices.amax(0) + vertices.amin(0)) / 2
    angle = torch.deg2rad(torch.tensor(-turn))  # the camera of figures.mesh stands to the right
    c, s = angle.cos(), angle.sin()
    turned = vertices @ torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    turned = turned / turned.abs().max() * 0.95
    ndc = turned * torch.tensor([-1.0, 1, -1]) + torch.tensor([0, 0, 2.0])  # +X left, +Z inwards
    found = rasterize(ndc[None], faces, 2 * side)
    normals = vertex_normals(turned[None], faces)[0]
    light = torch.nn.functional.normalize(torch.tensor([-0.4, 0.6, 0.8]), dim=0)
    colours = (
        _colours(trace, len(vertices)) * (0.5 + 0.55 * (normals @ light).clamp_min(0))[:, None]
    )
    hit = found.pix_to_face[0] >= 0
    picture = torch.ones(2 * side, 2 * side, 3)
    at = colours[faces[found.pix_to_face[0][hit]]]
    picture[hit] = (found.barycentric[0][hit][..., None] * at).sum(1)
    picture = picture.permute(2, 0, 1)[None].clamp(0, 1)
    return to_uint8(torch.nn.functional.avg_pool2d(picture, 2)[0])


def _numbers(values):
    """A column of a Plotly trace: a list, or base64 with its type."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).astype(np.float64)
    return np.asarray(values, np.float64)


def _colours(trace, count):
    """Colours (V, 3) in 0…1 of a trace's vertices."""
    painted = trace.get("vertexcolor") or [trace.get("color", "#c9b7a8")] * count
    channels = [[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in painted]
    return torch.tensor(channels) / 255


# ------------------------------------------------------------------ HTML


def mathml(formula, display):
    """A formula in LaTeX as MathML. Raises ValueError for one that cannot be translated."""
    try:
        from latex2mathml.converter import convert
    except ImportError as error:
        raise ValueError(
            "Formulas need latex2mathml: python -m pip install latex2mathml"
        ) from error
    formula = re.sub(r"(\\[bB]ig+[lr]?)\\\|", r"\1‖", formula.strip())
    text = convert(formula, display=display)
    if "&#x0005C;" in text or "\\" in text:  # a command that the translator passes through
        raise ValueError(f"This formula cannot be translated to MathML: {formula}")
    return text


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown with formulas that need no MathJax."""

    def block_math(self, body):
        return mathml(body, "block")

    def inline_math(self, body):
        return mathml(body, "inline")


def markdown(source):
    """Markdown as HTML."""
    return MarkdownWithMath(_Renderer(escape=False, exclude_anchor_links=True)).render(source)


class _Exporter(HTMLExporter):
    def default_filters(self):
        yield from super().default_filters()
        yield "markdown2html", markdown
        yield "clean_html", lambda html: html  # Pygments escapes; bleach takes a third of the time


@functools.cache
def _exporter():
    return _Exporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)


def render(cells, metadata=None, folder=NOTEBOOKS):
    """Cells as one parsed piece of HTML, a ``div.cell`` each; pictures beside them are inlined."""
    notebook = nbformat.v4.new_notebook(cells=list(cells), metadata=metadata or {})
    page = BeautifulSoup(_exporter().from_notebook_node(notebook)[0], "html.parser")
    for tag in page.select("[src]"):
        _inline(tag, folder)
    return page


def _inline(tag, folder):
    """Put a file into the page; what lies elsewhere on the net is named instead."""
    file = Path(folder) / tag["src"] if not re.match(r"\w+:", tag["src"]) else None
    if file is not None and file.is_file():
        kind = mimetypes.guess_type(file.name)[0]
        tag["src"] = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
    elif not tag["src"].startswith("data:"):
        tag.replace_with(f"[{tag.get('alt', tag['src'])}]")


def template(name, **values):
    """A page of ``templates/`` filled in; its style sheet and script lie there too."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
    )
    return environment.get_template(name).render(code_style=CODE_STYLE, **values)
