"""Loss functions: what a face in a picture can be asked to agree with.

Every function returns one number, the mean over the N faces of a batch, each face counting the
same. ``NEEDS`` says what a loss must be told: that is what "weak supervision" means.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from course.backbones import PointVotes
from course.files import DATA, atomic_path

IDENTITY = DATA / "identity.pt"
# landmarks of upper and lower lids, of upper and lower inner lips
LIDS = (37, 38, 43, 44), (41, 40, 47, 46)
LIPS = (61, 62, 63), (67, 66, 65)

# what each loss has to know besides the picture and the model's own guess
NEEDS = {
    "shape_mse": "the true vertices",
    "surface_mse": "the true codes",
    "feature_consistency": "the pixels, and a frozen network",
    "mean_absolute": "nothing",
    "gaussian_prior": "nothing",
    "landmark_loss": "68 landmarks, from a detector",
    "eye_closure": "68 landmarks, from a detector",
    "lip_distance": "68 landmarks, from a detector",
    "photometric_l1": "the pixels, and a mask of what is skin",
    "photometric_l21": "the pixels, and a mask of what is skin",
    "silhouette": "a mask of the head",
    "identity": "the pixels, and a network that tells people apart",
    "shape_consistency": "which pictures show the same person",
    "symmetry": "nothing",
    "SkinColour": "nothing but the head's own colours",
    "white_light": "nothing",
    "texture_flatness": "nothing",
}


# ------------------------------------------------------------------ with the 3D truth


def shape_mse(vertices, truth, weights=None):
    """Mean squared distance in mm²: 1/(N V) Σ w_v ‖v − v*‖², of vertices (N, V, 3) in metres.

    ``weights`` (V,) have mean one. Full supervision (Richardson et al. 2016 started with codes;
    vertices weigh every code by what it moves).
    """
    square = 1e6 * (vertices - truth).square().sum(-1)
    return (square if weights is None else square * weights).mean()


class SurfaceMetric(nn.Module):
    """Mean squared error in mm² of identity or expression codes, as a scan would measure it.

    e² = Δcᵀ G Δc with G = 1/V Σ_v B_vᵀ P B_v over the face: B is the basis, from which the best
    small rotation and shift have been taken out when ``aligned`` (a scan is aligned before it is
    measured), and P keeps what is along the surface's normal, where a scan sees a difference,
    plus ``slide`` of what is across. Linear in the codes, so no head need be drawn.
    """

    def __init__(self, flame, basis="shapedirs", aligned=True, slide=0.1):
        super().__init__()
        face = flame.masks["face"]
        moves = getattr(flame, basis)[face].double()  # (V, 3, K)
        rest = flame.v_template[face].double()
        if aligned:
            centred = rest - rest.mean(0)
            columns = []
            for axis in torch.eye(3).to(centred):
                columns += [axis.expand_as(centred), torch.linalg.cross(axis.expand_as(centred),
                                                                        centred)]  # fmt: skip
            rigid, _ = torch.linalg.qr(torch.stack([c.reshape(-1) for c in columns], -1))
            flat = moves.flatten(0, 1)
            moves = (flat - rigid @ (rigid.T @ flat)).view_as(moves)
        from course.render import vertex_normals

        normal = vertex_normals(flame.v_template[None], flame.faces)[0, face].double()
        along = torch.einsum("vc,vck->vk", normal, moves)
        total = moves.flatten(0, 1)
        gram = (1 - slide) * along.T @ along + slide * total.T @ total
        self.register_buffer("gram", (1e6 * gram / len(moves)).to(flame.v_template))

    def forward(self, codes, truth):
        """Mean over N of codes (N, K) against the true ones."""
        return surface_mse(codes, truth, self.gram)


def surface_mse(codes, truth, gram):
    """1/N Σ Δcᵀ G Δc of codes (N, K) and a Gram matrix (K, K), see ``SurfaceMetric``."""
    offset = codes - truth
    return ((offset @ gram) * offset).sum(-1).mean()


# ------------------------------------------------------------------ with landmarks


def landmark_weights(like=None):
    """(68,) as DECA weighs them: jaw corners 2; nose 1.5, its tip and base 3; mouth 1.5, corners
    3; all others 1."""
    weights = torch.ones(68)
    weights[[5, 6, 10, 11]] = 2.0
    weights[27:36] = 1.5
    weights[[30, 31, 35]] = 3.0
    weights[48:] = 1.5
    weights[[48, 54]] = 3.0
    return weights if like is None else weights.to(like)


def landmark_loss(points, truth, size, weights=None):
    """Σ_i w_i ‖p_i − p*_i‖₁ / (2 Σ_i w_i) of points (N, 68, 2) in pixels.

    Distances are in halves of a picture ``size`` pixels a side, as in DECA, whose weights
    (``landmark_weights``) are the default.
    """
    weights = landmark_weights(points) if weights is None else weights
    share = weights / weights.sum()
    return (share * (points - truth).abs().mean(-1)).sum(-1).mean() * 2 / size


def _gaps(points, upper, lower):
    return ((points[:, upper] - points[:, lower]).square().sum(-1) + 1e-8).sqrt()


def eye_closure(points, truth, size):
    """1/4 Σ | ‖up − low‖ − ‖up* − low*‖ | over two pairs of lid points an eye; as landmark_loss.

    Differences do not care where the eye is, so closed eyes are closed wherever they are.
    """
    return (_gaps(points, *LIDS) - _gaps(truth, *LIDS)).abs().mean() * 2 / size


def lip_distance(points, truth, size):
    """1/3 Σ | ‖up − low‖ − ‖up* − low*‖ | over three pairs of inner lip points."""
    return (_gaps(points, *LIPS) - _gaps(truth, *LIPS)).abs().mean() * 2 / size


# ------------------------------------------------------------------ with pixels


def _masked_mean(values, mask):
    """Mean over the batch of each picture's mean inside its mask; values, mask (N, 1, H, W).

    Divides by what the mask covers, not by the picture: a small face is no better for being small.
    A picture without any such pixel counts zero.
    """
    inside = mask.sum((1, 2, 3))
    return ((values * mask).sum((1, 2, 3)) / inside.clamp_min(1e-6) * (inside > 0)).mean()


def photometric_l1(image, photo, mask):
    """1/|M| Σ_M 1/3 ‖I − I*‖₁ of pictures (N, 3, H, W), mask M (N, 1, H, W) in 0…1."""
    return _masked_mean((image - photo).abs().mean(1, keepdim=True), mask)


def photometric_l21(image, photo, mask, epsilon=1e-3):
    """1/|M| Σ_M √(‖I − I*‖₂² + ε²) − ε: colours as vectors, far-off pixels not squared.

    The L2,1 of Thies et al. 2016: what hides the face does not rule the fit.
    """
    square = (image - photo).square().sum(1, keepdim=True)
    return _masked_mean((square + epsilon**2).sqrt() - epsilon, mask)


def silhouette(alpha, mask):
    """1 − Σ a·m / Σ (a + m − a·m): one minus the intersection over the union of alpha and mask.

    Both (N, 1, H, W) in 0…1; alpha from ``silhouette.soft_silhouette``, so that edges have a
    gradient.
    """
    both = (alpha * mask).sum((1, 2, 3))
    either = (alpha + mask - alpha * mask).sum((1, 2, 3)).clamp_min(1e-6)
    return (1 - both / either).mean()


# ------------------------------------------------------------------ with features


def feature_consistency(features, again):
    """1 − cos(f(I), f(R(code))): what the encoder sees in a photograph and in the drawing of it.

    Features (N, C) of the same network; the drawing has known codes, so this asks nobody.
    """
    return (1 - F.cosine_similarity(features, again, dim=1)).mean()


class IdentityNet(nn.Module):
    """Who is it? Upright crops (N, 3, ≥64, ≥64) in 0…1 → unit vectors (N, 94).

    Two pictures of one person point the same way. It sees as the ``points`` backbone does and
    begins as the best linear map from there to a person's shape and albedo; trained on synthetic
    people (``python -m course train identity``) with the normalised-temperature cross entropy of
    Chen et al. 2020: a person's other photograph has to be found among the batch's.
    """

    def __init__(self, size=94):
        super().__init__()
        self.votes = PointVotes()
        self.project = nn.Linear(self.votes.sharp, size)

    def forward(self, images):
        x = F.interpolate(images, (112, 112), mode="bilinear", antialias=images.shape[-1] > 112)
        return F.normalize(self.project(self.votes(x)[:, : self.votes.sharp, 0, 0]), dim=1)

    def save(self, path=IDENTITY):
        """Write the weights in half precision, whole or not at all."""
        state = {k: v.half() if v.ndim > 1 else v for k, v in self.state_dict().items()}
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    @classmethod
    def load(cls, path=IDENTITY, device="cpu"):
        """The trained network, frozen. Raises FileNotFoundError or ValueError in a sentence."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            net = cls(len(state["project.bias"]))
            net.load_state_dict(state)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path} is missing; type: python -m course train identity"
            ) from None
        except Exception:  # torch raises many kinds for a damaged file
            raise ValueError(f"{path} does not hold an identity network.") from None
        return net.to(device).eval().requires_grad_(False)


def contrast(vectors, person, temperature=0.1):
    """−1/N Σ_i log( e^{v_i·v_j/τ} / Σ_{k≠i} e^{v_i·v_k/τ} ), j a photograph of the same person.

    Unit vectors (N, C), persons (N,) of which every one occurs at least twice.
    """
    likeness = vectors @ vectors.T / temperature
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    likeness = likeness.masked_fill(itself, -1e4)
    same = (person[:, None] == person[None]) & ~itself
    chance = likeness.log_softmax(1)
    return -((chance * same).sum(1) / same.sum(1).clamp_min(1)).mean()


def identity(image, photo, network):
    """1 − cos(g(I), g(I*)) with g a frozen network that tells people apart (``IdentityNet``).

    Pixels agree on colours; this agrees on who it is (Genova et al. 2018).
    """
    with torch.no_grad():
        wanted = network(photo)
    return (1 - (network(image) * wanted).sum(1)).mean()


# ------------------------------------------------------------------ with nothing


def gaussian_prior(codes):
    """½ 1/N Σ c²: minus the log of a unit Gaussian, which is what codes (N, K) were made for."""
    return 0.5 * codes.square().sum(1).mean()


def mean_absolute(codes):
    """1/(N K) Σ |c|: pulls small codes to exactly zero, large ones less than the prior does."""
    return codes.abs().mean()


def shape_consistency(shape, groups):
    """1/(N K) Σ_i ‖s_i − s̄_g(i)‖², g(i) the person in picture i: shape (N, K), groups (N,).

    Twice this, times n/(n − 1), is the mean squared difference of two of a person's n pictures.
    """
    people, row = groups.unique(return_inverse=True)
    count = torch.bincount(row, minlength=len(people)).to(shape)
    sums = shape.new_zeros(len(people), shape.shape[1]).index_add(0, row, shape)
    return (shape - (sums / count[:, None])[row]).square().mean()


def swap_shapes(code, groups, generator=None):
    """``code`` with shapes exchanged among pictures of one person, at random.

    DECA's form of shape consistency (Feng et al. 2021): whatever picture of me a shape came from,
    it must explain the others, so the same losses are asked again of the swapped codes.
    """
    order = torch.arange(len(groups), device=groups.device)
    for person in groups.unique():
        rows = (groups == person).nonzero()[:, 0]
        turn = torch.randperm(len(rows), generator=generator).to(rows.device)
        order[rows] = rows[turn]
    return code.replace(shape=code.shape[order])


def symmetry(texture, weight=None):
    """1/(N C R²) Σ w |T − flip T| of textures (N, C, R, R) whose left half mirrors the right.

    ``weight`` (N or 1, 1, R, R): where it counts, e.g. what the photograph does not show. A face
    lit from one side gets its light explained as light; a scar gets ironed out.
    """
    gap = (texture - texture.flip(-1)).abs()
    return (gap if weight is None else gap * weight).mean()


class SkinColour(nn.Module):
    """½ (χ − μ)ᵀ Σ⁻¹ (χ − μ), χ = (ln R/G, ln B/G) of a face's mean skin colour.

    Chroma is what no brightness of light changes. μ and Σ are those of the head's own people:
    ``draws`` random albedo codes. Skin is never green, so a green picture must be green light.
    """

    def __init__(self, flame, draws=500, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        codes = torch.randn(draws, flame.n_albedo, generator=generator)
        skin = flame.uv_masks["skin"] if "skin" in flame.uv_masks else torch.ones(1, 1)
        side = flame.albedo_dirs.shape[-1]
        mean = F.interpolate(flame.albedo_mean[None], (side, side), mode="area")[0]
        weight = F.interpolate(skin[None, None], (side, side))[0, 0].reshape(-1)
        some = (weight > 0.5).nonzero()[:, 0][::17]  # every 17th texel of the skin
        dirs = flame.albedo_dirs.flatten(2)[:, :, some].cpu()
        colours = mean.flatten(1)[:, some].cpu() * torch.einsum("nk,kcp->ncp", codes, dirs).exp()
        chroma = self.chroma(colours.mean(2))
        self.register_buffer("mean", chroma.mean(0))
        spread = torch.cov(chroma.T) + 1e-5 * torch.eye(2)
        self.register_buffer("precision", torch.linalg.inv(spread))

    @staticmethod
    def chroma(colours):
        """(N, 2) of colours (N, 3)."""
        log = colours.clamp_min(1e-3).log()
        return torch.stack([log[:, 0] - log[:, 1], log[:, 2] - log[:, 1]], 1)

    def forward(self, colours, mask=None):
        """Of colours (N, 3, H, W) inside a mask (N, 1, H, W), or of mean colours (N, 3)."""
        if colours.ndim == 4:
            mask = torch.ones_like(colours[:, :1]) if mask is None else mask
            colours = (colours * mask).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1e-6)
        offset = self.chroma(colours) - self.mean
        return 0.5 * ((offset @ self.precision) * offset).sum(1).mean()


def white_light(light):
    """1/(9 N) Σ_k Σ_c (l_kc − l̄_k)² of light (N, 9, 3): lamps are nearly white.

    Albedo and light are only seen multiplied; this and SkinColour decide whose the colour is.
    """
    return (light - light.mean(-1, keepdim=True)).square().sum(-1).mean()


def texture_flatness(texture, mask):
    """1/|M| Σ_M ‖T − T̄_M‖² of textures (N, 3, R, R) in a skin mask M (N or 1, 1, R, R).

    Deng et al. 2019: skin is mostly one colour, so shades that change across it are light.
    """
    mask = mask.expand(len(texture), -1, -1, -1)
    inside = mask.sum((2, 3), keepdim=True).clamp_min(1e-6)
    mean = (texture * mask).sum((2, 3), keepdim=True) / inside
    return _masked_mean((texture - mean).square().sum(1, keepdim=True), mask)


@lru_cache(maxsize=1)
def needs_table():
    """NEEDS as text, one loss a line, in the order of this module."""
    wide = max(map(len, NEEDS))
    return "\n".join(f"{name:{wide}s}  {what}" for name, what in NEEDS.items())
