"""The notebooks as Colab runs them: a bare folder, much preinstalled, but not the course.

A Python is made that sees links to this environment's packages: what pyproject.toml asks for and
what that needs, less what Colab lacks. So nothing undeclared is at hand, as it is not on Colab.
One session opens 00 and runs it to its end; then the set-up of each other one, or all of it where
COURSE_COLAB=full, as in CI.
"""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
FIRST, *OTHERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NEEDS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LACKING = {"face-alignment", "rtree", "trimesh"}  # what Colab has not
TEMPTATION = "tqdm"  # preinstalled, and there is a newer one that nobody should fetch
FULL = os.environ.get("COURSE_COLAB") == "full"
BEFORE = "import os as _os\n_before = _os.times()"
AFTER = """import json, course
_cpu = sum(_os.times()[:4]) - sum(_before[:4])
print("PROBE" + json.dumps({"cpu": _cpu, "course": course.__file__, "here": _os.getcwd()}))"""

pytestmark = pytest.mark.skipif(
    os.name == "nt" or shutil.which("git") is None, reason="needs links to folders, and git"
)


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def with_needs(names):
    """Distributions by name, with everything that they need."""
    found, waiting = {}, [plain(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            needs = [Requirement(line) for line in found[name].requires or ()]
            waiting += [plain(r.name) for r in needs
                        if r.marker is None or r.marker.evaluate({"extra": ""})]  # fmt: skip
    return found


def link(distribution, folder):
    """Links to a distribution's files and folders, as they lie in site-packages."""
    for part in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
        source = Path(distribution.locate_file(part))
        if source.exists() and not (folder / part).exists():
            (folder / part).symlink_to(source)


def pack(distribution, index):
    """An installed distribution as a wheel, in a folder that pip takes for a package index."""
    name = f"{distribution.name.replace('-', '_')}-{distribution.version}-py3-none-any.whl"
    folder = index / plain(distribution.name)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for file in distribution.files:
            if file.parts[0] != ".." and file.suffix != ".pyc":
                wheel.write(distribution.locate_file(file), file.as_posix())
    (folder / "index.html").write_text(f'<a href="{name}">{name}</a>')


def tempt(index):
    """A newer version of a preinstalled package."""
    folder, about = index / TEMPTATION, f"{TEMPTATION}-999.dist-info"
    folder.mkdir(parents=True)
    name = f"{TEMPTATION}-999-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {TEMPTATION}\nVersion: 999\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{name}">{name}</a>')


def publish(repository):
    """The course as it is in this folder, whether committed or not, as a repository to clone."""
    git = ["git", "--git-dir", str(repository), "-c", "core.compression=0", "-c", "gc.auto=0",
           "-c", "user.name=A Teacher", "-c", "user.email=teacher@example.org"]  # fmt: skip
    work = [*git, "--work-tree", str(ROOT)]
    subprocess.run(["git", "init", "-q", "--bare", str(repository)], check=True)
    subprocess.run([*work, "add", "-A"], check=True, cwd=ROOT)
    subprocess.run([*work, "commit", "-q", "--no-verify", "-m", "The course"], check=True, cwd=ROOT)


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A machine as Colab lends it: its Python, its packages, an empty folder to work in."""
    home = tmp_path_factory.mktemp("colab")
    system, content, index = (home / name for name in ("dist-packages", "content", "index"))
    for folder in (system, content, index):
        folder.mkdir()
    needs = {plain(Requirement(line).name) for line in NEEDS["dependencies"]}
    preinstalled = with_needs({*needs, "ipykernel", "pip"} - LACKING)
    for distribution in preinstalled.values():
        link(distribution, system)
    for name, distribution in with_needs(LACKING).items():
        if name not in preinstalled:
            pack(distribution, index)
    tempt(index)
    (system / "google" / "colab").mkdir(parents=True)
    (system / "google" / "colab" / "__init__.py").touch()
    (system / "google" / "colab" / "output.py").write_text(
        "def enable_custom_widget_manager():\n    print('widgets enabled')\n"
    )
    venv.EnvBuilder(symlinks=True).create(home / "python")
    base = {"base": str(home / "python"), "platbase": str(home / "python")}
    own = Path(sysconfig.get_path("purelib", "venv", base))
    (own / "colab.pth").write_text(f"{system}\nimport google.colab\n")
    publish(home / "course.git")
    keep = {name: value for name, value in os.environ.items()
            if not re.match(r"PIP_|PYTHON|MPL|COURSE_", name)}  # fmt: skip
    return SimpleNamespace(
        python=str(home / "python" / "bin" / "python"), content=content, where=[own, system],
        before=set(preinstalled), clone=content / "face-course",
        environment=keep | {
            "COURSE_REPO": (home / "course.git").as_uri(), "COURSE_QUIET": "1",
            "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.as_uri(), "HOME": str(home),
            "JUPYTER_PATH": str(home),
        },
    )  # fmt: skip


def versions(colab):
    """What this Python imports: the session's own packages before the system's."""
    found = {}
    for distribution in importlib.metadata.distributions(path=[str(p) for p in colab.where]):
        found.setdefault(plain(distribution.name), distribution.version)
    return found


def open_alone(colab, path):
    """The notebook in the working folder, without its outputs: all that Colab opens."""
    shutil.copy(path, colab.content)
    notebook = nbformat.read(colab.content / path.name, as_version=4)
    first = next(k for k, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook, first


def run_all(colab, path):
    """Run a notebook from top to bottom; returns what the probe behind its set-up saw."""
    notebook, first = open_alone(colab, path)
    for place, source in ((first, BEFORE), (first + 2, AFTER)):
        notebook.cells.insert(place, nbformat.v4.new_code_cell(source))
    spec = colab.content.parent / "kernels" / "colab"
    spec.mkdir(parents=True, exist_ok=True)
    command = [colab.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "Colab", "language": "python"})
    )
    specs = KernelSpecManager(kernel_dirs=[str(spec.parent)])
    manager = AsyncKernelManager(kernel_name="colab", kernel_spec_manager=specs)
    client = NotebookClient(notebook, km=manager, timeout=900,
                            resources={"metadata": {"path": str(colab.content)}})  # fmt: skip
    client.execute(env=colab.environment, cleanup_kc=True)
    return probe(notebook.cells[first + 2].outputs[0].text)


def run_setup(colab, path, more=()):
    """Run a notebook's set-up cell and ``more`` lines; returns what the probe saw."""
    notebook, first = open_alone(colab, path)
    script = "\n".join([BEFORE, notebook.cells[first].source, AFTER, *more])
    done = subprocess.run([colab.python, "-c", script], cwd=colab.content, env=colab.environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return probe(done.stdout)


def probe(text):
    return json.loads(re.search("PROBE(.*)", text).group(1))


@pytest.fixture(scope="module")
def first(colab):
    """The session's first notebook: what was installed before and after it, and its probe."""
    before = versions(colab)
    seen = run_all(colab, FIRST)
    return SimpleNamespace(before=before, after=versions(colab), seen=seen)


def test_the_stand_in_is_as_colab(colab, first):
    assert set(first.before) == colab.before
    assert not LACKING & set(first.before)
    assert "face-course" not in first.before
    assert {"torch", "numpy", "matplotlib", "opencv-python", "ipywidgets"} <= set(first.before)


def test_first_notebook(colab, first):
    """It is run to its end; what is missing comes, and nothing else changes."""
    assert {name: first.after[name] for name in first.before} == first.before
    assert set(first.after) - set(first.before) == LACKING
    assert first.seen["course"] == str(colab.clone / "course" / "__init__.py")
    assert first.seen["here"] == str(colab.clone / "notebooks")
    assert first.seen["cpu"] < 60, "set-up, pip included"


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_next_notebooks(colab, first, path):
    """In the same session nothing is fetched again."""
    seen = (run_all if FULL else run_setup)(colab, path)
    assert seen["cpu"] < 3, "set-up, import of torch included"
    assert seen["course"] == first.seen["course"]
    assert seen["here"] == first.seen["here"]
    assert versions(colab) == first.after


def test_what_the_notebooks_import_is_there(colab, first):
    lines = set()
    for path in OTHERS:
        notebook, _ = open_alone(colab, path)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                lines |= {ast.unparse(node) for node in ast.parse(cell.source).body
                          if isinstance(node, ast.Import | ast.ImportFrom)}  # fmt: skip
    assert len(lines) > 100
    run_setup(colab, OTHERS[0], sorted(lines))
