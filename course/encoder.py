"""Encoders: a photograph in, face codes out, in one pass of a network.

A convolutional backbone turns the picture into features; two fully connected layers turn these into
the codes of a face (the form that RingNet and DECA gave it: Sanyal et al. 2019, Feng et al. 2021).
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from course.albums import CROP, CROP_SCALE
from course.backbones import BACKBONES, FeatureExtractor
from course.facecode import FaceCode, resolve_device
from course.files import atomic_path

__all__ = ["BACKBONES", "Ensemble", "FaceModel", "FeatureExtractor", "ShapeReconstructor",
           "average_identity", "ensemble", "group_mean"]  # fmt: skip

PARTS = ("shape", "albedo", "expression", "pose", "camera", "light")  # DECA's order of outputs
# how far photographs usually are from the mean face, so that every output starts equally hard
SCALES = {"shape": 1.0, "albedo": 1.0, "expression": 1.0, "pose": 0.3, "light": 0.5,
          "camera": (2.5, 0.03, 0.03)}  # fmt: skip
DECA_CROP = (224, 1.1 * 1.25)  # pixels; of the landmarks' box, whose mean side DECA takes
DECA_SIZES = {"shape": 100, "expression": 50, "albedo": 50}
FORMAT = "face-model 1"


class ShapeReconstructor(nn.Module):
    """Features (N, C) → FaceCode of N faces, by two fully connected layers.

    code = start + scale · (W₂ relu(W₁ f + b₁) + b₂), where ``start`` is a FaceCode of one face and
    ``scale`` (SCALES) is how far photographs usually are from it. W₂ and b₂ begin at zero: before
    any training every picture shows the start. ``joints`` are the joints whose rotation is
    predicted (of root, neck, jaw, left eye, right eye); the others stay as they start.
    """

    def __init__(self, channels, start, hidden=1024, joints=range(5), scales=SCALES):
        super().__init__()
        columns = [3 * joint + axis for joint in joints for axis in range(3)]
        self.register_buffer("pose_columns", torch.tensor(columns), persistent=False)
        values = {part: getattr(start, part)[0].detach().float().cpu() for part in PARTS}
        self.register_buffer("start_pose", values["pose"].clone())
        values["pose"] = values["pose"][columns]
        scale = {p: torch.tensor(scales[p]).expand(v.shape).reshape(-1) for p, v in values.items()}
        self.sizes = {part: value.numel() for part, value in values.items()}
        self.register_buffer("start", torch.cat([values[p].reshape(-1) for p in PARTS]))
        self.register_buffer("scale", torch.cat([scale[p] for p in PARTS]))
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, len(self.start))
        )
        nn.init.zeros_(self.layers[2].weight)
        nn.init.zeros_(self.layers[2].bias)

    def forward(self, features):
        """The codes of features (N, C)."""
        values = self.start + self.scale * self.layers(features)
        parts = dict(zip(PARTS, values.split(list(self.sizes.values()), 1), strict=True))
        pose = self.start_pose.to(values).expand(len(values), -1)
        parts["pose"] = pose.index_copy(1, self.pose_columns, parts["pose"])
        parts["light"] = parts["light"].unflatten(1, (9, 3))
        return FaceCode(**parts)


def start_and_scales(code, joints):
    """What networks for such faces start from: a FaceCode of one row, and {part: its spread}.

    The mean of ``code``'s rows with the mean face's shape, and the standard deviation of every
    coefficient, in the places of ShapeReconstructor's outputs; 1 for shape and albedo, which the
    model scales itself.
    """
    parts = {part: getattr(code, part) for part in PARTS}
    start = FaceCode(**{part: v.mean(0, keepdim=True) for part, v in parts.items()})
    parts["pose"] = code.pose.unflatten(1, (5, 3))[:, list(joints)].flatten(1)
    spread = {part: v.std(0).clamp_min(0.02).tolist() for part, v in parts.items()}
    return start.replace(shape=0 * start.shape), spread | {"shape": 1.0, "albedo": 1.0}


class FaceModel(nn.Module):
    """A photograph's codes: FeatureExtractor, then ShapeReconstructor. ``codes = model(images)``.

    flame       the head that the codes are for; without it there are codes, but no vertices
    backbone, normalize   see FeatureExtractor · hidden, joints, start  see ShapeReconstructor
    confidence  also learn how far each identity coefficient of a picture can be trusted
    crop        pixels a side of the pictures, side over the landmarks' box: ``encode.read_faces``
    """

    def __init__(self, flame=None, backbone="resnet18", hidden=1024, joints=range(5),
                 confidence=False, normalize=True, start=None, scales=SCALES,
                 crop=(CROP, CROP_SCALE)):  # fmt: skip
        super().__init__()
        if flame is None and start is None:
            raise ValueError("FaceModel needs a head (flame) or a FaceCode to start from.")
        start = FaceCode.zeros(flame) if start is None else start
        self.flame = [flame]  # in a list: the head's buffers are not this module's own
        self.config = {
            "backbone": backbone, "hidden": hidden, "joints": list(joints),
            "confidence": bool(confidence), "normalize": bool(normalize), "crop": list(crop),
            "sizes": {k: getattr(start, k).shape[1] for k in ("shape", "expression", "albedo")},
        }  # fmt: skip
        self.encoder = FeatureExtractor(backbone, normalize)
        self.reconstructor = ShapeReconstructor(self.encoder.channels, start, hidden, joints,
                                                scales)  # fmt: skip
        if confidence:
            identity = self.reconstructor.sizes["shape"] + self.reconstructor.sizes["albedo"]
            self.trust = nn.Linear(self.encoder.channels, identity)
            nn.init.zeros_(self.trust.weight)  # all pictures count the same at first
            nn.init.zeros_(self.trust.bias)

    def features(self, images):
        """Features (N, C) of pictures (N, 3, H, W) in 0…1: for the feature-consistency loss."""
        return self.encoder(images)

    def forward(self, images):
        """FaceCode of N pictures (N, 3, H, W) in 0…1."""
        return self.reconstructor(self.features(images))

    def confidence(self, features):
        """{"shape": (N, S), "albedo": (N, T)}, positive; from features (N, C).

        c = exp(r), r linear in the features. If c is the inverse variance of a coefficient's
        error, ``average_identity`` is the best linear estimate. Raises ValueError for a model
        that was built without confidences.
        """
        if not self.config["confidence"]:
            raise ValueError("This model learned no confidences; build it with confidence=True.")
        values = self.trust(features).clamp(-6, 6).exp()
        sizes = self.reconstructor.sizes
        shape, albedo = values.split([sizes["shape"], sizes["albedo"]], 1)
        return {"shape": shape, "albedo": albedo}

    def image_set(self, images, groups=None):
        """FaceCode of N pictures that share one identity a person, see ``average_identity``.

        Weighted by the model's confidences if it has learned any.
        """
        features = self.features(images)
        trust = self.confidence(features) if self.config["confidence"] else None
        return average_identity(self.reconstructor(features), trust, groups)

    @torch.no_grad()
    def predict(self, image):
        """One picture (3, H, W) in 0…1 → its FaceCode and vertices (V, 3) as numpy, metres.

        Raises ValueError in training mode, for another shape, or without a head.
        """
        _check_eval(self)
        if image.ndim != 3:
            raise ValueError(f"predict takes one picture (3, H, W), not {tuple(image.shape)}.")
        flame = self._head()
        code = self(image.unsqueeze(0))
        return code, flame(code.shape, code.expression, code.pose)[0].cpu().numpy()

    def _head(self, flame=None):
        flame = self.flame[0] if flame is None else flame
        if flame is None:
            raise ValueError("This model has no head; give it one: FaceModel.load(path, flame).")
        return flame

    def save(self, path):
        """Write the model, whole or not at all; matrices in half precision, the rest as it is."""
        state = {k: v.half() if v.ndim > 1 and v.is_floating_point() else v
                 for k, v in self.state_dict().items()}  # fmt: skip
        with atomic_path(path) as temporary:
            torch.save({"format": FORMAT, "config": self.config, "state": state}, temporary)

    @classmethod
    def load(cls, path, flame=None, device=None):
        """Read what ``save`` wrote, ready to predict (eval mode).

        Raises FileNotFoundError, or ValueError with one sentence: not such a file, or made for a
        head of other sizes than ``flame``.
        """
        content = _read(path, f"{path} is missing; type: python -m course train encoder")
        if content.get("format") != FORMAT:
            raise ValueError(f"{path} is not a saved FaceModel.")
        try:
            config = dict(content["config"])
            sizes = config.pop("sizes")
            model = cls(flame, start=_zero_code(**sizes), **config)
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise ValueError(f"{path} is not a saved FaceModel: its config is damaged.") from None
        if flame is not None:
            head = {"shape": flame.n_shape, "expression": flame.n_expression,
                    "albedo": flame.n_albedo}  # fmt: skip
            if head != sizes:
                raise ValueError(f"{path} was made for a head with {sizes}; {flame.name} has "
                                 f"{head}.")  # fmt: skip
        _load_strictly(model, content.get("state"), path, "a saved FaceModel")
        return model.eval().to(resolve_device(device))

    @classmethod
    def from_deca(cls, path, flame=None, device=None):
        """DECA's coarse encoder (Feng et al. 2021) from its ``deca_model.tar``, in eval mode.

        ResNet-50, then 2048 → 1024 → 236: shape 100, albedo 50, expression 50, pose of root and
        jaw 6, camera 3, light 27. Neck and eyes, which it does not predict, are zero. The codes
        belong to FLAME 2020 (``flame``) and pictures of 224 pixels; albedo to FLAME's texture
        space. Raises FileNotFoundError or ValueError with one sentence.
        """
        content = _read(path, f"{path} is missing; DECA's deca_model.tar is to be had at "
                        "https://deca.is.tue.mpg.de after registration.")  # fmt: skip
        few = flame is not None and (
            flame.n_shape < DECA_SIZES["shape"] or flame.n_expression < DECA_SIZES["expression"]
        )
        if few:
            raise ValueError(f"DECA's codes belong to FLAME 2020 with 100 shape and 50 expression "
                             f"components; {flame.name} has fewer.")  # fmt: skip
        model = cls(flame, "resnet50", joints=(0, 2), normalize=False, crop=DECA_CROP,
                    start=_zero_code(**DECA_SIZES), scales=dict.fromkeys(PARTS, 1.0))  # fmt: skip
        state = content.get("E_flame")
        if not isinstance(state, dict):
            raise ValueError(f"{path} is not DECA's checkpoint: it has no E_flame.")
        parts = {"encoder.": model.encoder, "layers.": model.reconstructor.layers}
        for prefix, module in parts.items():
            part = {k[len(prefix) :]: v for k, v in state.items() if str(k).startswith(prefix)}
            _load_strictly(module, part, path, "DECA's checkpoint", prefix)
        return model.eval().to(resolve_device(device))


def _zero_code(shape, expression, albedo):
    sizes = ((shape,), (expression,), (15,), (3,), (albedo,), (9, 3))
    return FaceCode(*(torch.zeros(1, *size) for size in sizes))


def _read(path, missing):
    """A dict of tensors and plain values; nothing else in a file is ever run."""
    try:
        content = torch.load(Path(path), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(missing) from None
    except Exception:  # torch raises many kinds for a damaged file
        raise ValueError(
            f"{path} is damaged or holds more than weights; nothing in it was run."
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a model's weights.")
    return content


def _load_strictly(module, state, path, kind, prefix=""):
    """``load_state_dict`` whose complaint is one sentence about the first thing that is wrong."""
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not {kind}: it holds no weights.")
    wrong = f"{path} is not {kind}: "
    own = module.state_dict()
    for name, tensor in own.items():
        given = state.get(name)
        if given is None and not name.endswith("num_batches_tracked"):
            raise ValueError(f"{wrong}it lacks {prefix}{name}.")
        shape = getattr(given, "shape", tensor.shape if given is None else None)
        if shape != tensor.shape:
            raise ValueError(f"{wrong}{prefix}{name} is not of shape {tuple(tensor.shape)}.")
    try:
        module.load_state_dict(state)
    except RuntimeError:
        extra = [name for name in state if name not in own]
        raise ValueError(f"{wrong}it also holds {prefix}{extra[0]}.") from None


def _check_eval(model, name="The model"):
    if model.training:
        raise ValueError(f"{name} is in training mode, where BatchNorm mixes the pictures of a "
                         "batch; call eval() first.")  # fmt: skip


# ------------------------------------------------------------------ several photos, several models


def group_mean(values, groups=None, weights=None):
    """Each row's group mean: values (N, C) → (N, C), equal within a group.

    groups (N,) integers say which rows belong together (None: all); the mean is weighted by
    positive ``weights`` (N, C) if given. Raises ValueError for shapes that do not fit or weights
    that are not positive.
    """
    count = len(values)
    if groups is None:
        groups = torch.zeros(count, dtype=torch.long, device=values.device)
    if groups.shape != (count,):
        raise ValueError(f"groups has shape {tuple(groups.shape)}; ({count},) is needed.")
    weights = torch.ones_like(values) if weights is None else weights
    if weights.shape != values.shape or not (weights > 0).all():
        raise ValueError(f"Confidences must be positive and of shape {tuple(values.shape)}.")
    people, row = groups.unique(return_inverse=True)
    sums = values.new_zeros(len(people), values.shape[1])
    return (sums.index_add(0, row, weights * values) / sums.index_add(0, row, weights))[row]


def average_identity(codes, confidence=None, groups=None, shared=1.0):
    """Photos of one person agree on who that is: ``codes`` with averaged shape and albedo.

    α = (Σ_j c_j ⊙ α_j) ⊘ (Σ_j c_j) over a person's pictures j (Deng et al. 2019); without
    ``confidence`` all c are 1. Expression, pose, camera and light stay each picture's own.
    confidence  {"shape": (N, S), "albedo": (N, T)}, positive; either may be left out
    groups      (N,) integers, one number a person; None: all pictures show the same one
    shared      correlation of the errors that a person's photos are read with. A reading is drawn
                to the mean face by what one photo leaves open, the variance v = 1/c of codes of
                variance 1; n photos leave open less, and their average is too near the mean: it is
                divided by 1 − v (1 − shared) (1 − 1/n), the best linear estimate of a Gaussian
                prior. With 1, or without confidences, it stays the average.
    Raises ValueError as ``group_mean`` does.
    """
    found = {}
    for name in ("shape", "albedo"):
        trust = (confidence or {}).get(name)
        values = group_mean(getattr(codes, name), groups, trust)
        if trust is not None and shared < 1:
            people = trust.new_zeros(len(trust)) if groups is None else groups
            _, row, photos = people.unique(return_inverse=True, return_counts=True)
            count = photos[row].unsqueeze(1)
            open_still = 1 / group_mean(trust, groups).clamp_min(1.0)
            values = values / (1 - open_still * (1 - shared) * (1 - 1 / count))
        found[name] = values
    return codes.replace(**found)


class Ensemble(NamedTuple):
    """What several models say: code FaceCode (N), vertices (N, V, 3) and spread (N, V), metres."""

    code: FaceCode
    vertices: torch.Tensor
    spread: torch.Tensor


@torch.no_grad()
def ensemble(models, images, flame=None):
    """Mean of the models' codes for pictures (N, 3, H, W), and how far the models disagree.

    spread_v = √(Σ_m ‖v_m − v̄‖² / (M − 1)) over M models, with v the vertices of shape and
    expression at rest: where the head points and sits is no uncertainty of its form. The vertices
    returned are those of the mean code at rest. Lakshminarayanan et al. 2017 is where ensembles
    became a measure of uncertainty. Raises ValueError for fewer than two models, models in training
    mode, and models without a head (``flame``, or the first model's own).
    """
    models = list(models)
    if len(models) < 2:
        raise ValueError(f"An ensemble needs at least two models, not {len(models)}.")
    for number, model in enumerate(models):
        _check_eval(model, f"Model {number}")
    flame = models[0]._head(flame)
    codes = [model(images) for model in models]
    heads = torch.stack([flame(code.shape, code.expression) for code in codes])
    squares = (heads - heads.mean(0)).square().sum(-1)  # (M, N, V)
    spread = (squares.sum(0) / (len(models) - 1)).sqrt()
    fields = vars(codes[0])
    mean = FaceCode(**{k: torch.stack([getattr(c, k) for c in codes]).mean(0) for k in fields})
    return Ensemble(mean, flame(mean.shape, mean.expression), spread)
