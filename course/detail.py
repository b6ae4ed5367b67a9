"""The detail branch: what the coarse model misses, as a map that moves with the expression.

As in DECA (Feng et al. 2021): an encoder gives a photograph's detail code, a person's own; a
decoder takes expression, jaw and code to a map in UV, so that another expression shows the same
person's wrinkles where that one would fold the skin. Unlike DECA's, it maps colour too, is small
enough for a CPU, and is fed fixed noise, of which fine texture can be made.
"""

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from course.facecode import JAW, resolve_device
from course.files import DATA, atomic_path
from course.relief import RESOLUTION, Relief

WEIGHTS = DATA / "detail.pt"
FORMAT = "face-detail 1"
SIZE, FOLDS = 128, 16  # numbers in a code; components of the folds
DEEPEST = 0.002  # metres, of the displacement
STRONGEST = 1.2  # change of log albedo
SEEN_SIDE = 128  # texels a side of what the encoder sees
BLUR = 13  # texels: broader differences are the coarse model's to explain


class DetailEncoder(nn.Module):
    """What the coarse head left of a photograph, in UV → detail codes (N, size).

    ``residual`` (N, 3, R, R) is log(photo / coarse drawing) where ``seen`` (N, 1, R, R), see
    ``Relief.unwrap``. Its broad part is taken out: light and skin tone are known elsewhere.
    """

    def __init__(self, size=SIZE, widths=(24, 40, 64, 96, 128)):
        super().__init__()
        layers, inputs = [], 4
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 3, 2, 1), nn.BatchNorm2d(width),
                       nn.LeakyReLU(0.2)]  # fmt: skip
            inputs = width
        self.layers = nn.Sequential(*layers)
        side = SEEN_SIDE // 2 ** len(widths)
        self.code = nn.Linear(inputs * side * side, size)

    def forward(self, residual, seen):
        residual, seen = smaller(residual, seen)
        x = torch.cat([4 * fine_part(residual, seen), seen], 1)
        return self.code(self.layers(x).flatten(1))


def smaller(residual, seen, side=SEEN_SIDE):
    """Means over the seen texels of larger ones: (N, 3, side, side) and (N, 1, side, side)."""
    if seen.shape[-1] == side:
        return residual, seen
    share = F.interpolate(seen, (side, side), mode="area")
    return F.interpolate(residual * seen, (side, side), mode="area") / share.clamp_min(1e-3), share


def fine_part(residual, seen):
    """A residual (N, 3, R, R) without its broad differences, robust to a few wild texels."""
    texels = round(BLUR * residual.shape[-1] / RESOLUTION) // 2 * 2 + 1

    def blur(x):
        for _ in range(2):
            x = F.avg_pool2d(x, texels, 1, texels // 2, count_include_pad=False)
        return x

    calm = residual.clamp(-0.7, 0.7) * seen
    return (calm - blur(calm) / blur(seen).clamp_min(0.02)) * seen


class DetailDecoder(nn.Module):
    """Expression (N, E), pose (N, 15), detail code (N, size) → detail maps (N, 4, 256, 256).

    Of the pose it uses the jaw. Two things are added: folds and texture. Folds are a linear basis,
    mean + Σ c_k fold_k, whose strengths c depend on expression, jaw and code (two layers). Texture
    is made of five convolutions and doublings by interpolation (no checkerboards: Odena et al.
    2016); maps of 64² and more have noise as one more channel, the same for everybody, so that a
    face's pores stay where they are when it moves.
    """

    def __init__(self, n_expression, size=SIZE, folds=FOLDS, widths=(32, 32, 32, 24, 16, 8),
                 seed=0):  # fmt: skip
        super().__init__()
        known = n_expression + 3 + size
        self.register_buffer("mean", torch.zeros(RESOLUTION, RESOLUTION))  # mm
        self.register_buffer("folds", torch.zeros(folds, RESOLUTION, RESOLUTION))  # unit length
        self.register_buffer("spread", torch.ones(folds))  # mm: usual strengths
        self.strengths = nn.Sequential(nn.Linear(known, 96), nn.LeakyReLU(0.2),
                                       nn.Linear(96, folds))  # fmt: skip
        self.first = widths[0]
        self.start = nn.Linear(known, self.first * 64)
        generator = torch.Generator().manual_seed(seed)
        self.layers, noisy = nn.ModuleList(), 0
        for k, (inputs, outputs) in enumerate(pairwise(widths)):
            self.layers.append(nn.Conv2d(inputs + noisy, outputs, 3, 1, 1))
            side = 16 * 2**k
            noisy = int(side >= 64)
            noise = torch.randn(1, noisy, side, side, generator=generator)
            self.register_buffer(f"noise{k}", noise, persistent=False)
        self.fine = nn.Conv2d(outputs + noisy, outputs, 3, 1, 1)
        self.last = nn.Conv2d(outputs, 4, 3, 1, 1)
        nn.init.normal_(self.last.weight, std=0.03)  # begins with little texture
        nn.init.zeros_(self.last.bias)

    def begin_folds(self, displacement):
        """Mean and folds from displacements (n, 256, 256) in mm: their principal components."""
        rows = displacement.flatten(1)
        self.mean.copy_(displacement.mean(0))
        centred = rows - rows.mean(0)
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        values, vectors = values.flip(0)[: len(self.folds)], vectors.flip(1)[:, : len(self.folds)]
        basis = F.normalize(vectors.T @ centred, dim=1) * (values > 1e-5 * values[0])[:, None]
        self.folds[: len(basis)].copy_(basis.unflatten(1, displacement.shape[1:]))
        self.spread[: len(values)].copy_((values / len(rows)).clamp_min(1e-6).sqrt())

    def wanted(self, displacement):
        """Strengths (N, K) that come nearest to displacements (N, 256, 256), in usual ones."""
        away = (displacement - self.mean).flatten(1)
        return away @ self.folds.flatten(1).T / self.spread

    def know(self, expression, pose, code):
        return torch.cat([expression, 3 * pose[:, JAW], code], 1)

    def forward(self, expression, pose, code):
        known = self.know(expression, pose, code)
        strengths = self.strengths(known) * self.spread
        folds = self.mean + torch.einsum("nk,kij->nij", strengths, self.folds)
        x = self.start(known).unflatten(1, (self.first, 8, 8))
        for k, layer in enumerate(self.layers):
            x = F.leaky_relu(layer(x), 0.2)
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = torch.cat([x, getattr(self, f"noise{k}").expand(len(x), -1, -1, -1)], 1)
        raw = self.last(F.leaky_relu(self.fine(x), 0.2))
        depth = DEEPEST * (folds[:, None] / (1000 * DEEPEST) + 0.5 * raw[:, :1]).tanh()
        return torch.cat([depth, STRONGEST * raw[:, 1:].tanh()], 1)


class DetailModel(nn.Module):
    """The detail branch of one head: ``code = model.read(…)``, ``maps = model(expression, …)``."""

    def __init__(self, flame, size=SIZE):
        super().__init__()
        self.config = {"n_expression": flame.n_expression, "size": size}
        self.relief = Relief(flame)
        self.encoder = DetailEncoder(size)
        self.decoder = DetailDecoder(flame.n_expression, size)

    def forward(self, expression, pose, detail):
        """Detail maps (N, 4, 256, 256) of codes (N, D) for any expression and jaw: the same
        person's wrinkles, moved. Displacement in metres, change of log albedo. N may be 1 in any
        of them. Raises ValueError for codes of another size.
        """
        if detail.ndim != 2 or detail.shape[1] != self.config["size"]:
            raise ValueError(f"detail has shape {tuple(detail.shape)}; (N, {self.config['size']}) "
                             "is needed: read a photograph's with DetailModel.read.")  # fmt: skip
        n = max(map(len, (expression, pose, detail)))
        rows = (part.expand(n, -1) for part in (expression, pose, detail))
        return self.decoder(*rows) * self.relief.mask

    def of(self, code):
        """Detail maps of a FaceCode that has detail."""
        return self(code.expression, code.pose, code.detail)

    @torch.no_grad()
    def read(self, images, coarse, vertices, camera):
        """Detail codes (N, D) of pictures (N, 3, S, S) in 0…1.

        coarse (N, 3, S, S) drawings of the head without detail · vertices (N, V, 3) and camera
        (N, 3) that they were drawn with. Raises ValueError in training mode.
        """
        if self.training:
            raise ValueError("The detail model is in training mode; call eval() first.")
        return self.encoder(*self.relief.unwrap(images, vertices, camera, coarse))

    def save(self, path=WEIGHTS):
        """Write the weights, whole or not at all; matrices in half precision."""
        state = {k: v.half() if v.ndim > 1 else v for k, v in self.state_dict().items()}
        with atomic_path(path) as temporary:
            torch.save({"format": FORMAT, "config": self.config, "state": state}, temporary)

    @classmethod
    def load(cls, flame, path=WEIGHTS, device=None):
        """Read what ``save`` wrote, in eval mode. Raises FileNotFoundError, or ValueError: not
        such a file, or made for a head with other expressions."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; type: python -m course train detail")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            config, state = content["config"], content["state"]
            if content["format"] != FORMAT:
                raise KeyError
            wanted = config["n_expression"]
            size = config["size"]
        except Exception:  # torch raises many kinds for a damaged file
            raise ValueError(f"{path} does not hold a detail model.") from None
        if wanted != flame.n_expression:
            raise ValueError(f"{path} was made for a head with {wanted} expressions; {flame.name} "
                             f"has {flame.n_expression}.")  # fmt: skip
        model = cls(flame, size)
        try:
            model.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError):
            raise ValueError(f"{path} does not hold a detail model.") from None
        return model.eval().to(resolve_device(device))
