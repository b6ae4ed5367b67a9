"""The network, asked with a time limit: nothing here waits longer than five seconds for an answer.

A socket's own limit is not enough: it leaves out the resolver, which can take half a minute where
a firewall drops packets, and it begins anew with every address that a host has.
"""

import contextlib
import re
import socket
import subprocess
import sys
import threading
import urllib.request
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
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = (parts.hostname, parts.port or PORTS.get(parts.scheme, 80))
    let_in = threading.Event()

    def knock():
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=seconds):
            let_in.set()

    knocking = threading.Thread(target=knock, daemon=True)  # a resolver cannot be interrupted
    knocking.start()
    knocking.join(seconds)
    return let_in.is_set()


@contextlib.contextmanager
def impatient(seconds=SILENCE):
    """Sockets that are opened inside give up after ``seconds`` of silence (OSError)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def package_index():
    """The address of the index that pip takes packages from, as its settings say.

    "" where they name several places, or folders on a disk: it finds out by itself which has what.
    """
    show = [sys.executable, "-m", "pip", "config", "list"]
    settings = subprocess.run(show, capture_output=True, text=True, check=False).stdout
    if re.search(r"(extra-index-url|find-links|no-index)=", settings):
        return ""
    return next(iter(re.findall(r"index-url='(.+)'", settings)), PYPI)


def need_packages(what):
    """Raise ConnectionError, with ``what`` they are needed for, where no package index answers."""
    index = package_index()
    if not answers(index):
        raise ConnectionError(f"{what}: {index} does not answer; connect to the network, then "
                              "try again.")  # fmt: skip


if __name__ == "__main__":  # by make, before anything is installed
    try:
        need_packages("The course's packages have to be fetched once")
    except ConnectionError as error:
        sys.exit(str(error))
