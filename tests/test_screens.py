"""Signed maps, tiles and the live screen."""

import torch

from course.teach import screens


def test_signed_colours_say_the_sign():
    picture = screens.signed(torch.tensor([[2.0, 0.0, -0.5]]), 1.0)
    assert picture.shape == (3, 1, 3)
    red, _, blue = picture[:, 0]
    assert torch.allclose(picture[:, 0, 1], torch.ones(3))  # zero is white
    assert red[0] > blue[0]  # orange, and no further than its full colour
    assert blue[2] > red[2]
    assert 0 <= picture.min() <= picture.max() <= 1


def test_tiles_fill_a_grid():
    panes = [torch.zeros(9, 9), torch.ones(3, 9, 9), torch.zeros(9, 9), torch.ones(9, 9)]
    picture = screens.tiles(panes, ["", "", "", "d"], side=60)
    assert picture.shape == (120, 120, 3)
    assert picture[30, 30].max() == 0
    assert picture[30, 90].min() == 255


def test_live_shows_nothing_in_tests_and_a_growing_curve_elsewhere(monkeypatch):
    shown = []
    monkeypatch.setattr(screens, "display", shown.append)
    target = torch.zeros(3, 40, 40)
    screens.live(target)(target, [1.0])
    assert not shown
    monkeypatch.setattr(screens.setup, "quiet", lambda: False)
    update = screens.live(target)
    update(target, [1.0])
    first = shown[0].value
    update(target + 0.5, [1.0, 0.5, 0.2])
    assert shown[0].value != first
