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


def pca_variance(data, k):
    mean = data.mean(0)
    _, s, directions = torch.linalg.svd(data - mean, full_matrices=False)
    return mean, s[:k, None] ** 2 / (len(data) - 1) * directions[:k]


def pca_vh_taken_for_v(data, k):
    mean = data.mean(0)
    _, s, directions = torch.linalg.svd(data - mean, full_matrices=False)
    return mean, s[:k, None] / math.sqrt(len(data) - 1) * directions.T[:k]


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


def rodrigues_one_angle_for_all(vectors):
    angle = vectors.norm()
    cross = _cross(vectors / angle.clamp_min(1e-12))
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


def rodrigues_nan_to_zero(vectors):
    return torch.nan_to_num(rodrigues_nan_at_zero(vectors))


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


def chain_on_the_one_before(rotations, joints, parents):
    previous = range(-1, len(joints) - 1)

    def bone(k, parent):
        return joints[k] - (joints[parent] if parent >= 0 else 0)

    return _chain(rotations, joints, previous, torch.matmul, bone)


def chain_back_from_the_left(rotations, joints, parents):
    back = torch.eye(4).repeat(len(joints), 1, 1)
    back[:, :3, 3] = -joints
    return back @ chain_without_way_back(rotations, joints, parents)


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


def skin_shift_not_weighted(vertices, transforms, weights):
    turned = skin_without_translation(vertices, transforms, weights)
    return turned + transforms[:, :3, 3].mean(0)


def skin_added_to_rest(vertices, transforms, weights):
    return vertices + skin_homogeneous_left_in(vertices, transforms, weights)[:, :3]


def triangles_centre(vertices, faces, triangles, weights):
    return vertices[faces[triangles]].mean(1)


def triangles_one_lookup(vertices, faces, triangles, weights):
    return vertices[triangles] * weights


def triangles_all_faces(vertices, faces, triangles, weights):
    return (vertices[faces[: len(triangles)]] * weights[:, :, None]).sum(1)


def triangles_wrong_axis(vertices, faces, triangles, weights):
    return (vertices[faces[triangles]] * weights[:, None, :]).sum(2)


def triangles_nearest_corner(vertices, faces, triangles, weights):
    return vertices[faces[triangles]][torch.arange(len(triangles)), weights.argmax(1)]


def triangles_weights_per_axis(vertices, faces, triangles, weights):
    return (vertices[faces[triangles]] * weights[:, None, :]).sum(1)


WRONG = {
    "1.1": [pca_without_mean, pca_unit_directions, pca_smallest_first,
            pca_singular_values_as_sigma, pca_columns, pca_variance, pca_vh_taken_for_v],
    "1.2": [rodrigues_axis_not_unit, rodrigues_nan_at_zero, rodrigues_transposed,
            rodrigues_elementwise_square, rodrigues_one_angle_for_all, rodrigues_nan_to_zero],
    "1.3": [chain_without_bones, chain_without_way_back, chain_without_parents, chain_transposed,
            chain_on_the_one_before, chain_back_from_the_left],
    "1.4": [skin_without_translation, skin_nearest_joint, skin_rows, skin_homogeneous_left_in,
            skin_shift_not_weighted, skin_added_to_rest],
    "1.5": [triangles_centre, triangles_one_lookup, triangles_all_faces, triangles_wrong_axis,
            triangles_nearest_corner, triangles_weights_per_axis],
}  # fmt: skip
