"""Three hundred of the files of fuzz_photo.py; CI's machines have no minutes for ten thousand."""

import sys

import numpy as np
import pytest

pytest.importorskip("resource")  # Windows has no limits on memory
import fuzz_photo

from course import photo

SLOW = (fuzz_photo.bomb_png_wide, fuzz_photo.bomb_png_text, fuzz_photo.bomb_webp)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_three_hundred_files_are_read_or_refused_in_a_sentence():
    kinds = {make: share for make, share in fuzz_photo.DAMAGE.items() if make not in SLOW}
    report = fuzz_photo.run(300, seed=1, kinds=kinds)
    assert report["wrong"] == []
    assert min(report["happened"][what] for what in ("read", "refuse")) > 60
    assert len(report["kinds"]) == len(kinds)
    assert report["peak MB"] < 2000


def test_the_fuzz_can_fail(tmp_path, monkeypatch):
    path = tmp_path / "me.png"
    path.write_bytes(fuzz_photo.original("PNG"))
    assert fuzz_photo.look(path, fuzz_photo.READ, 0) == ("", "read")
    assert "read as (64, 64, 3)" in fuzz_photo.look(path, fuzz_photo.REFUSE, 0)[0]

    def refuse(text):
        def read(source):
            raise photo.PhotoError(text)

        monkeypatch.setattr(photo, "read", read)
        return fuzz_photo.look(path, fuzz_photo.EITHER, 0)[0]

    assert "no sentence" in refuse("It is broken.")
    assert "no sentence" in refuse("me.png is\nbroken.")
    assert "two sentences" in refuse("me.png is broken. Sorry.")
    assert refuse("me.png is broken.") == ""


def test_a_file_is_the_same_each_time(tmp_path):
    for number in range(20):
        one, two = (fuzz_photo.flipped(np.random.default_rng(number)) for _ in range(2))
        assert one == two
    (first := tmp_path / "a").mkdir()
    (second := tmp_path / "b").mkdir()
    one, two = (fuzz_photo.put(folder, 3, 5)[0] for folder in (first, second))
    assert one.name == two.name
