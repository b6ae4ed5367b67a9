"""Albums: synthetic photographs of many people on disk, each with its codes and dense 3D truth.

An album is a folder of shards that are made where they are missing, so that it can be stopped and
gone on with at any time; pictures stay on disk and are read as they are needed.
"""

import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from course.camera import fit_camera
from course.facecode import ROOT, FaceCode
from course.faces import MOUTHS, Photographer, Variety
from course.files import atomic_path, quiet
from course.flame import folded, rodrigues
from course.workers import spread

SIZE = 144  # side of an album's pictures, pixels
SHARD = 240  # photographs
POINTS = 192  # landmarks and other points of the face whose places are kept
CROP, CROP_SCALE = 128, 1.4  # pixels a side of what an encoder sees, side over the landmarks' box
FIELDS = ("shape", "expression", "pose", "camera", "albedo", "light")
# faces of about the same size in the middle: what is photographed is cropped around landmarks
VARIETY = {"max_yaw": 60.0, "roll": 24.0, "zoom": (1.0, 1.1), "shift": 0.05}
# the two kinds of photographs that encoders are judged on, and their sides in pixels: sharp ones
# of people who look at the camera with nothing before the face, and whatever turns up
KINDS = {
    "portrait": (256, VARIETY | {"accessories": False, "occluders": 0.0, "camera": False,
                                 "expressive": 0.5, "max_yaw": 30.0, "roll": 8.0,
                                 "distance": (1.2, 2.5)}),
    "wild": (SIZE, VARIETY | {"max_yaw": 50.0}),  # and trained on further
}  # fmt: skip
HELD_OUT_SEED = 7_000_011


def surface_points(flame, count=POINTS):
    """Vertices (count − 68,) spread over the face: each the farthest from all before, and from the
    landmarks."""
    rest = flame.v_template
    candidates = flame.masks["face"].nonzero()[:, 0]
    near = torch.cdist(rest[candidates], flame.landmarks(rest[None])[0]).amin(1)
    chosen = []
    for _ in range(count - 68):
        chosen.append(candidates[near.argmax()])
        near = torch.minimum(near, (rest[candidates] - rest[chosen[-1]]).norm(dim=1))
    return torch.stack(chosen)


# ------------------------------------------------------------------ making


def take(maker, rng, people, each):
    """``people`` × ``each`` photographs as a dict of arrays, a person's in a row.

    images (n, S, S, 3) uint8 · landmarks (n, 68, 2) pixels · points (n, POINTS, 3) pixels right and
    down, and pixels towards the viewer from the landmarks' mean · the fields of FaceCode (neck
    folded into the root, light as least squares sees it) · person (n,) · yaw (n,) degrees
    """
    flame, photos, truth = maker.flame, [], []
    chosen = surface_points(flame).numpy()
    for _ in range(people):
        who = maker.person(rng)
        for k in range(each):
            code = maker.person(rng).replace(shape=who.shape, albedo=who.albedo) if k else who
            photos.append(maker(rng, code))
    code = FaceCode.cat([p.code for p in photos])
    code = code.replace(pose=folded(code.pose))
    with torch.no_grad():
        marks = flame.landmarks(flame(code.shape, code.expression, code.pose), code.pose)
    pixels = torch.from_numpy(np.stack([p.landmarks for p in photos]))
    code = code.replace(camera=fit_camera(marks, pixels, maker.size))
    scale = (code.camera[:, :1] * maker.size / 2).numpy()
    for k, p in enumerate(photos):
        inner = (marks[k, :, 2] - marks[k, :, 2].mean()).numpy()
        # the photographed head has its neck bent: it is moved against the folded one, not turned
        posed = flame.landmarks(torch.from_numpy(p.vertices)[None], code.pose[k : k + 1])[0]
        outer = p.vertices[chosen, 2] - posed[:, 2].mean().item()
        depth = scale[k] * np.concatenate([inner, outer])
        plane = np.concatenate([p.landmarks, p.pixels[chosen, :2]])
        truth.append(np.column_stack([plane, depth]))
    images = np.stack([p.image for p in photos])
    code = code.replace(light=seen_light(flame, code, images))
    arrays = {name: getattr(code, name).numpy().astype(np.float32) for name in FIELDS}
    return arrays | {
        "images": images,
        "landmarks": pixels.numpy(),
        "points": np.stack(truth).astype(np.float32),
        "person": np.repeat(np.arange(people), each),
        "yaw": np.array([p.yaw for p in photos], np.float32),
    }


@torch.no_grad()
def seen_light(flame, code, images, size=48, rounds=3, outlier=0.12):
    """Light (N, 9, 3) that best explains photographs of known heads, by robust least squares.

    Real lamps and shadows are no spherical harmonics: this is the nearest that our renderer can
    say. images (N, S, S, 3) uint8.
    """
    from course.fit import VertexAlbedo
    from course.render import Renderer, spherical_harmonics

    small = np.stack([cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) for p in images])
    vertices = flame(code.shape, code.expression, code.pose)
    colours = VertexAlbedo(flame)(code.albedo)
    drawn = Renderer(flame, size)(vertices, code.camera, colours, FaceCode.zeros(flame).light)
    skin = flame.masks["skin"][flame.faces].all(1)
    mask = drawn.shows(skin).unsqueeze(-1).float()
    basis = spherical_harmonics(drawn.normal.permute(0, 2, 3, 1))
    rows = basis.unsqueeze(-1) * drawn.albedo.permute(0, 2, 3, 1).unsqueeze(-2)  # (N, H, W, 9, 3)
    rows, mask = rows.flatten(1, 2).permute(0, 3, 1, 2), mask.flatten(1, 2)[:, None]
    target = torch.from_numpy(small).float().div(255).flatten(1, 2).permute(0, 2, 1).unsqueeze(-1)
    ridge = torch.diag(torch.tensor([0.0] + [0.02] * 3 + [0.2] * 5)) * mask.sum(2, True).clamp_min(
        1
    )
    weight = mask
    for _ in range(rounds):
        left = rows.mT @ (weight * rows) + ridge + 1e-4 * torch.eye(9)
        light = torch.linalg.solve(left, rows.mT @ (weight * target))  # (N, 3, 9, 1)
        weight = mask / (1 + ((rows @ light - target) / outlier) ** 2) ** 2
    return light[..., 0].mT.contiguous()


def _make_shard(path, seed, each, variety, size):
    """Make one shard and write it, whole or not at all."""
    if path.is_file():  # another process was quicker
        return path
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    maker = _make_shard.__dict__.setdefault("maker", None) or Photographer(size=SIZE)
    _make_shard.maker = maker
    maker.variety, maker.size = Variety(**variety), size
    arrays = take(maker, np.random.default_rng(seed), SHARD // each, each)
    with atomic_path(path.with_suffix(".npy")) as temporary:
        np.save(temporary, arrays.pop("images"))
    with atomic_path(path) as temporary:  # the last to be written: a shard with it is complete
        np.savez(temporary, **arrays)
    return path


def make(folder, photos, each=2, seed=0, workers=1, variety=None, size=SIZE):
    """Make what an album of ``photos`` photographs lacks; returns the paths of its shards.

    ``each`` photographs show the same person; ``variety`` are changes of ``faces.Variety`` (None:
    what networks are trained on);
    ``size`` is the photographs' side.
    Raises ValueError for fewer photographs than a person needs.
    """
    if photos < each or SHARD % each:
        raise ValueError(f"{photos} photographs cannot be made {each} a person.")
    folder = Path(folder)
    paths = [folder / f"{seed}-{k:05d}.npz" for k in range(math.ceil(photos / SHARD))]
    jobs = [(p, [seed, k], each, variety or VARIETY | MOUTHS, size)
            for k, p in enumerate(paths) if not p.is_file()]  # fmt: skip
    if jobs:
        bar = tqdm(total=len(jobs), desc=f"photographs ({folder.name})", disable=quiet())
        with bar:
            for _ in spread(_make_shard, jobs, workers):
                bar.update()
    return paths


# ------------------------------------------------------------------ using


class Album:
    """Photographs with their truth: ``len(album)``, ``album.image(k)``, arrays under their names.

    code is a FaceCode of all; landmarks (n, 68, 2), points (n, POINTS, 3), person (n,) and yaw (n,)
    are as ``take`` describes them, with persons numbered through.
    """

    def __init__(self, paths, photos=None):
        paths, columns, people = list(paths), {}, 0
        self.shards = [np.load(p.with_suffix(".npy"), mmap_mode="r") for p in paths]
        for path in paths:
            with np.load(path) as file:
                for name in file.files:
                    values = file[name] + people if name == "person" else file[name]
                    columns.setdefault(name, []).append(values)
            people = int(columns["person"][-1].max()) + 1
        joined = {name: np.concatenate(v)[:photos] for name, v in columns.items()}
        self.code = FaceCode(**{n: torch.from_numpy(joined.pop(n)) for n in FIELDS})
        self.landmarks, self.points = joined["landmarks"], joined["points"]
        self.person, self.yaw = joined["person"], joined["yaw"]
        self.starts = np.cumsum([0] + [len(s) for s in self.shards])

    def __len__(self):
        return len(self.code)

    @property
    def size(self):
        """The photographs' side in pixels."""
        return self.image(0).shape[0]

    def image(self, k):
        """Photograph number ``k``, (S, S, 3) uint8."""
        shard = int(np.searchsorted(self.starts, k, "right")) - 1
        return np.asarray(self.shards[shard][k - self.starts[shard]])

    def batch(self, chosen, flame, rngs=None, crops=None):
        """See ``crop_batch``."""
        return crop_batch(self, chosen, flame, rngs, crops)


def held_out(folder, kind="wild", people=1000, each=8, workers=1):
    """The album of a kind that encoders are judged on: no seed of training makes its people."""
    size, variety = KINDS[kind]
    folder = Path(folder) / f"{kind}-{each}"
    paths = make(folder, people * each, each, HELD_OUT_SEED + each, workers, variety, size)
    return Album(paths, people * each)


class Batch(NamedTuple):
    """What a step of training sees, on the CPU.

    images (n, 3, CROP, CROP) 0…1 · code FaceCode as seen in the crop · landmarks (n, 68, 2) pixels
    of the crop · points (n, POINTS, 3) as −1…1 across the crop (right, down, towards the viewer) ·
    person (n,)
    """

    images: torch.Tensor
    code: FaceCode
    landmarks: torch.Tensor
    points: torch.Tensor
    person: torch.Tensor

    # code and points are None where nobody knows them

    def to(self, device):
        return Batch(*(None if part is None else part.to(device) for part in self))


def seen_in(code, matrix, size, flame, out=CROP):
    """A FaceCode of pictures ``size`` pixels a side as seen in turned crops of them.

    ``matrix`` (N, 2, 3) leads from the crops' pixels to the pictures' (``photo.Crop.matrix``);
    ``out`` is the crops' side. Root, camera and light change: a crop turned by an angle shows a
    head, and the lamps around it, turned the other way. Inverse: give the inverse matrices.
    """
    matrix = torch.as_tensor(np.asarray(matrix), dtype=torch.float32).to(code.pose)
    zoom = matrix[:, :, 0].norm(dim=1)  # pixels of the picture in a pixel of the crop
    # the crop's axes lie at +angle (v down) in the picture, so the head turns by +angle with y up
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0])
    c, s = angle.cos(), angle.sin()
    spin = code.pose.new_zeros(len(code), 3, 3)
    spin[:, 0, 0], spin[:, 1, 1], spin[:, 2, 2] = c, c, 1
    spin[:, 0, 1], spin[:, 1, 0] = -s, s
    turn = (spin @ rodrigues(code.pose[:, ROOT])).cpu().double().numpy()
    pose = code.pose.clone()
    pose[:, ROOT] = torch.from_numpy(Rotation.from_matrix(turn).as_rotvec()).to(pose)
    # where the root joint, which does not move when the head turns, lands in both pictures
    joint = flame.joints(code.shape)[:, 0, :2].to(pose)
    scale = code.camera[:, :1]
    place = size / 2 + size / 2 * scale * (joint + code.camera[:, 1:]) * joint.new_tensor([1, -1])
    inverse = torch.linalg.inv(matrix[:, :, :2])
    place = (inverse @ (place - matrix[:, :, 2]).unsqueeze(-1))[..., 0]
    scale = scale * (size / out) / zoom[:, None]
    shift = (place - out / 2) / (out / 2) * joint.new_tensor([1, -1]) / scale - joint
    light = _turned_light(code.light, angle)
    return code.replace(pose=pose, camera=torch.cat([scale, shift], 1), light=light)


def _turned_light(light, angle):
    """Light (N, 9, 3) turned by angles (N,) around the line of sight, from x towards y.

    Spherical harmonics that go round m times turn as arrows do, by m times the angle: x and y, xz
    and yz once, x² − y² and 2xy twice (Ramamoorthi and Hanrahan 2001 have the basis).
    """
    light = light.clone()
    for x, y, times in ((1, 2, 1), (5, 6, 1), (7, 4, 2)):
        c, s = (f(times * angle)[:, None] for f in (torch.cos, torch.sin))
        light[:, x], light[:, y] = (
            c * light[:, x] - s * light[:, y], s * light[:, x] + c * light[:, y],
        )  # fmt: skip
    return light


def crop_batch(album, chosen, flame, rngs=None, crops=None):
    """Batch of the photographs ``chosen``, cropped upright around their landmarks.

    ``rngs``, a generator a photograph, shake the crops as a detector's mistakes would, change
    colours and mirror every other one; None shows them straight. ``crops`` are ``photo.Crop``s to
    use instead.
    """
    from course.photo import crop_around

    images, matrices = [], []
    for i, k in enumerate(chosen):
        crop = crops[i] if crops else crop_around(album.landmarks[k], CROP, CROP_SCALE, True)
        if rngs is not None:
            shaken(crop, rngs[i])
        matrices.append(crop.matrix)
        images.append(_warped(album.image(k), crop))
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    if rngs is not None:
        gain = np.stack([np.exp(rng.normal(size=(3, 1, 1)) * 0.06) for rng in rngs])
        images = (images * torch.from_numpy(gain).float()).clamp(0, 1)
    matrices = np.stack(matrices)
    code = seen_in(album.code[torch.as_tensor(chosen)], matrices, album.size, flame)
    points = album.points[chosen]
    flat = np.linalg.inv(matrices[:, :, :2])
    plane = np.einsum("nij,nkj->nki", flat, points[..., :2] - matrices[:, None, :, 2])
    depth = points[..., 2:] / np.linalg.norm(matrices[:, :, 0], axis=1)[:, None, None]
    marks = torch.from_numpy(plane[:, :68].astype(np.float32))
    dense = np.concatenate([plane - CROP / 2, depth], -1) / (CROP / 2)
    batch = Batch(images, code, marks, torch.from_numpy(dense.astype(np.float32)),
                  torch.from_numpy(album.person[chosen]))  # fmt: skip
    if rngs is not None:
        _mirror(batch, torch.tensor([rng.random() < 0.5 for rng in rngs]), flame)
    return batch


def _mirror(batch, rows, flame):
    """Mirror the ``rows`` (n,) of a Batch, in place. Points without a partner become NaN.

    Nothing happens to heads that are not their own mirror image.
    """
    from course.encode import mirror_rows, parity
    from course.landmarks import MIRROR

    if not rows.any() or parity(flame) is None:
        return
    mirror_rows(batch.images, batch.code, rows, flame)
    marks = batch.landmarks[rows][:, MIRROR]
    batch.landmarks[rows] = torch.stack([CROP - marks[..., 0], marks[..., 1]], -1)
    points = batch.points[rows].clone()
    points[:, :68] = points[:, MIRROR] * points.new_tensor([-1, 1, 1])
    points[:, 68:] = torch.nan
    batch.points[rows] = points


def shaken(crop, rng):
    """Move, resize and turn a crop a little, in place."""
    crop.centre = crop.centre + rng.normal(size=2) * 0.02 * crop.side
    crop.side = crop.side * float(np.exp(rng.normal() * 0.04))
    crop.angle = crop.angle + rng.normal() * 0.05


def _warped(image, crop):
    """The crop (CROP, CROP, 3) of a picture, uint8."""
    matrix = crop.matrix
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5  # OpenCV's pixel centres are whole numbers
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (CROP, CROP), flags=flags,
                          borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
