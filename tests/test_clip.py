"""Films: landmarks that do not tremble, on a synthetic clip whose truth is known."""

import numpy as np
import pytest
import torch

from course import clip, fit, photo, reenact
from course.camera import project
from course.facecode import FaceCode
from course.render import Renderer

SIZE, FRAMES, NOISE = 128, 8, 1.0  # pixels, frames, pixels
FEW = {"landmarks": 40, 56: 8, 112: 0}


@pytest.fixture(scope="module")
def film(flame):
    """Frames, detections with noise, true landmarks (K, 68, 2) and true codes."""
    person = FaceCode.random(flame, 3, torch.Generator().manual_seed(4))
    keys = [person[0].replace(expression=e[None]) for e in person.expression]
    keys = [reenact.repose(k, yaw=y, jaw=j) for k, y, j in zip(keys, (-15, 5, 20), (0, 14, 3),
                                                               strict=True)]  # fmt: skip
    times = 0.35 + np.arange(FRAMES) / 25  # at 25 frames a second, between two keys
    codes = reenact.timeline(list(enumerate(keys)), times)
    codes.camera[:, 0] *= 0.8
    vertices = flame(codes.shape, codes.expression, codes.pose)
    drawn = Renderer(flame, SIZE)(vertices, codes.camera, flame.albedo(codes.albedo), codes.light,
                                  background=(0.5, 0.5, 0.5))  # fmt: skip
    images = [(255 * i).byte().permute(1, 2, 0).numpy() for i in drawn.image.clamp(0, 1)]
    marks = project(flame.landmarks(vertices, codes.pose), codes.camera, SIZE)[..., :2].numpy()
    noisy = marks + NOISE * np.random.default_rng(0).normal(size=marks.shape)
    found = [
        photo.Detection(p.astype(np.float32), np.full(68, NOISE, np.float32),
                        np.concatenate([p.min(0), p.max(0)]), "built-in", 1)
        for p in noisy
    ]  # fmt: skip
    return images, found, marks, codes


@pytest.fixture(scope="module")
def tracked(film, flame):
    return clip.track(film[0], film[1], flame, steps=FEW)


def trembling(marks):
    """Mean second difference in time of landmarks (K, 68, 2), pixels."""
    return np.linalg.norm(np.diff(marks, n=2, axis=0), axis=-1).mean()


def test_less_trembling_and_no_more_error(film, tracked, flame):
    images, found, truth, _ = film
    alone = np.concatenate([
        fit.fit([i], [d], flame, steps=FEW, progress=False).landmarks
        for i, d in zip(images, found, strict=True)
    ])  # fmt: skip
    assert trembling(tracked.landmarks) < 0.5 * trembling(alone)
    error = lambda marks: np.linalg.norm(marks - truth, axis=-1).mean()  # noqa: E731
    assert error(tracked.landmarks) < 1.05 * error(alone)
    assert trembling(truth) < trembling(alone)  # what is left is not trembling alone


def test_one_identity_and_the_motion_is_kept(film, tracked):
    *_, codes = film
    assert torch.equal(tracked.codes.shape, tracked.codes.shape[:1].expand(FRAMES, -1))
    assert torch.equal(tracked.codes.albedo, tracked.codes.albedo[:1].expand(FRAMES, -1))
    turned = torch.rad2deg(tracked.codes.pose[-1, 1] - tracked.codes.pose[0, 1])
    truth = torch.rad2deg(codes.pose[-1, 1] - codes.pose[0, 1])
    assert truth > 6
    assert turned == pytest.approx(float(truth), rel=0.4)
    assert len(tracked.crops) == len(tracked.images) == FRAMES


def test_crops_follow_smoothly(film):
    _, found, _, _ = film
    crops = clip.smooth_crops(found)
    raw = np.array([photo.crop_around(d.points).centre for d in found])
    even = np.array([c.centre for c in crops])
    bend = lambda x: np.linalg.norm(np.diff(x, n=2, axis=0), axis=1).mean()  # noqa: E731
    assert bend(even) < 0.5 * bend(raw)
    assert np.abs(even - raw).max() < 4


def test_key_frames_are_spread_and_sure(film):
    _, found, _, _ = film
    doubted = [photo.Detection(d.points, d.sigma * (5 if k == 4 else 1), d.box, "built-in", 1)
               for k, d in enumerate(found * 3)]  # fmt: skip
    keys = clip._key_frames(doubted)
    assert len(keys) == clip.KEY_FRAMES
    assert 4 not in keys
    assert min(np.diff(keys)) >= 1
    assert clip._key_frames(found[:2]) == [0, 1]


def test_chosen_rows(tracked):
    part = clip.chosen(tracked, [2, 0])
    assert torch.equal(part.codes.pose, tracked.codes.pose[[2, 0]])
    assert part.crops == [tracked.crops[2], tracked.crops[0]]
    assert np.array_equal(part.landmarks, tracked.landmarks[[2, 0]])


def test_frames_without_a_face_are_left_out(film, monkeypatch, capsys):
    images, found, *_ = film
    blank = np.full_like(images[0], 128)

    def detect(image, *_, **__):
        if image is blank:
            raise photo.NoFaceError("No face was found.")
        return found[0]

    monkeypatch.setattr(photo, "detect", detect)
    monkeypatch.setattr(photo, "follow", detect)
    kept = clip.detect([("0", images[0]), ("1", blank), ("2", images[2])])
    assert [name for name, *_ in kept] == ["0", "2"]
    assert "frame 1 is left out" in capsys.readouterr().out
    with pytest.raises(ValueError, match="No frame shows a face"):
        clip.detect([("1", blank)])
    with pytest.raises(ValueError, match="at least one frame"):
        clip.track([], [], None)


def test_following_a_face(film):
    """The next frame's landmarks are looked for where the last ones were."""
    from skimage.data import astronaut

    image = astronaut()[:300, 60:360]
    first = photo.detect(image, detector="built-in")
    moved = np.roll(image, 5, 1)
    followed = photo.follow(moved, first, "built-in")
    shift = (followed.points - first.points).mean(0)
    assert shift == pytest.approx([5, 0], abs=0.7)
    lost = photo.Detection(first.points - 130, first.sigma, first.box - 130, "built-in", 1)
    again = photo.follow(moved, lost, "built-in")  # found anew
    assert np.abs(again.points - followed.points).mean() < 2
