"""The teaching kit: set-up, quizzes, figures with words, sliders that redraw."""

import importlib.metadata
import io
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import numpy as np
import plotly
import pytest
import torch
from PIL import Image
from traitlets import Bunch

from course.teach import checks, figures, setup, solutions, widgets

solutions.load_all()


def test_start_seeds_everything(capsys):
    setup.start(3)
    first = torch.rand(3), np.random.rand(3)  # noqa: NPY002 - it is the global one that is seeded
    setup.start(3)
    assert torch.equal(torch.rand(3), first[0])
    assert np.array_equal(np.random.rand(3), first[1])  # noqa: NPY002
    setup.start(4)
    assert not torch.equal(torch.rand(3), first[0])
    assert capsys.readouterr().err == ""


def test_weights_that_do_not_fit_are_gone_on_without(capsys):
    def load(path, flame=None):
        if flame == "another":
            raise ValueError(f"{path} was made for a head.")
        return path

    assert setup.fitting(load, "weights", flame="ours") == "weights"
    assert capsys.readouterr().out == ""
    assert setup.fitting(load, "weights", flame="another") is None
    assert capsys.readouterr().out == "Going on without it: weights was made for a head.\n"
    with pytest.raises(TypeError):
        setup.fitting(load)


def test_budget_follows_the_device(monkeypatch):
    monkeypatch.setattr(setup, "device", lambda: torch.device("cpu"))
    assert setup.budget(cpu=10, gpu=500) == 10
    monkeypatch.setattr(setup, "device", lambda: torch.device("cuda"))
    assert setup.budget(cpu=10, gpu=500) == 500


@pytest.mark.parametrize("question", checks.QUESTIONS)
def test_every_question_has_one_right_answer_with_a_reason(question, capsys):
    entry = checks.QUESTIONS[question]
    for option in sorted(set(entry) - {"answer"}):
        checks.quiz(question, option.upper() + " ")
        said = capsys.readouterr().out
        assert said == f"Question {question} · {entry[option]}\n"
        right = entry[option].startswith(("Yes: ", "Right: "))
        assert right == checks.is_right(question, option)
        assert len(entry[option]) > 30
    assert sum(checks.is_right(question, option) for option in "abcd") == 1


@pytest.mark.parametrize("choice", [..., "", " "])
def test_a_question_can_be_left_open(choice, capsys):
    checks.quiz("0.q1", choice)
    assert "not answered yet" in capsys.readouterr().out


@pytest.mark.parametrize("choice", ["d", "the first", 1, None, "answer"])
def test_no_answer_stops_a_notebook(choice, capsys):
    checks.quiz("0.q1", choice)
    assert 'choose "a", "b" or "c"' in capsys.readouterr().out


def test_an_unknown_question_is_named():
    with pytest.raises(ValueError, match=r"no question 9\.q9"):
        checks.quiz("9.q9", "a")


@pytest.fixture
def shown(monkeypatch):
    """Call something and get what a notebook would keep of what it displays: data, metadata."""

    def call(something):
        kept = []

        def display(value, raw=False, metadata=None):
            data = value if raw else value._repr_mimebundle_()
            kept.append((data[0] if isinstance(data, tuple) else data, metadata))

        monkeypatch.setattr(figures, "display", display)
        something()
        assert len(kept) == 1
        return kept[0]

    return call


def test_pictures_keep_their_words(shown):
    image = torch.zeros(3, 40, 60)
    image[0] = 1
    data, metadata = shown(
        lambda: figures.pictures([image, image], ["left", "right"], alt="Two red pictures.")
    )
    assert metadata["image/jpeg"]["alt"] == "Two red pictures."
    pixels = np.asarray(Image.open(io.BytesIO(raw(data["image/jpeg"]))).convert("RGB")).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1:].max(-1) < 60)
    assert 0.3 < red.mean() < 1, "the pictures are not in the figure"


def raw(data):
    import base64

    return base64.b64decode(data) if isinstance(data, str) else data


def test_strip_draws_every_value(shown):
    asked = []

    def draw(turn=0.0):
        asked.append(turn)
        return torch.full((3, 20, 20), turn)

    values = [{"turn": 0.1}, {"turn": 0.9}]
    shown(lambda: figures.strip(draw, values, alt="Dark, then bright."))
    assert asked == [0.1, 0.9]
    data, _ = shown(lambda: figures.strip(draw, values, "One below the other.", columns=1, size=2))
    width, height = Image.open(io.BytesIO(raw(data["image/jpeg"]))).size
    assert height > 1.5 * width


def test_mesh_is_described_light_and_true(flame, shown):
    vertices = flame.v_template
    data, metadata = shown(
        lambda: figures.mesh(vertices, flame.faces, torch.rand(len(vertices), 3), alt="A head.")
    )
    kind = "application/vnd.plotly.v1+json"
    assert metadata[kind]["alt"] == "A head."
    lists = plotly.__version__.startswith("5.")  # later versions store arrays as bytes
    assert len(json.dumps(data[kind])) < (700_000 if lists else 300_000)
    (surface,) = data[kind]["data"]
    assert surface["type"] == "mesh3d"
    assert len(surface["vertexcolor"]) == len(vertices)


def find(widget, kind):
    """All widgets of a kind inside a panel."""
    inside = [found for child in getattr(widget, "children", ()) for found in find(child, kind)]
    return [widget, *inside] if isinstance(widget, kind) else inside


def test_panel_redraws_resets_and_repeats_its_chances():
    calls = []

    def draw(grey=0.0, red=0.0):
        calls.append((grey, red))
        picture = torch.full((3, 8, 8), float(grey))
        picture[0] = red
        return picture

    panel = widgets.panel(draw, grey=(0, 1, 0.2), red=(0, 1, 0.6))
    (picture,) = find(panel, ipywidgets.Image)
    grey, red = find(panel, ipywidgets.FloatSlider)
    reset, random = find(panel, ipywidgets.Button)
    before = picture.value
    grey.value = 0.8
    assert calls[-1] == (pytest.approx(0.8), pytest.approx(0.6))
    after = np.asarray(Image.open(io.BytesIO(picture.value)))
    assert picture.value != before
    assert abs(after[0, 0, 1] / 255 - 0.8) < 0.01
    count = len(calls)
    reset.click()
    assert (grey.value, red.value) == (pytest.approx(0.2), pytest.approx(0.6))
    assert len(calls) == count + 1, "one picture for a reset, not one for each slider"
    assert picture.value == before
    random.click()
    assert grey.value != pytest.approx(0.2)
    assert 0 <= grey.value <= 1


def test_a_slider_among_whole_numbers_stays_on_them():
    asked = []

    def draw(joint=0.0):
        asked.append(joint)
        return torch.zeros(3, 4, 4)

    panel = widgets.panel(draw, joint=(0, 4, 2, 1))
    (control,) = find(panel, ipywidgets.FloatSlider)
    assert (control.step, control.readout_format) == (1, ".0f")
    random = next(b for b in find(panel, ipywidgets.Button) if b.description == "Random")
    for _ in range(8):
        random.click()
    assert len(set(asked)) > 2
    assert all(value == int(value) and 0 <= value <= 4 for value in asked)


@pytest.mark.parametrize(
    "slider",
    [(-2, 2.5, 0), (-60, 60, 0), (0, 30, 0), (-1, 2.5, 1), (0.001, 0.1, 0.03), (0, 1, 0.333)],
)
def test_the_start_of_a_slider_stands_on_a_step(slider):
    """A slider in the browser rounds to its steps: Reset would lead elsewhere."""
    (control,) = find(widgets.panel(lambda x: torch.zeros(3, 4, 4), x=slider),
                      ipywidgets.FloatSlider)  # fmt: skip
    low, high, start = slider
    assert control.value == pytest.approx(start)
    assert (high - low) / 1100 < control.step < (high - low) / 20
    for end in (start, high):
        steps = (end - low) / control.step
        assert steps == pytest.approx(round(steps), abs=1e-4)


def picked(name, content=b"abc"):
    """A file as the installed ipywidgets' upload button has it."""
    about = {"name": name, "type": "image/jpeg", "size": 3}
    if ipywidgets.__version__.startswith("7."):
        return {name: {"metadata": {**about, "lastModified": 0}, "content": content}}
    return ({**about, "content": content, "last_modified": datetime(2026, 1, 1)},)


def test_upload_hands_the_bytes_over():
    got = []
    button = widgets.upload(lambda name, content: got.append((name, content))).children[0]
    button.set_trait("value", picked("me.jpg"))
    assert got == [("me.jpg", b"abc")]


def test_upload_hands_over_several():
    got = []
    button = widgets.upload(lambda name, content: got.append(name), several=True).children[0]
    first, second = picked("a.jpg"), picked("b.jpg")
    button.set_trait("value", first + second if isinstance(first, tuple) else first | second)
    assert got == ["a.jpg", "b.jpg"]
    assert button.multiple


def test_upload_reads_what_colab_sends():
    """Colab has ipywidgets 7, which files contents by name."""
    got = []
    button = widgets.upload(lambda name, content: got.append((name, content))).children[0]
    files = {"a.jpg": {"metadata": {}, "content": b"one"}}
    button.notify_change(Bunch(name="value", type="change", new=files, old={}, owner=button))
    assert got == [("a.jpg", b"one")]


def test_upload_says_what_is_no_picture(capsys):
    def refuse(name, content):
        raise ValueError("it is no picture")

    button, _ = widgets.upload(refuse).children
    button.set_trait("value", picked("me.txt"))
    assert capsys.readouterr().out.endswith("me.txt was not taken: it is no picture\n")


def test_vertex_colours_are_the_texture_at_the_vertex(flame):
    ramp = (torch.arange(64) + 0.5) / 64
    texture = torch.stack(
        [ramp.expand(64, 64), 1 - ramp[:, None].expand(64, 64), ramp.new_zeros(64, 64)]
    )
    colours = figures.vertex_colours(texture, flame)
    corner, uv = flame.faces[100, 0], flame.vt[flame.ft[100, 0]]
    assert torch.allclose(colours[corner, :2], uv, atol=0.02)
    assert colours.shape == (len(flame.v_template), 3)


def test_curves_and_bars_show_spread(shown):
    runs = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    for draw in (
        lambda: figures.curves([1, 2, 3], {"a": runs, "b": [2, 2, 2]}, alt="Two rising curves."),
        lambda: figures.bars({"a": [1.0, 2.0], "b": 3.0}, alt="Two bars with dots.", level=2.5),
    ):
        data, metadata = shown(draw)
        assert metadata["image/png"]["alt"].startswith("Two")
        assert Image.open(io.BytesIO(raw(data["image/png"]))).size[0] > 300


def test_labels_of_a_figure_are_not_cut_off(shown):
    """All four borders of a figure are blank, however long its labels."""
    words = {"xlabel": "below\nbelow\nbelow", "ylabel": "left\nleft", "title": "above\nabove"}
    data, _ = shown(lambda: figures.curves([1, 2], {"a": [1, 2]}, alt="A rising line.", **words))
    pixels = np.asarray(Image.open(io.BytesIO(raw(data["image/png"]))).convert("L"))
    for border in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert border.min() > 250


def test_missing_packages_are_named_and_torch_is_held(tmp_path, monkeypatch):
    assert setup.missing_packages() == []
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\ndependencies = ["torch>=2", "no-such-package-at-all>=3"]\n')
    assert setup.missing_packages(project) == ["no-such-package-at-all>=3"]
    asked = []

    def run(command, check):
        held = Path(command[command.index("-c") + 1])
        asked.append((command, held.read_text(encoding="utf-8").splitlines()))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(setup, "missing_packages", lambda: ["trimesh>=4"])
    monkeypatch.setattr(setup.network, "need_packages", lambda what: None)
    monkeypatch.setattr(setup.subprocess, "run", run)
    setup.install_missing()
    ((command, held),) = asked
    assert command[-1] == "trimesh>=4"
    for name in ("torch", "numpy", "ipywidgets", "plotly"):
        assert f"{name}=={importlib.metadata.version(name)}" in held


def test_pytorch3d_is_never_waited_for(monkeypatch):
    """On a machine that has nothing at all, everything is fetched but pytorch3d."""

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    missing = setup.missing_packages()
    assert len(missing) > 10
    assert not any("pytorch3d" in requirement for requirement in missing)


def test_a_face_is_redrawn_ten_times_a_second(flame):
    """A 224 px face through model, renderer and JPEG, as a slider panel does it."""
    import time

    from course.facecode import FaceCode
    from course.render import Renderer

    renderer, code = Renderer(flame, 224), FaceCode.zeros(flame)
    albedo = flame.albedo(code.albedo)

    def draw(smile):
        expression = code.expression.clone()
        expression[:, 0] = smile
        with torch.no_grad():
            vertices = flame(code.shape, expression, code.pose)
            return widgets.encode(renderer(vertices, code.camera, albedo, code.light).image[0])

    draw(0.0)
    seconds = []
    for k in range(10):
        start = time.perf_counter()
        draw(0.1 * k)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1  # the best: other work on the machine is no fault of ours
