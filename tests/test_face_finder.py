"""Small, tilted and upside-down faces on synthetic photographs, and pictures without any."""

import cv2
import numpy as np
import pytest

from course import face_finder, landmarks, metrics, photo
from course.faces import Photographer, Variety
from course.faces_camera import background_bank


@pytest.fixture(scope="module")
def portrait(flame):
    """A person, small in the middle of the picture, so that it can be turned."""
    variety = Variety(occluders=0, max_yaw=30, roll=5, zoom=(0.6, 0.6), shift=0, distance=(1, 2))
    maker = Photographer(flame, variety, background_bank(4), size=320)
    return maker(np.random.default_rng([5, 0]))


def shown(portrait, pixels, degrees, part=0.45):
    """A square picture whose face is so many pixels large, ``part`` of it, and turned; the 68
    landmarks in it."""
    marks = portrait.landmarks
    low, high = marks.min(0), marks.max(0)
    side = (high - low).max() / part
    crop = photo.Crop((low + high) / 2, side, np.radians(-degrees), round(pixels / part))
    picture = crop.apply(portrait.image).permute(1, 2, 0).mul(255).round().byte().numpy()
    return np.ascontiguousarray(picture), crop.to_crop(marks)


@pytest.mark.parametrize("degrees", [0, 120, 180])
def test_a_face_of_forty_pixels_at_any_angle(portrait, degrees):
    """At 180° the cascades propose an upright face here, of which the network is half sure."""
    picture, marks = shown(portrait, 40, degrees)
    found = photo.detect(picture, detector="built-in")
    assert metrics.landmark_errors(found.points[None], marks[None]).mean() < 5


def test_a_small_face_in_a_large_picture(portrait):
    face, marks = shown(portrait, 40, 0)
    picture = np.full((900, 1300, 3), 120, np.uint8)
    picture[500 : 500 + len(face), 700 : 700 + len(face)] = face
    found = photo.detect(picture, detector="built-in")
    assert metrics.landmark_errors(found.points[None], marks[None] + [700, 500]).mean() < 6


@pytest.mark.parametrize("shape", [(24, 20_000), (20_000, 24)])
def test_a_strip_has_no_face(shape):
    assert face_finder.find(np.full((*shape, 3), 90, np.uint8)) == []


@pytest.mark.parametrize("shape", [(720, 720), (720, 480), (720, 240), (32, 720)])
def test_no_shape_of_a_picture_has_very_many_windows(shape):
    assert 50 < sum(map(len, face_finder._windows(*shape))) < 600


def test_things_have_no_face():
    for picture in background_bank(2, 200):
        assert face_finder.find(cv2.resize(picture, (400, 300))) == []


def test_an_upright_face_needs_no_windows(portrait, monkeypatch):
    def scanned(image):
        raise AssertionError("windows were searched")

    monkeypatch.setattr(face_finder, "_scan", scanned)
    assert len(face_finder.find(shown(portrait, 120, 0)[0])) == 1


def test_the_networks_doubt_tells_faces_from_walls(portrait):
    picture, marks = shown(portrait, 100, 135)
    low, high = marks.min(0), marks.max(0)
    x, y, side = *((low + high) / 2), (high - low).max()
    windows = np.array([[x, y, side, roll] for roll in face_finder.ANGLES])
    doubts = face_finder._doubts(picture, windows)
    level = landmarks.upright_roll(marks)
    apart = np.abs((face_finder.ANGLES - level + np.pi) % (2 * np.pi) - np.pi)
    assert doubts.argmin() == apart.argmin()
    assert doubts.min() < 0.5 * np.median(doubts)
