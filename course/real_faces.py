"""Small pictures of faces to train a GAN on: real ones, offline or fetched, and synthetic ones.

lfw_subset   100 real faces of 25 × 25 grey pixels that ship inside scikit-image, from Labeled Faces
             in the Wild (Huang et al. 2007)
olivetti     400 real faces, 64 × 64 grey, ten of each of 40 people (AT&T Laboratories Cambridge)
lfw          13,233 real faces, 250 × 250 in colour, of which the inner part is used
synthetic    the course's own photographs
olivetti and lfw are fetched by scikit-learn, which is not among the course's needs.
"""

import warnings
from pathlib import Path

import cv2
import numpy as np
import skimage
import torch
import torch.nn.functional as F
from tqdm import tqdm

from course import network
from course.files import atomic_path, quiet
from course.workers import spread

SOURCES = ("lfw_subset", "olivetti", "lfw", "synthetic")
ONLINE = ("olivetti", "lfw")
REAL_FACES = 100  # of lfw_subset; what follows are pictures without a face
FIGSHARE = "https://ndownloader.figshare.com"  # where scikit-learn keeps its data sets
CHUNK = 250  # synthetic photographs that a process makes at a time
LUMA = (0.299, 0.587, 0.114)  # grey of red, green, blue


def load(source="lfw_subset", size=28, channels=1, count=None, seed=0, folder=None,
         workers=1):  # fmt: skip
    """Faces (n, channels, size, size) in 0…1; ``count`` keeps the first so many.

    ``seed`` is the synthetic people's, of whom there are 2,000 where ``count`` does not say;
    ``folder`` keeps them, so that they are made once, by so many ``workers`` side by side. Raises
    ValueError for an unknown source, and where one cannot be fetched.
    """
    if source not in SOURCES:
        raise ValueError(f"There are no faces {source!r}; there are {', '.join(SOURCES)}.")
    if channels not in (1, 3):
        raise ValueError(f"Pictures have 1 channel (grey) or 3, not {channels}.")
    if source == "synthetic":
        images = _kept(folder, count or 2000, max(size, 32), seed, workers)
    elif source == "lfw_subset":
        images = torch.from_numpy(skimage.data.lfw_subset()[:REAL_FACES]).float()[:, None]
    else:
        images = _fetched(source)
    images = _channels(images[:count], channels)
    if images.shape[-1] != size:
        larger = images.shape[-1] > size
        images = F.interpolate(images, (size, size), mode="bicubic", antialias=larger)
    return images.clamp(0, 1)


def synthetic(count, size=32, seed=0, workers=1):
    """Faces (count, 3, size, size) of the course's people, upright, nothing before them.

    The same from any number of ``workers``, processes that make them side by side, but for a rare
    rounding by 1/255.
    """
    images = np.empty((count, size, size, 3), np.uint8)
    jobs = [(k, min(k + CHUNK, count), size, seed) for k in range(0, count, CHUNK)]
    with tqdm(total=count, desc="photographs", disable=quiet()) as bar:
        for first, made in spread(_photographs, jobs, workers):
            images[first : first + len(made)] = made
            bar.update(len(made))
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _photographs(first, end, size, seed):
    """``first``, and the faces from that number to before ``end``, (n, size, size, 3) uint8."""
    from course.faces import Photographer, Variety
    from course.faces_camera import background_bank
    from course.photo import crop_around

    variety = Variety(occluders=0.0, glasses=0.0, camera=False, max_yaw=15.0, roll=10.0,
                      zoom=(1.0, 1.1), shift=0.05,
                      hair=("none", "painted", "short", "long", "big"))  # fmt: skip
    shoot = Photographer(None, variety, background_bank(60), size=max(64, 3 * size // 2))
    images = np.empty((end - first, size, size, 3), np.uint8)
    for image, number in zip(images, range(first, end), strict=True):
        photo = shoot(np.random.default_rng([seed, number]))
        crop = crop_around(photo.landmarks, 2 * size, 1.1, upright=True).apply(photo.image)
        fine = crop.permute(1, 2, 0).numpy()
        small = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
        image[:] = (255 * small).round().clip(0, 255)
    return first, images


def _kept(folder, count, size, seed, workers):
    """Synthetic faces from ``folder``, made where they are not there."""
    if folder is None:
        return synthetic(count, size, seed, workers)
    path = Path(folder) / f"synthetic-{count}-{size}-{seed}.npz"
    if not path.is_file():
        images = synthetic(count, size, seed, workers)
        with atomic_path(path) as temporary:
            np.savez(temporary, images=(255 * images).round().byte().numpy())
    with np.load(path) as file:
        return torch.from_numpy(file["images"]).float() / 255


def _fetched(source):
    """What scikit-learn fetches, (n, C, s, s) in 0…1."""
    try:
        from sklearn import datasets
    except ImportError:
        raise ValueError(f"{source!r} needs scikit-learn (pip install scikit-learn) and a network; "
                         "lfw_subset and synthetic need neither.") from None  # fmt: skip
    fetch, options = {
        "olivetti": (datasets.fetch_olivetti_faces, {}),
        "lfw": (datasets.fetch_lfw_people, {"color": True, "resize": 1.0}),
    }[source]
    try:
        images = fetch(**options, download_if_missing=False).images
    except OSError:  # not on this disk yet
        images = _downloaded(source, fetch, options)
    images = images if images.ndim == 4 else images[..., None]
    images = torch.from_numpy(np.ascontiguousarray(images)).float().permute(0, 3, 1, 2)
    side = min(images.shape[2:])
    top, left = ((n - side) // 2 for n in images.shape[2:])
    images = images[..., top : top + side, left : left + side]
    return images / 255 if images.max() > 1 else images


def _downloaded(source, fetch, options):
    """Pictures that one of scikit-learn's functions downloads; ValueError where it cannot."""
    advice = "connect to the network, or take lfw_subset or synthetic, which need none"
    if not network.answers(FIGSHARE):
        raise ValueError(f"{source!r} comes from {FIGSHARE}, which does not answer; {advice}.")
    try:
        with network.impatient(), warnings.catch_warnings(action="ignore"):
            return fetch(**options, n_retries=1, delay=0.0).images  # 1 is the fewest it takes
    except OSError as error:  # the network again, or a disk that is full
        raise ValueError(f"{source!r} could not be fetched ({error}); {advice}.") from None


def _channels(images, channels):
    """Grey or colour of colour or grey pictures."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    return torch.einsum("nchw,c->nhw", images, torch.tensor(LUMA))[:, None]


def augment(images, generator, strength=1.0):
    """Pictures (N, C, H, W) mirrored, turned, zoomed, shifted and lit at random, as many again.

    At strength 1 the standard deviations are 5 degrees, 6 %, 5 % and 12 %. Few real faces become
    many pictures, but not many people.
    """
    count = len(images)

    def draw(spread):
        return torch.randn(count, generator=generator) * spread * strength

    angle, scale = draw(np.radians(5)), torch.exp(draw(0.06))
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = torch.stack([cos * mirror, -sin, draw(0.1), sin * mirror, cos, draw(0.1)], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3).to(images), images.shape, align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    gain = torch.exp(draw(0.12)).view(-1, 1, 1, 1).to(images)
    return (moved * gain).clamp(0, 1)
