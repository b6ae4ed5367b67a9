import numpy as np
import pytest
import torch

from course import experiments
from course.__main__ import main
from course.asm import ASM
from course.experiments import asm as experiment
from course.flame import rodrigues


@pytest.fixture(scope="module", autouse=True)
def small(flame):
    """The head of the other tests, few bones, and a stand-in for the sculptor, who is slow."""
    patch = pytest.MonkeyPatch()
    few = ASM(flame, gaussians=1, bones=["nose tip", "chin", "cheek left"])
    patch.setattr(experiment, "_flame", lambda: flame)
    patch.setattr(experiment, "_asm", lambda names=None, gaussians=3: few)
    patch.setattr(experiment, "_sculpted", _swollen)
    patch.setattr(experiment, "harmonics", lambda: _waves(flame))
    yield
    patch.undo()


def _swollen(seed):
    """A head with a bump that no component has."""
    v = experiment._flame().v_template.numpy()
    place = np.array([0.03 + 1e-5 * seed, -0.03, 0.09])
    bump = np.exp(-((v - place) ** 2).sum(1) / (2 * 0.01**2))
    return v + 0.01 * bump[:, None] * np.array([0.5, 0, 1])


def _waves(flame):
    v = flame.v_template.numpy()
    return np.stack([np.cos(k * 20 * v[:, k % 3]) for k in range(252)], 1)


def test_heads_in_and_out_of_the_span(flame):
    directions = flame.shapedirs.numpy().astype(float)
    errors = {}
    for kind in experiment.KINDS:
        truth = experiment.target(kind, 0)
        turned = truth @ rodrigues(torch.tensor([0.05, -0.1, 0.02])).T + 0.01
        errors[kind] = experiment.surface_error(experiment.linear_fit(directions, turned), turned)
    assert errors.pop("in the span") < 0.02, "up to a rigid motion it is found exactly"
    assert min(errors.values()) > 0.1
    moved = (experiment.target("asymmetric", 0) - flame.v_template).norm(dim=1)
    sides = flame.v_template[:, 0] > 0.03, flame.v_template[:, 0] < -0.01
    assert moved[sides[0]].max() > 0.005
    assert moved[sides[1]].max() < 1e-5, "the other half is another person's"
    with pytest.raises(ValueError, match="no heads 'bald'"):
        experiment.target("bald", 0)


def test_more_components_are_never_worse(flame):
    truth = experiment.target("in the span", 3)
    directions = flame.shapedirs.numpy().astype(float)
    found = [experiment.point_error(experiment.linear_fit(directions[..., :k], truth), truth)
             for k in (5, 20, 80)]  # fmt: skip
    assert found[0] > found[1] > found[2]
    assert found[2] < 0.01


def test_harmonics_and_bones_are_compared_with_as_many_numbers(flame):
    code = np.random.default_rng(0).standard_normal((6, 3))
    moved = torch.from_numpy(3e-4 * _waves(flame)[:, :6] @ code).float()
    truth = flame.v_template + moved
    start, found = (experiment.point_error(v, truth)
                    for v in (flame.v_template, experiment.harmonic_fit(6, truth)))  # fmt: skip
    assert found < 0.2 * start, "what is made of harmonics is found"
    bones = [84 * 9, ASM(flame, bones=experiment.COARSE).size(("scale", "rotation", "translation"))]
    assert set(bones) <= {3 * k for k in experiment.HARMONICS}


def test_errors_know_scale_and_place(flame):
    v = flame.v_template
    moved = 1.1 * (v @ rodrigues(torch.tensor([0.0, 0.3, 0.0])).T) + 0.05
    assert experiment.surface_error(moved, v, scale=True) < 1e-2
    assert experiment.point_error(moved, v, scale=True) < 1e-2
    assert experiment.point_error(moved, v) > 1


def test_photographs_show_the_truth(flame):
    photos, detections = experiment.photographs(experiment.target("sculpted", 0), 2, seed=1)
    assert [p.shape for p in photos] == [(224, 224, 3)] * 2
    for detection in detections:
        assert detection.points.shape == (68, 2)
        assert detection.points.min() > 0
        assert detection.points.max() < 224
    assert np.abs(photos[0].astype(float) - photos[1]).mean() > 5, "from another side"


def test_command_and_schema(tmp_path, monkeypatch):
    run = experiment.experiment
    monkeypatch.setattr(experiment, "COMPONENTS", (80,))
    monkeypatch.setattr(experiment, "HARMONICS", (6,))
    monkeypatch.setattr(experiment, "LADDER", experiment.LADDER[3:4])

    def few(*args, **options):
        return run(*args, **options, kinds=("sculpted",), views=(1,))

    monkeypatch.setattr(experiment, "experiment", few)
    path = tmp_path / "asm.csv"
    command = ["experiment", "asm", "--seeds", "1", "--steps", "2", "--picture-steps", "1",
               "--folder", str(tmp_path / "runs"), "--output", str(path)]  # fmt: skip
    assert main(command) == 0
    table = experiments.read("asm", path)
    assert set(table["model"]) == {"components", "harmonics", "bones", "encoder"}
    assert (table["surface_mm"] > 0).all()
    assert (table["views"] == (table["part"] == "pictures")).all()
    assert main([*command[:-4], "--steps", "0"]) == 2


def test_the_results_that_ship():
    """Every model on every head, and every model in every number of pictures."""
    if not (experiments.RESULTS / "asm.csv").is_file():
        pytest.skip("not run yet")
    table = experiments.read("asm")
    points, pictures = table.where(part="capacity"), table.where(part="pictures")
    sizes = {}
    for kind in experiment.KINDS:
        seeds = sorted(set(points.where(target=kind)["seed"]))
        assert len(seeds) >= 3
        rows = points.where(target=kind)
        for seed in seeds:
            one = rows.where(seed=seed)
            sizes[kind, seed] = sorted(zip(one["model"], one["free"], one["parameters"],
                                           one["gaussians"], strict=True))  # fmt: skip
    assert len({str(size) for size in sizes.values()}) == 1
    assert set(points.where(model="bones")["free"]) == set(experiment.FREE)
    assert points.where(model="bones", free="all", gaussians=3)["parameters"][0] == 2436
    for kind in experiment.KINDS[1:]:
        for views in experiment.VIEWS:
            rows = pictures.where(target=kind, views=views)
            models = set(zip(rows["model"], rows["free"], strict=True))
            assert models == {("components", ""), ("encoder", ""), ("bones", "motion"),
                              ("bones", "all")}  # fmt: skip
    assert np.isfinite(table["surface_mm"]).all()
