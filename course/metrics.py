"""How good is it? Millimetres on meshes, percent on landmarks, decibels on pictures."""

import numpy as np
import torch
import trimesh

# landmarks that the NoW benchmark aligns with (Sanyal et al. 2019): corners of the eyes, base of
# the nose, corners of the mouth
RIGID_LANDMARKS = (36, 39, 42, 45, 33, 48, 54)


def rigid_align(source, target, scale=True):
    """Similarity (s, R, t) with s·R·source + t ≈ target, both (n, 3) (Umeyama 1991).

    ``scale=False`` keeps s = 1. Returns a float, (3, 3) and (3,).
    """
    source, target = np.asarray(source, float), np.asarray(target, float)
    if source.shape != target.shape or source.ndim != 2 or len(source) < 3:
        raise ValueError(f"Need matching (n, 3) points, n ≥ 3; got {source.shape}, {target.shape}.")
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(b.T @ a / len(a))
    flip = np.ones(3)
    flip[-1] = np.sign(np.linalg.det(u) * np.linalg.det(vt))  # a rotation, never a reflection
    rotation = u @ np.diag(flip) @ vt
    s = float((singular * flip).sum() / (a * a).sum() * len(a)) if scale else 1.0
    return s, rotation, target_mean - s * rotation @ source_mean


def apply(transform, points):
    """s·R·points + t."""
    s, rotation, t = transform
    return s * np.asarray(points) @ rotation.T + t


def scan_to_mesh(points, vertices, faces):
    """Distance (n,) from scan points (n, 3) to the surface of a mesh, in the points' unit."""
    vertices = np.asarray(vertices, float)
    # trimesh takes squares that differ by less than 1e-8 for equal: in metres, 0.1 mm
    large = 1000 / np.ptp(vertices, 0).max()
    mesh = trimesh.Trimesh(large * vertices, faces, process=False)
    return trimesh.proximity.closest_point(mesh, large * np.asarray(points))[1] / large


def identity_error(vertices, truth, flame, scale=True):
    """Scan-to-mesh median, mean and std in mm of an unposed head (V, 3) against the true one.

    Both have the model's topology and are aligned by all points of the face, which is kinder than
    NoW's seven landmarks (``scan_errors``); every vertex of the true face's mask is a scan point.
    """
    face = flame.masks["face"].cpu().numpy()
    vertices, truth = np.asarray(vertices, float), np.asarray(truth, float)
    transform = rigid_align(vertices[face], truth[face], scale)
    millimetres = _face_errors(apply(transform, vertices), truth, flame)
    return float(np.median(millimetres)), float(millimetres.mean()), float(millimetres.std())


def scan_errors(vertices, truth, flame):
    """Distances (n,) in mm of the true face's points from an unposed head (V, 3), as in NoW.

    The head is laid over the true one, turned, shifted and sized, by seven landmarks of both.
    """
    heads = np.stack([vertices, truth])
    like = flame.v_template
    marks = flame.landmarks(torch.as_tensor(heads).to(like))[:, list(RIGID_LANDMARKS)].cpu().numpy()
    return _face_errors(apply(rigid_align(*marks), vertices), truth, flame)


def _face_errors(aligned, truth, flame):
    face, faces = flame.masks["face"].cpu().numpy(), flame.faces.cpu().numpy()
    near = face[faces].any(1)
    return 1000 * scan_to_mesh(truth[face], aligned, faces[near])


def nme(points, truth, landmarks=slice(None)):
    """Mean landmark error in % of the distance between the outer corners of the eyes; (68, 2)."""
    points, truth = np.asarray(points), np.asarray(truth)
    ocular = np.linalg.norm(truth[36] - truth[45])
    return float(100 * np.linalg.norm(points - truth, axis=-1)[landmarks].mean() / ocular)


def landmark_errors(points, truth):
    """Each landmark's error (n, 68) in % of the distance between the outer corners of the eyes.

    In profile that distance shrinks to nothing, so 0.35 of the face's box is its least value.
    """
    ocular = np.linalg.norm(truth[:, 36] - truth[:, 45], axis=-1)
    box = np.ptp(truth, axis=1).max(-1)
    distance = np.linalg.norm(points - truth, axis=-1)
    return 100 * distance / np.maximum(ocular, 0.35 * box)[:, None]


def psnr(picture, truth, mask=None):
    """Peak signal-to-noise ratio in dB of pictures (3, H, W) in 0…1, inside a mask (1, H, W)."""
    square = (picture - truth) ** 2
    if mask is not None:
        mask = mask.expand_as(square) > 0.5
        square = square[mask]
    if square.numel() == 0:
        raise ValueError("The mask is empty: there is no pixel to compare.")
    return float(-10 * square.mean().clamp_min(1e-12).log10())
