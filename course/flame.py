"""FLAME: a head from a few numbers (Li, Bolkart, Black, Li and Romero, SIGGRAPH Asia 2017).

A mean head, plus identity and expression blendshapes, plus pose correctives, posed by linear blend
skinning over five joints (root, neck, jaw, two eyes). The same class runs our built-in head and
real FLAME files, whose keys it shares.
"""

import functools
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import nn
from torch.autograd.function import once_differentiable

from course import flame_files
from course.facecode import NECK, ROOT, resolve_device

YAW_LIMIT = 39  # the contour table covers -39…39 degrees, one row a degree
JOINTS = ("root", "neck", "jaw", "left eye", "right eye")


# x, y and z of a vector to the nine entries of its cross-product matrix
GENERATORS = torch.tensor(
    [[0, 0, 0, 0, 0, -1, 0, 1, 0], [0, 0, 1, 0, 0, 0, -1, 0, 0], [0, -1, 0, 1, 0, 0, 0, 0, 0]]
).float()


def rotation_offsets(axis_angle):
    """R − I (…, 3, 3) of axis-angle vectors (…, 3) in radians, by Rodrigues' formula.

    R = I + sin θ/θ·K + (1 − cos θ)/θ²·K², with K the cross-product matrix of the vector.
    Below 1e-4 rad the Taylor series takes over, so the gradient at zero is exact.
    """
    cross = (axis_angle @ GENERATORS.to(axis_angle)).unflatten(-1, (3, 3))
    square = (axis_angle * axis_angle).sum(-1)[..., None, None]
    small = square < 1e-8
    safe = square.masked_fill(small, 1.0)
    angle = safe.sqrt()
    a = torch.where(small, 1 - square / 6, angle.sin() / angle)
    b = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / safe)
    return a * cross + b * (cross @ cross)


def rodrigues(axis_angle):
    """Rotation matrices (…, 3, 3) of axis-angle vectors (…, 3) in radians."""
    offsets = rotation_offsets(axis_angle)
    return offsets + torch.eye(3, dtype=offsets.dtype, device=offsets.device)


def euler_yaw(rotation):
    """Yaw in degrees (positive: the face turns to the picture's right) of matrices (…, 3, 3)."""
    forward = rotation[..., :, 2]  # where the face's z axis (out of the nose) points
    return torch.rad2deg(torch.atan2(forward[..., 0], forward[..., 2]))


def folded(pose):
    """Poses (N, 15) with the neck's turn put into the root's: a photograph of a face cannot tell
    them apart."""
    turn = (rodrigues(pose[:, ROOT]) @ rodrigues(pose[:, NECK])).cpu().double().numpy()
    pose = pose.clone()
    pose[:, ROOT] = torch.from_numpy(Rotation.from_matrix(turn).as_rotvec()).to(pose)
    pose[:, NECK] = 0
    return pose


def head_yaw(pose):
    """Yaw in degrees (N,) that root and neck of pose codes (N, 15) give a head together."""
    return euler_yaw(rodrigues(pose[:, ROOT]) @ rodrigues(pose[:, NECK]))


class BlendSkinning(torch.autograd.Function):
    """Linear blend skinning, v' = Σ_j w_vj (R_j v + t_j), in planes: x of all vertices, then y, z.

    planes (N, 3, V), transforms (N, 12, 5) with 3×4 matrices [R t] as columns, weights (5, V);
    returns (N, 3, V). Written out because autograd would keep and add up nine copies of the mesh.
    """

    @staticmethod
    def forward(ctx, planes, transforms, weights):
        matrices = (transforms @ weights).unflatten(1, (3, 4))  # one 3×4 matrix a vertex
        ctx.save_for_backward(planes, matrices, weights)
        posed = torch.addcmul(matrices[:, :, 3], matrices[:, :, 0], planes[:, 0:1])
        for k in (1, 2):
            posed.addcmul_(matrices[:, :, k], planes[:, k : k + 1])
        return posed

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        planes, matrices, weights = ctx.saved_tensors
        grad = grad.contiguous()  # mostly arrives as (N, V, 3), transposed
        to_planes = to_transforms = None
        if ctx.needs_input_grad[0]:  # Rᵀ grad
            to_planes = matrices[:, 0, :3] * grad[:, 0:1]
            for k in (1, 2):
                to_planes.addcmul_(matrices[:, k, :3], grad[:, k : k + 1])
        if ctx.needs_input_grad[1]:  # the outer product grad ⊗ [v, 1], summed with the weights
            outer = torch.empty_like(matrices)
            torch.mul(grad.unsqueeze(2), planes.unsqueeze(1), out=outer[:, :, :3])
            outer[:, :, 3] = grad
            to_transforms = F.linear(
                outer.flatten(1, 2), weights
            )  # 3× faster than outer @ weightsᵀ
        return to_planes, to_transforms, None


class FLAME(nn.Module):
    """A parametric head: ``vertices = flame(shape, expression, pose)``.

    Buffers, for V vertices, S identity and E expression components, T texture coordinates:
    v_template (V, 3) metres · faces (F, 3) · shapedirs (V, 3, S) · expressiondirs (V, 3, E) ·
    posedirs (V, 3, 36) · J_regressor (5, V) · lbs_weights (V, 5) · vt (T, 2) · ft (F, 3) ·
    albedo_mean (3, R, R) · albedo_dirs (K, 3, R', R') in log albedo · ao (V,).
    ``masks`` maps names to (V,) booleans, ``uv_masks`` to (R', R') floats.
    """

    def __init__(self, model, name="head", n_shape=None, n_expression=None):
        """``model`` is a dict of arrays with FLAME's keys (see ``flame_files.read``).

        ``n_shape`` and ``n_expression`` keep only the first components. Raises ValueError when the
        model has fewer.
        """
        super().__init__()
        self.name = name
        basis = np.asarray(model["shapedirs"], np.float32)
        split = int(model.get("n_shape", min(flame_files.FLAME_SHAPE_COMPONENTS, basis.shape[2])))
        self.n_shape = _count(n_shape, split, "shape", name)
        self.n_expression = _count(n_expression, basis.shape[2] - split, "expression", name)
        vertices = len(model["v_template"])

        self._buffer("v_template", model["v_template"])
        self._buffer("faces", model["f"], torch.int64)
        self._buffer("shapedirs", basis[:, :, : self.n_shape])
        self._buffer("expressiondirs", basis[:, :, split : split + self.n_expression])
        self._buffer("posedirs", model["posedirs"])
        self._buffer("J_regressor", model["J_regressor"])
        self._buffer("lbs_weights", model["weights"])
        self.parents = flame_files.PARENTS
        self._prepare_planes()

        self._buffer("vt", model.get("vt", np.zeros((1, 2))))
        self._buffer("ft", model.get("ft", np.zeros_like(model["f"])), torch.int64)
        self.has_uv = "vt" in model
        self._landmark_buffers(model)
        self._buffer("ao", model.get("ao", np.ones(vertices)))
        self._albedo_buffers(model)
        self.expression_names = [str(n) for n in model.get("expression_names", [])]
        self.expression_names = self.expression_names[: self.n_expression]
        one_way = np.zeros(self.n_expression)
        known = np.asarray(model.get("expression_one_way", one_way))[: self.n_expression]
        one_way[: len(known)] = known
        self._buffer("expression_one_way", one_way, torch.bool)
        self._mask_names = [k[5:] for k in model if k.startswith("mask_")]
        for key in self._mask_names:
            self._buffer(f"mask_{key}", model[f"mask_{key}"], torch.bool)
        self._uv_mask_names = [k[8:] for k in model if k.startswith("uv_mask_")]
        for key in self._uv_mask_names:
            self._buffer(f"uv_mask_{key}", np.asarray(model[f"uv_mask_{key}"]) / 255.0)

    @classmethod
    def load(cls, path=None, device=None, n_shape=None, n_expression=None):
        """The best head there is: ``path``, ``$COURSE_FLAME``, ``data/flame/``, the built-in one.

        What another head lacks of landmarks, UV, masks, albedo and joints is carried over from the
        built-in one, at its first use (``head_completion``). Raises FileNotFoundError or ValueError
        with one sentence that says what to do.
        """
        path = flame_files.find(path)
        model, name = flame_files.read(path), "built-in"
        if path != flame_files.BUILT_IN:
            name = str(model.get("name", path.stem))
            model = _completed(path, model)
        return cls(model, name, n_shape, n_expression).to(resolve_device(device))

    def _buffer(self, name, value, dtype=torch.float32):
        tensor = torch.as_tensor(np.ascontiguousarray(value)).to(dtype)
        self.register_buffer(name, tensor, persistent=name[0] != "_")  # _… follow from the others

    def _prepare_planes(self):
        """One matrix for all blendshapes, in (3, V) planes, and joints straight from the codes."""
        vertices = len(self.v_template)
        correctives = self.posedirs.permute(2, 1, 0).reshape(-1, 3 * vertices)
        blend = torch.cat([self.shapedirs, self.expressiondirs], 2)
        self._buffer("_planes", torch.cat([blend.permute(2, 1, 0).reshape(-1, 3 * vertices),
                                           correctives]))  # fmt: skip
        self._buffer("_template_planes", self.v_template.T.reshape(1, -1))
        self._buffer("_joint_dirs", torch.einsum("jv,vck->kjc", self.J_regressor, blend).flatten(1))
        self._buffer("_joint_template", (self.J_regressor @ self.v_template).reshape(1, -1))
        self._buffer("_weights_t", self.lbs_weights.T)

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        self._prepare_planes()

    def _landmark_buffers(self, model):
        self.has_landmarks = "static_lmk_faces_idx" in model
        if self.has_landmarks:
            for part in ("static", "dynamic"):
                faces = np.asarray(model[f"{part}_lmk_faces_idx"])
                bary = np.asarray(model[f"{part}_lmk_bary_coords"])
                self._buffer(f"{part}_lmk_faces_idx", faces, torch.int64)
                self._buffer(f"{part}_lmk_bary_coords", bary)

    def _albedo_buffers(self, model):
        names = [str(n) for n in model.get("albedo_names", [])]
        self.albedo_names, self.n_albedo = names, len(names)
        mean = np.asarray(model.get("albedo_mean", np.full((8, 8, 3), 186, np.uint8)))
        dirs = np.asarray(model.get("albedo_dirs", np.zeros((0, 8, 8, 3))), np.float32)
        self._buffer("albedo_mean", mean.astype(np.float32).transpose(2, 0, 1) / 255)
        self._buffer("albedo_dirs", dirs.transpose(0, 3, 1, 2))

    @property
    def masks(self):
        return {name: getattr(self, f"mask_{name}") for name in self._mask_names}

    @property
    def uv_masks(self):
        return {name: getattr(self, f"uv_mask_{name}") for name in self._uv_mask_names}

    def expression_columns(self, action):
        """Which components are an action: "smile" is "smile left" and "smile right"."""
        return [k for k, name in enumerate(self.expression_names)
                if name == action or name.startswith(f"{action} ")]  # fmt: skip

    @property
    def default_camera(self):
        """Weak-perspective (scale, tx, ty) that centres the face: it fills 78 % of the height."""
        face = self.mask_face if "face" in self._mask_names else self.v_template[:, 2] > 0
        low, high = self.v_template[face].amin(0), self.v_template[face].amax(0)
        centre = (low + high) / 2
        return [1.56 / float(high[1] - low[1]), -float(centre[0]), -float(centre[1])]

    def forward(self, shape=None, expression=None, pose=None, offsets=None):
        """Vertices (N, V, 3) in metres from shape (N, ≤S), expression (N, ≤E), pose (N, 15).

        Missing codes are zero; shorter ones are padded with zeros. ``offsets`` (N, V, 3) metres are
        added to the head at rest, before it is posed: what no blendshape says. Raises ValueError
        for wrong sizes.
        """
        blend, pose = self._codes(shape, expression, pose)
        turns = rotation_offsets(pose.unflatten(1, (5, 3)))  # R − I of every joint
        coefficients = torch.cat([blend, turns[:, 1:].flatten(1)], 1)
        planes = torch.addmm(self._template_planes, coefficients, self._planes)
        joints = self._joints(blend, offsets)
        if offsets is not None:
            planes = planes + offsets.transpose(1, 2).flatten(1)
            turns = turns.expand(len(joints), -1, -1, -1)
        rotations = turns + torch.eye(3, dtype=pose.dtype, device=pose.device)
        transforms = self._chain(rotations, joints)
        posed = BlendSkinning.apply(
            planes.unflatten(1, (3, -1)), transforms.flatten(2).transpose(1, 2), self._weights_t
        )
        return posed.transpose(1, 2)

    def joints(self, shape=None, expression=None, offsets=None):
        """Joints (N, 5, 3) of the unposed head, metres."""
        return self._joints(self._codes(shape, expression, None)[0], offsets)

    def transforms(self, shape=None, expression=None, pose=None, offsets=None):
        """Each joint's transform [R t] (N, 5, 3, 4) from the unposed to the posed head.

        Takes what ``forward`` takes.
        """
        blend, pose = self._codes(shape, expression, pose)
        joints = self._joints(blend, offsets)
        rotations = rodrigues(pose.unflatten(1, (5, 3))).expand(len(joints), -1, -1, -1)
        return self._chain(rotations, joints)

    def _joints(self, blend, offsets=None):
        joints = torch.addmm(self._joint_template, blend, self._joint_dirs).unflatten(1, (5, 3))
        return joints if offsets is None else joints + self.J_regressor @ offsets

    def _codes(self, shape, expression, pose):
        given = [c for c in (shape, expression, pose) if c is not None]
        batch = max((len(c) for c in given), default=1)
        parts = []
        for name, code, size in (("shape", shape, self.n_shape),
                                 ("expression", expression, self.n_expression),
                                 ("pose", pose, 15)):  # fmt: skip
            if code is None:
                code = self.v_template.new_zeros(batch, size)
            if code.ndim != 2 or code.shape[1] > size or (name == "pose" and code.shape[1] < 15):
                raise ValueError(f"{name} has shape {tuple(code.shape)}, but this head "
                                 f"({self.name}) takes (N, {size}).")  # fmt: skip
            if code.shape[0] not in (1, batch):
                raise ValueError(f"{name} has {len(code)} rows where others have {batch}.")
            if code.shape[1] < size:
                code = F.pad(code, (0, size - code.shape[1]))
            parts.append(code.expand(batch, -1))
        return torch.cat(parts[:2], 1), parts[2]

    def _chain(self, rotations, joints):
        """Each joint's transform [R t] from the unposed to the posed head, (N, 5, 3, 4).

        FLAME's tree: the neck hangs on the root; jaw and eyes hang on the neck.
        """
        bones = torch.cat([joints[:, :1], joints[:, 1:] - joints[:, self.parents[1:]]], 1)
        rigid = torch.cat([rotations, bones.unsqueeze(-1)], -1)
        local = F.pad(rigid, (0, 0, 0, 1))
        local[..., 3, 3] = 1  # homogeneous 4×4 matrices, relative to the parent
        root = local[:, :1]
        neck = root @ local[:, 1:2]
        turned, places = torch.cat([root, neck, neck @ local[:, 2:]], 1)[..., :3, :].split(
            [3, 1], -1
        )
        return torch.cat([turned, places - turned @ joints.unsqueeze(-1)], -1)

    def landmarks(self, vertices, pose=None):
        """The 68 landmarks (N, 68, 3) in iBUG's order: 17 contour, then 51 inner points.

        The contour slides with the head's yaw (root and neck of ``pose`` (N, 15)), looked up by
        the nearest degree and clamped to ±39, as in RingNet and DECA. Differentiable in
        ``vertices``. Raises ValueError when this head has no landmark embedding.
        """
        if not self.has_landmarks:
            raise ValueError(
                f"{self.name} comes without a 68-landmark embedding; put "
                "landmark_embedding.npy beside the model file."
            )
        inner = self._on_triangles(vertices, self.static_lmk_faces_idx, self.static_lmk_bary_coords)
        row = self._contour_rows(len(vertices), pose, vertices.device)
        faces, bary = self.dynamic_lmk_faces_idx[row], self.dynamic_lmk_bary_coords[row]
        batch = torch.arange(len(vertices), device=vertices.device)[:, None, None]
        corners = vertices[batch, self.faces[faces]]  # (N, 17, 3, 3)
        contour = (corners * bary.unsqueeze(-1)).sum(2)
        return torch.cat([contour, inner], 1)

    def _contour_rows(self, batch, pose, device):
        if pose is None:
            return torch.full((batch,), YAW_LIMIT, device=device)
        with torch.no_grad():
            degrees = head_yaw(pose).round().clamp(-YAW_LIMIT, YAW_LIMIT)
            return (degrees.long() + YAW_LIMIT).expand(batch)

    def _on_triangles(self, vertices, faces, bary):
        return (vertices[:, self.faces[faces]] * bary.unsqueeze(-1)).sum(2)

    def albedo(self, codes=None):
        """Albedo textures (N, 3, R, R), sRGB 0…1, from codes (N, ≤K).

        albedo = mean · exp(Σ a_k dirs_k): the basis lives in log albedo, because pigments
        multiply (Beer and Lambert), so that dark skin does not turn orange.
        """
        mean = self.albedo_mean[None]
        if codes is None or self.n_albedo == 0:
            return mean.expand(1 if codes is None else len(codes), -1, -1, -1)
        if codes.ndim != 2 or codes.shape[1] > self.n_albedo:
            raise ValueError(f"albedo codes have shape {tuple(codes.shape)}, but this head takes "
                             f"(N, {self.n_albedo}).")  # fmt: skip
        dirs = self.albedo_dirs[: codes.shape[1]]
        density = (codes @ dirs.flatten(1)).unflatten(1, dirs.shape[1:])
        if density.shape[-1] != mean.shape[-1]:
            density = F.interpolate(density, mean.shape[-2:], mode="bilinear", align_corners=False)
        return (mean * density.exp()).clamp(0, 1)


def _completed(path, model):
    """A head of other people's making with all that the course needs; says whose it is, once."""
    from course import head_completion  # here, since the built-in head needs none of it

    if "licence" in model:
        _say(f"Head: {model['licence']} ({path})")
    beside = flame_files.companions(path, model)
    ours = flame_files.read(flame_files.BUILT_IN)
    model, trouble = head_completion.complete(path, model, ours, beside)
    if trouble and "weights" not in model:
        raise ValueError(trouble)
    flame_files.check(path, model)
    return model


@functools.cache
def _say(sentence):
    print(sentence, file=sys.stderr)


def _count(wanted, available, kind, name):
    if wanted is None:
        return available
    if not 1 <= wanted <= available:
        raise ValueError(f"{name} has {available} {kind} components; {wanted} were asked for.")
    return int(wanted)


def yaw_pose(degrees, n=1, device=None):
    """Pose codes (n, 15) of heads turned by ``degrees`` to the picture's right."""
    pose = torch.zeros(n, 15, device=device)
    pose[:, 1] = math.radians(degrees)
    return pose
