"""ASM, the adaptive skinning model (Yang et al., ICCV 2023): a face made by 84 bones, not learned.

    v′ = Σ_j w_j(u_v; ζ, μ, L, π) · M_j B_j⁻¹ · v

Each bone scales, turns and moves what it carries. How much it carries of a vertex is a mixture of
Gaussians over the texture plane (*GMM skinning weights*), and where it sits is a point of that
plane too (*dynamic bone binding*); both may be fitted along with the bones' motion.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course import asm_bones
from course.asm_weights import (
    factors,
    mixtures,
    monomials,
    polynomials,
    position_map,
    raw_factors,
    skin_coordinates,
)
from course.flame import rodrigues

GAUSSIANS = 3  # K, of each bone
MOTION = ("scale", "rotation", "translation")
BINDING = ("anchor",)
WEIGHTS = ("mean", "spread", "amplitude")
ALL = MOTION + BINDING + WEIGHTS
# the prior: one standard deviation of each kind of number, of bones in the middle (of pairs 0.76 of
# it), and the share of it by which the two sides of a face differ
SPREAD = {"scale": 0.12, "rotation": 0.1, "translation": 0.003, "anchor": 0.012, "mean": 0.012,
          "spread": 0.3, "amplitude": 0.5}  # fmt: skip
ASYMMETRY = 0.4
LOG2_E = math.log2(math.e)
NEGLIGIBLE = -43.0  # logarithm, of base 2, of a Gaussian's share that does not count
MAP_SIZE = 256  # texels a side of the map from the texture plane to the surface


@dataclass
class AsmCode:
    """The parameters of N faces; zero everywhere is the head at rest.

    scale        (N, J, 3)     logarithms of the factors along x, y and z
    rotation     (N, J, 3)     axis-angle, radians
    translation  (N, J, 3)     metres
    anchor       (N, J, 2)     ζ_j: how far the bone slides on the texture plane
    mean         (N, J, K, 2)  μ_jk: how far its Gaussians slide from it
    spread       (N, J, K, 3)  of L_jk: two logarithmic diagonal entries and the one below them
    amplitude    (N, J, K)     logarithms of π_jk
    The last four are changes of what the model begins with.
    """

    scale: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor
    anchor: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor
    amplitude: torch.Tensor

    def __len__(self):
        return len(self.scale)


class ASM(nn.Module):
    """``vertices = asm(code)``: a head moved by its bones.

    Buffers, for J bones, K Gaussians each, n skin vertices: pivot (J, 3) metres · anchor (J, 2) ·
    mean (J, K, 2) · spread (J, K, 3) · amplitude (J, K) · position_map (3, S, S) metres ·
    uv (n + m, 2), the skin's texture coordinates, the m second ones of the seam last ·
    source (V,) where a vertex finds its matrix: among the skin's n, or the bone n + j.

    Of the head's parts only the skin has Gaussian weights. Eyeballs, teeth and tongue lie apart on
    the texture, where nearness means nothing: each moves with one bone.
    """

    def __init__(self, flame, gaussians=GAUSSIANS, bones=None):
        """``bones`` keeps some of the 84, by name (parents and twins come with them).

        Raises ValueError for a head without texture coordinates or landmarks.
        """
        super().__init__()
        if not flame.has_uv or not flame.has_landmarks:
            raise ValueError(f"{flame.name} needs texture coordinates and 68 landmarks for bones.")
        self.flame = [flame]  # in a list: the head's buffers are not this module's own
        there = flame.v_template.device
        if there.type != "cpu":  # bones are placed by NumPy and SciPy
            flame = copy.deepcopy(flame).cpu()
        skeleton = asm_bones.place(flame)
        names, parents, twins = asm_bones.tree()
        keep = _kept(names, parents, twins, bones)
        place = {bone: k for k, bone in enumerate(keep)}
        self.names = [names[k] for k in keep]
        self.parents = np.array([place.get(parents[k], -1) for k in keep])
        self.register_buffer("twins", torch.tensor([place[twins[k]] for k in keep]), False)
        self.depth = asm_bones.depths(self.parents)
        skin = skeleton.skin
        uv, again, area = skin_coordinates(flame, skin)
        self._buffer("v_template", flame.v_template)
        self._buffer("pivot", skeleton.pivot[keep])
        self._buffer("skin", skin, torch.int64)
        self._buffer("uv", uv)
        self._buffer("again", again, torch.int64)
        self._buffer("anchor", uv[np.searchsorted(skin, skeleton.vertex[keep])])
        points = flame.v_template.cpu().numpy()[np.r_[skin, skin[again]]]
        self._buffer("position_map", position_map(uv, points, MAP_SIZE))
        # eyeballs, teeth and tongue: of a bone that is not kept, its nearest ancestor takes them
        carried = np.flatnonzero(skeleton.part >= 0)
        carrier = [place[_nearest(k, parents, place)] for k in skeleton.part[carried]]
        source = np.zeros(len(flame.v_template), np.int64)
        source[skin], source[carried] = np.arange(len(skin)), len(skin) + np.array(carrier)
        self._buffer("source", source, torch.int64)
        falloff = skeleton.falloff[keep][:, np.r_[: len(skin), again]]
        mean, factor, amplitude = mixtures(uv, falloff, area, gaussians, self.twins)
        self._buffer("mean", mean - self.anchor.unsqueeze(1).cpu())
        self._buffer("spread", raw_factors(factor))
        self._buffer("amplitude", amplitude)
        self._buffer("inward", self.pivot - self._surface(self.anchor[None])[0])
        self._buffer("monomials", monomials(self.uv))
        self.to(there)

    def _buffer(self, name, value, dtype=torch.float32):
        self.register_buffer(name, torch.as_tensor(np.ascontiguousarray(value)).to(dtype))

    @property
    def bones(self):
        return len(self.names)

    def zeros(self, n=1):
        """An AsmCode of n heads at rest."""
        sizes = dict.fromkeys(MOTION, (self.bones, 3))
        sizes |= {"anchor": self.anchor.shape, "mean": self.mean.shape,
                  "spread": self.spread.shape, "amplitude": self.amplitude.shape}  # fmt: skip
        return AsmCode(**{k: self.anchor.new_zeros(n, *size) for k, size in sizes.items()})

    # -------------------------------------------------------------- weights

    def gaussians(self, code):
        """Middles (N, J, K, 2), factors L (N, J, K, 2, 2) and log π (N, J, K) of all Gaussians.

        Σ = LLᵀ; softplus keeps the diagonal of L positive.
        """
        middle = (self.anchor + code.anchor).unsqueeze(2) + self.mean + code.mean
        return middle, factors(self.spread + code.spread), self.amplitude + code.amplitude

    def polynomials(self, code):
        """log(π N(u; ζ + μ, Σ)) of all Gaussians as polynomials of u: (N, J·K, 6)."""
        return polynomials(*self.gaussians(code)).flatten(1, 2)

    def weights(self, code):
        """Skinning weights (N, J, V): Σ_j w_j = 1 at every vertex."""
        share = torch.softmax(self.polynomials(code) @ self.monomials, 1)
        share = self._joined(share.unflatten(1, (self.bones, -1)).sum(2))
        whole = torch.eye(self.bones).to(share).expand(len(share), -1, -1)
        return torch.cat([share, whole], 2)[:, :, self.source]

    def _joined(self, rows):
        """(N, C, n) from (N, C, n + m): a vertex on the seam takes the mean of both its places."""
        count = len(self.skin)
        first, second = rows[..., :count], rows[..., count:]
        return first.index_add(2, self.again, 0.5 * (second - first[..., self.again]))

    # -------------------------------------------------------------- bones

    def pivots(self, code):
        """Where the bones are, (N, J, 3) metres: the surface at ζ_j, and the way inward."""
        return self._surface(self.anchor + code.anchor) + self.inward

    def _surface(self, uv):
        """Points (N, J, 3) of the surface at rest at texture coordinates (N, J, 2)."""
        grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], -1).unsqueeze(1)
        maps = self.position_map.expand(len(uv), -1, -1, -1)
        found = F.grid_sample(maps, grid, align_corners=False, padding_mode="border")
        return found[:, :, 0].transpose(1, 2)

    def transforms(self, code):
        """M_j B_j⁻¹ of every bone, (N, J, 3, 4): from the head at rest to where the bone takes it.

        A bone stands upright in its pivot p, so that B is a translation to p, and
        M_j = M_parent B_parent⁻¹ B_j T_j R_j S_j. At zero it is the identity wherever p is.
        """
        pivot = self.pivots(code).unsqueeze(-1)
        linear = rodrigues(code.rotation) * code.scale.exp().unsqueeze(2)  # R · diag(s)
        shift = pivot + code.translation.unsqueeze(-1) - linear @ pivot
        local = torch.cat([linear, shift], -1)
        found = [None] * self.bones
        for depth in range(self.depth.max() + 1):
            level = np.flatnonzero(self.depth == depth)
            step = local[:, level]
            if depth:
                above = torch.stack([found[k] for k in self.parents[level]], 1)
                step = torch.cat([above[..., :3] @ step[..., :3],
                                  above[..., :3] @ step[..., 3:] + above[..., 3:]], -1)  # fmt: skip
            for k, bone in enumerate(level):
                found[bone] = step[:, k]
        return torch.stack(found, 1)

    # -------------------------------------------------------------- both

    def forward(self, code, vertices=None):
        """Vertices (N, V, 3) in metres.

        ``vertices`` (N or 1, V, 3): another head than the template for the bones to move, with an
        expression, say; weights and pivots stay those of the template.
        """
        rest = self.v_template[None] if vertices is None else vertices
        transforms = self.transforms(code).flatten(2).transpose(1, 2)  # (N, 12, J)
        # a row of ones sums up the weights: one product blends the bones and says by what to divide
        rows = torch.cat([transforms, torch.ones_like(transforms[:, :1])], 1)
        rows = rows.repeat_interleave(self.mean.shape[1], 2)
        # face by face: what fits into the processor's cache is several times faster
        blend = torch.stack([self._blend(*pair) for pair in
                             zip(self.polynomials(code), rows, strict=True)])  # fmt: skip
        matrix = torch.cat([self._joined(blend), transforms], 2)[:, :, self.source]
        matrix = matrix.unflatten(1, (3, 4))
        planes = rest.transpose(1, 2).unsqueeze(2)  # (N, 3, 1, V)
        posed = matrix[:, :, 3]
        for k in range(3):
            posed = torch.addcmul(posed, matrix[:, :, k], planes[:, k])
        return posed.transpose(1, 2)

    def _blend(self, polynomial, rows):
        """Weighted means (12, n + m) of the bones' numbers, rows (13, J·K) with ones below them."""
        # 2^x is computed twice as fast as e^x, but slowly below float32's smallest numbers
        share = (polynomial * LOG2_E) @ self.monomials
        share = share.sub_(share.detach().amax(0)).clamp_min(NEGLIGIBLE).exp2_()
        blend = rows @ share
        return blend[:12] / blend[12:]

    def mirrored(self, code):
        """The code of the mirror image."""
        flip = code.scale.new_tensor
        parts = {"scale": [1, 1, 1], "rotation": [1, -1, -1], "translation": [-1, 1, 1],
                 "anchor": [-1, 1], "mean": [-1, 1], "spread": [1, 1, -1]}  # fmt: skip
        found = {k: getattr(code, k)[:, self.twins] * flip(sign) for k, sign in parts.items()}
        found["amplitude"] = code.amplitude[:, self.twins]
        own = torch.arange(self.bones, device=self.twins.device)
        middle = self.twins == own  # their Gaussians are twins themselves
        for name in WEIGHTS:
            value = found[name]
            shape = [-1 if k == 1 else 1 for k in range(value.ndim)]
            found[name] = torch.where(middle.view(shape), value.flip(2), value)
        return AsmCode(**found)

    # -------------------------------------------------------------- codes of unit variance

    def size(self, names=ALL):
        """How many numbers make a face when only these fields of AsmCode are free."""
        return sum(getattr(self.zeros(), name)[0].numel() for name in names)

    def code(self, z, names=ALL):
        """AsmCode of numbers z (N, size) of unit variance, one field of ``names`` after another.

        The prior of the model is ½Σz², as of a linear one: x = σ · (what is symmetric in z + 0.4 ·
        what is not) has small scales, turns and shifts, weights and anchors near where they began,
        and pairs alike. Raises ValueError for another size.
        """
        code = self.zeros(len(z))
        if z.ndim != 2 or z.shape[1] != self.size(names):
            raise ValueError(f"z has shape {tuple(z.shape)}; (N, {self.size(names)}) is needed.")
        parts = z.split([getattr(code, name)[0].numel() for name in names], 1)
        for name, part in zip(names, parts, strict=True):
            setattr(code, name, part.view_as(getattr(code, name)))
        other = self.mirrored(code)
        for name in names:
            own, twin = getattr(code, name), getattr(other, name)
            even, odd = (own + twin) / 2, (own - twin) / 2
            setattr(code, name, SPREAD[name] * (even + ASYMMETRY * odd))
        return code


def _kept(names, parents, twins, wanted):
    """Numbers of the bones to keep, with twins and ancestors, in the tree's order."""
    if wanted is None:
        return list(range(len(names)))
    unknown = sorted(set(wanted) - set(names))
    if unknown or not wanted:
        raise ValueError(f"There is no bone {unknown[0]!r}." if unknown else "Keep a bone or more.")
    kept = set()
    for name in wanted:
        bone = names.index(name)
        while bone >= 0:
            kept |= {bone, int(twins[bone])}
            bone = parents[bone]
    return sorted(kept)


def _nearest(bone, parents, kept):
    """The bone itself or its nearest ancestor that is kept."""
    while bone not in kept:
        bone = parents[bone]
    return bone
