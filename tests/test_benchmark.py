import json
from types import SimpleNamespace

import numpy as np
import pytest

from course import benchmark
from course.__main__ import main
from course.rasterize import available_backends


def test_the_table_and_its_json(tmp_path, capsys, monkeypatch):
    row = {"name": "made-up", "ours_ms": 1.0, "smplx_ms": None, "ratio": None}
    monkeypatch.setattr(benchmark, "skinning_cases", lambda threads, repeats: [row])
    path = tmp_path / "times.json"
    command = [
        "benchmark",
        "--threads",
        "2",
        "--repeats",
        "1",
        "--sizes",
        "24",
        "--json",
        str(path),
    ]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "CPU path" in text
    report = json.loads(path.read_text())
    assert report["threads"] == 2
    for case in report["cases"]:
        assert case["torch"] > 0
        assert case["numba"] > 0
        assert (case["pytorch3d"] is None) == ("pytorch3d" not in available_backends())
    if "pytorch3d" not in available_backends():
        assert "not installed" in text
    assert any(row["name"].startswith("GridMask, 32") for row in report["augmentation"])
    assert "GridMask, 32" in text
    assert [row["ms"] > 0 for row in report["adaptive"]] == [True, True]
    assert "84 bones, batch 8" in text
    del report["augmentation"], report["adaptive"]  # a file from before
    assert "GridMask" not in benchmark.as_table(report)


def test_bad_numbers():
    assert main(["benchmark", "--threads", "0"]) == 2


def test_medians_and_fairness(monkeypatch):
    calls, now, rng = [], [0.0], np.random.default_rng(0)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def slow(name, seconds=0.03):
        calls.append(name)
        now[0] += seconds * rng.uniform(0.9, 1.1)
        if len(calls) == 20:  # another program wakes up: one turn of one function, once
            now[0] += 5

    times = benchmark.timed([lambda: slow("a"), lambda: slow("b"), lambda: slow("c", 0.004)], 4)
    assert calls.count("a") == calls.count("b") == 6  # warmed up, timed once, four turns
    assert [name for name in calls if name != "c"][4:] == ["a", "b"] * 4  # in turn
    assert calls.count("c") >= 2 + 4 * 4, "a quick function runs several times in its turn"
    assert times == pytest.approx([30, 30, 4], rel=0.1)  # and of the other program no trace


def test_quick_and_threads_are_left_as_they_were(tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(benchmark, "skinning_cases", lambda threads, repeats: [])
    before = torch.get_num_threads()
    assert main(["benchmark", "--threads", "1", "--quick", "--json", str(tmp_path / "t.json")]) == 0
    assert torch.get_num_threads() == before
    report = json.loads((tmp_path / "t.json").read_text())
    assert report["threads_of"] == {"torch": 1, "numba": 1}
    assert len(report["cases"]) == 3
    for case in report["cases"]:
        both = case["pytorch3d"] and case["numba"]
        assert case["numba_ratio"] == (case["pytorch3d"] / case["numba"] if both else None)
    assert (report["agreement_with_pytorch3d"] is None) == (report["versions"]["pytorch3d"] is None)


@pytest.mark.parametrize("given", [["--threads", "5000"], ["--sizes", "1000000"]])
def test_more_than_any_machine_has(given, capsys):
    assert main(["benchmark", *given]) == 2
    assert "from 1 to" in capsys.readouterr().err
