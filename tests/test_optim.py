import copy
import inspect

import numpy as np
import pytest
import torch

from course import optim
from course.encoder import FaceModel
from course.optim import Adam, NotConverged

# ours, torch's, the settings of both
PAIRS = {
    "SGD": (optim.SGD, torch.optim.SGD, {"lr": 0.02, "weight_decay": 0.1}),
    "momentum": (optim.Momentum, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "RMSProp": (optim.RMSProp, torch.optim.RMSprop, {"lr": 1e-3, "weight_decay": 0.01}),
    "Adam": (optim.Adam, torch.optim.Adam, {"lr": 2e-3}),
    "Adam with L2": (optim.Adam, torch.optim.Adam, {"weight_decay": 0.1, "betas": (0.8, 0.9)}),
    "AdamW": (optim.AdamW, torch.optim.AdamW, {"lr": 2e-3, "weight_decay": 0.1}),
}


@pytest.fixture(scope="module")
def problem(flame):
    torch.manual_seed(0)
    model = FaceModel(flame, "small", hidden=64, joints=[0]).double()
    return model, torch.rand(8, 3, 32, 32).double(), torch.randn(8, flame.n_shape).double()


@pytest.mark.parametrize("name", PAIRS)
def test_as_torch_over_100_steps_of_a_face_model(problem, name):
    ours, theirs, options = PAIRS[name]
    model, images, truth = problem
    ends = []
    for kind in (ours, theirs):
        mine = copy.deepcopy(model)
        optimizer = kind(mine.parameters(), **options)
        for step in range(100):
            optimizer.param_groups[0]["lr"] *= 0.99
            rows = slice(0, 4) if step % 2 else slice(4, 8)
            loss = (mine(images[rows]).shape - truth[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in mine.parameters()]))
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (ends[0] - start).abs().max() > 1e-3  # they went somewhere
    assert (ends[0] - ends[1]).abs().max() < 1e-6


def test_groups_have_their_own_rates():
    a, b, still = (torch.ones(2, requires_grad=True) for _ in range(3))
    optimizer = optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b, still]}], lr=0.1)
    (a.sum() + b.sum()).backward()
    optimizer.step()
    assert a.tolist() == [0.5, 0.5]
    assert torch.allclose(b, torch.full((2,), 0.9))
    assert still.tolist() == [1, 1]  # it had no gradient
    optimizer.zero_grad()
    assert a.grad is None


def test_the_first_step_of_adam_is_the_rate():
    p = torch.tensor([3.0, -2.0, 1e-4], requires_grad=True)
    (p * torch.tensor([1e4, 1.0, 1e-4])).sum().backward()
    before = p.detach().clone()
    Adam([p], lr=0.01).step()
    assert torch.allclose(before - p.detach(), torch.full((3,), 0.01), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [lambda: optim.SGD([]), lambda: Adam([torch.zeros(1)], lr=0),
     lambda: Adam([torch.zeros(1)], lr=float("nan")),
     lambda: optim.AdamW([torch.zeros(1)], weight_decay=-1)],
)  # fmt: skip
def test_bad_settings_are_refused(make):
    with pytest.raises(ValueError, match=r"empty|positive"):
        make()


# ------------------------------------------------------------------ on plain functions


def bowl(x):
    return ((x - [1.0, -2.0]) ** 2 * [1.0, 50.0]).sum()


def bowl_gradient(x):
    return 2 * (x - [1.0, -2.0]) * [1.0, 50.0]


def test_the_tutorials_form():
    adam = Adam(bowl, bowl_gradient, np.array([4.0, 3.0]))
    x = adam.get_solu(alpha=0.01)
    assert np.allclose(x, [1, -2], atol=1e-5)
    path, values = adam.get_path()
    assert path.shape == (len(values), 2)
    assert path[0].tolist() == [4, 3]
    assert np.array_equal(path[-1], x)
    assert np.allclose(values, [bowl(p) for p in path])
    assert np.linalg.norm(bowl_gradient(x)) < 1e-6
    again = Adam(_func=bowl, _grad=bowl_gradient, _seed=[4.0, 3.0])
    assert np.array_equal(again.get_solu(alpha=0.01), x)


def test_its_defaults_converge_and_are_the_tutorials():
    x = Adam(bowl, bowl_gradient, (1.5, -1.5)).get_solu()
    assert np.allclose(x, [1, -2], atol=1e-5)
    names = inspect.signature(optim.Minimizer.get_solu).parameters
    assert {n: p.default for n, p in names.items() if n != "self"} == {
        "alpha": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "zeta": 1e-6,
        "maxIter": 3000000}  # fmt: skip


def test_its_steps_are_those_on_tensors():
    adam = Adam(bowl, bowl_gradient, [4.0, 3.0])
    with pytest.raises(NotConverged):
        adam.get_solu(alpha=0.05, maxIter=50)
    p = torch.tensor([4.0, 3.0], dtype=torch.float64, requires_grad=True)
    optimizer, seen = Adam([p], lr=0.05), [p.detach().numpy().copy()]
    for _ in range(50):
        p.grad = torch.from_numpy(bowl_gradient(p.detach().numpy()))
        optimizer.step()
        seen.append(p.detach().numpy().copy())
    assert np.allclose(adam.get_path()[0], seen, atol=1e-12)


def test_a_number_is_a_start_too():
    x = Adam(lambda x: (x - 3) ** 2, lambda x: 2 * (x - 3), 0.0).get_solu(alpha=0.1)
    assert x.shape == ()
    assert abs(float(x) - 3) < 1e-6


def test_it_says_when_it_does_not_converge():
    adam = Adam(bowl, bowl_gradient, [4.0, 3.0])
    with pytest.raises(NotConverged, match=r"after 10 steps: gradient norm .* zeta 1e-06"):
        adam.get_solu(maxIter=10)
    assert len(adam.get_path()[1]) == 11  # what was walked is kept
    with pytest.raises(NotConverged, match="lower alpha"):
        Adam(lambda x: -(x**4).sum(), lambda x: np.full(1, np.nan), [1.0]).get_solu()
    with pytest.raises(ValueError, match="shape"):
        Adam(bowl, lambda x: np.zeros(3), [4.0, 3.0]).get_solu()
    at_once = Adam(bowl, bowl_gradient, [1.0, -2.0])
    assert at_once.get_solu(maxIter=0).tolist() == [1, -2]


def test_the_two_forms_are_told_apart():
    model = torch.nn.Linear(2, 1)
    assert isinstance(Adam(model.parameters()), optim.Optimizer)
    with pytest.raises(TypeError, match=r"model\.parameters\(\)"):
        Adam(model)
    with pytest.raises(TypeError, match="functions of x"):
        Adam(bowl, 3.0, [0.0])
    with pytest.raises(TypeError):
        Adam(bowl)


# ------------------------------------------------------------------ averages


def test_the_average_begins_with_the_first_weights_and_keeps_998_of_1000():
    model, average = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    torch.nn.init.constant_(model.weight, 3.0)
    model.num_batches_tracked.fill_(7)
    optim.running_average(average, model, 1)
    assert average.weight.item() == pytest.approx(1 / 31 * 1.0 + 30 / 31 * 3.0)
    assert average.num_batches_tracked == 7
    torch.nn.init.constant_(average.weight, 1.0)
    optim.running_average(average, model, 10**6)
    assert average.weight.item() == pytest.approx(0.998 * 1.0 + 0.002 * 3.0)
