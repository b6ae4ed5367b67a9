"""Typical wrong answers to notebook 01's exercises: each must be caught."""

import math

import torch


def pca_without_mean(data, k):
    _, s, directions = torch.linalg.svd(data, full_matrices=False)
    return data.mean(0), s[:k, None] / math.sqrt(len(data) - 1) * directions[:k]


def pca_unit_directions(data, k):
    mean = data.mean(0)
    return mean, torch.linalg.svd(data - mean, full_matrices=False)[2][:k]


def pca_smallest_first(data, k):
    mean = data.mean(0)
    values, vectors = torch.linalg.eigh((data - mean).T @ (data - mean) / (len(data) - 1))
    return mean, (vectors * values.clamp_min(0).sqrt()).T[:k]


def pca_singular_values_as_sigma(data, k):
    mean = data.mean(0)
    _, s, directions = torch.linalg.svd(data - mean, full_matrices=False)
    return mean, s[:k, None] * directions[:k]


def pca_columns(data, k):
    mean = data.mean(0)
    _, s, directions = torch.linalg.svd(data - mean, full_matrices=False)
    return mean, (s[:k, None] / math.sqrt(len(data) - 1) * directions[:k]).T


def _cross(axis):
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)


def rodrigues_axis_not_unit(vectors):
    angle = vectors.norm(dim=-1)[:, None, None]
    cross = _cross(vectors)
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


def rodrigues_nan_at_zero(vectors):
    angle = vectors.norm(dim=-1)[:, None, None]
    cross = _cross(vectors / angle[:, 0])
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


def rodrigues_transposed(vectors):
    angle = vectors.norm(dim=-1).clamp_min(1e-12)[:, None, None]
    cross = _cross(vectors / angle[:, 0]).transpose(1, 2)
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


def rodrigues_elementwise_square(vectors):
    angle = vectors.norm(dim=-1).clamp_min(1e-12)[:, None, None]
    cross = _cross(vectors / angle[:, 0])
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * cross**2


def _chain(rotations, joints, parents, compose, bone, subtract=True):
    world = []
    for k, parent in enumerate(parents):
        local = torch.eye(4)
        local[:3, :3] = rotations[k]
        local[:3, 3] = bone(k, parent)
        world.append(compose(world[parent], local) if parent >= 0 else local)
    back = torch.eye(4).repeat(len(joints), 1, 1)
    if subtract:
        back[:, :3, 3] = -joints
    return torch.stack(world) @ back


def chain_without_bones(rotations, joints, parents):
    return _chain(rotations, joints, parents, torch.matmul, lambda k, _: joints[k])


def chain_without_way_back(rotations, joints, parents):
    def bone(k, parent):
        return joints[k] - (joints[parent] if parent >= 0 else 0)

    return _chain(rotations, joints, parents, torch.matmul, bone, subtract=False)


def chain_without_parents(rotations, joints, parents):
    return _chain(rotations, joints, parents, lambda _, local: local, lambda k, _: joints[k])


def chain_transposed(rotations, joints, parents):
    def bone(k, parent):
        return joints[k] - (joints[parent] if parent >= 0 else 0)

    return _chain(rotations.transpose(1, 2), joints, parents, torch.matmul, bone)


def skin_without_translation(vertices, transforms, weights):
    return torch.einsum("vj,jab,vb->va", weights, transforms[:, :3, :3], vertices)


def skin_nearest_joint(vertices, transforms, weights):
    own = transforms[weights.argmax(1)]
    return (own[:, :3, :3] @ vertices[:, :, None])[:, :, 0] + own[:, :3, 3]


def skin_rows(vertices, transforms, weights):
    blended = torch.einsum("vj,jab->vab", weights, transforms)
    return (vertices[:, None] @ blended[:, :3, :3])[:, 0] + blended[:, :3, 3]


def skin_homogeneous_left_in(vertices, transforms, weights):
    padded = torch.cat([vertices, torch.ones(len(vertices), 1)], 1)
    return torch.einsum("vj,jab,vb->va", weights, transforms, padded)


def triangles_centre(vertices, faces, triangles, weights):
    return vertices[faces[triangles]].mean(1)


def triangles_one_lookup(vertices, faces, triangles, weights):
    return vertices[triangles] * weights


def triangles_all_faces(vertices, faces, triangles, weights):
    return (vertices[faces[: len(triangles)]] * weights[:, :, None]).sum(1)


def triangles_wrong_axis(vertices, faces, triangles, weights):
    return (vertices[faces[triangles]] * weights[:, None, :]).sum(2)


WRONG = {
    "1.1": [pca_without_mean, pca_unit_directions, pca_smallest_first,
            pca_singular_values_as_sigma, pca_columns],
    "1.2": [rodrigues_axis_not_unit, rodrigues_nan_at_zero, rodrigues_transposed,
            rodrigues_elementwise_square],
    "1.3": [chain_without_bones, chain_without_way_back, chain_without_parents, chain_transposed],
    "1.4": [skin_without_translation, skin_nearest_joint, skin_rows, skin_homogeneous_left_in],
    "1.5": [triangles_centre, triangles_one_lookup, triangles_all_faces, triangles_wrong_axis],
}  # fmt: skip
