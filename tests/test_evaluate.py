"""Reading photographs with an encoder, and the figures that are quoted for it."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from course import albums, evaluate
from course.__main__ import main
from course.camera import project
from course.encode import match_colours, mirror_rows, mirrored, parity, read_crops, read_faces
from course.encoder import FaceModel
from course.facecode import FaceCode
from course.faces import Photographer, Variety
from course.faces_camera import background_bank
from course.photo import crop_around
from course.render import Renderer

PEOPLE = 2


@pytest.fixture(scope="module")
def shards(tmp_path_factory, flame):
    folder = tmp_path_factory.mktemp("runs")
    variety = Variety(**albums.VARIETY | {"max_yaw": 20.0, "distance": (1.5, 2.5)}, occluders=0.0)
    maker = Photographer(flame, variety, background_bank(3), albums.SIZE)
    for each in (1, evaluate.EACH):
        arrays = albums.take(maker, np.random.default_rng(4), PEOPLE, each)
        (folder / "held-out" / f"wild-{each}").mkdir(parents=True)
        name = folder / "held-out" / f"wild-{each}" / f"{albums.HELD_OUT_SEED + each}-00000"
        np.save(name.with_suffix(".npy"), arrays.pop("images"))
        np.savez(name.with_suffix(".npz"), **arrays)
    return folder


@pytest.fixture(scope="module")
def album(shards):
    return albums.held_out(shards / "held-out", "wild", PEOPLE, 1)


@pytest.fixture(scope="module")
def many(shards):
    return albums.held_out(shards / "held-out", "wild", PEOPLE, evaluate.EACH)


class Oracle(nn.Module):
    """Answers the true codes of an album's photographs, in the order in which it is asked."""

    def __init__(self, flame, share=1.0):
        super().__init__()
        self.flame, self.share = [flame], share
        self.config = {"confidence": False, "crop": (albums.CROP, albums.CROP_SCALE)}
        self.asked = []  # (album, number, landmarks)

    def _head(self, flame=None):
        return self.flame[0]

    def features(self, images):
        return images

    def reconstructor(self, images):
        asked, self.asked = self.asked[: len(images)], self.asked[len(images) :]
        crops = [crop_around(p, albums.CROP, albums.CROP_SCALE, True) for _, _, p in asked]
        album, numbers = asked[0][0], [k for _, k, _ in asked]
        code = album.batch(numbers, self.flame[0], crops=crops).code
        return code.replace(shape=self.share * code.shape)


def test_the_figures_of_the_truth_and_of_a_half(album, many, flame, monkeypatch):
    detect = evaluate.detected
    for share, low, high in ((1.0, -0.01, 0.01), (0.5, 0.4, 0.6)):
        oracle = Oracle(flame, share)

        def noted(album, k, oracle=oracle):
            found = detect(album, k)
            oracle.asked.append((album, int(k), found.points))
            return found

        monkeypatch.setattr(evaluate, "detected", noted)
        monkeypatch.setattr("course.encode.parity", lambda _: None)  # no mirror image
        figures = evaluate.evaluate(oracle.eval(), album, many, flame)
        assert low <= figures["identity"] <= high
        assert figures["landmarks"] < 4
        assert figures["detector's landmarks"] < 10
        sets = figures["sets"]["photographs"]["8"]["plain"]
        single = figures["sets"]["photographs"]["1"]["plain"]
        assert sets["mm"] == pytest.approx(single["mm"], abs=0.02)


def test_the_command_prints_the_bars(shards, flame, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("course.fit.STEPS_FROM_START", {"landmarks": 120, 56: 20})
    FaceModel(flame, "small").save(tmp_path / "mean.pt")
    command = ["evaluate", "--weights", str(tmp_path / "mean.pt"), "--people", "2", "--sets", "1",
               "--photos", "wild", "--refine", "1", "--folder", str(shards),
               "--workers", "1", "--device", "cpu",
               "--json", str(tmp_path / "figures.json")]  # fmt: skip
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "1.0 (bar 0.55: NOT reached)" in output  # an untrained encoder is the mean face
    figures = json.loads((tmp_path / "figures.json").read_text())["wild"]
    assert figures["identity"] == 1
    assert figures["set, readings averaged"] == 1
    assert figures["set"] < 1.2
    assert figures["refined"] < 1.2
    assert figures["refined landmarks"] < figures["landmarks"]
    assert main([*command, "--refine", "5"]) == 2
    assert main(["evaluate", "--weights", str(tmp_path / "none.pt")]) == 2


# ------------------------------------------------------------------ reading


def test_components_are_even_or_odd(flame):
    signs = parity(flame)
    assert signs.abs().eq(1).all()
    assert 0 < (signs < 0).sum() < len(signs) / 4


def test_mirrored_codes_make_mirrored_heads(flame):
    g = torch.Generator().manual_seed(0)
    code = FaceCode.random(flame, 2, g)
    code.pose[:] = 0.2 * torch.randn(2, 15, generator=g)
    code.camera[:, 1] = 0.01
    other = mirrored(code, flame)
    flip = torch.tensor([-1.0, 1, 1])
    _, pair = torch.cdist((flame.v_template * flip).double(), flame.v_template.double()).min(1)
    here = flame(code.shape, code.expression, code.pose)
    there = flame(other.shape, other.expression, other.pose)
    assert torch.allclose(here * flip, there[:, pair], atol=1e-5)
    left, right = (project(v, c.camera, 100) for v, c in ((here, code), (there, other)))
    assert torch.allclose(100 - left[..., 0], right[:, pair, 0], atol=1e-2)
    assert torch.allclose(mirrored(other, flame).light, code.light)


def test_rows_are_mirrored_in_place(flame):
    g = torch.Generator().manual_seed(0)
    images, code = torch.rand(3, 3, 8, 8, generator=g), FaceCode.random(flame, 3, g)
    rows = torch.tensor([True, False, True])
    turned, codes = images.clone(), code.clone()
    mirror_rows(turned, codes, rows, flame)
    assert torch.equal(turned[rows], images[rows].flip(-1))
    assert torch.equal(turned[~rows], images[~rows])
    assert torch.equal(codes.expression[rows], mirrored(code, flame).expression[rows])
    assert torch.equal(codes.expression[~rows], code.expression[~rows])


def test_reading_with_the_mirror_is_symmetric(flame):
    model = FaceModel(flame, "small", confidence=True)
    with torch.no_grad():
        model.reconstructor.layers[2].weight.normal_(0, 0.02)
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"eval\(\)"):
        read_crops(model, images, flame)
    model.eval()
    code, trust = read_crops(model, images, flame)
    again, _ = read_crops(model, images.flip(-1), flame)
    for name in ("shape", "expression", "pose", "camera", "light"):
        a, b = getattr(mirrored(again, flame), name), getattr(code, name)
        assert torch.allclose(a, b, atol=1e-5), name
    assert trust["shape"].shape == (2, flame.n_shape)
    plain, _ = read_crops(model, images, flame, mirror=False)
    assert torch.allclose(plain.shape, model(images).shape)


@pytest.mark.parametrize("own", [(albums.CROP, albums.CROP_SCALE), (96, 1.7)])
def test_codes_go_to_any_crop(flame, album, own):
    """What is read in the encoder's own crop is put where another crop sees it."""
    model = FaceModel(flame, "small", start=album.code[0], crop=own).eval()
    image, points = album.image(0), album.landmarks[0]
    here, _ = read_faces(model, [image], [points], mirror=False)
    crop = crop_around(points, 224)
    there, _ = read_faces(model, [image], [points], crops=[crop], mirror=False)
    own = crop_around(points, *own, upright=True)
    places = []
    for code, cut in ((here, own), (there, crop)):
        vertices = flame(code.shape, code.expression, code.pose)
        # the contour follows the yaw, which a turned crop changes a little
        marks = project(flame.landmarks(vertices, code.pose), code.camera, cut.out)[0, 17:, :2]
        places.append(cut.to_photo(marks.numpy()))
    assert np.abs(places[0] - places[1]).max() < 0.02


def test_skin_and_lamp_share_the_colour_that_a_reading_leaves_open(flame):
    code = FaceCode.random(flame, 3, torch.Generator().manual_seed(1))
    drawn = Renderer(flame, 128).render(code).image
    same = match_colours(code, drawn, flame)
    assert torch.allclose(same.albedo, code.albedo, atol=0.05)
    assert torch.allclose(same.light, code.light, rtol=0.02)
    gain = torch.tensor([1.2, 1.3, 1.4])
    found = match_colours(code, drawn * gain.view(3, 1, 1), flame)
    assert torch.equal(found.shape, code.shape)
    lighter = flame.albedo(found.albedo) / flame.albedo(code.albedo)
    stronger = (found.light / code.light)[:, 0]
    assert (lighter.mean((2, 3)) > 1.02).all()
    assert (stronger > 1.02).all()
    face = drawn.amax(1) > 0.1
    again = Renderer(flame, 128).render(found).image
    ratio = torch.stack([(again[n] / drawn[n])[:, face[n]].median(1).values for n in range(3)])
    assert torch.allclose(ratio, gain.expand(3, -1), rtol=0.1)
