import json
from functools import cache

import numpy as np
import pytest
import torch

from course import train
from course.__main__ import main
from course.files import weights_path, write_report
from course.landmarks import INPUT, MIRROR


@pytest.fixture
def small(monkeypatch):
    """Chunks of eight photographs, so that a whole run takes seconds."""
    monkeypatch.setattr(train, "CHUNK", 8)

    monkeypatch.setattr(train, "load_photos", lambda folder, count, seed, *_, **__: taken(seed))


@cache
def taken(seed):
    from course.faces import Photographer
    from course.faces_camera import background_bank

    maker = Photographer(bank=background_bank(3), size=train.SIZE)
    rng = np.random.default_rng([seed, 1])
    photos = [maker(rng) for _ in range(24)]
    return (np.stack([p.image for p in photos]), np.stack([p.landmarks for p in photos]),
            np.array([p.yaw for p in photos]))  # fmt: skip


def arguments(folder, steps):
    return ["train", "landmarks", "--photos", "64", "--steps", str(steps), "--threads", "2",
            "--folder", str(folder), "--output", str(folder / "out.pt")]  # fmt: skip


def test_a_run_learns_writes_and_reports(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "batches", few)
    assert main(arguments(tmp_path, 6)) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["steps"] == 6
    assert report["errors"]["photographs"] > 0
    assert "mean NME" in capsys.readouterr().out
    state = torch.load(tmp_path / "out.pt", weights_only=True)
    assert all(v.dtype != torch.float32 for v in state.values())


def test_weights_that_ship_are_not_written_over(tmp_path, capsys):
    shipped, folder = tmp_path / "data" / "net.pt", tmp_path / "run"
    assert weights_path(None, shipped, folder) == shipped
    shipped.parent.mkdir()
    shipped.touch()
    assert weights_path(None, shipped, folder) == folder / "net.pt"
    assert weights_path(tmp_path / "mine.pt", shipped, folder) == tmp_path / "mine.pt"
    write_report(folder / "net.pt", {"steps": 1}, shipped)
    assert json.loads((folder / "net.json").read_text()) == {"steps": 1}
    assert f"goes on with {shipped}" in capsys.readouterr().out
    write_report(shipped, {}, shipped)
    assert "goes on" not in capsys.readouterr().out


def few(images, landmarks, rng):
    """Batches of eight, whatever the photographs."""
    while True:
        yield images[:8, 8:104, 8:104].copy(), (landmarks[:8] - 8).astype(np.float32)


def test_an_interrupted_run_goes_on(small, tmp_path, monkeypatch, capsys):
    def stops(*args):
        for k, batch in enumerate(few(*args)):
            if k == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(train, "batches", stops)
    assert main(arguments(tmp_path, 5)) == 130
    assert not (tmp_path / "out.pt").exists()
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    assert main(arguments(tmp_path, 4)) == 2
    assert "is of a run with other settings: steps 5; give those" in capsys.readouterr().err
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    monkeypatch.setattr(train, "batches", few)
    assert main(arguments(tmp_path, 5)) == 0
    assert "going on from step 3 of 5" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_one_sentence(small, tmp_path, capsys):
    (tmp_path / "checkpoint.pt").write_bytes(b"cut short")
    assert main(arguments(tmp_path, 5)) == 2
    said = capsys.readouterr().err
    assert said == f"train: {tmp_path / 'checkpoint.pt'} is damaged; delete it to begin again.\n"


def test_a_run_starts_from_weights(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "batches", few)
    assert main([*arguments(tmp_path, 3)]) == 0
    first = tmp_path / "out.pt"
    again = ["train", "landmarks", "--photos", "64", "--steps", "1", "--threads", "2", "--rate",
             "1e-9", "--folder", str(tmp_path / "b"), "--output", str(tmp_path / "b.pt"),
             "--start"]  # fmt: skip
    assert main([*again, str(first)]) == 0
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["before"]["steps"] == 3
    assert "--start out.pt" in report["command"]
    old, new = (torch.load(p, weights_only=True) for p in (first, tmp_path / "b.pt"))
    for name in old:
        if name.endswith("weight"):
            assert torch.allclose(old[name].float(), new[name].float(), atol=1e-4), name
    assert main([*again, str(tmp_path / "none.pt")]) == 2
    assert "There are no weights" in capsys.readouterr().err


def test_batches_keep_points_on_their_pixels():
    images = np.zeros((64, train.SIZE, train.SIZE, 3), np.uint8)
    points = np.zeros((64, 68, 2), np.float32)
    rng = np.random.default_rng(0)
    for k in range(64):
        points[k] = rng.integers(30, 80, (68, 2)) + 0.5
        for u, v in points[k].astype(int):
            images[k, v, u] = 255
    batch, moved = next(train.batches(images, points, np.random.default_rng(1)))
    assert batch.shape == (64, INPUT, INPUT, 3)
    lit = [batch[k, v, u, 0] == 255 for k in range(64) for u, v in moved[k].astype(int)]
    assert np.mean(lit) > 0.9  # all but what the cut-out patches hide
    assert moved.shape == (64, 68, 2)
    assert len(MIRROR) == 68


def test_chunks_are_made_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHUNK", 2)
    path = train._make_chunk(tmp_path / "0-00000.npz", [0, 0], None)
    with np.load(path) as file:
        assert file["images"].shape == (2, train.SIZE, train.SIZE, 3)
        assert file["landmarks"].shape == (2, 68, 2)
    before = path.stat().st_mtime_ns
    images, landmarks, yaws = train.load_photos(tmp_path, 2, 0, 1)
    assert path.stat().st_mtime_ns == before
    assert len(images) == len(landmarks) == len(yaws) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["0-00000.npz"]


def test_bad_numbers():
    assert main(["train", "landmarks", "--photos", "1"]) == 2


def test_measure_is_in_percent_of_the_eye_distance():
    class Off(torch.nn.Module):
        """Answers the truth, three pixels to the right."""

        def __init__(self, truth):
            super().__init__()
            self.truth, self.weight = truth, torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            edge = (train.SIZE - INPUT) // 2
            points = torch.from_numpy(self.truth) - edge
            points = points + torch.tensor([3.0, 0])
            return points, torch.zeros(len(x), 68)

    truth = np.tile(np.linspace(20, 90, 68, dtype=np.float32)[None, :, None], (2, 1, 2))
    truth[:, 36], truth[:, 45] = [30, 40], [90, 40]
    images = np.zeros((2, train.SIZE, train.SIZE, 3), np.uint8)
    errors = train.measure(Off(truth), images, truth, np.array([0.0, 40.0]))
    assert errors["mean NME %"] == pytest.approx(5.0)
    assert errors["mean NME %, yaw 35…50°"] == pytest.approx(5.0)
