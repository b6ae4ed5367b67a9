"""Actions by name: on the built-in head, on one with ARKit's names, on one without any."""

from types import SimpleNamespace

import pytest
import torch

from course import actions

ARKIT_NAMES = ["browDown_L", "browDown_R", "browInnerUp_L", "browInnerUp_R", "jawOpen", "mouthLeft",
               "mouthPucker", "mouthSmile_L", "mouthSmile_R", "mouthSmileLeft"]  # fmt: skip


def named(names, count=None):
    """A head that knows no more than its expressions."""
    head = SimpleNamespace(expression_names=names, v_template=torch.zeros(1, 3), name="other",
                           n_expression=len(names) if count is None else count)  # fmt: skip
    head.expression_columns = lambda action: [
        k for k, n in enumerate(names) if n == action or n.startswith(f"{action} ")
    ]
    return head


def test_the_built_in_heads_own_names(flame):
    names = flame.expression_names
    for k, name in enumerate(names):
        assert actions.columns(flame, name) == [k]
        base = name if name in actions.ARKIT else name.rpartition(" ")[0]
        assert k in actions.columns(flame, base)
    code = actions.expression(flame, smile=1.5, smile_left=0.5, lips_pressed=2.0)[0]
    left, right, press = (names.index(n) for n in ("smile left", "smile right", "lips pressed"))
    assert code[[left, right, press]].tolist() == [0.5, 1.5, 2.0]
    assert code.count_nonzero() == 3
    assert actions.listed(flame) == ", ".join(names)


def test_arkits_names():
    head = named(ARKIT_NAMES)
    assert actions.columns(head, "smile") == [7, 8, 9]
    assert actions.columns(head, "smile left") == [7, 9]
    assert actions.columns(head, "brow down right") == [1]
    assert actions.columns(head, "mouth left") == [5]
    assert actions.columns(head, "pucker") == [6]
    assert actions.columns(head, "nostrils flared") == []  # no such movement there
    code = actions.expression(head, smile=2.0, nostrils_flared=1.0)
    assert code[0].tolist() == [0.0] * 7 + [1.0] * 3  # 1 is all that a face can do
    assert "ARKit's names" in actions.listed(head)


@pytest.mark.parametrize("names", [[], ["left_eye_region_000", "lower_face_000", "iris"]])
def test_components_that_mean_nothing_stand_in(names):
    head = named(names, 3)
    assert actions.expression(head, smile=1.0, brow_down=2.0).tolist() == [[1.0, 2.0, 0.0]]
    assert actions.columns(head, "pucker") == actions.columns(head, "smile left") == [0]
    assert "other has none by our names" in actions.listed(head)
    assert actions.columns(named([], 0), "smile") == []


@pytest.mark.parametrize("action", ["grin", "smile up", "left"])
def test_unknown_actions_are_named(flame, action):
    with pytest.raises(ValueError, match=f"There is no action '{action}'; there are smile, brow"):
        actions.expression(flame, **{action.replace(" ", "_"): 1.0})
