from pathlib import Path

import numpy as np
import pytest
import torch

from course import experiments
from course.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = {"kind": str, "error_mm": float, "good": bool}
SCHEMA = COLUMNS | experiments.COMMON


def one(setting, seed, marks):
    """A run that leaves a mark, and fails where the folder says so."""
    with (marks / f"{setting['kind']}-{seed}").open("a") as file:
        file.write(".")
    if (marks / "broken").exists() and seed == 1:
        raise ValueError("the power went")
    threads = torch.get_num_threads()
    return [{"steps": k, "error_mm": seed + k / 10, "good": k > 0} for k in (0, threads)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_grid_goes_on_where_it_stopped(tmp_path, workers):
    marks, before = tmp_path / "marks", torch.get_num_threads()
    marks.mkdir()
    grid = (one, [{"kind": "a"}, {"kind": "b"}], range(2), tmp_path / "runs")
    how = {"workers": workers, "threads": 1, "options": {"marks": marks}}
    (marks / "broken").touch()
    with pytest.raises(ValueError, match="power"):
        experiments.run_grid(*grid, **how)
    (marks / "broken").unlink()
    rows = experiments.run_grid(*grid, **how)
    assert torch.get_num_threads() == before
    assert len(rows) == 2 * 2 * 2
    assert {r["machine"] for r in rows} == {experiments.machine(1)}
    assert [(r["kind"], r["seed"], r["steps"]) for r in rows[:4]] == [
        ("a", 0, 0), ("a", 0, 1), ("b", 0, 0), ("b", 0, 1)]  # fmt: skip
    times = {p.name: len(p.read_text()) for p in marks.iterdir()}
    if workers == 1:  # side by side, what else had begun when one failed is chance
        assert times == {"a-0": 1, "b-0": 1, "a-1": 2, "b-1": 1}
    assert experiments.run_grid(*grid, **how) == rows  # nothing is left to do
    assert {p.name: len(p.read_text()) for p in marks.iterdir()} == times
    elsewhere = {"options": {"marks": tmp_path}}  # other options are other runs
    assert len(experiments.run_grid(*grid, **(how | elsewhere))) == len(rows)
    assert (tmp_path / "a-0").exists()


def weigh(setting, seed, weights):
    return [{"steps": 0, "error_mm": float(Path(w).read_text())} for w in weights]


def test_other_weights_in_a_file_of_the_same_name_are_another_run(tmp_path):
    weights = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for path in weights:
        path.write_text("1")
    grid = (weigh, [{"kind": "a"}], range(1), tmp_path / "runs")
    options = {"weights": [str(w) for w in weights]}
    assert [r["error_mm"] for r in experiments.run_grid(*grid, options=options)] == [1, 1]
    weights[1].write_text("2")
    assert [r["error_mm"] for r in experiments.run_grid(*grid, options=options)] == [1, 2]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_csv_comes_back_as_it_was(tmp_path):
    common = {"minutes": 0.5, "machine": "a, b", "steps": 3}
    rows = [{"kind": "x, y", "error_mm": None, "good": True, "seed": 0} | common,
            {"kind": "é", "error_mm": 1.25, "good": False, "seed": 1} | common]  # fmt: skip
    path = experiments.write(tmp_path / "results" / "t.csv", rows, SCHEMA)
    table = experiments.read_csv(path, SCHEMA)
    assert list(table) == list(SCHEMA)
    assert len(table) == 2
    assert table["kind"].tolist() == ["x, y", "é"]
    assert np.isnan(table["error_mm"][0])
    assert table.where(seed=1, good=False)["error_mm"].tolist() == [1.25]
    assert len(table.where(seed=7)) == 0
    assert not list(path.parent.glob(".tmp-*"))


@pytest.mark.parametrize(
    "change", [{"seed": "0"}, {"steps": 1.5}, {"seed": True}, {"good": None}, {"other": 1}]
)
def test_rows_off_the_schema_are_refused(tmp_path, change):
    row = {"kind": "a", "error_mm": 1, "good": True, "seed": 0, "steps": 1, "minutes": 0,
           "machine": "m"}  # fmt: skip
    path = experiments.write(tmp_path / "t.csv", [row], SCHEMA)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"[Cc]olumn"):
        experiments.write(path, [row | change], SCHEMA)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "why"),
    [("kind\na\n", "columns"), ("HEAD\n", "no rows"), ("HEAD\na,b\n", "length"),
     ("HEAD\na,1,True,0,1,0,m\nb,1,yes,0,1,0,m\n", "good"),
     ("HEAD\na,x,True,0,1,0,m\n", "error_mm")],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, text, why):
    path = tmp_path / "t.csv"
    path.write_text(text.replace("HEAD", ",".join(SCHEMA)))
    with pytest.raises(ValueError, match=why):
        experiments.read_csv(path, SCHEMA)
    with pytest.raises(FileNotFoundError, match="python -m course experiment none"):
        experiments.read_csv(tmp_path / "none.csv", SCHEMA)


@pytest.mark.parametrize("name", list(experiments.EXPERIMENTS))
def test_experiments_have_their_commands_and_results(name, capsys):
    """The committed CSV has the command's columns; COLUMNS hides none that all have."""
    with pytest.raises(SystemExit, match="0"):
        main(["experiment", name, "--help"])
    assert "--workers" in capsys.readouterr().out
    assert main(["experiment", name, "--workers", "0"]) == 2
    if (experiments.RESULTS / f"{name}.csv").is_file():
        table = experiments.read(name)
        assert set(experiments.COMMON) <= set(table)
        assert (table["minutes"] >= 0).all()
        assert (table["seed"] >= 0).all()


# ------------------------------------------------------------------ optimizers


@pytest.fixture
def tiny(monkeypatch):
    """The experiment on twelve pictures of noise."""
    from course.experiments import optimizers

    def noise(code, size):
        g = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (len(code), 3, 32, 32), generator=g, dtype=torch.uint8)

    smaller = {"HELD_OUT": 4, "FEW": 4, "BATCH": 4, "RATES": (1e18, 1e-3), "DECAYS": (0.1,)}
    for name, value in (smaller | {"TURNS": 1, "draw": noise}).items():
        monkeypatch.setattr(optimizers, name, value)
    optimizers.Faces.load.cache_clear()
    yield optimizers
    optimizers.Faces.load.cache_clear()


def test_optimizers_leave_their_table(tiny, tmp_path, capsys):
    path = tmp_path / "optimizers.csv"
    options = ["--seeds", "2", "--steps", "4", "--search", "2", "--every", "2", "--pictures", "12"]
    command = ["experiment", "optimizers", *options, "--folder", str(tmp_path)]
    command += ["--output", str(path)]
    assert main(command) == 0
    assert "Adam      best rate 0.001" in capsys.readouterr().out
    table = experiments.read("optimizers", path)
    assert set(table["part"]) == {"rates", "runs", "decay", "step", "update"}
    wild = table.where(part="rates", rate=1e18, optimizer="SGD")
    assert np.isnan(wild["error_mm"]).any()  # not finite any more, and said so
    runs = table.where(part="runs", optimizer="Adam", seed=1)
    assert runs["steps"].tolist() == [0, 2, 4]
    assert (np.diff(runs["seconds"]) > 0).all()
    assert set(table.where(part="runs")["seed"]).isdisjoint(table.where(part="rates")["seed"])
    step = table.where(part="step", optimizer="torch Adam")["seconds"]
    assert len(step) == 3
    assert (step > table.where(part="update", optimizer="torch Adam")["seconds"]).all()
    before = path.read_bytes()
    assert main(command) == 0  # all is there: nothing is run again
    assert path.read_bytes() == before
    assert main([*command, "--pictures", "3"]) == 2


def test_the_committed_race_is_whole():
    """What notebook 05 shows was chosen and run as the command says."""
    from course.experiments import optimizers

    if not (experiments.RESULTS / "optimizers.csv").is_file():
        pytest.skip("not run yet")
    table = experiments.read("optimizers")
    searched, runs = table.where(part="rates"), table.where(part="runs")
    assert set(searched["rate"]) == set(optimizers.RATES)
    assert set(searched["seed"]) == set(optimizers.SEARCH_SEEDS)
    rows = [dict(zip(searched, row, strict=True)) for row in zip(*searched.values(), strict=True)]
    best = optimizers.best_rates(rows)
    assert set(best) == set(optimizers.OPTIMIZERS)
    for name, rate in best.items():
        mine = runs.where(optimizer=name)
        assert set(mine["rate"]) == {rate}
        assert set(mine["seed"]) == set(range(optimizers.SEEDS))
    assert set(table.where(part="decay")["decay"]) == set(optimizers.DECAYS)
    assert (table.where(part="step")["seconds"] > 0).all()


@pytest.mark.parametrize("name", list(experiments.EXPERIMENTS))
def test_notebooks_that_name_the_command_plot_its_results(name):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text("utf-8")
        if f"course experiment {name}" in text:
            assert f'experiments.read(\\"{name}\\"' in text, path.name
            assert (experiments.RESULTS / f"{name}.csv").is_file()


def test_first_times():
    from course.experiments.optimizers import first_times

    lucky, arrives, lost = [2.2, 2.0, 2.1, 1.9], [2.2, 2.0, 1.9, 2.1], [2.2, np.nan, np.nan, 1.0]
    table = experiments.Table(
        optimizer=np.array(["SGD"] * 8 + ["Adam"] * 4),
        seed=np.array([0] * 4 + [1] * 4 + [0] * 4),
        steps=np.array([0, 5, 10, 15] * 3),
        error_mm=np.array([*lucky, *arrives, *lost]),
    )
    assert first_times(table, 2.0) == {
        ("SGD", 0): np.inf,
        ("SGD", 1): 5.0,
        ("Adam", 0): np.inf,
    }
