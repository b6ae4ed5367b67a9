"""How good is it? Millimetres on meshes, percent on landmarks, decibels on pictures."""

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation

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
    return _feet(points, vertices, faces)[1]


def _feet(points, vertices, faces):
    """Nearest points (n, 3) on a mesh's surface and their distances (n,)."""
    vertices = np.asarray(vertices, float)
    # trimesh takes squares that differ by less than 1e-8 for equal: in metres, 0.1 mm
    large = 1000 / np.ptp(vertices, 0).max()
    mesh = trimesh.Trimesh(large * vertices, faces, process=False)
    feet, distances, _ = trimesh.proximity.closest_point(mesh, large * np.asarray(points))
    return feet / large, distances / large


def refine_alignment(points, vertices, faces, scale=True, rounds=50):
    """Vertices (V, 3), turned, shifted and sized until the scan (n, 3) is nearest to the surface.

    Gauss-Newton on the sum of squared scan-to-mesh distances, from where the mesh lies: what NoW's
    code does after the landmarks (``rigid_scan_2_mesh_alignment``). ``scale=False`` keeps the size.
    """
    points, moved = np.asarray(points, float), np.asarray(vertices, float)
    feet, distances = _feet(points, moved, faces)
    for _ in range(rounds):
        away = (points - feet) / np.maximum(distances, 1e-12)[:, None]
        centre = feet.mean(0)
        arm = feet - centre
        size = (arm * away).sum(1, keepdims=True) if scale else arm[:, :0]
        slope = np.hstack([np.cross(arm, away), away, size])
        step = np.linalg.lstsq(slope, distances, rcond=None)[0]
        turn = Rotation.from_rotvec(step[:3]).as_matrix()
        near = np.exp(step[6:].sum()) * (moved - centre) @ turn.T + centre + step[3:6]
        nearer, left = _feet(points, near, faces)
        gain = 1 - (left**2).sum() / max((distances**2).sum(), 1e-30)
        if gain > 0:
            moved, feet, distances = near, nearer, left
        if gain < 1e-5:
            break
    return moved


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


def scan_errors(vertices, truth, flame, refine=True):
    """Distances (n,) in mm of the true face's points from an unposed head (V, 3), as in NoW.

    The head is laid over the true one, turned, shifted and sized, by seven landmarks of both, then
    by the distances themselves (``refine_alignment``); ``refine=False`` stops at the landmarks.
    """
    heads = np.stack([vertices, truth])
    like = flame.v_template
    marks = flame.landmarks(torch.as_tensor(heads).to(like))[:, list(RIGID_LANDMARKS)].cpu().numpy()
    aligned = apply(rigid_align(*marks), vertices)
    if refine:
        face, near = _face(flame)
        aligned = refine_alignment(np.asarray(truth)[face], aligned, near)
    return _face_errors(aligned, truth, flame)


def _face(flame):
    """The face's vertices, and the triangles (F, 3) that touch it."""
    face, faces = flame.masks["face"].cpu().numpy(), flame.faces.cpu().numpy()
    return face, faces[face[faces].any(1)]


def _face_errors(aligned, truth, flame):
    face, near = _face(flame)
    return 1000 * scan_to_mesh(truth[face], aligned, near)


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
