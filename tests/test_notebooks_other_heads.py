"""Notebooks 09 and 10 with a head that the course's networks were not made for: a FLAME file's."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import stand_in
import torch

from course import flame, registration
from course.teach import checks, setup

ROOT = Path(__file__).resolve().parent.parent
QUICKER = {"people=8": "people=2", "seed in range(3)": "seed in range(1)"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A coarse head in FLAME's form, its expressions without names, half as many as FLAME's."""
    model, *_ = stand_in.flame_like(seed=3, spacing=1.6, scale=1.0, turn=0.0)
    model["shapedirs"] = model["shapedirs"][:, :, :350]
    folder = tmp_path_factory.mktemp("flame")
    np.savez(folder / "generic_model.npz", **model)
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Runs a notebook's code cells one after the other: its names, and what it printed."""
    monkeypatch.setenv("COURSE_FLAME", str(folder))
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setenv("COURSE_QUIET", "1")
    monkeypatch.setattr(registration, "STIFFNESS", (10.0,))  # see test_head_transfer
    monkeypatch.setattr(registration, "ROUNDS", 1)
    monkeypatch.setattr(checks, "_state", {})
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    flame._say.cache_clear()

    def run(name):
        text = next((ROOT / "notebooks").glob(f"{name}_*.ipynb")).read_text(encoding="utf-8")
        names, said = {"__name__": "__main__"}, io.StringIO()
        for number, cell in enumerate(json.loads(text)["cells"]):
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and "inspect.getsource" not in source:
                for slow, quick in QUICKER.items():
                    source = source.replace(slow, quick)
                code = compile(source, f"notebook {name}, cell {number}", "exec")
                with contextlib.redirect_stdout(said):
                    exec(code, names)
        return names, said.getvalue()

    return run


def differ(*pictures):
    """Whether two pictures are unlike each other beyond rounding."""
    one, other = (torch.as_tensor(picture).float() for picture in pictures)
    return float((one - other).abs().max()) > 0.05


def test_transfer_and_animation(run, tmp_path):
    names, said = run("09")
    assert "generic_model has none by our names" in said
    assert said.count("Going on without it") == 2  # the encoder, detail
    for sentence in ("This experiment is made with the head that the encoder knows",
                     "These skins fold by the built-in head's actions",
                     "every step is the same turn, to 0.1°: True",
                     "expressions among the targets: True"):  # fmt: skip
        assert sentence in said
    board, act, picture = (names[name] for name in ("board", "act", "picture"))
    assert differ(picture(act(names["ada"], smile=2.0)), picture(act(names["ada"])))
    assert differ(board(0.0, 0.0, 1.0), board(0.0, 1.0, 1.0))
    assert differ(names["timeline"](0.8, 1.0, 0.0), names["timeline"](0.8, 0.0, 0.0))
    made = {path.name for path in (tmp_path / "results" / "notebook_09").iterdir()}
    assert {"me.gif", "me.glb"} <= made


def test_your_own_face(run, tmp_path):
    names, said = run("10")
    assert said.count("Going on without it") == 2
    assert "one identity: True · every stage ends better than it began: True" in said
    assert "course.metrics.scan_to_mesh agrees" in said
    assert "fit, 4 photos" in said
    assert "encoder, 1 photo " not in said
    assert differ(names["draw_me"](), names["draw_me"](smiling=2.0))
    assert differ(names["draw_me"](), names["draw_me"](yaw=30.0))
    made = {path.name for path in (tmp_path / "results" / "my_face").iterdir()}
    assert {"head.glb", "code.json", "certificate.png"} <= made
