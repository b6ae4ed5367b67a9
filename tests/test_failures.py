"""A disk that is full, and Ctrl-C, in the middle of everything that writes; odd names of files.

The disk is full for real: the system refuses what goes beyond a file's largest size, as it refuses
what goes beyond the disk's end, in Python's writers and in C's.
"""

import argparse
import contextlib
import os
import pickle
import re
import shutil
import signal
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import trimesh

from course import (
    detail_album,
    experiments,
    export,
    files,
    film,
    gltf,
    landmarks,
    safe_pickle,
    train_gan,
)
from course.__main__ import main
from course.encoder import FaceModel
from course.experiments import optimizers
from course.facecode import FaceCode
from course.files import WriteError, any_path, atomic_path, whole_folder, write_text
from course.flame import FLAME
from course.flame_files import BUILT_IN
from course.head import build
from course.losses import IdentityNet
from course.teach import offline, set_repo

resource = pytest.importorskip("resource", reason="Windows has no such limit")
NAMES = ("two words", "我的脸", "back\\slash", "a.b 'c' $d")
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8)
SQUARE = NOISE[:, :120]


@contextlib.contextmanager
def full_disk(largest):
    """No file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.fixture(scope="module")
def mesh():
    ball = trimesh.creation.icosphere(subdivisions=3)
    corners = np.asarray(ball.faces)
    return export.textured_mesh(ball.vertices, corners, ball.vertices[:, :2], corners, SQUARE,
                                SQUARE)  # fmt: skip


def table(path):
    schema = {"a": int, "b": float}
    return experiments.write(path, [{"a": k, "b": k / 7} for k in range(5000)], schema)


def several(path):
    """What ``reconstruct`` and the like do: many files that appear together."""
    with whole_folder(path.with_suffix("")) as folder:
        write_text(folder / "first.txt", "kept")
        export.save_png(folder / "picture.png", NOISE)
        np.save(folder / "array.npy", NOISE)


def checkpoint(path):
    net = torch.nn.Linear(300, 100)
    parts = {"net": net, "optimizer": torch.optim.SGD(net.parameters(), 1.0)}
    files.save_training(path, parts, {"steps": 3}, step=1)


def faces(path):
    code = FaceCode(*(torch.rand(9, n) for n in (80, 29, 15, 3, 6)), light=torch.rand(9, 9, 3))
    optimizers.save_faces(path, torch.from_numpy(NOISE.T[None].repeat(9, 0)), code)


def generator(path):
    args = argparse.Namespace(latent_dim=9, img_size=28, channels=1, network="mlp")
    train_gan.save_generator(path, torch.nn.Linear(300, 100), args)


def moving(path, flame):
    gltf.save_animation(path, flame, FaceCode.zeros(flame, 2), torch.rand(3, 16, 16))


# name of the file: how it is written, given its path and what the fixtures hold
WRITERS = {
    "text.json": lambda path, *_: write_text(path, str(list(NOISE.ravel()))),
    "code.json": lambda path, flame, _: FaceCode.random(
        flame, 60, torch.Generator().manual_seed(0)
    ).save(path),
    "folder.d": lambda path, *_: several(path),
    "face.png": lambda path, *_: export.save_png(path, NOISE),
    "face.glb": lambda path, _, mesh: export.save_glb(path, mesh),
    "face.obj": lambda path, _, mesh: export.save_obj(path, mesh),
    "moving.glb": lambda path, flame, _: moving(path, flame),
    "film.gif": lambda path, *_: film.save(path, [NOISE, NOISE[::-1]]),
    "film.mp4": lambda path, *_: film.save(path, [NOISE, NOISE[::-1]]),
    "film.webm": lambda path, *_: film.save(path, [NOISE, NOISE[::-1]]),
    "table.csv": lambda path, *_: table(path),
    "head.npz": lambda path, *_: build.write(path, {"a": NOISE, "b": NOISE[::-1]}),
    "faces.npz": lambda path, *_: faces(path),
    "images.npy": lambda path, *_: detail_album._reserve(path, (9, 3, 64, 64)),
    "cache.npz": lambda path, *_: files.cached_arrays(path, "key", lambda: {"a": NOISE}),
    "identity.pt": lambda path, *_: IdentityNet(8).save(path),
    "encoder.pt": lambda path, flame, _: FaceModel(flame, "small", 16).save(path),
    "checkpoint.pt": lambda path, *_: checkpoint(path),
    "generator.pt": lambda path, *_: generator(path),
}
KEPT_ELSEWHERE = ("cache.npz",)  # a full disk is no reason to stop there
NOT_REPLACED = ("images.npy", "cache.npz")  # is there already, and stays


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder to write to; caches have no other place."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "none" / "home")
    (tmp_path / "none").write_text("a file where a folder should be")
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk(name, home, flame, mesh):
    path, write = home / name, WRITERS[name]
    if name not in NOT_REPLACED:
        write(path, flame, mesh)
    before = contents(home)
    with full_disk(4000):
        if name in KEPT_ELSEWHERE:
            write(path, flame, mesh)
        else:
            with pytest.raises(WriteError, match=r"make room") as error:
                write(path, flame, mesh)
            assert re.fullmatch(r"[^\n]+\.", str(error.value))
            assert str(home) in str(error.value)
            assert ".tmp" not in str(error.value)
    assert contents(home) == before
    assert [p.name for p in home.rglob(".tmp-*")] == []


@pytest.mark.parametrize("name", WRITERS)
def test_ctrl_c(name, home, flame, mesh, monkeypatch):
    """Everything is written but not yet in its place."""
    path, write = home / name, WRITERS[name]
    if name not in NOT_REPLACED:
        write(path, flame, mesh)
    before = contents(home)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", interrupted)
        patch.setattr(files.Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(path, flame, mesh)
    assert contents(home) == before
    assert [p.name for p in home.rglob(".tmp-*")] == []


def face(folder, tag, names):
    with whole_folder(folder) as workplace:
        for name in names:
            write_text(workplace / name, tag)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, PermissionError(13, "in use")])
@pytest.mark.parametrize("k", range(1, 7))
def test_a_folder_that_is_there_is_replaced_whole(stop, k, home, monkeypatch):
    """Stopped at the k-th move: each of three files to its place, and what was there out of it."""
    face(home / "face", "old", ("a.txt", "b.txt", "older.txt"))
    before, moves, move = contents(home), [], Path.replace

    def stops(path, target):
        moves.append(path)
        if len(moves) == k:
            raise stop
        return move(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "replace", stops)
        with pytest.raises((KeyboardInterrupt, WriteError)):
            face(home / "face", "new", ("a.txt", "b.txt", "c.txt"))
    assert contents(home) == before
    assert list(home.rglob(".tmp-*")) == []


def test_folders_in_a_folder_are_replaced(home):
    face(home / "face", "old", ("a/a.txt", "older.txt"))
    face(home / "face", "new", ("a/b.txt",))
    found = {p.as_posix(): text for p, text in contents(home).items()}
    assert found == {"face/a/b.txt": b"new", "face/older.txt": b"old"}
    assert list(home.rglob(".tmp-*")) == []


def test_what_is_full():
    why = "[Errno 28] No space left on device: 'b'"
    assert files.full(shutil.Error([("a", "b", "[Errno 13] Permission denied"), ("a", "b", why)]))
    assert files.full(f"ERROR: Could not install packages due to an OSError: {why}")
    assert not files.full(shutil.Error([("a", "b", "[Errno 13] Permission denied: 'b'")]))


# ------------------------------------------------------------------ commands


GAN = ("gan", "--n_epochs", "2", "--per_epoch", "16", "--batch_size", "8", "--sample_interval", "2",
       "--img_size", "8")  # fmt: skip


def test_a_training_on_a_full_disk_goes_on_later(tmp_path, capsys):
    command = [*GAN, "--images", str(tmp_path / "images"), "--save", str(tmp_path / "save")]
    with full_disk(20_000):
        assert main(command) == 2
    said = r"gan: \S+checkpoint\.pt was not written, the disk is full; [^\n]+\.\n"
    assert re.fullmatch(said, capsys.readouterr().err)
    assert not any(p.is_file() for p in tmp_path.rglob("*"))
    assert main(command) == 0
    assert (tmp_path / "save" / "generator.pt").is_file()


def test_build_head_on_a_full_disk(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr(build, "build", lambda *_, **__: ({"v": NOISE}, 1.0))
    path = tmp_path / "head.npz"
    path.write_bytes(b"the old one")
    with full_disk(4000):
        assert main(["build-head", "--output", str(path)]) == 2
    assert "head.npz was not written, the disk is full" in capsys.readouterr().err
    assert path.read_bytes() == b"the old one"


def test_set_repo_on_a_full_disk(tmp_path):
    root = Path(set_repo.ROOT)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(root / name, tmp_path)
    before = contents(tmp_path)
    with full_disk(200), pytest.raises(WriteError, match="disk is full"):
        set_repo.run(argparse.Namespace(url="https://github.com/a/b"), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("how", ["full disk", "Ctrl-C"])
def test_set_repo_goes_on_where_it_stopped(how, tmp_path, monkeypatch):
    """At the third of its files."""
    old = set_repo.current()
    (tmp_path / "notebooks").mkdir()
    for name in ("README.md", "notebooks/0.ipynb", "notebooks/1.ipynb"):
        (tmp_path / name).write_text(old + " " * (9000 if "1" in name else 9))
    (tmp_path / "pyproject.toml").write_text(f'[project]\nurls = {{Repository = "{old}"}}\n')
    tried, write = [], set_repo.write_text

    def stops(path, text):
        tried.append(path)
        if how == "Ctrl-C" and len(tried) == 3:
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(set_repo, "write_text", stops)
    args = argparse.Namespace(url="a-school/faces")
    with full_disk(4000), pytest.raises((KeyboardInterrupt, WriteError)):
        set_repo.run(args, tmp_path)
    assert len(tried) > 1
    monkeypatch.undo()
    assert set_repo.run(args, tmp_path) == 0
    for path in set_repo.places(tmp_path):
        text = path.read_text()
        assert "a-school/faces" in text, path
        assert old not in text, path


def test_offline_on_a_full_disk(tmp_path, monkeypatch, capsys):
    """While the course is copied there."""
    monkeypatch.setattr(offline.network, "need_packages", lambda what: None)
    with full_disk(100_000):
        assert main(["offline", str(tmp_path / "stick")]) == 2
    said = r"offline: \S+stick was not written, the disk is full; [^\n]{,99}\.\n"
    assert re.fullmatch(said, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_offline_when_pip_fills_the_disk(tmp_path, monkeypatch, capfd):
    wheels, stick = tmp_path / "wheels", tmp_path / "stick"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "big-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in (("METADATA", "Metadata-Version: 2.1\nName: big\nVersion: 1.0\n"),
                           ("WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"),
                           ("RECORD", "x" * 90_000)):  # fmt: skip
            wheel.writestr(f"big-1.0.dist-info/{name}", text)
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", wheels), ("CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.setattr(offline, "SHIPPED", ("LICENSE",))
    monkeypatch.setattr(offline, "requirements", lambda *_: ["big==1.0"])
    with full_disk(50_000):
        assert main(["offline", str(stick)]) == 2
    said = capfd.readouterr().err
    assert "[Errno 27]" in said  # pip's own line
    assert "network" not in said
    assert re.search(r"\noffline: pip found the disk full, [^\n]+ type the same again\.\n$", said)
    assert not stick.exists()
    assert list(tmp_path.glob(".tmp-*")) == []


@pytest.mark.parametrize(
    "damage", ["empty", "text", "half", "flipped", "another", "a list", "lean"]
)
def test_damaged_checkpoints(damage, tmp_path):
    """One sentence, whatever is wrong with the file."""
    path, net = tmp_path / "checkpoint.pt", torch.nn.Linear(30, 10)
    torch.save({"net": net.state_dict()}, path)
    whole = path.read_bytes()
    with files.checkpoint(path) as state:
        net.load_state_dict(state["net"])
    if damage in ("empty", "text", "half"):
        path.write_bytes(
            {"empty": b"", "text": b"cut short", "half": whole[: len(whole) // 2]}[damage]
        )
    elif damage == "flipped":
        path.write_bytes(whole.replace(b"weight", b"we\x80ght"))
    else:
        kept = {"another": torch.nn.Linear(3, 10).state_dict(), "lean": {}}.get(damage)
        torch.save([1, 2] if damage == "a list" else {"net": kept}, path)
    with (
        pytest.raises(ValueError, match=r"checkpoint\.pt is damaged; delete it to begin again\.$"),
        files.checkpoint(path) as state,
    ):
        net.load_state_dict(state["net"])


def test_a_checkpoint_of_another_run_is_not_damaged(tmp_path):
    torch.save({"steps": 3}, tmp_path / "checkpoint.pt")
    with (
        pytest.raises(ValueError, match="other flags"),
        files.checkpoint(tmp_path / "checkpoint.pt"),
    ):
        raise ValueError("other flags")


def test_gan_with_a_damaged_checkpoint(tmp_path, capsys):
    command = [*GAN, "--images", str(tmp_path / "images"), "--save", str(tmp_path)]
    (tmp_path / "checkpoint.pt").write_bytes(b"cut short")
    assert main(command) == 2
    said = r"gan: \S+checkpoint\.pt is damaged; delete it to begin again\.\n"
    assert re.fullmatch(said, capsys.readouterr().err)
    (tmp_path / "checkpoint.pt").unlink()
    assert main(command) == 0


def test_a_folder_that_cannot_be_written_to(tmp_path, capsys):
    (tmp_path / "file").touch()
    command = [*GAN, "--images", str(tmp_path / "images"), "--save", str(tmp_path / "file" / "x")]
    assert main(command) == 2
    assert re.fullmatch(r"gan: .*cannot be written: \w[^\n]*\.\n", capsys.readouterr().err)


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (RuntimeError("shapes"), FileNotFoundError(2, "gone", "x"), OSError("odd")):
        with pytest.raises(type(error)) as caught, atomic_path(tmp_path / "a.txt"):
            raise error
        assert caught.value is error
    assert contents(tmp_path) == {}


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(name, tmp_path, flame, mesh):
    folder = tmp_path / name
    # a mesh with its texture, found through its .mtl
    for kind, save in (("obj", export.save_obj), ("glb", export.save_glb)):
        folder.mkdir(exist_ok=True)
        save(folder / f"{name}.{kind}", mesh)
        again = trimesh.load(folder / f"{name}.{kind}", force="mesh", process=False)
        assert len(again.faces) == len(mesh.faces)
        material = again.visual.material
        picture = material.image if kind == "obj" else material.baseColorTexture
        assert np.array_equal(np.asarray(picture), SQUARE)
    for file in folder.glob("*.mtl"):
        assert not re.search(r"[\s\\]", file.name)
    # heads, codes, checkpoints, pictures
    shutil.copy(BUILT_IN, folder / f"{name}.npz")
    assert FLAME.load(folder / f"{name}.npz", device="cpu").n_shape == flame.n_shape
    code = FaceCode.zeros(flame)
    code.save(folder / f"{name}.json")
    assert torch.equal(FaceCode.load(folder / f"{name}.json", "cpu").shape, code.shape)
    shutil.copy(landmarks.WEIGHTS, folder / f"{name}.pt")
    landmarks.load.__wrapped__(folder / f"{name}.pt")
    film.save(folder / f"{name}.mp4", [NOISE] * 3)
    assert len(film.read(folder / f"{name}.mp4")[0]) == 3


def test_a_pickle_with_an_odd_name(tmp_path):
    path = tmp_path / "my\\flame 模型.pkl"
    path.write_bytes(pickle.dumps({"a": NOISE}, protocol=2))
    assert np.array_equal(safe_pickle.load(path)["a"], NOISE)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(ValueError, match=r"flame 模型\.pkl"):
        safe_pickle.load(path)


@pytest.mark.skipif(os.sep != "/", reason="Windows takes its own paths")
def test_windows_paths_in_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert any_path("runs\\my gan\\x.pt") == Path("runs/my gan/x.pt")
    Path("a\\b.png").touch()
    assert any_path("a\\b.png") == Path("a\\b.png")  # a file of that name comes first
    assert main([*GAN, "--images", "out\\images", "--save", ".\\out\\my save"]) == 0
    assert (tmp_path / "out" / "my save" / "generator.pt").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a\\b.png", "out"]


def test_a_sound_checkpoint_is_never_called_damaged(tmp_path, monkeypatch):
    """Who deletes it as told loses days."""
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(FileNotFoundError), files.checkpoint(path):
        pass
    torch.save({}, path)
    for problem in (
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:133] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    ):
        with pytest.raises(type(problem)), files.checkpoint(path):
            raise problem
        monkeypatch.setattr(torch, "load", Mock(side_effect=problem))
        with pytest.raises(type(problem)), files.checkpoint(path):
            pass
        monkeypatch.undo()
    with pytest.raises(RuntimeError, match="allocate"), files.checkpoint(path):
        torch.empty(10**15)  # as torch says it here


class _Asks:
    """Pickled, it asks for 300 MB of empty bytes in one of three ways."""

    def __init__(self, asked):
        self.asked = asked

    def __reduce__(self):
        return self.asked


@pytest.mark.parametrize(
    "asked",
    [
        (bytearray, (300_000_000,)),
        (bytearray, (np.int64(300_000_000),)),
        (np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"),
         (1, (300_000_000,), np.dtype("u1"), False, 300_000_000)),
    ],
)  # fmt: skip
def test_a_pickle_does_not_ask_for_memory(asked, tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(_Asks(asked), protocol=2))
    with pytest.raises(ValueError, match="where bytes belong"):
        safe_pickle.load(tmp_path / "a.pkl")


def test_a_folder_is_tried_before_long_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(files.WriteError, match="cannot be written"):
        files.check_folder(tmp_path / "file" / "folder")
    files.check_folder(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
