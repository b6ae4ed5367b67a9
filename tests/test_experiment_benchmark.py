import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from course import experiments, metrics
from course.experiments import benchmark
from course.train_encoder import WEIGHTS


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return tmp_path_factory.mktemp("photographs")


@pytest.fixture(scope="module")
def files(shelf):
    return benchmark.photographs(3, shelf)


def rows_of(method, shelf, **options):
    return benchmark.one({"method": method}, 3, str(shelf), str(WEIGHTS), **options)


def test_a_person_is_the_same_whenever_it_is_photographed(files, shelf):
    assert files["images"].shape == (12, benchmark.SIZE, benchmark.SIZE, 3)
    again = benchmark._photographed(3)
    assert all(np.array_equal(files[name], again[name]) for name in files)
    assert not np.array_equal(files["images"][0], files["images"][1])


def test_scan_errors_do_not_care_where_a_head_is_and_how_large(flame):
    g = torch.Generator().manual_seed(0)
    one, other = flame(torch.randn(2, flame.n_shape, generator=g)).numpy()
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    moved = 1.3 * one @ (turn * np.sign(np.linalg.det(turn))).T + 0.2
    assert metrics.scan_errors(moved, one, flame).max() < 1e-3
    there, back = (metrics.scan_errors(head, other, flame) for head in (one, moved))
    assert there.mean() > 0.5
    assert np.allclose(there, back, atol=0.02)


def test_the_distances_have_the_last_word_not_the_landmarks(flame):
    """As in NoW: from wherever careless landmarks have put a head, it slides to the same place."""
    g = torch.Generator().manual_seed(0)
    one, other = flame(torch.randn(2, flame.n_shape, generator=g)).numpy().astype(float)
    face, near = metrics._face(flame)

    def aligned(shift):
        turn = Rotation.from_rotvec([0.0, 3 * shift, 0.0]).as_matrix()
        return metrics.refine_alignment(other[face], (1 + shift) * one @ turn.T + shift, near)

    def square(head):
        return (metrics.scan_to_mesh(other[face], head, near) ** 2).mean() ** 0.5

    straight = square(aligned(0.0))
    assert straight < 0.9 * square(one)
    for shift in (-0.01, 0.01):
        assert square(aligned(shift)) == pytest.approx(straight, rel=0.01)
    kept = metrics.refine_alignment(1.05 * one[face], one, near, scale=False)
    assert np.ptp(kept, 0).max() == pytest.approx(np.ptp(one, 0).max(), rel=0.01)
    sized = metrics.refine_alignment(1.05 * one[face], one, near)
    assert np.allclose(sized, 1.05 * one, atol=1e-5)
    by_marks = metrics.scan_errors(one, other, flame, refine=False)
    assert (metrics.scan_errors(one, other, flame) ** 2).mean() < (by_marks**2).mean()


def test_methods_and_their_rows(files, shelf):
    mean, encoder = rows_of("mean face", shelf), rows_of("encoder", shelf)
    assert [r["kind"] for r in encoder] == [kind for kind in benchmark.KINDS for _ in range(3)]
    assert len({r["median"] for r in mean}) == 1
    assert np.mean([r["median"] for r in encoder]) < mean[0]["median"]
    assert all(0 <= r["within_1"] <= r["within_2"] <= 100 for r in encoder)
    (pair,) = rows_of("encoder, 2 photos", shelf)
    assert pair["kind"] == "set"
    three = rows_of(benchmark.ENSEMBLE, shelf, members=[str(WEIGHTS)] * 2)
    assert [r["median"] for r in three] == pytest.approx([r["median"] for r in encoder], abs=1e-4)
    fitted = rows_of("landmarks only", shelf, each=1)
    assert [r["photo"] for r in fitted] == [0, 3, 6, 9]


def test_the_results_that_ship_have_the_columns_and_all_methods():
    table = experiments.read("benchmark")
    assert set(table["method"]) == set(benchmark.METHODS)
    counts = {m: len(table.where(method=m)) for m in benchmark.METHODS}
    assert counts["encoder"] == 12 * counts["encoder, 8 photos"] == 12 * benchmark.PEOPLE
    assert counts["encoder + fit"] == counts["ASM fit"] == 4 * benchmark.PEOPLE
    assert counts["encoder + fit, 8 photos"] == benchmark.PEOPLE


@pytest.mark.parametrize("people", [2, benchmark.PEOPLE])
def test_what_ships_is_not_overwritten_by_less(people, tmp_path, monkeypatch):
    """Fewer people, or no ensemble, are written beside their runs."""
    written = []
    monkeypatch.setattr(benchmark, "measure", lambda *_: [])
    monkeypatch.setattr(benchmark, "write", lambda path, *_: written.append(path))
    for members in ((), ("a.pt", "b.pt")):
        benchmark.report(WEIGHTS, people, folder=tmp_path, members=members)
    ours, shipped = tmp_path / "benchmark.csv", experiments.RESULTS / "benchmark.csv"
    assert written == [ours, shipped if people == benchmark.PEOPLE else ours]


def test_what_is_missing_is_told_before_the_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "make", lambda *_: pytest.fail("photographs were made"))
    for encoder, members in (("nope.pt", ()), (WEIGHTS, ("nope.pt", "no.pt"))):
        with pytest.raises(FileNotFoundError, match=r"nope\.pt is missing"):
            benchmark.measure(tmp_path, encoder, 1, members=members)
