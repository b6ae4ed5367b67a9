"""Figures in one style: picture grids, 3D meshes. Every one has a description in words."""

import io

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import plotly
import plotly.graph_objects as go
import torch
from IPython.display import Image, display

from course.export import to_uint8
from course.teach.setup import on_colab

# Okabe and Ito's palette: told apart by colour-blind readers too
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
STYLE = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 2.2,
    "figure.dpi": 90,
}


def show(figure, alt, photographs=False):
    """Display a matplotlib figure with alternative text, and close it.

    Curves become PNG of 128 colours; ``photographs`` become JPEG, a fifth of the size.
    """
    kind = "jpeg" if photographs else "png"
    options = {"pil_kwargs": {"quality": 80, "optimize": True}} if photographs else {}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, bbox_inches="tight", pad_inches=0.08, **options)
    plt.close(figure)
    if not photographs:
        picture, buffer = PIL.Image.open(buffer).convert("RGB"), io.BytesIO()
        picture.quantize(128, dither=PIL.Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    display(Image(buffer.getvalue()), metadata={f"image/{kind}": {"alt": alt}})


def pictures(images, titles=(), alt="", columns=None, size=3.2):
    """Pictures side by side: (H, W, 3) uint8 arrays or (3, H, W) tensors in 0…1."""
    images = [to_uint8(image) for image in images]
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(size * columns, size * rows), squeeze=False
        )
        for axis in axes.flat:
            axis.axis("off")
        for k, image in enumerate(images):
            axes.flat[k].imshow(image)
            if k < len(titles):
                axes.flat[k].set_title(titles[k])
        figure.tight_layout(pad=0.4, h_pad=1.2)
    show(figure, alt or ", ".join(map(str, titles)), photographs=True)


def curves(x, series, alt, xlabel="", ylabel="", title="", log="", size=(7, 4), marks=True,
           legend="best"):  # fmt: skip
    """Curves with their spread: ``series`` maps a label to values (n,) or to runs (r, n).

    Of several runs the mean is drawn, and the range from the lowest to the highest as a band.
    ``log`` is "", "x", "y" or "xy"; ``legend`` is matplotlib's place for it.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=size)
        x = np.asarray(x)
        for k, (label, runs) in enumerate(series.items()):
            runs, colour = np.atleast_2d(np.asarray(runs, float)), COLOURS[k % len(COLOURS)]
            style = {"marker": "os^Dv<>p"[k % 8]} if marks and len(x) <= 20 else {}
            axis.plot(x, runs.mean(0), color=colour, label=label, **style)
            if len(runs) > 1:
                axis.fill_between(x, runs.min(0), runs.max(0), color=colour, alpha=0.18, lw=0)
        for direction in log:
            getattr(axis, f"set_{direction}scale")("log")
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if len(series) > 1:
            axis.legend(frameon=False, loc=legend)
    show(figure, alt)


def bars(groups, alt, ylabel="", title="", size=(7, 4), level=None):
    """Bars with every single run as a dot: ``groups`` maps a label to one value or a list.

    ``level``, where given, is drawn across as a dotted line.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=size)
        for k, (label, runs) in enumerate(groups.items()):
            runs = np.atleast_1d(np.asarray(runs, float))
            axis.bar(k, runs.mean(), width=0.6, color=COLOURS[k % len(COLOURS)], label=label)
            if len(runs) > 1:
                spread = np.linspace(-0.15, 0.15, len(runs)) + k
                axis.plot(
                    spread, runs, "o", color="black", markersize=5, alpha=0.7, mec="white", mew=0.6
                )
        if level is not None:
            axis.axhline(level, color="0.4", ls=":", lw=1.5)
        axis.set_xticks(range(len(groups)), list(groups))
        axis.set(ylabel=ylabel, title=title)
        axis.grid(visible=False, axis="x")
    show(figure, alt)


def strip(draw, values, alt, titles=None, columns=None, size=2.6):
    """The pictures of ``draw(**value)`` for several values: what a widget shows, on paper."""
    titles = titles or [", ".join(f"{k} {v:g}" for k, v in value.items()) for value in values]
    pictures([draw(**value) for value in values], titles, alt, columns, size)


def mesh(vertices, faces, colours=None, alt="", height=520):
    """A mesh to orbit with the mouse: vertices (V, 3), faces (F, 3), colours (V, 3) in 0…1.

    Lit from the viewer's upper left, always seen from the same place.
    """
    x, y, z = np.asarray(vertices, np.float32).T * 100  # centimetres
    i, j, k = np.asarray(faces, np.uint16 if len(vertices) < 65536 else np.uint32).T
    paint = {"color": "#c9b7a8"}
    if colours is not None:
        eight_bit = (255 * np.clip(np.asarray(colours), 0, 1)).round().astype(int)
        paint = {"vertexcolor": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in eight_bit]}
    surface = go.Mesh3d(
        x=x, y=y, z=z, i=i, j=j, k=k, hoverinfo="skip", flatshading=False,
        lighting={"ambient": 0.55, "diffuse": 0.6, "specular": 0.08, "roughness": 0.7},
        lightposition={"x": -200, "y": 300, "z": 400}, **paint,
    )  # fmt: skip
    hidden = {"visible": False}
    figure = go.Figure(surface)
    figure.update_layout(
        height=height, margin={"l": 0, "r": 0, "t": 0, "b": 0},
        scene={"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data",
               "camera": {"up": {"x": 0, "y": 1, "z": 0}, "eye": {"x": 0.42, "y": 0.12, "z": 1.8}}},
        meta={"alt": alt},
    )  # fmt: skip
    if on_colab():  # Colab shows Plotly's HTML only
        display(figure)
        return
    bundle = plotly.io.renderers["plotly_mimetype"].to_mimebundle(figure.to_dict())
    display(bundle, raw=True, metadata={kind: {"alt": alt} for kind in bundle})


def vertex_colours(texture, flame):
    """A texture (3, R, R) read at every vertex of a head: colours (V, 3), to paint a mesh with."""
    uv = torch.zeros(len(flame.v_template), 2)
    uv[flame.faces.reshape(-1).cpu()] = flame.vt[flame.ft.reshape(-1)].cpu()
    grid = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], -1)[None, None]  # v up → row down
    texture = texture.detach().cpu()[None]
    return torch.nn.functional.grid_sample(texture, grid, align_corners=False)[0, :, 0].T
