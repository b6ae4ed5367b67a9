"""The network, asked with a time limit: nothing here waits longer than five seconds for an answer.

A socket's own limit is not enough: it leaves out the resolver, which can take half a minute where
a firewall drops packets, and it begins anew with every address that a host has.
"""

import ast
import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from urllib.parse import urlsplit

CONNECT = 2.0  # seconds to find a server and be let in, all its addresses together
SILENCE = 3.0  # seconds without a byte from a server that let us in
PORTS = {"http": 80, "https": 443}
PYPI = "https://pypi.org/simple"


def answers(url, seconds=CONNECT):
    """Whether the server of ``url``, or the proxy before it, lets us in within ``seconds``.

    What lies on a disk (``file:``) always answers.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS:
        return True
    proxy = urllib.request.getproxies().get(parts.scheme)

    def knock():
        with contextlib.suppress(OSError, ValueError):  # a port may be no number
            door = parts
            if proxy and not urllib.request.proxy_bypass(parts.hostname):
                door = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            address = (door.hostname, door.port or PORTS.get(door.scheme, 80))
            with socket.create_connection(address, timeout=seconds):
                return True

    return _within(seconds, knock)


def speaks(url, seconds=SILENCE):
    """Whether the server of ``url`` says anything within ``seconds``, be it that it may not."""

    def ask():
        head = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(head, timeout=seconds).close()
        except (urllib.error.HTTPError, HTTPException, ValueError):  # pip will tell what is wrong
            return True
        except OSError as error:  # pip has certificates of its own
            return isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError)
        return True

    return _within(seconds, ask)


def _within(seconds, find_out):
    """Whether ``find_out()`` is true, and known within ``seconds``."""
    found = []
    # a thread, which can be left alone: a resolver cannot be interrupted
    asking = threading.Thread(target=lambda: found.append(find_out()), daemon=True)
    asking.start()
    asking.join(seconds)
    return bool(found and found[0])


@contextlib.contextmanager
def impatient(seconds=SILENCE):
    """Sockets that are opened inside give up after ``seconds`` of silence (OSError)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def package_places():
    """(servers, places on a disk) that pip takes packages from, as its settings say; addresses."""
    show = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(show, capture_output=True, text=True, check=False).stdout.splitlines()
    settings = {}
    for section in ("global.", "install.", "download.", ":env:."):  # each overrules those before
        for line in lines:
            name, _, value = line.partition("=")
            if name.startswith(section):
                settings[name.removeprefix(section)] = ast.literal_eval(value)
    places = settings.get("find-links", "").split()
    if settings.get("no-index", "").lower() not in ("1", "true", "t", "yes", "y", "on"):
        places += settings.get("index-url", PYPI).split()
        places += settings.get("extra-index-url", "").split()
    servers = [place for place in places if urlsplit(place).scheme in PORTS]
    return [_without_password(s) for s in servers], [p for p in places if p not in servers]


def _without_password(url):
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def need_packages(what):
    """Raise ConnectionError, with ``what`` they are needed for, where a server of pip's is silent.

    With packages on a disk too it is only said: all may lie there.
    """
    servers, folders = package_places()
    with ThreadPoolExecutor(max(1, len(servers))) as pool:
        spoken = list(pool.map(speaks, servers))
    silent = [server for server, spoke in zip(servers, spoken, strict=True) if not spoke]
    if not silent:
        return
    told = f"{what}: {' and '.join(silent)} {'does' if len(silent) == 1 else 'do'} not answer"
    if not folders:
        raise ConnectionError(f"{told}; connect to the network, then try again.")
    print(f"{told}; what is not in {' or '.join(folders)} cannot be had.", flush=True)


if __name__ == "__main__":  # by make, before anything is installed
    try:
        need_packages("The course's packages have to be fetched once")
    except ConnectionError as error:
        sys.exit(str(error))
