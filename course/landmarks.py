"""68 facial landmarks from a small network that has only ever seen synthetic faces.

Every landmark is an attention-weighted vote: each cell of a 12×12 map says where it believes the
point to be and how sure it is, so that hidden points are guessed from the rest of the face. Order
and meaning of the points are iBUG's (Sagonas et al. 2013). Training a landmark network on synthetic
faces alone follows Wood et al., "Fake it till you make it", 2021.
"""

from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course.files import DATA

WEIGHTS = DATA / "landmarks.pt"
INPUT = 96  # pixels a side
UNIT = INPUT / 10  # the loss measures distances in tenths of the picture
BOX_TO_FACE = 0.53  # share of the network's picture that a face's landmarks fill

# landmark k of a mirrored face is landmark MIRROR[k] of the face
MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip


def _conv(inputs, outputs, kernel=3, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """x + f(x), with f zero at the start."""

    def __init__(self, channels):
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )
        nn.init.zeros_(self.second[1].weight)

    def forward(self, x):
        return F.relu(x + self.second(self.first(x)))


class LandmarkNet(nn.Module):
    """Pictures (N, 3, 96, 96) in 0…1 → points (N, 68, 2) in pixels, log σ (N, 68) of UNIT."""

    def __init__(self, channels=(24, 40, 96, 176), head=112):
        super().__init__()
        a, b, c, d = channels
        self.stem = nn.Sequential(_conv(3, a, 5, 2), _conv(a, b, 3, 2), Residual(b))
        self.middle = nn.Sequential(_conv(b, c, 3, 2), Residual(c), Residual(c))
        self.deep = nn.Sequential(_conv(c, d, 3, 2), Residual(d), Residual(d))
        self.context = nn.Linear(d, head)
        self.from_deep, self.from_middle = nn.Conv2d(d, head, 1), nn.Conv2d(c, head, 1)
        self.vote = nn.Sequential(_conv(head, head), nn.Conv2d(head, 68 * 4, 1))
        nn.init.normal_(self.vote[1].weight, std=0.005)
        nn.init.zeros_(self.vote[1].bias)
        line = (torch.arange(INPUT // 8) + 0.5) / (INPUT // 8) * 2 - 1
        cells = torch.stack(torch.meshgrid(line, line, indexing="xy")).reshape(1, 1, 2, -1)
        self.register_buffer("cells", cells, persistent=False)

    def forward(self, images):
        middle = self.middle(self.stem((images - 0.5) * 4))
        deep = self.deep(middle)
        features = self.from_middle(middle) + F.interpolate(self.from_deep(deep), scale_factor=2)
        features = features + self.context(deep.mean((2, 3)))[:, :, None, None]
        votes = self.vote(F.relu(features)).flatten(2).float().unflatten(1, (68, 4))
        attention = (2 * votes[:, :, 0]).softmax(-1)
        place = self.cells + 0.5 * votes[:, :, 1:3]
        points = (place * attention[:, :, None]).sum(-1)
        log_sigma = (votes[:, :, 3] * attention).sum(-1) - 0.3
        return (points + 1) * INPUT / 2, log_sigma.clamp(-4.5, 2)


def landmark_loss(points, log_sigma, truth):
    """Gaussian negative log likelihood plus 0.7 smooth L1 (which keeps unsure points learning)."""
    offset = (points - truth) / UNIT
    square = (offset * offset).sum(-1)
    likelihood = 2 * log_sigma + 0.5 * square * torch.exp(-2 * log_sigma)
    return likelihood.mean() + 0.7 * F.smooth_l1_loss(offset, torch.zeros_like(offset), beta=0.1)


@lru_cache(maxsize=2)
def load(path=None, device="cpu"):
    """The trained network. Raises FileNotFoundError or ValueError that say what to do."""
    path = WEIGHTS if path is None else path
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        net = LandmarkNet()
        net.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing; type: python -m course train landmarks"
        ) from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(f"{path} does not hold landmark weights ({error}).") from None
    return net.to(device).eval()


def upright_roll(points):
    """How far a face is turned in the picture (radians), from its eyes in landmarks (68, 2)."""
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    return float(np.arctan2(right[1] - left[1], right[0] - left[0]))


def crop(image, centre, side, roll):
    """A turned square (INPUT, INPUT, 3) of a picture around ``centre``, ``side`` of its pixels
    wide, and the 2×3 map from it to the picture."""
    c, s = np.cos(roll) * side / INPUT, np.sin(roll) * side / INPUT
    matrix = np.array([[c, -s, 0], [s, c, 0]], np.float64)
    matrix[:, 2] = centre - matrix[:, :2] @ [INPUT / 2, INPUT / 2]
    # OpenCV counts pixels at whole numbers, we at halves
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    shrink = max(1.0, side / INPUT)
    source = image if shrink < 2 else cv2.GaussianBlur(image, (0, 0), 0.35 * shrink)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(source, shifted, (INPUT, INPUT), flags=flags,
                          borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    return view, matrix


@torch.no_grad()
def predict(net, image, box, rounds=3, roll=0.0):
    """Landmarks (68, 2) and their uncertainty σ (68,), both in pixels of ``image``.

    image (H, W, 3) uint8; box (x1, y1, x2, y2) roughly around the face, ``roll`` its turn in the
    picture if known (radians). Each round crops again
    around the points of the last one, upright, and averages over the picture and its mirror image.
    """
    x1, y1, x2, y2 = (float(q) for q in box)
    centre, side = np.array([(x1 + x2) / 2, (y1 + y2) / 2]), max(x2 - x1, y2 - y1) * 1.5
    device = next(net.parameters()).device
    for _ in range(rounds):
        view, matrix = crop(image, centre, side, roll)
        batch = torch.from_numpy(np.stack([view, view[:, ::-1]]).copy()).to(device)
        found, log_sigma = net(batch.permute(0, 3, 1, 2).float() / 255)
        found, sigma = found.cpu().numpy(), log_sigma.exp().cpu().numpy() * UNIT
        mirrored = found[1][MIRROR] * [-1, 1] + [INPUT, 0]
        points = (found[0] + mirrored) / 2 @ matrix[:, :2].T + matrix[:, 2]
        sigma = (sigma[0] + sigma[1][MIRROR]) / 2 * side / INPUT
        roll = upright_roll(points)
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        level = points @ turn.T
        low, high = level.min(0), level.max(0)
        centre = turn.T @ ((low + high) / 2)
        side = max((high - low).max(), 4.0) / BOX_TO_FACE
    return points.astype(np.float32), sigma.astype(np.float32)
