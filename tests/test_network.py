"""Nothing hangs without a network: servers that let us in and are silent, resolvers that sleep."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.request
from pathlib import Path

import face_alignment
import nbformat
import pytest
import skimage.data
import torch

from course import network, photo, real_faces
from course.__main__ import main
from course.teach import offline, setup

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 5.0  # seconds that one call may wait
BUSY = 20.0  # … and with the start of programs, on a machine that others use too


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def silent():
    """The address of a server that accepts connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(32)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def sleeping_resolver(monkeypatch):
    """Names are looked up for ever, as behind a firewall that drops packets."""
    awake = threading.Event()

    def getaddrinfo(*_, **__):
        awake.wait(60)
        raise OSError("gave up")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    awake.set()


@pytest.fixture
def clock():
    """Seconds since the test began."""
    start = time.monotonic()
    return lambda: time.monotonic() - start


def closed_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_who_answers(silent, monkeypatch, clock):
    nobody = f"http://127.0.0.1:{closed_port()}"
    assert network.answers(silent)
    assert network.answers("file:///nowhere")
    assert not network.answers(nobody)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", silent)  # a proxy is asked in the server's place
    assert network.answers("http://192.0.2.1/")
    for nonsense in ("http://proxy:port", "http://[proxy"):
        monkeypatch.setenv("http_proxy", nonsense)
        assert not network.answers(silent)
    monkeypatch.setenv("http_proxy", nobody)
    assert not network.answers(silent)
    assert clock() < LIMIT


def test_a_resolver_that_sleeps_is_not_waited_for(sleeping_resolver, clock):
    assert not network.answers("https://pypi.org")
    assert clock() < LIMIT


def test_silence_is_not_waited_for(silent, clock):
    with network.impatient(), pytest.raises(OSError, match="timed out"):
        urllib.request.urlopen(silent)
    assert clock() < LIMIT
    assert socket.getdefaulttimeout() is None


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """face_alignment's weights are not on this disk."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    photo._face_alignment.cache_clear()
    photo._say_once.cache_clear()
    yield monkeypatch
    photo._face_alignment.cache_clear()
    torch.hub.set_dir(before)


def test_landmarks_without_a_network(no_weights, sleeping_resolver, clock, capsys):
    picture = skimage.data.astronaut()
    before = clock()
    assert photo.detect(picture).detector == "built-in"
    photo.detect(picture)
    assert clock() - before < BUSY
    said = capsys.readouterr().err
    assert said.count("does not answer; connect to the network") == 1
    with pytest.raises(photo.PhotoError, match=r"adrianbulat\.com does not answer; connect"):
        photo.detect(picture, detector="face_alignment")


def test_landmarks_from_a_silent_server(no_weights, silent, clock):
    addresses = face_alignment.api.models_urls
    no_weights.setattr(photo, "FAN_HOME", silent)
    no_weights.setattr(face_alignment.api, "models_urls", dict.fromkeys(addresses, f"{silent}/a"))
    before = clock()
    network_there, reason = photo._face_alignment()
    assert clock() - before < BUSY
    assert network_there is None
    assert "could not be fetched from http://127.0.0.1" in reason
    assert "built-in detector" in reason


def test_real_faces_from_a_silent_server(silent, monkeypatch, clock):
    tries = []

    def fetch(download_if_missing=True, n_retries=3, **_):  # as scikit-learn does it
        if not download_if_missing:
            raise OSError("not here")
        for k in range(n_retries + 1):
            tries.append(clock())
            try:
                return urllib.request.urlopen(silent)
            except OSError:
                if k == n_retries:
                    raise

    datasets = types.SimpleNamespace(fetch_olivetti_faces=fetch, fetch_lfw_people=fetch)
    monkeypatch.setitem(sys.modules, "sklearn", types.SimpleNamespace(datasets=datasets))
    monkeypatch.setattr(real_faces, "FIGSHARE", silent)
    with pytest.raises(ValueError, match=r"could not be fetched.*connect to the network"):
        real_faces.load("olivetti")
    assert len(tries) == 2
    assert max(b - a for a, b in zip(tries, [*tries[1:], clock()], strict=True)) < LIMIT


@pytest.fixture
def pip_asks(monkeypatch):
    """Have pip take packages from an address, and from nowhere else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return lambda address: monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")


def test_where_pip_looks(pip_asks, monkeypatch, tmp_path):
    assert network.package_places() == ([network.PYPI], [])
    pip_asks("http://me:secret@mirror")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://one/simple file:///two")
    servers = ["http://mirror/simple", "https://one/simple"]
    assert network.package_places() == (servers, ["file:///two"])
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels http://three")
    assert network.package_places() == (["http://three", *servers], ["wheels", "file:///two"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert network.package_places() == (["http://three"], ["wheels"])
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = http://a\nextra-index-url =\n  http://c\n  http://d\n"
                        "[install]\nindex-url = http://b\n")  # fmt: skip
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    for name in ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX"):
        monkeypatch.delenv(f"PIP_{name}")
    assert network.package_places() == (["http://b", "http://c", "http://d"], [])


@pytest.fixture
def refusing():
    """The address of a server that says 404 to everything."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_who_speaks(silent, refusing, clock):
    assert network.speaks(refusing)
    assert not network.speaks(f"http://127.0.0.1:{closed_port()}")
    assert clock() < LIMIT
    assert not network.speaks(silent)
    assert clock() < LIMIT


def test_a_resolver_that_sleeps_is_silent(sleeping_resolver, clock):
    assert not network.speaks("https://pypi.org/simple")
    assert clock() < LIMIT


@pytest.mark.parametrize("where", ["closed", "silent"])
def test_offline_knocks_on_every_index(
    where, silent, refusing, pip_asks, monkeypatch, tmp_path, capsys
):
    """An extra index that does not answer is said at once, even where the first one does."""
    pip_asks(refusing)
    extra = f"http://127.0.0.1:{closed_port()}" if where == "closed" else silent
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{extra}/one {extra}/two")
    start = time.monotonic()
    network.package_places()
    settled = time.monotonic()  # pip itself takes its time to start
    assert main(["offline", str(tmp_path / "stick")]) == 2
    assert time.monotonic() - settled < LIMIT + settled - start
    said = capsys.readouterr().err
    assert said == (f"offline: The wheels have to be fetched: {extra}/one and {extra}/two do not "
                    "answer; connect to the network, then try again.\n")  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_packages_on_a_disk_need_no_network(pip_asks, monkeypatch, capsys):
    address = f"http://127.0.0.1:{closed_port()}"
    pip_asks(address)
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    network.need_packages("They are needed")
    assert capsys.readouterr().out == (f"They are needed: {address}/simple does not answer; what "
                                       "is not in /wheels cannot be had.\n")  # fmt: skip


def test_pip_does_not_wait_long(refusing, pip_asks, monkeypatch, tmp_path):
    """A server that falls silent once it has been knocked on."""
    asked = []

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, stderr=b"")

    pip_asks(refusing)
    monkeypatch.setattr(offline.subprocess, "run", run)
    with pytest.raises(ValueError, match="pip did not get all wheels"):
        offline.download(tmp_path, None, [f"{sys.version_info.major}.{sys.version_info.minor}"])
    assert float(asked[0][asked[0].index("--timeout") + 1]) <= network.SILENCE
    assert asked[0][asked[0].index("--retries") + 1] == "0"


def test_packages_from_nowhere(silent, refusing, pip_asks, monkeypatch, clock):
    monkeypatch.setattr(setup, "missing_packages", lambda: ["no-such-package-at-all>=4"])
    for nobody in (f"http://127.0.0.1:{closed_port()}", silent):
        pip_asks(nobody)
        with pytest.raises(ConnectionError, match=r"at-all>=4 have .* does not answer; connect"):
            setup.install_missing()
    pip_asks(refusing)
    with pytest.raises(ConnectionError, match=r"pip could not install no-such-package-at-all"):
        setup.install_missing()
    assert clock() < 3 * BUSY  # pip's own five tries of 15 seconds would take longer


def test_make_says_what_it_needs(pip_asks, clock):
    """Before anything is installed: with the standard library alone."""
    address = f"http://127.0.0.1:{closed_port()}"
    pip_asks(address)
    done = subprocess.run([sys.executable, ROOT / "course" / "network.py"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{address}/simple does not answer; connect to the network" in line
    assert "course/network.py\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def run_setup_cell(folder, repository):
    """The set-up cell where no course is installed: (exit code, what it said)."""
    cells = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4).cells
    cell = next(cell.source for cell in cells if cell.cell_type == "code")
    environment = os.environ | {"COURSE_REPO": repository}
    done = subprocess.run([sys.executable, "-I", "-S", "-c", cell], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("where", ["silent", "closed", "missing"])
def test_setup_cell_without_the_repository(where, tmp_path, silent, clock):
    repository = {
        "silent": f"{silent}/course",
        "closed": f"http://127.0.0.1:{closed_port()}/course",
        "missing": str(tmp_path / "nothing"),
    }[where]
    code, said = run_setup_cell(tmp_path, repository)
    assert code == 1
    last = said.strip().splitlines()[-1]
    assert repository in last
    assert "connect to the network, then run this cell again." in last
    assert clock() < BUSY
    assert not (tmp_path / "face-course").exists()
