"""The detail branch's training and its experiment, on two people."""

import json

import numpy as np
import pytest
import torch

from course import detail_photo, train_detail
from course.__main__ import main
from course.detail import DetailModel
from course.detail_album import BACKGROUND, PHOTO, ambient, lamp, make_album
from course.detail_truth import SkinMaker
from course.experiments import COMMON, columns, read_csv, write
from course.experiments import detail as experiment
from course.facecode import FaceCode
from course.relief import Relief, uv_gradients
from course.render import Renderer, shade


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return tmp_path_factory.mktemp("photographs")


@pytest.fixture(scope="module")
def album(shelf):
    return make_album(shelf, 2)


@pytest.fixture(scope="module")
def model(flame):
    torch.manual_seed(0)
    return DetailModel(flame).eval()


def test_lamps_light_what_faces_them():
    ways = torch.nn.functional.normalize(torch.randn(200, 3), dim=1)
    normals = ways.T.view(1, 3, 10, 20)
    way = torch.nn.functional.normalize(torch.tensor([0.3, 0.5, 0.8]), dim=0)
    light = (lamp(way, 0.7) + ambient(0.2))[..., None].expand(-1, -1, 3)
    seen = shade(torch.ones(1, 3, 10, 20), normals, light)[0, 0].flatten()
    assert (seen - 0.2 - 0.7 * (ways @ way).clamp_min(0)).abs().max() < 0.07


def test_an_album_is_what_its_codes_say(flame, album, shelf):
    assert len(album) == 4
    assert torch.equal(album.codes.shape[0], album.codes.shape[1])  # two photographs a person
    assert not torch.equal(album.codes.expression[0], album.codes.expression[1])
    # the true displacement explains photographs better than none
    relief, rows = Relief(flame), np.arange(4)
    canvas, photo = album.take("canvases", rows), album.take("images", rows)
    maps = torch.zeros(4, 4, 256, 256)
    flat, mask = train_detail.over(relief, canvas, maps, album.codes.light, photo)
    maps[:, 0] = album.take("displacement", rows) / 1000
    deep, _ = train_detail.over(relief, canvas, maps, album.codes.light, photo)
    away = [((p - photo).abs() * mask).sum().item() for p in (flat, deep)]
    assert 0 < away[1] < 0.99 * away[0]
    again = make_album(shelf, 2)
    assert np.array_equal(again.images, album.images)


def test_command_trains_resumes_and_reports(album, shelf, tmp_path, flame, monkeypatch, capsys):
    monkeypatch.setattr(train_detail, "JUDGED", 2)
    monkeypatch.setattr(train_detail, "HELD_OUT", 0)
    words = ["train", "detail", "--people", "2", "--batch", "2", "--folds", "2", "--steps", "3",
             "--folder", str(shelf), "--output", str(tmp_path / "detail.pt")]  # fmt: skip
    asked = []
    own = train_detail.Trainer._one
    monkeypatch.setattr(train_detail.Trainer, "_one",
                        lambda self, *w: asked.append(w) or own(self, *w))  # fmt: skip
    assert main(words) == 0
    # features first, then the discriminator too
    assert asked == [(0.3, 0.0), (0.3, 0.03), (0.3, 0.03)]
    report = json.loads((tmp_path / "detail.json").read_text())
    assert report["steps"] == 3
    assert report["held out"]["psnr"] > 20
    assert (tmp_path / "detail.pt").stat().st_size < 5e6
    assert DetailModel.load(flame, tmp_path / "detail.pt", "cpu").config["size"] == 128
    assert main([*words[:-2], "--steps", "1"]) == 2
    assert "two steps" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_alike(album, shelf, tmp_path, monkeypatch, capsys):
    """In the middle of the texture; then its checkpoint is damaged."""
    monkeypatch.setattr(train_detail, "JUDGED", 2)
    monkeypatch.setattr(train_detail, "HELD_OUT", 0)
    monkeypatch.setattr(train_detail, "judge", lambda *_: {"psnr": 0.0})
    own, checkpoint = train_detail.Trainer._one, shelf / "checkpoint.pt"

    def words(name):
        return ["train", "detail", "--people", "2", "--batch", "2", "--folds", "1", "--steps", "2",
                "--folder", str(shelf), "--output", str(tmp_path / name)]  # fmt: skip

    def stops(self, *given):
        if self.step == 1:
            raise KeyboardInterrupt
        return own(self, *given)

    assert main(words("once.pt")) == 0
    assert not checkpoint.exists()
    with monkeypatch.context() as patch:
        patch.setattr(train_detail.Trainer, "_one", stops)
        assert main(words("twice.pt")) == 130
    said = capsys.readouterr().err
    assert "train: stopped; what was finished is on disk.\n" in said  # it has no --resume
    assert not (tmp_path / "twice.pt").exists()
    kept = checkpoint.read_bytes()
    checkpoint.write_bytes(kept[:99])
    assert main(words("twice.pt")) == 2
    said = capsys.readouterr().err
    assert said == f"train: {checkpoint} is damaged; delete it to begin again.\n"
    checkpoint.write_bytes(kept)
    assert main([*words("twice.pt"), "--features", "0.2"]) == 2
    assert "is of a run with other settings: features 0.3; give those" in capsys.readouterr().err
    assert checkpoint.read_bytes() == kept
    assert main(words("twice.pt")) == 0
    once, twice = (
        torch.load(tmp_path / n, weights_only=True)["state"] for n in ("once.pt", "twice.pt")
    )
    assert all(torch.allclose(once[name], twice[name], atol=1e-3) for name in once)
    assert not checkpoint.exists()


def test_folds_are_principal_components(flame):
    """Displacements of few dimensions are found again from their strengths."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(5, 256, 256, generator=generator)
    mixed = torch.einsum("nk,kij->nij", torch.randn(20, 5, generator=generator), parts) + 0.3
    decoder = DetailModel(flame).decoder
    decoder.begin_folds(mixed)
    strengths = decoder.wanted(mixed) * decoder.spread
    again = decoder.mean + torch.einsum("nk,kij->nij", strengths, decoder.folds)
    assert (again - mixed).abs().max() < 1e-3 * mixed.abs().max()
    assert torch.allclose(
        decoder.wanted(mixed)[:, :5].std(0, correction=0), torch.ones(5), atol=1e-3
    )


def test_a_checkpoint_goes_on_alike(flame, album, tmp_path):
    def begun():
        torch.manual_seed(1)
        trainer = train_detail.Trainer(DetailModel(flame), album, batch=2)
        trainer.train(1, 3, adversarial=0.1)
        return trainer

    first = begun()
    first.save(tmp_path / "c.pt")
    first.train(2, 3, adversarial=0.1)
    torch.manual_seed(5)
    second = train_detail.Trainer(DetailModel(flame), album, batch=2)
    second.restore(tmp_path / "c.pt")
    second.train(2, 3, adversarial=0.1)
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_judging_knows_a_perfect_model(flame, album, model, monkeypatch):
    """A model that answers with the truth is nearer to it than one without detail."""
    none = train_detail.judge(None, album)
    rows = {tuple(e.tolist()): k for k, e in enumerate(album.codes.expression)}

    def truth(expression, pose, code):
        maps = torch.zeros(len(expression), 4, 256, 256)
        for k, e in enumerate(expression):
            maps[k, 0] = album.take("displacement", rows[tuple(e.tolist())]) / 1000
        return maps

    monkeypatch.setattr(model, "forward", truth)
    perfect = train_detail.judge(model, album)
    assert perfect["displacement mm"] < 0.01 * none["displacement mm"]
    assert perfect["psnr"] > none["psnr"] + 0.04
    assert abs(perfect["detail gap"]) < abs(none["detail gap"])


def test_experiment_columns_and_sheet(flame, album, shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "HELD_OUT", 0)
    monkeypatch.setattr(experiment, "REFINING", 1)
    monkeypatch.setattr(experiment, "SHOWN", (0, 2))
    settings = (*experiment.SETTINGS[:3], experiment.SETTINGS[-1])
    monkeypatch.setattr(experiment, "SETTINGS", settings)
    rows = experiment.experiment(tmp_path, 1, 2, 1, 1, 2, 2, settings, shelf)
    table = read_csv(write(tmp_path / "d.csv", rows, experiment.COLUMNS | COMMON),
                     columns("detail"))  # fmt: skip
    assert table["setting"].tolist() == ["photograph", "no detail", "folds only", "both"]
    assert table["steps"].tolist() == [0, 0, 0, 1]
    # finer waves have less power, in photographs too; without detail there is less than there
    photo, bare = (np.array([table[f"power_{2 * k}"][row] for k in range(1, 13)]) for row in (0, 1))
    assert photo[0] > photo[5] > photo[11]
    assert (bare - photo)[3:].mean() < 0
    assert table["detail_gap"][0] == 0 < abs(table["detail_gap"][1])
    # one step towards the photograph, from a wrong shape
    assert (table["identity_mm"][1:] < table["start_mm"][1:]).all()
    experiment.draw_sheet(tmp_path, tmp_path / "d.jpg")
    cells = experiment.read_sheet(tmp_path / "d.jpg")
    assert cells["photograph", 0.0].shape == (2, experiment.CELL, experiment.CELL, 3)
    real = album.images[0, :, 70 : 70 + experiment.CELL].transpose(1, 2, 0)
    x = (PHOTO - experiment.CELL) // 2
    away = cells["photograph", 0.0][0].astype(float) - real[:, x : x + experiment.CELL]
    assert np.abs(away).mean() < 6


def test_detail_of_a_fit(flame, album, model):
    """A code can be fitted to a photograph; its maps are written as they are."""

    class Result:
        codes = album.codes[:1]
        images = album.take("images", slice(0, 1))

    Result.seen = flame(Result.codes.shape, Result.codes.expression, Result.codes.pose)
    drawn = Renderer(flame, PHOTO)(Result.seen, Result.codes.camera,
                                   flame.albedo(Result.codes.albedo), Result.codes.light,
                                   background=BACKGROUND)  # fmt: skip
    Result.rendered, Result.mask = drawn.image, drawn.mask
    codes = detail_photo.fit_detail(model, Result, steps=2)
    read = detail_photo.fit_detail(model, Result, steps=0)
    assert codes.shape == (1, 128)
    assert 0 < (codes - read).abs().max() < 1
    code = Result.codes.replace(detail=codes)
    depth, normals = detail_photo.pictures_of(model, code, Result.seen)
    assert depth.shape == (512, 512)
    assert depth[0, 0] == detail_photo.ZERO
    assert (normals[0, 0] == [128, 128, 255]).all()
    metres = (depth.astype(float) - detail_photo.ZERO) * detail_photo.RANGE / 32767
    wanted = detail_photo.whole(model.of(code)[:, :1].detach())[0, 0].numpy()
    assert np.abs(metres - wanted).max() < 1e-7


def test_tangent_normals_follow_the_slope(flame):
    """A ramp along u tilts the normal against u by the slope on the surface."""
    relief = Relief(flame)
    ramp = torch.linspace(0, 0.004, 256).expand(1, 1, 256, 256)
    normals = relief.tangent_normals(ramp, flame())
    frames = relief.texels(uv_gradients(flame, flame()))
    slope = relief.slopes(ramp)[:, 0] * frames[:, :3].norm(dim=1)
    middle = (0, slice(100, 140), slice(100, 150))
    assert torch.allclose((-normals[:, 0] / normals[:, 2])[middle], slope[middle], atol=1e-5)
    assert normals[:, 1].abs().max() < 1e-6


def test_skins_need_named_expressions(flame):
    class Other:
        expression_names, name, has_uv = [], "other", True

    for part in ("faces", "vt", "ft", "uv_masks", "masks", "v_template"):
        setattr(Other, part, getattr(flame, part))
    with pytest.raises(ValueError, match="built-in head's expressions"):
        SkinMaker(Other, 64)
    assert FaceCode.zeros(flame).detail.shape == (1, 0)
