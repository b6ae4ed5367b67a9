"""Answers to notebook 10's exercises that a learner could give, and that are wrong."""

import numpy as np

from course.metrics import apply, rigid_align, scan_to_mesh


def ratio_not_squared(little, much, a, b):
    ratio = much / little
    return np.sqrt(np.maximum(0.0, (ratio * b**2 - a**2) / (1 - ratio)))


def ratio_turned_round(little, much, a, b):
    ratio = (little / much) ** 2
    return np.sqrt(np.maximum(0.0, (ratio * b**2 - a**2) / (1 - ratio)))


def variance_instead_of_deviation(little, much, a, b):
    ratio = (much / little) ** 2
    return np.maximum(0.0, (ratio * b**2 - a**2) / (1 - ratio))


def root_of_a_negative(little, much, a, b):
    ratio = (much / little) ** 2
    return np.sqrt(np.abs((ratio * b**2 - a**2) / (1 - ratio)))


def _triangle(p, a, b, c, clamp=True, inside=True, plane=True, corners=False):
    def to_segment(start, end):
        way = end - start
        t = ((p - start) * way).sum(1) / (way**2).sum(1)
        t = np.clip(t, 0, 1) if clamp else t
        return np.linalg.norm(p - start - t[:, None] * way, axis=1)

    normal = np.cross(b - a, c - a)
    height = ((p - a) * normal).sum(1) / np.linalg.norm(normal, axis=1)
    pairs = ((a, b), (b, c), (c, a))
    sides = [(np.cross(end - start, p - start) * normal).sum(1) >= 0 for start, end in pairs]
    edges = np.min([to_segment(*pair) for pair in pairs], axis=0)
    if corners:
        edges = np.min([np.linalg.norm(p - q, axis=1) for q in (a, b, c)], axis=0)
    if not plane:
        return edges
    return np.where(np.all(sides, axis=0), np.abs(height) if inside else height, edges)


def whole_plane(p, a, b, c):
    normal = np.cross(b - a, c - a)
    return np.abs(((p - a) * normal).sum(1)) / np.linalg.norm(normal, axis=1)


def only_corners(p, a, b, c):
    return np.min([np.linalg.norm(p - q, axis=1) for q in (a, b, c)], axis=0)


def only_edges(p, a, b, c):
    return _triangle(p, a, b, c, plane=False)


def endless_edges(p, a, b, c):
    return _triangle(p, a, b, c, clamp=False)


def signed_height(p, a, b, c):
    return _triangle(p, a, b, c, inside=False)


def corners_for_edges(p, a, b, c):
    return _triangle(p, a, b, c, corners=True)


def nearest_only(p, a, b, c):
    return _triangle(p, a, b, c).min()


def shares(errors, limits):
    return (errors[:, None] <= limits).mean(0)


def strictly_below(errors, limits):
    return 100 * (errors[:, None] < limits).mean(0)


def beyond(errors, limits):
    return 100 * (errors[:, None] > limits).mean(0)


def counts(errors, limits):
    return (errors[:, None] <= limits).sum(0).astype(float)


def a_histogram(errors, limits):
    return 100 * np.diff((errors[:, None] <= limits).mean(0), prepend=0.0)


def without_scale(found_marks, true_marks, found, faces, scan):
    transform = rigid_align(found_marks, true_marks, scale=False)
    return scan_to_mesh(scan, apply(transform, found), faces)


def found_to_scan(found_marks, true_marks, found, faces, scan):
    """Measured from the found head's vertices to the true corners: the wrong points count."""
    transform = rigid_align(found_marks, true_marks)
    return scan_to_mesh(apply(transform, found), true_marks, faces)


def not_aligned(found_marks, true_marks, found, faces, scan):
    return scan_to_mesh(scan, found, faces)


def scaled_back(found_marks, true_marks, found, faces, scan):
    """The best fit of A to B is not the inverse of that of B to A."""
    transform = rigid_align(true_marks, found_marks)
    return scan_to_mesh(apply(transform, scan), found, faces) / transform[0]


def right_transform_on_the_scan(found_marks, true_marks, found, faces, scan):
    transform = rigid_align(found_marks, true_marks)
    return scan_to_mesh(apply(transform, scan), found, faces)


WRONG = {
    "10.1": [
        ratio_not_squared,
        ratio_turned_round,
        variance_instead_of_deviation,
        root_of_a_negative,
    ],
    "10.2": [
        whole_plane,
        only_corners,
        only_edges,
        endless_edges,
        signed_height,
        corners_for_edges,
        nearest_only,
    ],
    "10.3": [
        without_scale,
        found_to_scan,
        not_aligned,
        scaled_back,
        right_transform_on_the_scan,
    ],
    "10.4": [shares, strictly_below, beyond, counts, a_histogram],
}
