import json
from unittest.mock import Mock

import pytest
import torch

from course.facecode import FaceCode, resolve_device


def test_zero_code_is_the_mean_face(flame):
    code = FaceCode.zeros(flame, 3)
    assert len(code) == 3
    vertices = flame(code.shape, code.expression, code.pose)
    assert torch.allclose(vertices[2], flame.v_template, atol=1e-6)


def test_index_cat_replace(flame):
    code = FaceCode.random(flame, 4, torch.Generator().manual_seed(1))
    assert len(code[-1]) == 1
    assert torch.equal(code[-1].shape[0], code.shape[3])
    assert len(code[1:3]) == 2
    back = FaceCode.cat([code[k] for k in range(4)])
    assert torch.equal(back.albedo, code.albedo)
    assert torch.equal(code.replace(shape=code.shape * 0).shape, code.shape * 0)
    with pytest.raises(IndexError):
        code[4]


def test_random_is_seeded(flame):
    first = FaceCode.random(flame, 2, torch.Generator().manual_seed(7))
    again = FaceCode.random(flame, 2, torch.Generator().manual_seed(7))
    other = FaceCode.random(flame, 2, torch.Generator().manual_seed(8))
    assert torch.equal(first.shape, again.shape)
    assert not torch.equal(first.shape, other.shape)


def test_save_and_load(flame, tmp_path):
    code = FaceCode.random(flame, 2, torch.Generator().manual_seed(3))
    path = tmp_path / "a face 脸.json"
    code.save(path, head=flame.name)
    back = FaceCode.load(path)
    for name in ("shape", "expression", "pose", "camera", "albedo", "light"):
        assert torch.allclose(getattr(back, name), getattr(code, name), atol=1e-6)
    assert json.loads(path.read_text())["head"] == flame.name


def test_bad_files_say_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError):
        FaceCode.load(tmp_path / "none.json")
    for text in ("", "{}", "[1, 2]", '{"shape": "x"}'):
        path = tmp_path / "bad.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json"):
            FaceCode.load(path)


def test_a_failed_save_leaves_the_old_file(flame, tmp_path, monkeypatch):
    path = tmp_path / "code.json"
    FaceCode.zeros(flame).save(path)
    before = path.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        FaceCode.random(flame).save(path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["code.json"]


def test_fields_must_agree(flame):
    code = FaceCode.zeros(flame, 2)
    with pytest.raises(ValueError, match="same number of rows"):
        code.replace(shape=code.shape[:1])
    with pytest.raises(ValueError, match="pose"):
        code.replace(pose=code.pose[:, :6])


def test_resolve_device():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device().type == expected
    if expected == "cpu":
        with pytest.raises(ValueError, match="no CUDA"):
            resolve_device("cuda")
    for name in ("foo", "", "meta", "hpu"):
        with pytest.raises(ValueError, match=f"There is no device '{name}' here; use --device"):
            resolve_device(name)


def test_a_device_that_is_there_and_fails(monkeypatch):
    """One GPU, asked for a fourth; one GPU, its memory full."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", Mock(side_effect=RuntimeError("invalid device ordinal")))
    with pytest.raises(ValueError, match="There is no device 'cuda:3' here"):
        resolve_device("cuda:3")
    monkeypatch.setattr(torch, "empty", Mock(side_effect=RuntimeError("CUDA out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        resolve_device("cuda")


def test_parameters_are_the_fields_themselves(flame):
    code = FaceCode.zeros(flame)
    chosen = code.parameters(["shape", "camera"])
    assert chosen[0] is code.shape
    assert code.camera.requires_grad
    assert not code.pose.requires_grad
    with pytest.raises(ValueError, match="no field nose"):
        code.parameters(["nose"])


def test_a_file_is_checked(flame, tmp_path):
    path = tmp_path / "code.json"
    code = FaceCode.random(flame, 1, torch.Generator().manual_seed(1))
    code.save(path)
    good = json.loads(path.read_text())
    for change, message in (
        ({"pose": [[0.0] * 6]}, r"code\.json.*pose has shape"),
        ({"shape": [[0.0], [1.0]]}, r"code\.json.*number of rows"),
        ({"camera": [[float("nan")] * 3]}, "NaN"),
        ({"light": 3}, "light"),
        ({"albedo": [[1.0], [2.0, 3.0]]}, r"code\.json"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(ValueError, match=message):
            FaceCode.load(path)
    path.unlink()
    with pytest.raises(ValueError, match="NaN"):
        code.replace(pose=code.pose * float("nan")).save(path)
    assert list(tmp_path.iterdir()) == []
