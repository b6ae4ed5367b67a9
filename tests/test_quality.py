"""Photographs spoilt by known amounts are told from good ones, in words."""

import numpy as np
import pytest

from course import quality
from course.evaluate import network_sees
from course.faces import Photographer, Variety
from course.faces_camera import background_bank
from course.photo import Detection

PLAIN = {"camera": False, "accessories": False, "occluders": 0.0, "expressive": 0.0, "roll": 8.0,
         "zoom": (1.0, 1.0), "shift": 0.05, "distance": (0.8, 2.0)}  # fmt: skip


@pytest.fixture(scope="module")
def shoot(flame):
    bank = background_bank(6)

    def shoot(count, seed=300, **variety):
        maker = Photographer(flame, Variety(**(PLAIN | variety)), bank, 256)
        return [maker(np.random.default_rng([seed, k])) for k in range(count)]

    return shoot


@pytest.fixture(scope="module")
def people(shoot):
    return shoot(6, max_yaw=15.0)


def exact(points, n_faces=1):
    """A detection with the true landmarks, surely."""
    points = np.asarray(points)
    box = np.concatenate([points.min(0), points.max(0)])
    return Detection(points, np.full(68, 0.008 * np.ptp(points), np.float32), box, "truth", n_faces)


def troubles_of(photo, flame, **amounts):
    image, points = quality.spoilt(photo.image, photo.landmarks, **amounts)
    return quality.check(image, exact(points), flame).troubles


def test_good_photographs_are_good(people, flame):
    good = [quality.check(p.image, exact(p.landmarks), flame).good for p in people]
    assert sum(good) >= 5  # the lamps of one may stand badly


@pytest.mark.parametrize(
    ("amounts", "trouble"),
    [({"blur": 4.0}, "blurred"), ({"stops": -5.5}, "dark"), ({"stops": 3.0}, "bright"),
     ({"lean": 8.0}, "one-sided"), ({"side": 40}, "small")],
)  # fmt: skip
def test_what_is_spoilt_is_named(people, flame, amounts, trouble):
    for photo in people:
        assert trouble in troubles_of(photo, flame, **amounts)


def test_blur_is_measured_in_its_unit(people, flame):
    """The known blur and the picture's own add as variances, whatever the picture's size."""
    for photo in people[:3]:
        for side in (None, 110):
            image, points = quality.spoilt(photo.image, photo.landmarks, blur=3.0, side=side)
            found = quality.measures(image, exact(points), flame)["blurred"]
            assert 2.2 < found < 4.2


def test_noise_does_not_pass_for_sharpness(people, flame):
    image, points = quality.spoilt(people[0].image, people[0].landmarks, blur=5.0)
    noise = np.random.default_rng(0).normal(size=image.shape) * 6
    noisy = np.clip(image + noise, 0, 255).round().astype(np.uint8)
    assert "blurred" in quality.check(noisy, exact(points), flame).troubles


def test_turned_heads_are_measured_in_degrees(shoot, flame):
    turned = shoot(6, seed=301, max_yaw=60.0)
    found = np.array([quality.turn(p.landmarks, flame) for p in turned])
    least = np.array([abs(p.yaw) for p in turned])  # pitch comes on top
    assert (found > least - 8).all()
    assert (found < np.hypot(least, 30) + 8).all()


def test_a_hand_before_the_face_makes_landmarks_unsure(shoot, flame):
    shares = []
    for variety in ({"max_yaw": 15.0}, {"max_yaw": 15.0, "accessories": True, "glasses": 0.0,
                                        "hair": ("none",), "hands": 1.0}):  # fmt: skip
        made = shoot(4, seed=302, **variety)
        seen = [network_sees(p.image, p.landmarks, [1, k]) for k, p in enumerate(made)]
        shares.append(np.mean(["hidden" in quality.check(p.image, d, flame).troubles
                               for p, d in zip(made, seen, strict=True)]))  # fmt: skip
    assert shares[0] == 0
    assert shares[1] >= 0.5


def test_cut_off_crowded_and_gaping(people, flame):
    photo = people[0]
    cut = int(photo.landmarks[:, 0].max()) - 20
    image = np.ascontiguousarray(photo.image[:, :cut])
    marks = photo.landmarks.copy()
    marks[62:65, 1] -= 60
    seen = quality.check(image, exact(marks, n_faces=3), flame)
    assert {"cut off", "several faces", "open mouth"} <= set(seen.troubles)
    assert "3 faces" in seen.troubles["several faces"]
    outside = int((marks[:, 0] > cut).sum())
    assert seen.troubles["cut off"].startswith(f"{outside} of the face's 68")


def test_every_sentence_says_why_and_what_to_do(people, flame):
    image, points = quality.spoilt(people[0].image, people[0].landmarks, 5.0, -6.0, 8.0, 40)
    seen = quality.check(image, exact(points), flame)
    assert len(seen.troubles) >= 3
    assert not seen.good
    for sentence in seen.troubles.values():
        assert sentence.endswith(".")
        assert ": " in sentence
        assert "{" not in sentence


def test_other_pictures_are_refused(people, flame):
    with pytest.raises(ValueError, match="uint8"):
        quality.check(people[0].image / 255.0, exact(people[0].landmarks), flame)
