"""Analysis by synthesis (Blanz and Vetter 1999): change the codes until the drawing is the photo.

First landmarks only, which find pose, size and the coarse shape; then pixels, coarse to fine. One
identity (shape, albedo) is shared by all photographs of a person; each has its own expression,
pose, camera and light.
"""

import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from course.camera import fit_camera, foreshortened, project
from course.facecode import JAW, LEFT_EYE, NECK, RIGHT_EYE, ROOT, FaceCode
from course.files import quiet
from course.flame import folded
from course.losses import LIDS, LIPS
from course.photo import crop_around
from course.render import Renderer, spherical_harmonics

# how much a landmark counts: the contour slides and hides behind hair, the inner points do not
LANDMARK_WEIGHTS = torch.cat([torch.full((17,), 0.35), torch.ones(51)])
LANDMARK_WEIGHTS[17:27] = 0.7  # brows are painted as much as grown
# how far lids and lips are apart says more than where they are: the upper points, the lower ones
UPPER, LOWER = (list(lids + lips) for lids, lips in zip(LIDS, LIPS, strict=True))
GAP_WEIGHT = 0.5
SIGMA_FLOOR = 0.012  # of the crop: no landmark is surer than that
IMAGE_SIZE = 224  # pixels a side of the crops that are compared
OUTLIER = 0.12  # colour difference from which a pixel is thought to be hidden
BARE = 0.025  # metres around the bridge of the nose where hair, hands and masks seldom are
LIGHT_ROUNDS = (1.0, 1.0, 0.5, 0.0)  # powers of the weights that say so, while light is solved
# pixels are compared twice: by their colours, and by how they differ from those around them, which
# light has little to do with. Shadows and shine, which nine numbers of light cannot say, are in the
# colours and would bend the head: there they count less (tried, as all numbers here, on other
# synthetic people than those that ``evaluate`` judges by)
CONTRAST = 0.07  # difference of logarithms from which a pixel is thought to be hidden
DIM = 0.05  # added before logarithms: what is darker is noise
AROUND = 0.03  # of the crop: σ of what counts as around a pixel
CREASES = 0.5  # power of the occlusion: photographs are light to the power of 1/2.2
AMBIENT = 3.2  # band 0 of the light of a well-exposed photograph: shading 0.90
# metres from the camera that a fit begins with, and how far others are, as a spread of logarithms
FIRST_DISTANCE, DISTANCE_SPREAD, FAR = 0.9, 0.55, 1e3
# of the stages that compare pixels
WEIGHTS = {"contrast": 40.0, "colours": 2.0, "landmarks": 100.0, "prior": 0.008, "albedo": 0.02}
# pixels count as if each said something of its own, which they do not: so the prior counts for more
# than it says; and more than that where the start has seen the same pixels
PRIOR_TRUST, START_TRUST = 4.0, 10.0
# of n photographs the prior counts as one of n^SHARE, not of n: some mistakes are in all of them;
# so are those of landmarks and of shading (lamps are harder than nine numbers of light, which made
# heads too deep): these two count for n^SHARE beside what a texture says by where it is seen
SHARE, MOST_SHARES = 0.75, 8
JAW_OPENS = (0.0, 0.7)  # radians
GAZE = PRIOR_TRUST / 0.22**2 / 2  # of each eye: people seldom look aside by more than 0.22 radians
TEXELS = 16 / 7  # texels of the head's texture to a pixel of the pictures that are compared
WARM = 20  # steps until the learning rate of a stage that compares pixels is reached
STEPS = {"landmarks": 240, 56: 100, 112: 200}
STEPS_FROM_START = STEPS | {"landmarks": 60}
RATES = {"shape": 0.12, "expression": 0.05, "pose": 0.006, "camera": 0.006, "albedo": 0.06,
         "light": 0.03, "distance": 0.02}  # fmt: skip
# from so many photographs on, the one head that explains all of them takes longer to settle, and
# each photograph's pose has to follow it
MANY, STEPS_OF_MANY = 4, {112: 400}
RATES_OF_MANY = RATES | {"pose": 0.012, "camera": 0.012}


@dataclass
class FitResult:
    """What a fit found.

    codes      FaceCode of N faces, one a photo, shape and albedo the same in all
    vertices   (N, V, 3) posed, metres · distance (N,) metres from the camera
    seen       (N, V, 3) the vertices as the camera sees them from there, see ``foreshortened``:
               what to draw with the weak perspective camera of the codes
    images     (N, 3, S, S) the crops · rendered (N, 3, S, S) · mask (N, 1, S, S) of compared pixels
    crops      the N crops · landmarks (N, 68, 2) the model's, in pixels of the original pictures
    losses     stage → list of values · seconds stage → float
    """

    codes: FaceCode
    vertices: torch.Tensor
    distance: torch.Tensor
    seen: torch.Tensor
    images: torch.Tensor
    rendered: torch.Tensor
    mask: torch.Tensor
    crops: list
    landmarks: np.ndarray
    losses: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)


def fit(photos, detections, flame, image_size=IMAGE_SIZE, backend="auto", steps=None, progress=True,
        start=None, trust=None):  # fmt: skip
    """Fit ``flame`` to photographs of one person.

    photos      list of (H, W, 3) uint8 · detections: one ``photo.Detection`` each
    image_size  side of the crops that are compared, pixels
    steps       overrides of STEPS (and STEPS_OF_MANY), e.g. {"landmarks": 100, 112: 0}
    start       a FaceCode (N) to start from instead of the mean face, as seen in the crops
                (``encode.read_faces``)
    trust       {"shape": (N, S), "albedo": (N, T)}: how sure ``start`` is, as inverse variances.
                Codes are then drawn to the start, not to the mean face: the prior ½Σ(α/σ)² becomes
                ½Σ c (α − α₀)²
    Raises ValueError when there is nothing to fit, or ``start`` has other rows than photographs.
    """
    if not photos or len(photos) != len(detections):
        raise ValueError("fit needs at least one photograph and one detection for each.")
    crops = [crop_around(d.points, image_size) for d in detections]
    many = len(photos) >= MANY
    schedule = STEPS if start is None else STEPS_FROM_START
    schedule = schedule | (STEPS_OF_MANY if many else {}) | (steps or {})
    # a start alone is drawn by its own camera, which is infinitely far, in the light that suits it
    distance = FIRST_DISTANCE if any(schedule.values()) else FAR
    fitter = Fitter(flame, *observed(photos, detections, crops, flame), backend, distance, start,
                    trust, RATES_OF_MANY if many else RATES)  # fmt: skip
    if start is not None and not any(schedule.values()):
        fitter.solve_light(112)
    fitter.run(schedule, progress)
    return fitter.result(crops)


def observed(photos, detections, crops, flame):
    """What is compared: images (N, 3, S, S), landmarks (N, 68, 2) and their sigma (N, 68), pixels
    of the crops, on the head's device."""
    device = flame.v_template.device
    triples = list(zip(photos, detections, crops, strict=True))
    images = torch.stack([c.apply(p) for p, _, c in triples]).to(device)
    points = np.stack([c.to_crop(d.points) for _, d, c in triples])
    sigma = np.stack([d.sigma * c.out / c.side for _, d, c in triples])
    return images, *(torch.from_numpy(q).float().to(device) for q in (points, sigma))


def compared_faces(flame):
    """Triangles (F,) of skin, lips and eyes, where the model should explain a photograph."""
    face = flame.masks["face"] | flame.masks.get("eyes", flame.masks["face"])
    compared = face[flame.faces].all(1)
    if "mouth_interior" in flame.masks:
        compared &= ~flame.masks["mouth_interior"][flame.faces].any(1)
    return compared


def bareness(flame):
    """Weights (F,) of triangles: how seldom anything is before them, exp(−½ (d / BARE)²).

    d is how far they are from the bridge of the nose. Where hair covers more of a face than it
    leaves, this is what tells which of the two is the face.
    """
    template = flame.v_template
    bridge = flame.landmarks(template[None])[0, 27:31].mean(0)
    away = template[flame.faces].mean(1) - bridge
    return (-0.5 * away.square().sum(1) / BARE**2).exp()


class Fitter:
    """Crops of one person, what was detected in them, and the codes that are being fitted."""

    def __init__(self, flame, images, points, sigma, backend, distance, start=None, trust=None,
                 rates=RATES):  # fmt: skip
        self.flame, self.images, self.points, self.backend = flame, images, points, backend
        self.rates = rates
        self.size = images.shape[-1]
        weights = LANDMARK_WEIGHTS.to(points) / (SIGMA_FLOOR * self.size + sigma)
        self.weights = (weights / weights.mean(1, keepdim=True)).unsqueeze(-1)
        self.losses, self.seconds, self.clock = {}, {}, time.perf_counter()
        self._tone_known = start is not None
        n = len(images)
        code = FaceCode.zeros(flame, n) if start is None else start.detach().clone()
        if len(code) != n:
            raise ValueError(f"start has {len(code)} rows for {n} photographs.")
        if code.pose[:, NECK].any():
            code.pose = folded(code.pose)  # only the root is fitted
        guess = code.clone()
        guess.pose[:, ROOT], guess.camera = first_pose(flame, points, self.size)
        # a start may be a poor one: then the landmarks alone know better how the head is turned
        poor = self._misses(guess) < 0.7 * self._misses(code)
        code.pose[poor], code.camera[poor] = guess.pose[poor], guess.camera[poor]
        # one row for what all photographs share
        self.free = {
            "shape": code.shape.mean(0, keepdim=True),
            "albedo": code.albedo.mean(0, keepdim=True),
            "expression": code.expression,
            "pose": code.pose,
            "camera": code.camera,
            "light": code.light,
            "distance": code.camera.new_full((n, 1), distance).log(),
        }
        # the prior: where codes are drawn to, and how strongly
        self.centre, self.strength = {}, {}
        for name in ("shape", "albedo"):
            value = self.free[name].detach().clone()
            known = trust is not None and name in trust
            self.centre[name] = value if known else 0 * value
            sure = torch.full_like(value, PRIOR_TRUST)
            if known:
                sure = START_TRUST * trust[name].mean(0, keepdim=True)
            self.strength[name] = sure / min(n, MOST_SHARES) ** SHARE
        self.alike = min(n, MOST_SHARES) ** (SHARE - 1)  # weight of what errs alike in all of them
        self.free = {k: v.clone().requires_grad_() for k, v in self.free.items()}
        self._keep_jaw()
        self.textures = {}
        self.compared = compared_faces(flame)
        self.bareness = bareness(flame)

    @torch.no_grad()
    def _misses(self, code):
        """Mean distance (N,) of a head's landmarks from the detected ones, pixels."""
        vertices = self.flame(code.shape, code.expression, code.pose)
        marks = project(self.flame.landmarks(vertices, code.pose), code.camera, self.size)
        return (marks[..., :2] - self.points).norm(dim=-1).mean(1)

    def code(self):
        n = len(self.images)
        shared = {k: self.free[k].expand(n, -1) for k in ("shape", "albedo")}
        return FaceCode(**({k: v for k, v in self.free.items() if k != "distance"} | shared))

    def _adam(self, names):
        return torch.optim.Adam(
            [{"params": [self.free[k]], "lr": self.rates[k]} for k in names], betas=(0.9, 0.98)
        )

    def _head(self):
        """Vertices as the camera sees them, and the pose."""
        pose = self._pose()
        vertices = self.flame(self.code().shape, self.free["expression"], pose)
        return foreshortened(vertices, self.free["distance"].exp()), pose

    def _step(self, optimizer, loss):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        self._keep_jaw()

    @torch.no_grad()
    def _keep_jaw(self):
        """Teeth do not pass through each other, nor does a jaw open by more than 40 degrees.

        The codes are held after each step: a clamp within the pose leaves no slope to return by.
        """
        self.free["pose"][:, JAW][:, 0].clamp_(*JAW_OPENS)

    def _pose(self):
        """Root, jaw pitch and one gaze for both eyes; the neck cannot be told from the root."""
        pose = self.free["pose"]
        jaw = torch.cat([pose[:, 6:7], 0.3 * pose[:, 7:9]], 1)
        gaze = (pose[:, LEFT_EYE] + pose[:, RIGHT_EYE]) / 2
        gaze = torch.cat([gaze[:, :2].clamp(-0.6, 0.6), 0 * gaze[:, 2:]], 1)
        return torch.cat([pose[:, ROOT], 0 * pose[:, 3:6], jaw, gaze, gaze], 1)

    def _landmark_loss(self, vertices, pose):
        marks = project(self.flame.landmarks(vertices, pose), self.free["camera"], self.size)
        offset = (marks[..., :2] - self.points) / self.size
        distance = (offset.square().sum(-1, keepdim=True) + 1e-6).sqrt()  # robust: L1 far away
        gap = ((offset[:, UPPER] - offset[:, LOWER]).square().sum(-1) + 1e-7).sqrt()
        return (self.weights * distance).mean() + GAP_WEIGHT * gap.mean()

    def _prior(self):
        """½Σ² of unit-variance codes (Gaussian prior), jaw and gaze kept near rest."""
        free, pose = self.free, self.free["pose"]
        prior = self._away("shape") * len(self.images)
        # most photographs show mild expressions: what both could explain is the person
        prior = prior + 3 * free["expression"].square().sum()
        backwards = free["expression"].clamp_max(0)[:, self.flame.expression_one_way]
        prior = prior + 30 * backwards.square().sum()
        away = (free["distance"] - math.log(FIRST_DISTANCE)) / DISTANCE_SPREAD
        prior = prior + away.square().sum()
        prior = prior + 20 * pose[:, JAW][:, 1:].square().sum()
        gaze = pose[:, LEFT_EYE].square().sum() + pose[:, RIGHT_EYE].square().sum()
        return 0.5 * (prior + GAZE * gaze) / len(self.images)

    def _away(self, name):
        return (self.strength[name] * (self.free[name] - self.centre[name]).square()).sum()

    def run(self, schedule, progress=True):
        """All stages of ``schedule``, stage → steps, as in STEPS."""
        total = sum(schedule.values())
        silent = quiet() or not progress or not total
        with tqdm(total=total, desc="fit", disable=silent) as bar:
            for stage, count in schedule.items():
                if stage == "landmarks":
                    self.landmark_stage(count, bar)
                elif count:
                    self.pixel_stage(min(stage, self.size), count, bar)
                self.after_stage()
                name = stage if stage == "landmarks" else f"pixels {stage}"
                before, self.clock = self.clock, time.perf_counter()
                self.seconds[name] = self.clock - before

    def after_stage(self):
        """Nothing; see ``clip.Tracker``."""

    def landmark_stage(self, count, bar):
        names = ("shape", "expression", "pose", "camera", "distance")
        optimizer, history = self._adam(names), []
        for step in range(count):
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("first", group["lr"]) * (1 - 0.9 * step / count)
            vertices, pose = self._head()
            marks = self._landmark_loss(vertices, pose)
            loss = 100 * marks + 0.012 * self._prior()
            self._step(optimizer, loss)
            history.append(marks.item())
            bar.update()
        self.losses["landmarks"] = history

    def pixel_stage(self, size, count, bar):
        renderer = Renderer(self.flame, size, self.backend)
        images = F.interpolate(self.images, (size, size), mode="area")
        with torch.no_grad():
            self._solve_light(renderer, images)
            if "pixels 56" not in self.losses and not self._tone_known:
                self._first_tone()
                self._solve_light(renderer, images)
                self._tone_known = True
        optimizer, history = self._adam(self.free), []
        for step in range(count):
            now = (1 - 0.8 * step / count) * min(1, (step + 1) / WARM)
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("first", group["lr"]) * now
            vertices, pose = self._head()
            drawn = self._draw(renderer, vertices)
            mask = self._mask(drawn)
            apart = local_contrast(drawn.image, images, mask, AROUND * size)
            contrast = _robust(apart, mask, CONTRAST)
            colours = _robust(drawn.image - images, mask, OUTLIER)
            light = self.free["light"]
            tint = light - light.mean(-1, keepdim=True)  # lamps are nearly white
            loss = (
                WEIGHTS["contrast"] * contrast
                + WEIGHTS["colours"] * colours
                + WEIGHTS["landmarks"] * self.alike * self._landmark_loss(vertices, pose)
                + WEIGHTS["prior"] * self._prior()
                + WEIGHTS["albedo"] * self._away("albedo")
                + 2.0 * tint.square().sum() / len(images)
                + 0.02 * (light[:, :1] - AMBIENT).square().mean()
                + 0.02 * light[:, 4:].square().sum() / len(images)
            )
            self._step(optimizer, loss)
            history.append(contrast.item())
            bar.update()
        self.losses[f"pixels {size}"] = history

    @torch.no_grad()
    def solve_light(self, size):
        """The light that explains the photographs best, given all the rest."""
        images = F.interpolate(self.images, (size, size), mode="area")
        self._solve_light(Renderer(self.flame, size, self.backend), images)

    def _draw(self, renderer, vertices):
        side = renderer.image_size[0]
        if side not in self.textures:
            self.textures[side] = AlbedoTexture(self.flame, round(TEXELS * side))
        skin = self.textures[side](self.free["albedo"])
        pixels = project(vertices, self.free["camera"], renderer.image_size)
        # the same vertices, and a share of their slope, for the normals that shading asks for
        lit = vertices.detach().lerp(vertices, self.alike)
        return renderer.draw(lit, pixels, skin, self.free["light"], occlusion=CREASES)

    def _mask(self, drawn):
        """(N, 1, H, W) pixels of skin, lips and eyes, where the model should explain the photo."""
        return drawn.shows(self.compared).unsqueeze(1).float()

    def _first_tone(self):
        """Explain a bright face by skin rather than by lamps: only their product is seen.

        The light was solved with the mean albedo; its excess over a usual exposure goes into the
        skin's melanin, in log colour.
        """
        names = self.flame.albedo_names
        if "melanin" not in names:
            return
        one = torch.zeros_like(self.free["albedo"])
        one[:, names.index("melanin")] = 1.0
        skin = self.flame.masks["skin"]
        colours = VertexAlbedo(self.flame)
        slope = (colours(one) / colours(0 * one))[:, skin].log().mean()
        excess = (self.free["light"][:, 0].mean() / AMBIENT).clamp(0.2, 5).log()
        tone = (0.8 * excess / slope).clamp(-2.0, 2.2)
        self.free["albedo"][:, names.index("melanin")] = tone

    def _solve_light(self, renderer, images):
        """Light by least squares, given the rest: per photo and colour nine unknowns."""
        vertices, _ = self._head()
        drawn = self._draw(renderer, vertices)
        mask = self._mask(drawn)[:, 0].bool()
        bare = drawn.shows(self.bareness)
        for n in range(len(images)):
            basis = spherical_harmonics(drawn.normal[n].permute(1, 2, 0)[mask[n]])
            if len(basis) < 50:
                continue
            ridge = torch.diag(torch.tensor([0.0] + [0.02] * 3 + [0.2] * 5)).to(basis) * len(basis)
            for c in range(3):
                albedo = drawn.albedo[n, c][mask[n]]
                rows = basis * albedo[:, None]
                target = images[n, c][mask[n]]
                fits = torch.ones_like(target)
                for power in LIGHT_ROUNDS:  # without the pixels that do not fit
                    weight = fits * bare[n][mask[n]] ** power
                    left = rows.T @ (weight[:, None] * rows) + ridge * weight.mean()
                    light = torch.linalg.solve(left, rows.T @ (weight * target))
                    fits = 1 / (1 + ((rows @ light - target) / OUTLIER) ** 2) ** 2
                self.free["light"][n, :, c] = light
            grey = self.free["light"][n].mean(-1, keepdim=True)
            self.free["light"][n] = grey + 0.4 * (self.free["light"][n] - grey)

    @torch.no_grad()
    def result(self, crops):
        seen, pose = self._head()
        code = self.code().detach().replace(pose=pose).clone()
        vertices = self.flame(code.shape, code.expression, pose)
        marks = project(self.flame.landmarks(seen, pose), code.camera, self.size)[..., :2]
        renderer = Renderer(self.flame, self.size, self.backend)
        drawn = renderer(seen, code.camera, self.flame.albedo(code.albedo), code.light,
                         occlusion=CREASES)  # fmt: skip
        original = np.stack(
            [c.to_photo(m) for c, m in zip(crops, marks.cpu().numpy(), strict=True)]
        )
        distance = self.free["distance"].detach().exp()[:, 0]
        return FitResult(code, vertices, distance, seen, self.images, drawn.image,
                         self._mask(drawn), crops, original, self.losses, self.seconds)  # fmt: skip


def local_contrast(image, other, mask, spread):
    """By how much two pictures (N, 3, H, W) differ, beyond what they do around: δ − G(mδ)/G(m).

    δ = log(I + ε) − log(I* + ε) inside the mask m (N, 1, H, W), G a Gaussian of ``spread`` pixels.
    In logarithms albedo and light are a sum, and light changes slowly: what is left is albedo, and
    where it lies (Land and McCann 1971). A brighter lamp leaves it as it is.
    """
    change = (image.clamp_min(0) + DIM).log() - (other + DIM).log()
    return change - _blurred(change * mask, spread) / _blurred(mask, spread).clamp_min(1e-3)


def _blurred(planes, spread):
    """Planes (N, C, H, W) through a Gaussian of σ = ``spread`` pixels, zero outside."""
    reach = max(1, math.ceil(3 * spread))
    at = torch.arange(-reach, reach + 1, device=planes.device)
    kernel = (-0.5 * (at / spread).square()).exp().to(planes)
    kernel = (kernel / kernel.sum()).expand(planes.shape[1], 1, 1, -1)
    planes = F.conv2d(planes, kernel, padding=(0, reach), groups=len(kernel))
    return F.conv2d(planes, kernel.mT, padding=(reach, 0), groups=len(kernel))


def _robust(difference, mask, outlier):
    """Mean over the mask of ρ(d) = d²/(d² + outlier²) (Geman and McClure 1987): pixels that are far
    off, which something hides, lose their say."""
    square = difference.square().sum(1, keepdim=True)
    return (square / (square + outlier**2) * mask).sum() / mask.sum().clamp_min(1)


class _Albedo:
    """Albedo from codes (N, T): mean · exp(Σ a_k dirs_k), as ``flame.albedo``, of other places."""

    def __call__(self, codes):
        if self.dirs is None:
            return self.mean.expand(len(codes), *self.mean.shape[1:])
        density = torch.einsum("nk,k...->n...", codes, self.dirs)
        return (self.mean * density.exp()).clamp(0, 1)


class AlbedoTexture(_Albedo):
    """Albedo textures (N, 3, R, R) from codes (N, T): ``flame.albedo``, as coarse as is asked for.

    Brows, lids and lips say to a fraction of a pixel where they are, as long as the texture is no
    coarser than the picture; were it finer, it would flicker (mipmaps, Williams 1983).
    """

    def __init__(self, flame, side):
        whole = (flame.albedo_dirs if flame.n_albedo else flame.albedo_mean).shape[-1]
        size = [min(side, whole)] * 2
        self.mean = F.interpolate(flame.albedo_mean[None], size, mode="area")
        self.dirs = F.interpolate(flame.albedo_dirs, size, mode="area") if flame.n_albedo else None


class VertexAlbedo(_Albedo):
    """Albedo at the vertices: (N, V, 3) from codes (N, T), much cheaper than whole textures."""

    def __init__(self, flame):
        vertices, corners = flame.faces.reshape(-1), flame.ft.reshape(-1)
        uv = flame.v_template.new_zeros(len(flame.v_template), 2)
        uv[vertices] = flame.vt[corners]
        grid = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], -1)[None, None]

        def at(texture):
            sampled = F.grid_sample(
                texture, grid.expand(len(texture), -1, -1, -1), align_corners=False
            )
            return sampled[:, :, 0].transpose(1, 2)

        self.mean = at(flame.albedo_mean[None])
        self.dirs = at(flame.albedo_dirs) if flame.n_albedo else None


def first_pose(flame, points, size):
    """Root rotation (N, 3) and camera (N, 3) of the mean face, in closed form.

    The best affine map from the mean's landmarks to the picture is made a rotation: its two rows,
    orthonormalised, are the picture's axes (scaled orthography, as POSIT's first step).
    """
    rest = flame.landmarks(flame())[0].detach().cpu().numpy()[17:]
    rotations = []
    for marks in points[:, 17:].cpu().numpy():
        target = (marks - marks.mean(0)) * [1, -1]
        affine, *_ = np.linalg.lstsq(rest - rest.mean(0), target, rcond=None)
        u, _, vt = np.linalg.svd(affine.T, full_matrices=False)
        right, up = u @ vt
        matrix = np.stack([right, up, np.cross(right, up)])
        rotations.append(Rotation.from_matrix(matrix).as_rotvec())
    pose = torch.zeros(len(points), 15).to(points)
    pose[:, ROOT] = torch.from_numpy(np.stack(rotations)).to(points)
    turned = flame.landmarks(flame(pose=pose), pose)
    return pose[:, ROOT], fit_camera(turned, points, size)
