"""Any head, with all that the course needs: its own arrays first, then what lies beside its file,
then what is carried over from the built-in head (``head_transfer``), once, and kept in a cache.
"""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

from course.files import cached_arrays, read_cached
from course.head_transfer import KINDS, carry
from course.rasterize import rasterize

VERSION = 1  # of what is kept; a new one makes old caches void
LANDMARKS = tuple(f"{k}_lmk_{part}" for k in KINDS for part in ("faces_idx", "bary_coords"))
RIG = ("weights", "J_regressor", "posedirs")


def complete(path, model, ours, beside=None, progress=True):
    """``model`` with all that the course needs, and the reason why it may still lack something.

    Its own arrays come first, then those of the files ``beside`` it (``read_companions``), then
    what is carried over from the built-in head ``ours``, kept in a cache beside ``path``. Landmarks
    from beside it are the last choice (see ``_fitting``). Returns (dict, "" or one sentence).
    """
    known = {**(beside or {}), **model}
    if not lacking(_fitting(model, beside)):
        return known, ""
    try:
        found = cached_arrays(cache_path(path), _key(model, ours),
                              lambda: carry(model, ours, progress))  # fmt: skip
    except ValueError as reason:
        return known, f"Nothing is carried over to {path}: {reason}."
    rigged = _with_joints(model, found)
    known = _fitting(model, beside)
    colours = {k: v for k, v in ours.items() if k.startswith(("albedo_", "uv_mask_"))}
    if {"vt", "ft"} <= set(known) and "albedo_mean" not in known:
        colours = _repainted(colours, found, known)
    return {**found, **colours, **known, **rigged}, ""


def _fitting(model, beside):
    """A model with what lies ``beside`` it, but for landmarks.

    FLAME's own embedding has the brows' ends beside the eyes, up to 2.4 cm from where landmark
    networks see them, and fits suffer: the points have to mean what the network means.
    """
    return {k: v for k, v in (beside or {}).items() if k not in LANDMARKS} | model


def lacking(model):
    """What of the course's needs a model dict lacks: a list of words, for people."""
    needs = {"joints": "weights", "landmarks": "static_lmk_faces_idx", "UV": "vt",
             "masks": "mask_skin", "albedo": "albedo_mean"}  # fmt: skip
    return [word for word, key in needs.items() if key not in model]


def state(path, model, ours, beside=None):
    """One clause for ``doctor``: where landmarks, UV, masks and albedo come from."""
    words = lacking(_fitting(model, beside))
    if not words:
        return "complete"
    kept = read_cached(cache_path(path), hashlib.sha256(_key(model, ours).encode()).hexdigest())
    verb = "carried over" if kept else "to be carried over at its first use, in a minute,"
    return f"{', '.join(words)} {verb} from the built-in head"


def cache_path(path):
    """Beside a model file; within an ICT-FaceKit folder."""
    return path / "companions.carried.npz" if path.is_dir() else path.with_suffix(".carried.npz")


def _key(model, ours):
    """Two heads and this version of the method, as a string."""
    arrays = [model["v_template"], model["f"], *(ours[k] for k in sorted(ours))]
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).tobytes())
    return f"{VERSION} {content.hexdigest()}"


def _with_joints(model, found):
    """Skinning of a head without joints, or without a jaw: there our jaw takes its share of what
    the neck held."""
    if "weights" not in model:
        return {key: found[key] for key in RIG}
    weights = np.array(model["weights"], float)
    if weights[:, 2].any():
        return {}
    regressor, correctives = np.array(model["J_regressor"]), np.array(model["posedirs"])
    above = found["weights"][:, :3].sum(1)
    share = np.where(above > 0, found["weights"][:, 2] / np.maximum(above, 1e-9), 0)
    weights[:, 2], weights[:, 1] = share * weights[:, 1], (1 - share) * weights[:, 1]
    regressor[2] = found["J_regressor"][2]
    correctives[:, :, 9:18] = found["posedirs"][:, :, 9:18]
    return {"weights": weights, "J_regressor": regressor, "posedirs": correctives}


def _repainted(colours, found, known):
    """Pictures of the built-in head's texture plane, in another one (``known``'s vt and ft)."""
    painted, places = {}, {}
    uv = torch.as_tensor(found["vt"][found["ft"]]).float()
    for key, pictures in colours.items():
        if key == "albedo_names":
            painted[key] = pictures
            continue
        flat = pictures.ndim == 2
        size = pictures.shape[-2] if not flat else pictures.shape[-1]
        if size not in places:
            places[size] = _texels(known, uv, size)
        values = torch.as_tensor(np.asarray(pictures, np.float32))
        values = (
            values[None, None] if flat else values.reshape(-1, size, size, 3).permute(0, 3, 1, 2)
        )
        drawn = F.grid_sample(values, places[size].expand(len(values), -1, -1, -1),
                              align_corners=False, padding_mode="border")  # fmt: skip
        drawn = drawn[0, 0] if flat else drawn.permute(0, 2, 3, 1).reshape(pictures.shape)
        if pictures.dtype == np.uint8:
            drawn = drawn.round()
        painted[key] = drawn.numpy().astype(pictures.dtype)
    return painted


def _texels(known, uv, size):
    """Where each texel (1, R, R, 2) of the other plane lies in ours, for ``grid_sample``; those of
    no triangle take the nearest one's place."""
    corners = torch.as_tensor(np.asarray(known["vt"])[np.asarray(known["ft"], np.int64)]).float()
    plane = torch.stack([1 - 2 * corners[..., 0], 2 * corners[..., 1] - 1], -1).reshape(1, -1, 2)
    flat = torch.cat([plane, torch.ones_like(plane[..., :1])], -1)
    drawn = rasterize(flat, torch.arange(flat.shape[1]).view(-1, 3), size)
    face, mix = drawn.pix_to_face[0], drawn.barycentric[0]
    place = (uv[face.clamp_min(0)] * mix.unsqueeze(-1)).sum(2)
    row, column = distance_transform_edt((face < 0).numpy(), return_distances=False,
                                         return_indices=True)  # fmt: skip
    place = place[torch.from_numpy(row).long(), torch.from_numpy(column).long()]
    return (place * torch.tensor([2.0, -2.0]) + torch.tensor([-1.0, 1.0]))[None]
