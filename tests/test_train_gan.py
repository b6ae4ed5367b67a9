"""The command ``python -m course gan``, and the faces that it trains on."""

import argparse
import csv
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from course import gan, network, real_faces, train_gan
from course.__main__ import main


def flags(*given):
    parser = argparse.ArgumentParser()
    train_gan.add_arguments(parser)
    return parser.parse_args(given)


def small(folder, *given):
    """The command line of a training of twelve steps."""
    return ["gan", "--n_epochs", "3", "--per_epoch", "32", "--batch_size", "8",
            "--sample_interval", "4", "--images", str(folder / "images"),
            "--save", str(folder / "save"), *given]  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("COURSE_QUIET", "1")


def test_the_tutorials_flags():
    args = flags()
    assert (args.n_epochs, args.batch_size, args.lr, args.b1, args.b2) == (
        100,
        64,
        2e-4,
        0.5,
        0.999,
    )
    assert (args.n_cpu, args.latent_dim, args.img_size, args.channels) == (2, 100, 28, 1)
    assert args.sample_interval == 500
    assert (args.images.as_posix(), args.save.as_posix()) == ("images/gan", "save/gan")
    assert args.network == "mlp"


def test_it_leaves_sheets_and_weights(tmp_path, capsys):
    assert main(small(tmp_path, "--img_size", "8", "--latent_dim", "5")) == 0
    names = sorted(p.name for p in (tmp_path / "images").iterdir())
    assert names == ["000004.png", "000008.png", "000012.png"]
    assert Image.open(tmp_path / "images" / names[0]).size == (52, 52)
    with (tmp_path / "save" / "losses.csv").open() as file:
        head, *rows = csv.reader(file)
    assert tuple(head) == train_gan.COLUMNS
    assert [int(row[0]) for row in rows] == [4, 8, 12]
    generator = train_gan.load_generator(tmp_path / "save" / "generator.pt", "cpu")
    assert isinstance(generator, gan.MLPGenerator)
    assert generator(torch.zeros(1, 5)).shape == (1, 1, 8, 8)
    assert "generator.pt" in capsys.readouterr().out


OPTIONS = ("--network", "dcgan", "--width", "4", "--loss", "hinge", "--norm", "spectral",
           "--r1", "1", "--ema", "0.9", "--latent_dim", "8", "--warm_up", "2",
           "--anchor", "5")  # fmt: skip


def test_stopped_and_gone_on_is_the_same_as_in_one_go(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(small(one, *OPTIONS)) == 0
    step, calls = train_gan.Game.step, []

    def tired(game, *given):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return step(game, *given)

    monkeypatch.setattr(train_gan.Game, "step", tired)
    assert main(small(two, *OPTIONS)) == 130
    assert not (two / "save" / "generator.pt").exists()
    assert main(small(two, *OPTIONS)) == 0
    assert len(calls) == 7 + 6, "it did not go on from the last sheet, step 8"
    states = [torch.load(f / "save" / "generator.pt", weights_only=True)["weights"]
              for f in (one, two)]  # fmt: skip
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_the_discriminator_may_be_wider():
    """And is as wide as the generator where nothing is said."""
    for given, wanted in (((), 4), (("--judge_width", "6"), 6)):
        game = train_gan.new_game(flags("--network", "dcgan", "--width", "4", *given))
        assert game.generator.widths[-1] == 4
        assert game.discriminator.layers[0].out_channels == wanted


def test_more_epochs_go_on_other_flags_do_not(tmp_path, capsys):
    assert main(small(tmp_path, *OPTIONS)) == 0
    assert main(small(tmp_path, *OPTIONS, "--n_epochs", "4")) == 0
    assert (tmp_path / "images" / "000018.png").is_file()
    assert main(small(tmp_path, *OPTIONS, "--lr", "1e-3")) == 2
    assert "other settings: lr 0.0" in capsys.readouterr().err


def test_a_step_moves_both_players_and_each_only_by_its_own_loss():
    torch.manual_seed(0)
    game = train_gan.Game(gan.MLPGenerator(4, 8), gan.MLPDiscriminator(8), decay=0.5)
    real, z = torch.rand(6, 1, 8, 8), torch.randn(6, 4)
    before = [p.detach().clone() for p in game.generator.parameters()]
    found = game.step(real, z)
    assert set(found) == {"generator", "discriminator", "real", "fake"}
    assert found["discriminator"] == pytest.approx(2 * np.log(2), abs=0.2)
    moved = [(a != b).any() for a, b in zip(before, game.generator.parameters(), strict=True)]
    assert all(moved)
    assert all(p.requires_grad for p in game.discriminator.parameters())
    # the discriminator's move leaves the generator alone: at rate 0 of its own it stays
    game.optimizers[0].param_groups[0]["lr"] = 0.0
    before = [p.detach().clone() for p in game.generator.parameters()]
    game.step(real, z)
    assert all(torch.equal(*pair) for pair in zip(before, game.generator.parameters(), strict=True))


def test_warmed_up_it_draws_each_face_from_its_components():
    faces = real_faces.load("lfw_subset", 28, count=40)
    z = train_gan.components(faces, 6)
    assert torch.allclose(torch.cov(z.T), torch.eye(6), atol=1e-3)
    torch.manual_seed(0)
    game = train_gan.Game(gan.MLPGenerator(6), gan.MLPDiscriminator(), rate=1e-3)
    lost = [game.warm_up(faces, z)["generator"] for _ in range(40)]
    assert lost[-1] < 0.6 * lost[0]
    with pytest.raises(ValueError, match="principal components"):
        train_gan.components(faces, 41)


def test_settled_its_batch_norm_knows_its_own_activations():
    torch.manual_seed(0)
    generator = gan.DCGenerator(6, 8, 1, 4).eval()
    seen, norm = [], generator.layers[0]
    train_gan.settle(generator, 6)
    assert not generator.training
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    generator(torch.randn(2000, 6))
    assert torch.allclose(norm.running_var, seen[0].var((0, 2, 3)), rtol=0.15)
    assert torch.allclose(norm.running_mean, seen[0].mean((0, 2, 3)), atol=0.01)


def test_the_discriminator_learns_to_tell(tmp_path):
    """Against a generator that stands still, real goes up and made goes down."""
    torch.manual_seed(0)
    game = train_gan.Game(gan.MLPGenerator(4, 8), gan.MLPDiscriminator(8), rate=1e-3)
    game.optimizers[0].param_groups[0]["lr"] = 0.0
    g = torch.Generator().manual_seed(0)
    for _ in range(30):
        found = game.step(torch.rand(16, 1, 8, 8, generator=g), torch.randn(16, 4, generator=g))
    assert found["real"] > 1 > -1 > found["fake"]


@pytest.mark.parametrize(("given", "words"), [
    (("--batch_size", "1"), "--batch_size is at least 2"),
    (("--per_epoch", "4"), "--per_epoch is at least 8"),
    (("--judge_width", "0"), "--judge_width is at least 1"),
    (("--network", "dcgan", "--img_size", "30"), "4 to 7 pixels"),
    (("--channels", "2"), "1 channel"),
    (("--ema", "1.5"), "decay"),
    (("--img_size", "0"), "--img_size is at least 4"),
    (("--count", "-1"), "--count is at least 1"),
    (("--r1", "nan"), "--r1 is at least 0 and finite, not nan"),
    (("--lr", "inf"), "--lr is at least 0 and finite, not inf"),
    (("--b2", "1"), "--b2 is below 1"),
    (("--norm", "batch"), "takes spectral norm or none, not 'batch'"),
    (("--latent_dim", "99999999999"), "There is not enough memory for that"),
])  # fmt: skip
def test_bad_flags_are_one_sentence(tmp_path, capsys, given, words):
    assert main(small(tmp_path, *given)) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1


def test_damaged_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m course gan"):
        train_gan.load_generator(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"?")
    with pytest.raises(ValueError, match="does not hold a generator"):
        train_gan.load_generator(tmp_path / "bad.pt")


# ------------------------------------------------------------------ faces


def test_real_faces_are_in_the_package():
    """100 real faces without a network; the half of the file without faces is left out."""
    images = real_faces.load("lfw_subset")
    assert images.shape == (100, 1, 28, 28)
    assert 0 <= images.min() < 0.1
    assert 0.9 < images.max() <= 1
    colour = real_faces.load("lfw_subset", size=25, channels=3, count=7)
    assert colour.shape == (7, 3, 25, 25)
    mean = images.mean((0, 1))  # a face: eyes darker than the cheeks below them
    assert mean[8:11, 5:9].mean() < mean[12:15, 5:9].mean() - 0.1


def test_synthetic_faces_are_reproducible_differ_and_are_kept(tmp_path, monkeypatch):
    images = real_faces.load("synthetic", size=32, channels=3, count=2, seed=5)
    kept = real_faces.load("synthetic", 32, 3, 2, seed=5, folder=tmp_path)
    assert torch.equal(images, kept)
    monkeypatch.delattr(real_faces, "synthetic")
    assert torch.equal(images, real_faces.load("synthetic", 32, 3, 2, seed=5, folder=tmp_path))
    assert (images[0] - images[1]).abs().mean() > 0.02


def test_synthetic_faces_are_the_same_from_any_number_of_processes(monkeypatch):
    alone = real_faces.synthetic(3, 32, seed=5)
    monkeypatch.setattr(real_faces, "CHUNK", 2)
    gap = (255 * (alone - real_faces.synthetic(3, 32, seed=5, workers=2))).abs()
    assert gap.max() < 1.5  # where an array lies in memory decides a last digit: a rounding
    assert (gap > 0.5).float().mean() < 1e-3


def test_without_scikit_learn_or_network_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for name in real_faces.ONLINE:
        with pytest.raises(ValueError, match="needs scikit-learn"):
            real_faces.load(name)

    def unreachable(**_):
        raise OSError("no route")

    broken = types.SimpleNamespace(fetch_olivetti_faces=unreachable, fetch_lfw_people=unreachable)
    monkeypatch.setitem(sys.modules, "sklearn", types.SimpleNamespace(datasets=broken))
    for name in real_faces.ONLINE:
        for there, sentence in ((False, "does not answer"), (True, "could not be fetched")):
            monkeypatch.setattr(network, "answers", lambda _, there=there: there)
            with pytest.raises(ValueError, match=f"{sentence}.*connect to the network"):
                real_faces.load(name)


def test_what_scikit_learn_fetches_is_cut_square_and_scaled(monkeypatch):
    grey = np.random.default_rng(0).random((5, 64, 64)).astype(np.float32)
    colour = np.zeros((3, 125, 94, 3), np.float32)
    colour[:, 40:60, 40:60] = 255
    found = types.SimpleNamespace(
        fetch_olivetti_faces=lambda **_: types.SimpleNamespace(images=grey),
        fetch_lfw_people=lambda **_: types.SimpleNamespace(images=colour),
    )
    monkeypatch.setitem(sys.modules, "sklearn", types.SimpleNamespace(datasets=found))
    assert real_faces.load("olivetti", 32).shape == (5, 1, 32, 32)
    lfw = real_faces.load("lfw", 32, 3)
    assert lfw.shape == (3, 3, 32, 32)
    assert lfw.max() == pytest.approx(1)


def test_unknown_faces():
    with pytest.raises(ValueError, match="no faces 'celeba'"):
        real_faces.load("celeba")


def test_augmented_faces():
    images = real_faces.load("lfw_subset", count=16)
    first, again = (real_faces.augment(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == images.shape
    assert (first - images).abs().mean((1, 2, 3)).min() > 0.01
    still = real_faces.augment(images, torch.Generator().manual_seed(1), 0)
    same = (still - images).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (still - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
    assert (same ^ mirrored).all()
    assert same.any()
    assert mirrored.any()
