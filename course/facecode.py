"""``FaceCode``: the one value that the encoder regresses, fitting optimises and transfer swaps."""

import json
from dataclasses import dataclass, fields, replace
from numbers import Integral
from pathlib import Path

import torch

from course.files import no_memory, write_text

ROOT, NECK, JAW, LEFT_EYE, RIGHT_EYE = (slice(3 * k, 3 * k + 3) for k in range(5))
FIXED_SHAPES = {"pose": (15,), "camera": (3,), "light": (9, 3)}
DECIMALS = 6
FORMAT = "face-code 1"


def resolve_device(device=None):
    """``None`` means CUDA when there, else CPU: the one place where that is decided.

    Raises ValueError for a device that does not exist here.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # each backend has its own
        if no_memory(error):
            raise
        none = str(device).startswith("cuda") and not torch.cuda.is_available()
        name = "CUDA device" if none else f"device {str(device)!r}"
        raise ValueError(f"There is no {name} here; use --device cpu.") from None
    return torch.device(device)


@dataclass
class FaceCode:
    """The codes of N faces; every field is a float tensor with N rows.

    shape       (N, S)     identity coefficients, unit variance
    expression  (N, E)     expression coefficients, unit variance
    pose        (N, 15)    axis-angle of root, neck, jaw, left eye, right eye, radians
    camera      (N, 3)     weak perspective: scale, tx, ty
    albedo      (N, T)     skin and hair colour coefficients, unit variance
    light       (N, 9, 3)  spherical-harmonics coefficients of red, green, blue
    detail      (N, D)     wrinkles and spots (``course.detail``); D = 0 without any
    """

    shape: torch.Tensor
    expression: torch.Tensor
    pose: torch.Tensor
    camera: torch.Tensor
    albedo: torch.Tensor
    light: torch.Tensor
    detail: torch.Tensor = None

    def __post_init__(self):
        if self.detail is None or self.detail.shape[1:] == (0,):
            self.detail = self.shape.new_zeros(len(self.shape), 0)
        for field in fields(self):
            shape = tuple(getattr(self, field.name).shape)
            sizes = FIXED_SHAPES.get(field.name, ("any",))
            if len(shape) != 1 + len(sizes) or (sizes != ("any",) and shape[1:] != sizes):
                wish = ", ".join(map(str, sizes))
                raise ValueError(f"FaceCode.{field.name} has shape {shape}, not (N, {wish}).")
        rows = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(rows.values())) != 1:
            raise ValueError(f"A FaceCode needs the same number of rows everywhere, not {rows}.")

    @classmethod
    def zeros(cls, flame, n=1, device=None):
        """The mean face of ``flame``, looking straight at the camera in soft white light."""
        device = flame.v_template.device if device is None else resolve_device(device)
        make = lambda *size: torch.zeros(n, *size, device=device)  # noqa: E731
        code = cls(make(flame.n_shape), make(flame.n_expression), make(15), make(3),
                   make(flame.n_albedo), make(9, 3))  # fmt: skip
        code.camera[:] = torch.tensor(flame.default_camera, device=device)
        # band 0 alone gives a flat face: the ambient term and some light from the viewer's side
        code.light[:, 0], code.light[:, 2], code.light[:, 3] = 2.6, 0.12, 0.35
        return code

    @classmethod
    def random(cls, flame, n=1, generator=None, expression=0.5):
        """``n`` people drawn from the model's prior, facing the camera.

        ``expression`` scales the draw: a full one is a grimace that people seldom make. Actions
        that only open (``flame.expression_one_way``) are drawn from the positive half.
        """
        code = cls.zeros(flame, n)
        draw = lambda like: torch.randn(like.shape, generator=generator).to(like)  # noqa: E731
        shape, actions, albedo = (draw(f) for f in (code.shape, code.expression, code.albedo))
        actions = torch.where(flame.expression_one_way, actions.abs(), actions)
        return code.replace(shape=shape, expression=expression * actions, albedo=albedo)

    @classmethod
    def cat(cls, codes):
        """Join codes along the batch."""
        columns = ([getattr(c, f.name) for c in codes] for f in fields(cls))
        return cls(*map(torch.cat, columns))

    def _map(self, function):
        return FaceCode(*(function(getattr(self, f.name)) for f in fields(self)))

    def __len__(self):
        return len(self.shape)

    def __getitem__(self, index):
        """One face (still with a batch dimension) or a slice of faces."""
        if isinstance(index, Integral):
            index = int(index)
            if not -len(self) <= index < len(self):
                raise IndexError(f"face {index} of {len(self)}")
            index = slice(index, index + 1 or None)
        return self._map(lambda t: t[index])

    def to(self, device):
        return self._map(lambda t: t.to(device))

    def detach(self):
        return self._map(torch.Tensor.detach)

    def clone(self):
        return self._map(torch.Tensor.clone)

    def replace(self, **changes):
        """A copy with some fields exchanged."""
        return replace(self, **changes)

    def parameters(self, names=None):
        """The named fields (all, without names) as a list for an optimiser, gradients switched on.

        Raises ValueError for a name that is no field.
        """
        known = [f.name for f in fields(self)]
        for name in names or ():
            if name not in known:
                raise ValueError(f"FaceCode has no field {name}; it has {', '.join(known)}.")
        names = names or [name for name in known if getattr(self, name).numel()]
        return [getattr(self, name).requires_grad_() for name in names]

    def save(self, path, head=None):
        """Write the codes as readable JSON, whole or not at all.

        ``head`` is the name of the head model they belong to. Raises ValueError for NaN.
        """
        lines = [f' "format": "{FORMAT}"', f' "head": {json.dumps(head)}']
        for field in fields(self):
            if field.name == "detail" and not self.detail.shape[1]:
                continue
            values = getattr(self, field.name).detach().cpu().double()
            if not values.isfinite().all():
                raise ValueError(f"FaceCode.{field.name} holds NaN or infinity; not saved.")
            rows = ",\n".join("  " + json.dumps(_rounded(row)) for row in values.tolist())
            lines.append(f' "{field.name}": [\n{rows}\n ]')
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def load(cls, path, device=None, head=None):
        """Read what ``save`` wrote; ``head`` is the name of the head that it is for, if it matters.

        Raises FileNotFoundError, or ValueError with one sentence when it is not such a file.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names = [f.name for f in fields(cls) if f.name != "detail" or "detail" in content]
            missing = [name for name in names if name not in content]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            if head and content.get("head") not in (None, head):
                raise ValueError(f"it belongs to the head {content['head']}, not to {head}")
            columns = {n: torch.tensor(content[n], dtype=torch.float32) for n in names}
            if not all(column.isfinite().all() for column in columns.values()):
                raise ValueError("it holds NaN or infinity")
            return cls(**columns).to(resolve_device(device))
        except FileNotFoundError:
            raise
        except (OSError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            reason = str(error).rstrip(".")
            raise ValueError(f"{path} cannot be taken for a FaceCode: {reason}.") from None


def _rounded(values):
    if isinstance(values, list):
        return [_rounded(v) for v in values]
    return round(values, DECIMALS)
