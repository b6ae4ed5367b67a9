"""Every notebook in a real browser: run it, drag a slider, see the picture change.

Only those cells run that widgets and meshes need; nbval runs all of them, and compares. Needs
Chromium and its driver (Debian: ``apt-get install chromium chromium-driver``); skips, and says so,
where they are missing.
"""

import ast
import base64
import io
import os
import re
import shutil
import socket
import subprocess
import symtable
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
MINUTES = 8
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1400,1500",
]  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine"
)


SHOWN = ("widgets.panel(", "figures.mesh(")


def symbols(table):
    """(read, bound) global names of a statement; what functions read counts as read."""
    top = table.get_type() == "module"
    read = {
        s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())
    }
    bound = {
        s.get_name() for s in table.get_symbols() if top and (s.is_assigned() or s.is_imported())
    }
    return read.union(*(symbols(child)[0] for child in table.get_children())), bound


def names(source):
    """(needed, bound, imported): names a cell needs from before, binds or changes, imports."""
    needed, bound, imported = set(), set(), set()
    for statement in ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M)).body:
        read, now = symbols(symtable.symtable(ast.unparse(statement), "cell", "exec"))
        match statement:
            case ast.Import() | ast.ImportFrom():
                imported |= now
            case ast.For(target=target):
                read -= {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
        needed |= read - bound
        bound |= now
        for node in ast.walk(statement):
            match node:
                case (
                    ast.Subscript(value=ast.Name(id=name), ctx=ast.Store())
                    | ast.Attribute(value=ast.Name(id=name), ctx=ast.Store())
                    | ast.Expr(ast.Call(ast.Attribute(value=ast.Name(id=name))))
                ):
                    bound.add(name)  # d[k] = …, x.y = …, things.append(…)
    return needed, bound, imported


def shown_cells(cells):
    """The code cells that show a widget or a mesh, and those they need, in their order."""
    kept, wanted = [], set()
    modules = set().union(*(names(cell.source)[2] for cell in cells))
    for k, cell in reversed(list(enumerate(cells))):
        needed, bound, imported = names(cell.source)
        gives = bound - modules | imported  # figures.show(…) changes nothing
        if k == 0 or gives & wanted or any(call in cell.source for call in SHOWN):
            kept.append(cell)
            wanted = wanted - gives | needed
    return kept[::-1]


def test_the_cells_that_a_widget_needs():
    sources = [
        "import a\nfrom b import c", "x = slow()", "x = []\nfor k in c: x.append(k)",
        "y = slow()", "x.append(c)", "c.reset()", "k = slow()", "def draw(k):\n    return x[k]",
        "z = [k for x in y]", "widgets.panel(draw)",
    ]  # fmt: skip
    kept = shown_cells([nbformat.v4.new_code_cell(source) for source in sources])
    assert [sources.index(cell.source) for cell in kept] == [0, 2, 4, 7, 9]


def wait(condition, what, seconds=60):
    """Poll until ``condition()`` is true; what it returned. ``what`` may be asked at the end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"{what() if callable(what) else what}: not within {seconds} s")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A copy of the notebooks, which the browser may save."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    shutil.copytree(ROOT / "data", home / "data", ignore=shutil.ignore_patterns("flame"))
    settings = home / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)  # all cells stay in the page, not only those in sight
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    return home


@pytest.fixture(scope="module")
def lab(home):
    """The address of a JupyterLab on that copy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),  # the share of ../conftest.py
    }  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
         "--ServerApp.port_retries=0", "--allow-root", "--IdentityProvider.token=t",
         f"--LabApp.user_settings_dir={home / 'settings'}"],
        cwd=home, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def answers():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=t", timeout=2)
        except OSError:
            return None

    try:
        wait(answers, "JupyterLab starts")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def all_of(browser, selector):
    from selenium.webdriver.common.by import By

    return browser.find_elements(By.CSS_SELECTOR, selector)


def texts(browser, selector):
    """Their texts, read at one go: JupyterLab may replace an element at any moment."""
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
    return browser.execute_script(script, selector)


def prompts(browser):
    """What stands in front of each code cell: a number when it has run, "*" while it waits."""
    found = texts(browser, ".jp-CodeCell .jp-InputArea-prompt")
    return [re.sub(r"[^0-9*]", "", text) for text in found]


def run_all(browser, count):
    """Menu Run, Run All Cells; back when every code cell has its number."""
    from selenium.webdriver.common.keys import Keys

    menu = next(e for e in all_of(browser, ".lm-MenuBar-itemLabel") if e.text == "Run")

    def item():
        menu.click()
        found = wait(lambda: all_of(browser, '[data-command="runmenu:run-all"]'), "the menu opens")
        if "lm-mod-disabled" not in found[0].get_attribute("class"):
            return found[0]
        browser.switch_to.active_element.send_keys(Keys.ESCAPE)  # it stays as it opened: once more
        return None

    wait(item, "Run All can be chosen").click()

    def finished():
        failed = texts(browser, '[data-mime-type="application/vnd.jupyter.error"]')
        assert not failed, failed[0]
        numbers = prompts(browser)
        return len(numbers) == count and all(number.isdigit() for number in numbers)

    def state():
        shown = texts(browser, "#jp-main-statusbar, .jp-Dialog")
        return f"the notebook runs, {prompts(browser)}, {' '.join(' '.join(shown).split())}"

    wait(finished, state, 60 * MINUTES)


def alike(one, other):
    """Whether two pictures (data URLs of PNG) differ by less than half a step of 255 on average."""
    arrays = []
    for url in (one, other):
        if url is None:
            return False
        picture = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
        arrays.append(np.asarray(picture.convert("RGB"), float))
    a, b = arrays
    return a.shape == b.shape and np.abs(a - b).mean() < 0.5


def try_panel(browser, panel):
    """Every slider of a panel moves its first picture, and Reset brings that back."""
    from selenium.webdriver.common.keys import Keys

    def picture():
        image = panel.find_element("css selector", "img.widget-image")
        script = """const i = arguments[0], c = document.createElement('canvas');
            c.width = i.naturalWidth; c.height = i.naturalHeight;
            c.getContext('2d').drawImage(i, 0, 0);
            return i.complete && i.naturalWidth ? c.toDataURL() : null;"""
        return browser.execute_script(script, image)

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", panel)
    first = wait(picture, "the panel has a picture")
    handles = panel.find_elements("css selector", ".noUi-handle")
    assert len(handles) >= 2
    reset = panel.find_element("xpath", ".//button[normalize-space()='Reset']")
    for handle in handles:
        at, high = (float(handle.get_attribute(f"aria-value{end}")) for end in ("now", "max"))
        handle.send_keys((Keys.ARROW_RIGHT if at < high else Keys.ARROW_LEFT) * 4)
        wait(lambda: picture() not in (first, None), "a slider moves the picture")

        def back():
            reset.click()  # again, where a slow picture's last step was still on its way
            time.sleep(2)
            return alike(picture(), first)

        wait(back, "Reset brings the first picture back")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_in_the_browser(path, lab, browser, home):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = shown_cells([cell for cell in notebook.cells if cell.cell_type == "code"])
    for cell in notebook.cells:  # so that a number means: run here, now
        cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, home / "notebooks" / path.name)
    count = len(notebook.cells)

    browser.get(f"{lab}/lab/tree/notebooks/{path.name}?token=t&reset")
    wait(lambda: len(prompts(browser)) == count, "the notebook opens")
    wait(lambda: "Idle" in browser.page_source, "the kernel starts")
    run_all(browser, count)

    panels = [
        box
        for box in all_of(browser, ".jp-OutputArea-output > * > .widget-hbox, .widget-hbox")
        if box.find_elements("css selector", ".noUi-handle")
        and box.find_elements("css selector", "img.widget-image")
    ]
    assert len(panels) == path.read_text(encoding="utf-8").count("widgets.panel(")
    for panel in panels:
        try_panel(browser, panel)

    if os.environ.get("COURSE_SCREENSHOTS"):
        screenshots(browser, Path(os.environ["COURSE_SCREENSHOTS"]), path.stem)
    meshes = path.read_text(encoding="utf-8").count("figures.mesh(")
    assert len(all_of(browser, ".js-plotly-plot canvas")) >= meshes, "a 3D mesh is not drawn"
    logged = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    ours = [message for message in logged if "net::ERR_" not in message or lab in message]
    assert not ours, ours  # offline, the Colab badge's picture cannot load: not ours


def screenshots(browser, folder, name):
    """Pictures of every widget and mesh, for looking at."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, box in enumerate(all_of(browser, ".js-plotly-plot, .jp-OutputArea-output .widget-hbox")):
        if box.size["height"] > 150:
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
            time.sleep(1)
            browser.save_screenshot(str(folder / f"{name}_{k}.png"))
