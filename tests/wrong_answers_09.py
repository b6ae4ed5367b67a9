"""Answers to notebook 09's exercises that a learner could give, and that are wrong."""

import numpy as np
import torch


def whole_pose(expression, pose, other_expression, other_pose):
    return other_expression.clone(), other_pose.clone()


def jaw_forgotten(expression, pose, other_expression, other_pose):
    return other_expression.clone(), pose.clone()


def neck_instead_of_jaw(expression, pose, other_expression, other_pose):
    pose = pose.clone()
    pose[:, 3:6] = other_pose[:, 3:6]
    return other_expression.clone(), pose


def jaw_and_eyes(expression, pose, other_expression, other_pose):
    pose = pose.clone()
    pose[:, 6:] = other_pose[:, 6:]
    return other_expression.clone(), pose


def one_column_of_the_jaw(expression, pose, other_expression, other_pose):
    pose = pose.clone()
    pose[:, 6] = other_pose[:, 6]
    return other_expression.clone(), pose


def changes_its_input(expression, pose, other_expression, other_pose):
    pose[:, 6:9] = other_pose[:, 6:9]
    return other_expression, pose


def columns_counted_from_one(expression, pose, other_expression, other_pose):
    pose = pose.clone()
    pose[:, 7:10] = other_pose[:, 7:10]
    return other_expression.clone(), pose


def sum_of_expressions(expression, pose, other_expression, other_pose):
    pose = pose.clone()
    pose[:, 6:9] = other_pose[:, 6:9]
    return expression + other_expression, pose


def _mirrored(pose, flip, swap=True):
    pose = pose * torch.tensor(flip).repeat(5)
    return torch.cat([pose[:, :9], pose[:, 12:15], pose[:, 9:12]], 1) if swap else pose


def eyes_not_swapped(pose):
    return _mirrored(pose, [1.0, -1.0, -1.0], swap=False)


def only_yaw(pose):
    return _mirrored(pose, [1.0, -1.0, 1.0])


def turned_back(pose):
    return _mirrored(pose, [-1.0, -1.0, -1.0])


def only_the_root(pose):
    flip = torch.ones(15)
    flip[1:3] = -1
    pose = pose * flip
    return torch.cat([pose[:, :9], pose[:, 12:15], pose[:, 9:12]], 1)


def straight_line(a, b, t):
    b = b if a @ b >= 0 else -b
    return (1 - t[:, None]) * a + t[:, None] * b


def straight_line_made_unit(a, b, t):
    """Right at both ends and in the middle; the speed is not constant."""
    path = straight_line(a, b, t)
    return path / np.linalg.norm(path, axis=1, keepdims=True)


def the_long_way(a, b, t):
    angle, t = np.arccos(np.clip(a @ b, -1, 1)), t[:, None]
    if angle < 1e-6:
        return np.repeat(a[None], len(t), 0)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def divides_by_zero(a, b, t):
    b = b if a @ b >= 0 else -b
    angle, t = np.arccos(np.clip(a @ b, -1, 1)), t[:, None]
    with np.errstate(all="ignore"):
        return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def trusts_the_rounding(a, b, t):
    """a·b may be a little more than 1, whose arccos is no number."""
    b = b if a @ b >= 0 else -b
    with np.errstate(all="ignore"):
        angle, t = np.arccos(a @ b), t[:, None]
        if angle < 1e-6:
            return (1 - t) * a + t * b
        return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def ends_swapped(a, b, t):
    return _slerp(b, a, t)


def _slerp(a, b, t):
    b = b if a @ b >= 0 else -b
    angle, t = np.arccos(np.clip(a @ b, -1, 1)), t[:, None]
    if angle < 1e-6:
        return np.repeat(a[None], len(t), 0)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def the_middle_only(a, b, t):
    return _slerp(a, b, np.array([0.5]))


def _solved(values, strength, second):
    return np.linalg.solve(np.eye(len(values)) + strength * second.T @ second, values)


def first_differences(values, strength):
    return _solved(values, strength, np.diff(np.eye(len(values)), axis=0))


def strength_squared(values, strength):
    return _solved(values, strength**2, np.diff(np.eye(len(values)), n=2, axis=0))


def ends_joined(values, strength):
    """The last frame is followed by the first."""
    eye = np.eye(len(values))
    return _solved(values, strength, np.roll(eye, 1, 0) - 2 * eye + np.roll(eye, -1, 0))


def moving_average(values, strength):
    padded = np.pad(values, ((1, 1), (0, 0)), "edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def not_solved(values, strength):
    second = np.diff(np.eye(len(values)), n=2, axis=0)
    return values - strength * second.T @ (second @ values)


def transposed(values, strength):
    second = np.diff(np.eye(len(values)), n=2, axis=0)
    return np.linalg.solve(np.eye(len(values)) + strength * second @ second.T, values)


def penalty_only(values, strength):
    second = np.diff(np.eye(len(values)), n=2, axis=0)
    return np.linalg.pinv(np.eye(len(values)) + second.T @ second) @ values


WRONG = {
    "9.1": [
        whole_pose,
        jaw_forgotten,
        neck_instead_of_jaw,
        jaw_and_eyes,
        one_column_of_the_jaw,
        changes_its_input,
        columns_counted_from_one,
        sum_of_expressions,
    ],
    "9.2": [eyes_not_swapped, only_yaw, turned_back, only_the_root],
    "9.3": [
        straight_line,
        straight_line_made_unit,
        the_long_way,
        divides_by_zero,
        trusts_the_rounding,
        ends_swapped,
        the_middle_only,
    ],
    "9.4": [
        first_differences,
        strength_squared,
        ends_joined,
        moving_average,
        not_solved,
        transposed,
        penalty_only,
    ],
}
