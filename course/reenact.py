"""Codes as a language: borrow an expression, turn a head, and go from one face to the next.

Every function takes a ``FaceCode`` and returns a new one; nothing here draws or fits. Fields that
a function does not name stay as they are: identity, light, colour and detail belong to the person.
"""

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

from course.facecode import JAW, ROOT, FaceCode

TURN_STEP, TURN_END = 5, 30  # degrees of the teaser's turning head
JAW_STEP, JAW_END = 2, 30  # degrees of its opening jaw
EASES = {
    "linear": lambda t: t,
    "smooth": lambda t: t * t * (3 - 2 * t),  # zero speed at both ends
    "smoother": lambda t: t**3 * (t * (6 * t - 15) + 10),  # zero acceleration too
    "out": lambda t: 1 - (1 - t) ** 3,  # fast, then settling
}


def ease(t, kind="smooth"):
    """Where to be (0…1) at time t (0…1, number, array or tensor); times outside are clamped.

    Raises ValueError for a kind that is not in EASES.
    """
    if kind not in EASES:
        raise ValueError(f"There is no ease '{kind}'; choose {', '.join(EASES)}.")
    t = t.clamp(0, 1) if isinstance(t, torch.Tensor) else np.clip(t, 0, 1)
    return EASES[kind](t)


def rows(code, n):
    """A FaceCode of one face as n equal rows; one of n rows as it is. Raises ValueError else."""
    if len(code) not in (1, n):
        raise ValueError(f"{len(code)} faces cannot be paired with {n}.")
    return code if len(code) == n else FaceCode.cat([code] * n)


def transfer(face, expression, head=False, gaze=False):
    """``face`` with the expression and jaw of ``expression``; one of them may have one row.

    ``head`` borrows the turn of the head and its neck too, ``gaze`` that of the eyes (Feng et al.
    2021, DECA, transfer expression and jaw). Raises ValueError for codes of different heads.
    """
    n = max(len(face), len(expression))
    face, expression = rows(face, n), rows(expression, n)
    if face.expression.shape != expression.expression.shape:
        raise ValueError("The two faces belong to heads with different expressions.")
    pose = face.pose.clone()
    pose[:, JAW] = expression.pose[:, JAW]
    if head:
        pose[:, :6] = expression.pose[:, :6]
    if gaze:
        pose[:, 9:] = expression.pose[:, 9:]
    return face.replace(expression=expression.expression.clone(), pose=pose)


def exaggerate(code, factor, flame=None):
    """Expression and jaw times ``factor`` (N,) or a number: 0 is rest, 1 as it was, 2 a caricature.

    With ``flame``, actions that only open (``expression_one_way``) are not turned inside out by a
    negative factor.
    """
    factor = torch.as_tensor(factor, dtype=code.pose.dtype, device=code.pose.device).reshape(-1, 1)
    code = rows(code, max(len(code), len(factor)))
    expression, pose = code.expression * factor, code.pose.clone()
    if flame is not None:
        expression = torch.where(flame.expression_one_way, expression.clamp_min(0), expression)
    pose[:, JAW] = pose[:, JAW] * factor.clamp_min(0)
    return code.replace(expression=expression, pose=pose)


def repose(code, yaw=None, pitch=None, roll=None, jaw=None):
    """The same face turned: degrees, numbers or (N,), applied as Rz(roll) Rx(pitch) Ry(yaw).

    Positive yaw turns to the picture's right, positive pitch down; ``jaw`` opens it. The head's
    turn is replaced if any of its three angles is given, the jaw's only by ``jaw``.
    """
    given = [angle for angle in (yaw, pitch, roll, jaw) if angle is not None]
    n = max([len(code), *(np.size(angle) for angle in given)])
    code = rows(code, n)
    pose = code.pose.clone()
    full = lambda angle: np.broadcast_to(0.0 if angle is None else np.asarray(angle, float), n)  # noqa: E731
    if any(angle is not None for angle in (yaw, pitch, roll)):
        angles = np.stack([full(roll), full(pitch), full(yaw)], 1)
        turn = Rotation.from_euler("ZXY", angles, degrees=True).as_rotvec()
        pose[:, ROOT] = torch.from_numpy(turn).to(pose)
        pose[:, 3:6] = 0
    if jaw is not None:
        pose[:, JAW] = 0
        pose[:, 6] = torch.from_numpy(np.radians(full(jaw))).to(pose)
    return code.replace(pose=pose)


def between(a, b, t, kind="linear"):
    """In-betweens (K) of two faces (1 row each) at times t (K,) of 0…1.

    Each joint turns about one axis at constant speed (slerp, Shoemake 1985), the camera's scale
    grows by equal factors, everything else moves on a straight line.
    """
    t = np.atleast_1d(np.asarray(ease(np.asarray(t, float), kind), float))
    share = torch.from_numpy(t).to(a.pose)
    fields = {}
    for name, start in vars(a).items():
        weight = share.view(-1, *[1] * (start.ndim - 1))
        fields[name] = start + weight * (getattr(b, name) - start)
    joints = [_slerp(a.pose[0, k : k + 3], b.pose[0, k : k + 3], t) for k in range(0, 15, 3)]
    fields["pose"] = torch.cat(joints, 1)
    scale, other = a.camera[:, :1], b.camera[:, :1]
    fields["camera"] = torch.cat([scale * (other / scale) ** share[:, None],
                                  fields["camera"][:, 1:]], 1)  # fmt: skip
    return FaceCode(**fields)


def _slerp(a, b, t):
    """Axis-angle (K, 3) of the turns from a (3,) to b (3,) at t (K,)."""
    turns = Rotation.from_rotvec(torch.stack([a, b]).detach().cpu().double().numpy())
    return torch.from_numpy(Slerp([0, 1], turns)(t).as_rotvec()).to(a)


def timeline(keys, times, kind="smooth"):
    """Frames (K) of an animation through ``keys``, pairs (time, FaceCode of one row), at ``times``.

    Between two keys the ease ``kind`` leads from one to the other; before the first and after the
    last the face stands still. Raises ValueError for fewer than two keys or times that do not grow.
    """
    at = np.array([time for time, _ in keys], float)
    if len(at) < 2 or (np.diff(at) <= 0).any():
        raise ValueError("A timeline needs two keys or more, at times that grow.")
    times = np.clip(np.asarray(times, float), at[0], at[-1])
    frames = []
    for time in times:
        k = min(int(np.searchsorted(at, time, "right")) - 1, len(at) - 2)
        share = (time - at[k]) / (at[k + 1] - at[k])
        frames.append(between(keys[k][1], keys[k + 1][1], share, kind))
    return FaceCode.cat(frames)


def retarget(curve, face, rest=None, gain=1.0):
    """Play expression, jaw and turns of ``curve`` (K frames) on ``face`` (1 row).

    Without ``rest`` the curve's codes themselves are played, times ``gain``. With ``rest``, a frame
    of the curve's person at rest, what is played is the change from there, times ``gain``, on top
    of how ``face`` looks: codes that are part of a person, not of an expression, stay with that
    person.
    """
    played = transfer(face, curve, head=True, gaze=True)
    if rest is None:
        return played.replace(expression=gain * played.expression, pose=gain * played.pose)
    expression = face.expression + gain * (curve.expression - rest.expression)
    joints = []
    for k in range(0, 15, 3):
        start, first, now = (
            Rotation.from_rotvec(c.pose[:, k : k + 3].detach().cpu().double().numpy())
            for c in (face, rest, curve)
        )
        change = Rotation.from_rotvec(gain * (now * first.inv()).as_rotvec())
        joints.append(torch.from_numpy((change * start).as_rotvec()).to(face.pose))
    return played.replace(expression=expression, pose=torch.cat(joints, 1))


def teaser(face, expressions=(), hold=4, travel=12):
    """Frames of DECA's teaser for one face: turn, open the jaw, borrow expressions.

    Yaw goes 0, 30, −30, 0 degrees in steps of 5, the jaw from 0 to 30 in steps of 2 and back; then
    each of ``expressions`` (FaceCodes of one row) is reached in ``travel`` eased frames and held
    for ``hold``; at last the face comes back to rest. A cycle: the last frame leads to the first.
    """
    front = repose(exaggerate(face, 0.0), yaw=0, jaw=0)
    up, down = (np.arange(0, end + step, step) for end, step in
                ((TURN_END, TURN_STEP), (JAW_END, JAW_STEP)))  # fmt: skip
    turns = np.concatenate([up, np.arange(TURN_END - TURN_STEP, -TURN_END - 1, -TURN_STEP),
                            np.arange(-TURN_END + TURN_STEP, 1, TURN_STEP)])  # fmt: skip
    jaw = np.concatenate([down[1:], down[-2::-1]])
    parts, last = [repose(front, yaw=turns), repose(front, jaw=jaw)], front
    steps = np.arange(1, travel + 1) / travel
    for expression in [*(transfer(front, e) for e in expressions), front]:
        if expression is front and last is front:
            break
        parts.append(between(last, expression, steps, "smooth"))
        parts += [expression] * (hold if expression is not front else 0)
        last = expression
    return FaceCode.cat(parts)


def smooth(values, strength):
    """Values (K, …) made smooth in time (Whittaker 1923): min ‖z − y‖² + strength·‖D z‖².

    D takes second differences, z_{t−1} − 2 z_t + z_{t+1}, so straight lines pass unchanged. One
    linear solve; a wave of 2π √√strength frames is halved, shorter ones go.
    """
    eye = torch.eye(len(values), dtype=torch.float64)
    second = torch.diff(eye, n=2, dim=0)
    flat = values.detach().cpu().double().reshape(len(values), -1)
    even = torch.linalg.solve(eye + strength * second.T @ second, flat)
    return even.view(values.shape).to(values)
