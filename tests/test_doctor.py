import importlib.metadata
import os
import re
import subprocess
import sys

import numpy as np
import stand_in

from course import doctor
from course.__main__ import main


def test_here_the_course_can_run(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for name in ("Python", "torch", "device", "pytorch3d", "face-alignment", "head", "memory"):
        assert name in text


def test_a_console_that_lacks_signs():
    """What Windows gives ``doctor > report.txt`` knows no arrow, and no Chinese."""
    done = subprocess.run([sys.executable, "-m", "course", "doctor"], capture_output=True,
                          text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Python" in done.stdout
    assert "charmap" not in done.stderr


def test_a_missing_package_has_a_remedy(monkeypatch, capsys):
    real = importlib.metadata.version

    def version(name):
        if name == "plotly":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "MISSING" in text
    assert "pip install plotly" in text


def test_missing_weights_and_head_are_named(monkeypatch, tmp_path, capsys):
    from course import flame_files, landmarks, train_encoder

    monkeypatch.setattr(train_encoder, "WEIGHTS", tmp_path / "none.pt")
    monkeypatch.setattr(landmarks, "WEIGHTS", tmp_path / "none.pt")
    landmarks.load.cache_clear()
    monkeypatch.setattr(flame_files, "BUILT_IN", tmp_path / "none.npz")
    monkeypatch.setattr(flame_files, "DATA", tmp_path)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "python -m course train landmarks" in text
    assert re.search(r"encoder +optional +.*mean face", text)
    assert "python -m course train encoder" in text
    assert "python -m course build-head" in text
    landmarks.load.cache_clear()


def test_rows_with_remedies_are_the_ones_that_need_them():
    for row in doctor.examine():
        assert row.state in ("ok", "optional", "missing")
        assert bool(row.remedy) == (row.state != "ok") or row.name == "device"


def test_detail_is_looked_at_with_the_head_that_ships(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_FLAME", str(tmp_path / "none.npz"))
    rows = {row.name: row for row in doctor.examine()}
    assert rows["head"].state == "missing"
    assert rows["detail"].state == "ok"


def test_a_head_that_the_networks_were_not_made_for(monkeypatch, tmp_path):
    model, *_ = stand_in.flame_like(seed=3, spacing=2.4, scale=1.0, turn=0.0)
    weights = model["weights"]
    weights[:, 1], weights[:, 2] = weights[:, 1] + weights[:, 2], 0  # no jaw, as GNM Head
    np.savez(tmp_path / "other.npz", **model)
    monkeypatch.setenv("COURSE_FLAME", str(tmp_path))
    rows = {row.name: row for row in doctor.examine()}
    assert "jaw joint, landmarks, UV, masks, albedo to be carried over" in rows["head"].found
    for name, means in (("encoder", "fits start from the mean face"), ("detail", "no detail")):
        assert rows[name].state == "optional"
        assert "but made for another head than other" in rows[name].found
        assert means in rows[name].found
    assert rows["landmarks"].state == rows["identity"].state == "ok"


def test_a_head_that_is_not_there_is_not_built(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_FLAME", "/nope")
    assert main(["doctor"]) == 1
    (row,) = [row for row in doctor.examine() if row.name == "head"]
    assert "/nope" in capsys.readouterr().out
    assert "unset COURSE_FLAME" in row.remedy
