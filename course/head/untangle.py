"""Displacement fields without folds: no triangle turns over when a component is stretched."""

import numpy as np

STRETCH = 2.5  # standard deviations either way that have to stay free of folds
LEAST_COSINE = 0.15  # of the angle that a triangle's normal may turn by


def unit_normals(v, faces):
    n = np.cross(v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]])
    return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)


def untangle(fields, v, faces, adjacency, steps=150):
    """Smooth fields (n, 3, k) around triangles that they turn over, until none does.

    v (n, 3) rest vertices, faces (F, 3), adjacency (n, n) sparse. Returns the smoothed fields;
    vertices away from a fold keep theirs. A fold that is left after ``steps`` stays.
    """
    fields, rest = fields.copy(), unit_normals(v, faces)
    degree = np.asarray(adjacency.sum(1)).ravel()[:, None]
    for k in range(fields.shape[-1]):
        field = fields[..., k]
        for _ in range(steps):
            folded = np.zeros(len(v))
            for stretch in (-STRETCH, STRETCH):
                cosine = (unit_normals(v + stretch * field, faces) * rest).sum(1)
                folded[faces[cosine < LEAST_COSINE]] = 1
            if not folded.any():
                break
            around = np.minimum(1, folded + adjacency @ folded)[:, None]
            field += 0.5 * around * (adjacency @ field / degree - field)
    return fields
