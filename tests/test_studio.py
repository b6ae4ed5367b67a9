"""Heads drawn in one line: where points land, what paint does, how a picture turns."""

import pytest
import torch

from course.teach.studio import Studio, around_y, heat


@pytest.fixture(scope="module")
def studio(flame):
    return Studio(flame, side=96)


def test_the_whole_head_is_in_the_picture(studio, flame):
    picture = studio.look(flame.v_template)
    assert picture.shape == (3, 96, 96)
    assert picture.min() >= 0
    assert picture.max() <= 1
    background = picture[:, :1, :1]
    assert torch.allclose(picture[:, 0], background[:, 0], atol=1e-3)  # nothing is cut off above
    assert not torch.allclose(picture[:, 48, 48], background[:, 0, 0], atol=0.05)


def test_paint_shows(studio, flame):
    red = torch.zeros(len(flame.v_template), 3)
    red[:, 0] = 1
    middle = studio.look(flame.v_template, red)[:, 48, 48]
    assert middle[0] > 5 * middle[1]
    skin = studio.look(flame.v_template, flame.albedo(), side=64)
    assert skin.shape == (3, 64, 64)


@pytest.mark.parametrize("turn", [0.0, -40.0])
def test_marks_are_where_the_head_is(studio, flame, turn):
    """A painted eyeball and a dot on its joint cover the same pixels."""
    green = torch.zeros(len(flame.v_template), 3)
    green[flame.masks["left_eyeball"], 1] = 1
    picture = studio.look(flame.v_template, green, turn)
    seen = (picture[1] > 0.3) & (picture[0] < 0.1)
    dotted = studio.mark(picture, flame.joints()[0, 3:4], turn=turn)
    assert (torch.tensor(dotted)[seen][:, 0] > 150).float().mean() > 0.3


def test_lines_join_points(studio, flame):
    ends = torch.tensor([[-0.07, 0.13, 0.0], [0.07, 0.13, 0.0]])
    plain = studio.look(flame.v_template)
    one, two = studio.mark(plain, ends), studio.mark(plain, ends, lines=[(0, 1)])
    changed = (one != two).any(-1)
    assert changed.any(0).sum() > 30


def test_heat_goes_from_dark_to_yellow():
    colours = heat(torch.tensor([0.0, 2.0, 9.0]), 4)
    assert colours[0].sum() < colours[1].sum() < colours[2].sum()
    assert colours[2][2] < 0.3


def test_around_y_turns_the_nose_to_the_right():
    assert torch.allclose(around_y(90) @ torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0]),
                          atol=1e-6)  # fmt: skip
