"""Sliders that redraw a picture: a plain function ``draw(**values)`` behind every panel."""

import io

import ipywidgets
import numpy as np
from IPython.display import display
from PIL import Image

from course.export import to_uint8


def encode(picture):
    """JPEG bytes of a picture (H, W, 3) or (3, H, W): a fifth of PNG's time and size."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(picture)).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _step(low, high, start):
    """A slider's step: a round number near a fortieth of the way, that start and high stand on.

    A slider puts every value on a step; a start between two would not be where Reset leads.
    """
    least = (high - low) / 40
    power = 10.0 ** np.floor(np.log10(least))
    for step in (5 * power, 2 * power, power, power / 2, power / 5, power / 10):
        places = np.array([start - low, high - low]) / step
        if step <= 1.5 * least and np.allclose(places, places.round(), atol=1e-6):
            return float(step)
    return start - low if start > low else least


def panel(draw, width=420, seed=0, **sliders):
    """Sliders (name → (low, high, start)) beside the picture that ``draw(**values)`` makes.

    A fourth number is the slider's step; 1 for a choice among whole numbers. "Reset" goes back to
    the start, "Random" draws every slider anew. Returns the panel's widget.

    While a slider is dragged, Jupyter sends its newest place only when the last picture is done,
    so that slow pictures skip places instead of lagging behind.
    """
    picture = ipywidgets.Image(format="jpeg", width=width)
    controls = {}
    for name, (low, high, start, *given) in sliders.items():
        step = given[0] if given else _step(low, high, start)
        controls[name] = ipywidgets.FloatSlider(
            value=start, min=low, max=high, step=step, description=name,
            readout_format=f".{max(0, -int(np.floor(np.log10(step))))}f",
            style={"description_width": "110px"}, layout={"width": "360px"},
        )  # fmt: skip
    busy = [False]

    def redraw(_=None):
        if not busy[0]:
            picture.value = encode(draw(**{name: c.value for name, c in controls.items()}))

    def set_all(values):
        busy[0] = True  # one picture for all sliders, not one each
        for name, value in values.items():
            controls[name].value = value
        busy[0] = False
        redraw()

    generator = np.random.default_rng(seed)
    reset, random = (ipywidgets.Button(description=text) for text in ("Reset", "Random"))
    reset.on_click(lambda _: set_all({name: values[2] for name, values in sliders.items()}))

    def anywhere(control):
        value = generator.uniform(control.min, control.max)
        return control.min + control.step * round((value - control.min) / control.step)

    random.on_click(lambda _: set_all({n: anywhere(c) for n, c in controls.items()}))
    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    left = ipywidgets.VBox([*controls.values(), ipywidgets.HBox([reset, random])])
    return ipywidgets.HBox([left, picture])


def show(widget):
    """Display a panel."""
    display(widget)


def upload(save_to, several=False):
    """A button that takes a picture from the learner's disk, or ``several`` at a time;
    ``save_to(name, bytes)`` gets each; what it prints or raises (ValueError) stands below."""
    text = "Your photos" if several else "Your photo"
    button = ipywidgets.FileUpload(accept="image/*", multiple=several, description=text)

    def received(change):
        files = change["new"]
        if isinstance(files, dict):  # ipywidgets 7, which Colab has: contents by name
            files = [{"name": name, **file} for name, file in files.items()]
        said.clear_output()
        with said:  # JupyterLab hides in its log what a callback prints elsewhere
            for file in files:
                try:
                    save_to(file["name"], bytes(file["content"]))
                except ValueError as problem:
                    print(f"{file['name']} was not taken: {problem}")

    said = ipywidgets.Output()
    button.observe(received, "value")
    return ipywidgets.VBox([button, said])
