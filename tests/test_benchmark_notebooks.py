import nbformat
import pytest

from course import benchmark_notebooks
from course.__main__ import main
from course.benchmark_notebooks import COLUMNS, MARKS, OUTPUT, parts, table
from course.experiments import read_csv

MEMORY = 300  # MB
WORK = f"import time, numpy as np\nheld = np.ones({MEMORY} * 125_000)\ntime.sleep(1.2)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One notebook of two cells and a README, in the place of the course's."""
    readme = "\n".join(["before", *MARKS, "after", ""])
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    monkeypatch.setattr(benchmark_notebooks, "FOLDER", tmp_path)
    monkeypatch.setattr(benchmark_notebooks, "OUTPUT", tmp_path / "out.csv")
    return tmp_path


def save(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells.insert(1, nbformat.v4.new_markdown_cell("text"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_a_notebook_is_measured(folder, capsys):
    threads = 'import os\nassert os.environ["OMP_NUM_THREADS"] == "3"'
    save(folder / "00_two_cells.ipynb", WORK, threads)
    assert main(["benchmark", "--notebooks", "--threads", "3"]) == 0
    rows = read_csv(folder / "out.csv", COLUMNS)
    assert list(rows["notebook"]) == ["00_two_cells.ipynb"]
    assert rows["seconds"][0] > 1.2
    assert 0 < rows["cpu_seconds"][0] < 3 * rows["seconds"][0] + 1
    assert MEMORY < rows["memory_mb"][0] < MEMORY + 1000
    before, between, after = parts(folder / "README.md")
    assert (before, after) == (f"before\n{MARKS[0]}", f"{MARKS[1]}\nafter\n")
    assert between == table(rows)
    assert "00_two_cells.ipynb" in capsys.readouterr().out


def test_a_cell_that_fails_is_named_and_nothing_is_written(folder, capsys):
    save(folder / "00_two_cells.ipynb", "x = 1", "y = 1 / (x - 1)")
    before = (folder / "README.md").read_bytes()
    assert main(["benchmark", "--notebooks"]) == 1
    assert "00_two_cells.ipynb fails in [2]: ZeroDivisionError" in capsys.readouterr().out
    assert (folder / "README.md").read_bytes() == before
    assert not (folder / "out.csv").exists()


def test_a_folder_that_will_not_do(folder, capsys):
    assert main(["benchmark", "--notebooks"]) == 2
    assert "no notebooks" in capsys.readouterr().err
    (folder / "README.md").write_text("no marks")
    save(folder / "00_two_cells.ipynb", "x = 1")
    assert main(["benchmark", "--notebooks"]) == 2
    assert "the table goes between them" in capsys.readouterr().err


def test_the_table_that_ships_is_that_of_the_csv():
    readme = benchmark_notebooks.FOLDER / "README.md"
    rows = read_csv(OUTPUT, COLUMNS)
    assert parts(readme)[1] == table(rows)
    assert list(rows["notebook"]) == sorted(p.name for p in readme.parent.glob("*.ipynb"))
