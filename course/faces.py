"""Synthetic photographs with their 3D truth: the course's data set.

People are drawn from the head model, given an expression, a pose, hair, glasses and a shirt, lit by
a sky and one to three lamps with shadows, photographed through a pinhole and spoilt by a camera.
A picture takes about ten milliseconds, so that training sets are made on the fly.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from course import faces_camera as camera
from course import faces_covers as covers
from course import faces_scene as scene
from course.camera import fit_camera, perspective, to_ndc
from course.facecode import FaceCode
from course.flame import FLAME, head_yaw, rodrigues
from course.rasterize import barycentric_at, covered, face_corners, zbuffer_of

SUPERSAMPLE = 1.4
# what networks train on beyond what they are judged on, as changes of Variety
MOUTHS = {"lips": 0.4, "shouts": 0.08}
BROWS_LOWER = (-0.12, 0.42)  # of the way to the eyes; the head model's are high
FACE_SHARE = 0.53  # side of the landmarks' box over the picture's side at zoom 1
BEARDS = ("full", "full", "chin", "moustache", "goatee")
HAIR_COLOURS = np.array([
    [0.02, 0.016, 0.014], [0.035, 0.022, 0.015], [0.07, 0.04, 0.022], [0.14, 0.075, 0.035],
    [0.32, 0.20, 0.09], [0.55, 0.40, 0.20], [0.25, 0.08, 0.03], [0.35, 0.35, 0.35],
    [0.65, 0.64, 0.62], [0.012, 0.012, 0.014],
])  # fmt: skip  # linear light


@dataclass
class Variety:
    """How wild the photographs are. ``plain()`` is a studio: for tests and for fitting's truth.

    glasses, hands, masks, painted lips, mouths wide open (shouts) and brows that are not where the
    head model has them are shares of the people; hair names styles of faces_scene (None: all).
    """

    accessories: bool = True
    occluders: float = 0.33
    glasses: float = 0.24
    hands: float = 0.0
    masks: float = 0.0
    lips: float = 0.0
    shouts: float = 0.0
    brows: float = 0.0
    hair: tuple | None = None
    camera: bool = True
    expressive: float = 0.72
    max_yaw: float = 75.0
    roll: float = 34.0
    zoom: tuple = (0.62, 1.55)
    shift: float = 0.2
    distance: tuple = (0.33, 2.5)

    @classmethod
    def plain(cls):
        return cls(accessories=False, occluders=0.0, camera=False, expressive=0.5, max_yaw=30.0,
                   roll=8.0, zoom=(1.0, 1.0), shift=0.0, distance=(1.2, 2.5))  # fmt: skip


@dataclass
class SyntheticPhoto:
    """A photograph and everything that made it.

    image (H, W, 3) uint8 · landmarks (68, 2) pixels (u, v) · code FaceCode of one face whose camera
    is the best weak perspective · vertices (V, 3) posed, metres · pixels (V, 3) = (u, v, depth) ·
    distance metres from the pinhole · yaw degrees
    """

    image: np.ndarray
    landmarks: np.ndarray
    code: FaceCode
    vertices: np.ndarray
    pixels: np.ndarray
    distance: float
    yaw: float


class Photographer:
    """Makes synthetic photographs of a head model: ``photo = photographer(rng)``.

    Not a module: it works on one CPU thread with numpy's generator, so that processes can make
    photographs side by side and a seed gives the same picture everywhere.
    """

    def __init__(self, flame=None, variety=None, bank=None, size=112):
        """``bank`` is (n, s, s, 3) uint8 of backgrounds; ``size`` the pictures' side in pixels."""
        self.flame = FLAME.load(device="cpu") if flame is None else flame
        self.variety = variety or Variety()
        self.size = size
        self.bank = camera.background_bank(200) if bank is None else bank
        f = self.flame
        self.faces = f.faces.numpy()
        mean = torch.log(f.albedo_mean[None].clamp_min(0.012))
        small = torch.nn.functional.interpolate(mean, f.albedo_dirs.shape[-2:], mode="area")[0]
        self.log_albedo = small.permute(1, 2, 0).numpy()
        self.albedo_dirs = f.albedo_dirs.permute(2, 3, 0, 1).numpy().copy()  # (R, R, K, 3)
        resolution = self.log_albedo.shape[0]
        empty = np.zeros((resolution, resolution), np.float32)
        masks = {k: m.numpy() for k, m in f.uv_masks.items()}
        self.maps = np.stack([masks.get(k, empty) for k in ("hair", "brows", "beard")], -1)
        self.lips = masks.get("lips", empty)
        weight = self.lips.sum(1)  # heavy rows lie around the one between the lips
        self.lip_row = (weight @ np.arange(resolution)) / max(weight.sum(), 1e-6)
        self.corner_uv = f.vt[f.ft].numpy()
        self.eye_faces = f.masks["eyes"].numpy()[self.faces].all(1) if "eyes" in f.masks else None
        mouth = f.masks.get("mouth_interior")
        self.mouth = np.zeros(len(f.v_template), bool) if mouth is None else mouth.numpy()
        rest = f.v_template.numpy() * 1000
        skull = rest[f.masks["scalp"].numpy()] if "scalp" in f.masks else rest[rest[:, 1] > 20]
        self.skull_mean = (np.abs(skull[:, 0]).max(), skull[:, 1].max() - 32, 92.0, 32.0, -2.0)
        self.zbuffer = zbuffer_of("auto", "cpu")
        noise = np.random.default_rng(0)
        self.noise = [camera.fractal_noise(noise, 256, 256, r) for r in (0.3, 0.7, 1.1)]
        self.streaks = [_streaks(noise, *s) for s in ((0.6, 12), (1.2, 20), (0.6, 4), (2.2, 9))]

    @torch.no_grad()
    def __call__(self, rng, code=None):
        """One photograph; ``code`` fixes shape, expression, pose and albedo."""
        v = self.variety
        code = self.person(rng) if code is None else code
        flame = self.flame
        vertices = flame(code.shape, code.expression, code.pose)
        truth = flame.landmarks(vertices, code.pose)
        lower = rng.uniform(*BROWS_LOWER) if v.brows and rng.random() < v.brows else 0.0
        if lower:
            truth[0, 17:27] = self._lower_brows(vertices[0], lower)
        parts, lenses = self._dress(rng, code, vertices) if v.accessories else ([], None)
        triangles, points, material, uv = self._assemble(vertices[0].numpy(), parts)

        # aim: the camera looks at the middle of the face from ``distance`` metres
        centre = truth[0].mean(0)
        distance = float(np.exp(rng.uniform(*np.log(v.distance))))
        side = round(self.size * SUPERSAMPLE) if v.camera else 2 * self.size
        pixels = self._aim(rng, torch.from_numpy(points), truth, centre, distance, side)
        projected, marks = pixels[: len(points)], pixels[len(points) :]
        shot = self._shoot(rng, triangles, points, material, uv, projected, side, code, lenses,
                           lower)  # fmt: skip
        scale = self.size / side
        marks = (marks[:, :2] * scale).numpy()
        image, skin = shot
        if v.occluders and rng.random() < v.occluders:
            image = camera.occlude(rng, image, marks / scale, skin, self.bank)
        image = camera.cv2.resize(image.astype(np.float32), (self.size, self.size),
                                  interpolation=camera.cv2.INTER_AREA)  # fmt: skip
        image = np.clip(image, 0, 255)
        image = camera.camera_effects(rng, image) if v.camera else image.round().astype(np.uint8)
        fitted = fit_camera(truth, torch.from_numpy(marks)[None], self.size)
        count = len(flame.v_template)
        placed = projected[:count] * torch.tensor([scale, scale, 1.0])
        return SyntheticPhoto(image, marks.astype(np.float32), code.replace(camera=fitted),
                              vertices[0].numpy(), placed.numpy(), distance,
                              float(head_yaw(code.pose)))  # fmt: skip

    # ------------------------------------------------------------------ who, and how posed

    def person(self, rng):
        """A random person's code with expression, gaze and head pose."""
        f, v = self.flame, self.variety
        code = FaceCode.zeros(f)
        code.shape[0] = torch.from_numpy(np.clip(rng.normal(size=f.n_shape), -2.3, 2.3)).float()
        albedo = rng.normal(size=f.n_albedo)
        if "melanin" in f.albedo_names and rng.random() < 0.3:  # the tails on purpose
            albedo[f.albedo_names.index("melanin")] = rng.uniform(-2.2, 2.4)
        code.albedo[0] = torch.from_numpy(np.clip(albedo, -2.2, 2.4)).float()
        jaw = self._expression(rng, code.expression[0])
        yaw = rng.normal() * 20 if rng.random() < 0.6 else rng.uniform(-1, 1) * v.max_yaw
        yaw = np.clip(yaw, -v.max_yaw, v.max_yaw)
        pitch = np.clip(rng.normal() * 10, -28, 28)
        roll = rng.normal() * 0.32 * v.roll if rng.random() < 0.75 else rng.uniform(-1, 1) * v.roll
        code.pose[0, :3] = _axis_angle(yaw, pitch, np.clip(roll, -v.roll, v.roll))
        neck = rng.normal(size=3) * [0.06, 0.10, 0.06]
        gaze = np.clip(rng.normal(size=2) * [0.14, 0.22], [-0.3, -0.5], [0.3, 0.5])
        code.pose[0, 3:6] = torch.from_numpy(neck)
        code.pose[0, 6], code.pose[0, 7] = jaw, rng.normal() * 0.01
        for start in (9, 12):
            code.pose[0, start], code.pose[0, start + 1] = gaze[0], gaze[1] + rng.normal() * 0.01
        return code

    def _expression(self, rng, out):
        """Fill ``out`` (E,) and return how far the jaw opens, radians."""

        def act(name, strength):
            for k in self.flame.expression_columns(name):
                out[k] += strength * (1 if rng.random() < 0.7 else rng.uniform(0.5, 1.2))

        jaw = 0.0
        if rng.random() < self.variety.expressive:
            if rng.random() < 0.5:
                act("smile", rng.uniform(0.4, 2.4))
                act("squint", rng.uniform(0, 1.2))
                if rng.random() < 0.55:
                    act("lips part", rng.uniform(0.4, 2.2))
                    act("upper lip raised", rng.uniform(0, 1.2))
                    jaw = rng.uniform(0, 0.12) if rng.random() < 0.85 else rng.uniform(0.1, 0.3)
            elif rng.random() < 0.36:
                jaw = min(0.6, rng.exponential(0.12))
            shut = (
                "mouth corner down", "pucker", "lip stretch", "lips pressed", "mouth left",
                "mouth right", "cheeks puffed", "nose wrinkled", "nostrils flared", "chin raised",
            )  # fmt: skip
            for _ in range(rng.integers(0, 4)):
                act(str(rng.choice(shut)), rng.uniform(0.2, 2.0))
            if rng.random() < 0.22:  # most mouths in photographs are closed, or smile
                opening = ("funnel", "upper lip raised", "lower lip down", "lips part")
                act(str(rng.choice(opening)), rng.uniform(0.2, 2.0))
            roll = rng.random()
            if roll < 0.35:
                act("inner brows up", rng.uniform(0, 2))
                act("outer brow up", rng.uniform(0, 2))
            elif roll < 0.6:
                act("brow down", rng.uniform(0.2, 2))
            lids = rng.random()
            if lids < 0.12:
                act("blink", rng.uniform(3.5, 5.0))
            elif lids < 0.28:
                act("blink", rng.uniform(0.5, 2.5))
            elif lids < 0.4:
                act("eye wide", rng.uniform(0.2, 2))
        if self.variety.shouts and rng.random() < self.variety.shouts:
            jaw = rng.uniform(0.2, 0.6)
            for name in ("upper lip raised", "lower lip down", "lip stretch", "nose wrinkled"):
                act(name, rng.uniform(0, 1.8))
        noise = torch.from_numpy(rng.normal(size=len(out)) * 0.12).float()
        out += torch.where(self.flame.expression_one_way, noise.abs(), noise)
        return jaw

    # ------------------------------------------------------------------ brows

    @cached_property
    def _brows(self):
        """Texture places (10, 2) of the brows' landmarks, and how far the eyes' middle is below.

        Hair grows lower and higher than on the head model, whose brows are painted on one spot.
        """
        f = self.flame
        corners = self.corner_uv[f.static_lmk_faces_idx.numpy()]
        places = np.einsum("nk,nkc->nc", f.static_lmk_bary_coords.numpy(), corners)
        return places[:10], places[:10, 1].mean() - places[19:31, 1].mean()

    def _lower_brows(self, vertices, lower):
        """Landmarks 17 to 26 (10, 3) of brows that are painted ``lower`` of the way to the eyes."""
        places, way = self._brows
        wanted = places - [0, lower * way]
        low, high = self.corner_uv.min(1), self.corner_uv.max(1)
        found = []
        for place in wanted:
            near = np.flatnonzero(((low <= place) & (high >= place)).all(1))
            a, b, c = self.corner_uv[near].transpose(1, 2, 0)
            total = _cross(b - a, c - a)
            mix = np.stack([_cross(b - place[:, None], c - place[:, None]),
                            _cross(c - place[:, None], a - place[:, None]),
                            _cross(a - place[:, None], b - place[:, None])]) / total  # fmt: skip
            best = mix.min(0).argmax()
            found.append(mix[:, best] @ vertices.numpy()[self.faces[near[best]]])
        return torch.from_numpy(np.stack(found)).float()

    # ------------------------------------------------------------------ the scene

    def _dress(self, rng, code, vertices):
        """Hair, hat, glasses and shirt in metres, posed with the head; lens outlines if any."""
        f = self.flame
        rest = f(code.shape, None, None)[0].numpy() * 1000
        joints = f.joints(code.shape)[0].numpy() * 1000
        scalp = rest[f.masks["scalp"].numpy()] if "scalp" in f.masks else rest
        wide = np.abs(scalp[:, 0]).max()
        skull = (wide, scalp[:, 1].max() - 32, 90 * wide / 74, 32.0, -2.0)
        style = scene.choose_style(rng, self.variety.hair)
        parts, lenses = [], None
        if style not in ("none", "painted"):
            parts += scene.hair_or_hat(rng, style, skull)
        dark = rng.random() < 0.3
        if rng.random() < self.variety.glasses:
            bridge = f.landmarks(f(code.shape), None)[0, 27].numpy() * 1000
            worn, lenses = scene.glasses(rng, joints[3:5], bridge, wide, dark)
            parts += worn
        parts += self._cover(rng, code)
        shirt = scene.shirt(rng, joints[0])
        # hair and glasses go with the neck joint, the shirt half way with the root
        rotation, place = self._neck(code, joints)
        turned = []
        for part in parts:
            points = (part.points - joints[1]) @ rotation.T + place
            turned.append(scene.Part(points / 1000, part.triangles, part.material, part.uv))
        root = rodrigues(code.pose[:, :3] * float(rng.uniform(0, 0.8)))[0].numpy()
        points = (shirt.points - joints[0]) @ root.T + joints[0]
        turned.append(scene.Part(points / 1000, shirt.triangles, shirt.material, shirt.uv))
        if lenses is not None:
            lenses = ((lenses - joints[1]) @ rotation.T + place) / 1000, dark
        self._style = style
        return turned, lenses

    def _cover(self, rng, code):
        """A mask, a hand, both or nothing before the face, millimetres, not posed."""
        v, f = self.variety, self.flame
        masked = bool(v.masks) and rng.random() < v.masks
        held = bool(v.hands) and rng.random() < v.hands
        if not (masked or held):
            return []
        straight = code.pose.clone()
        straight[:, :6] = 0
        head = f(code.shape, code.expression, straight)
        marks = f.landmarks(head, straight)[0].numpy() * 1000
        points = head[0][~torch.from_numpy(self.mouth)].numpy() * 1000
        parts = covers.surgical_mask(rng, points, marks) if masked else []
        return parts + (covers.hand(rng, points, marks) if held else [])

    def _neck(self, code, joints):
        root = rodrigues(code.pose[:, :3])[0].numpy()
        neck = root @ rodrigues(code.pose[:, 3:6])[0].numpy()
        return neck, root @ (joints[1] - joints[0]) + joints[0]

    def _assemble(self, head, parts):
        """All meshes as one: triangles, points (metres), material and texture place of each."""
        triangles, points = [self.faces], [head]
        material = [np.zeros(len(self.faces), np.int64)]
        uv, count = [np.zeros((len(head), 2))], len(head)
        for part in parts:
            triangles.append(part.triangles + count)
            points.append(part.points)
            material.append(np.full(len(part.triangles), part.material))
            uv.append(part.uv)
            count += len(part.points)
        return (np.concatenate(triangles), np.concatenate(points).astype(np.float32),
                np.concatenate(material), np.concatenate(uv).astype(np.float32))  # fmt: skip

    def _aim(self, rng, points, truth, centre, distance, side):
        """Pixels (n + 68, 3) of points and landmarks: the face's box at a random place and size."""
        v = self.variety
        everything = torch.cat([points, truth[0]])[None] - centre
        # keep what is beside the camera from flying through the pinhole
        everything[..., 2] = everything[..., 2].clamp_max(0.8 * distance)
        ones = torch.ones(1)
        pixels = perspective(everything, ones * distance, ones, side)[0]
        marks = pixels[len(points) :, :2]
        low, high = marks.amin(0), marks.amax(0)
        zoom = float(np.exp(rng.uniform(*np.log(v.zoom))))
        scale = side * FACE_SHARE * zoom / float((high - low).max())
        shift = torch.from_numpy(rng.uniform(-1, 1, 2) * v.shift * FACE_SHARE * 1.2 * side)
        pixels[:, :2] = (pixels[:, :2] - (low + high) / 2) * scale + side / 2 + shift
        return pixels

    # ------------------------------------------------------------------ the picture

    def _shoot(self, rng, triangles, points, material, uv, pixels, side, code, lenses, lower):
        """The picture (side, side, 3) 0…255 and the skin's mean colour."""
        tri = torch.from_numpy(triangles)
        ndc = to_ndc(pixels[None], side)
        corners = face_corners(ndc, tri)
        pix_to_face, _ = self.zbuffer(ndc, tri, side, side)
        hit, face, px, py = covered(pix_to_face, side, side)
        weights = barycentric_at(corners[0, face], px, py).numpy()
        hit, face = hit.numpy(), face.numpy()
        at = triangles[face]

        def mix(values):
            return np.einsum("pk,pkc->pc", weights, values[at])

        normals = _vertex_normals(points, triangles).astype(np.float32)
        place, normal = mix(points), mix(normals)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        middle = points[self.faces].mean((0, 1))
        view = -place + middle + [0, 0, 1.0]
        view /= np.linalg.norm(view, axis=1, keepdims=True)
        kind = material[face]
        backwards = (kind > 0) & ((normal * view).sum(1) < 0)
        normal[backwards] *= -1
        occlusion = np.ones(len(points), np.float32)
        ao = self.flame.ao.numpy().copy()
        ao[self.mouth] = np.maximum(ao[self.mouth], rng.uniform(0.5, 0.95))
        occlusion[: len(ao)] = ao
        occlusion = mix(occlusion[:, None])[:, 0]

        albedo, gloss, sharp, skin = self._colours(rng, code, face, kind, weights, mix(uv), lower)
        light, shine = self._light(rng, points, tri, place, normal, view, occlusion, sharp, kind)
        colour = albedo * light + gloss[:, None] * shine
        head = kind == scene.SKIN
        bright = colour[head].mean() if head.any() else 0.2
        target = rng.uniform(0.10, 0.42) * np.clip(skin.mean() / 0.25, 0.4, 1.3)
        if not self.variety.camera:
            target = 0.25
        colour = colour * (target / max(bright, 1e-3))
        roll = rng.random()  # film curves
        if roll < 0.25:
            colour = colour * (1 + colour / 4) / (1 + colour) * 1.05
        elif roll < 0.5:
            colour = 1 - np.exp(-1.25 * colour)
        colour = np.clip(colour, 0, 1) ** (1 / 2.2) * 255
        image = camera.background(rng, self.bank, side).reshape(-1, 3)
        image[hit] = colour
        image = image.reshape(side, side, 3)
        if lenses is not None:
            image = self._lenses(rng, image, lenses, pixels, points)
        return image, np.clip(skin * target / max(skin.mean(), 0.02), 0, 1) ** (1 / 2.2) * 255

    def _colours(self, rng, code, face, kind, weights, uv, lower):
        """Linear albedo (P, 3), gloss and sharpness (P,) of each pixel, the skin's mean colour.

        ``lower`` says how far the brows are painted below their place, see ``_brows``.
        """
        head = kind == scene.SKIN
        resolution = self.log_albedo.shape[0]
        at = np.einsum("pk,pkc->pc", weights[head], self.corner_uv[face[head]])
        column = np.clip((at[:, 0] * resolution).astype(int), 0, resolution - 1)
        row = np.clip(((1 - at[:, 1]) * resolution).astype(int), 0, resolution - 1)
        codes = code.albedo[0].numpy()
        density = self.log_albedo[row, column]
        density = density + np.einsum("pkc,k->pc", self.albedo_dirs[row, column], codes)
        colour = np.exp(2.2 * np.minimum(density, 0))
        r0, c0 = int(0.40 * resolution), resolution // 2  # a texel of the forehead
        skin = self.log_albedo[r0, c0] + codes @ self.albedo_dirs[r0, c0]
        skin = np.exp(2.2 * np.minimum(skin, 0))
        hair = HAIR_COLOURS[rng.choice([0, 0, 9, 1, 2, 7]) if skin.mean() < 0.12
                            else rng.integers(len(HAIR_COLOURS))]  # fmt: skip
        hair = hair * np.exp(rng.normal(size=3) * 0.12 + rng.normal() * 0.25)
        gloss, sharp = np.zeros(len(face)), np.full(len(face), 20.0)
        gloss[head] = rng.uniform(0, 0.22) * (1 if rng.random() < 0.8 else 2)
        sharp[head] = rng.uniform(8, 35)
        if self.variety.accessories:
            scalp, brow, beard = self.maps[row, column].T
            grain = self.noise[rng.integers(3)]
            fine = grain[(row * 3) % 256, (column * 7) % 256]
            bald = getattr(self, "_style", "") == "none"
            k = np.minimum(1, scalp * 1.6)[:, None]
            colour = colour + (skin - colour) * k
            strength = 0 if bald else rng.uniform(0.6, 1)
            colour = (
                colour
                + (hair * (0.75 + 0.5 * fine[:, None]) - colour) * (scalp * strength)[:, None]
            )
            if rng.random() < 0.5:  # brows as they are, or repainted thinner, thicker, other colour
                k = (np.minimum(1, brow * 1.5) * rng.uniform(0, 1))[:, None]
                colour = colour + (skin - colour) * k
                strength = np.minimum(1, brow ** rng.uniform(0.5, 1.6) * rng.uniform(0.2, 1))[
                    :, None
                ]
                colour = colour + (hair * rng.uniform(0.35, 1) - colour) * strength
            if lower:
                colour = colour + (skin - colour) * np.minimum(1, brow * 2)[:, None]
                above = np.clip(row - round(lower * self._brows[1] * resolution), 0, resolution - 1)
                k = self.maps[above, column, 1] ** rng.uniform(0.5, 1.6) * rng.uniform(0.5, 1)
                colour = colour + (hair * rng.uniform(0.35, 1) - colour) * k[:, None]
            if rng.random() < 0.25:
                k = beard * _beard(rng, at) * rng.uniform(0.3, 1.2) * (0.35 + 1.1 * fine)
                tint = hair * rng.uniform(0.4, 0.9) * min(1.0, 0.22 / max(hair.mean(), 0.01))
                shade = 0.7 + 0.6 * grain[(row * 5 + column) % 256, (column * 11) % 256]
                k = np.clip(k, 0, 1)[:, None]
                colour = colour + (tint * shade[:, None] - colour) * k
            colour = colour * (0.94 + 0.12 * grain[(row * 2) % 256, (column * 2) % 256, None])
        if self.variety.lips and rng.random() < self.variety.lips:
            lip = self.lips[row, column]
            upper = np.clip((self.lip_row - row) / 2 + 0.5, 0, 1)
            colour, shiny = _painted_lips(rng, colour, lip, upper, skin)
            gloss[head] += (shiny - gloss[head]) * lip
            sharp[head] += (rng.uniform(25, 90) - sharp[head]) * lip
        if self.eye_faces is not None:
            eye = self.eye_faces[face[head]]
            gloss[np.flatnonzero(head)[eye]], sharp[np.flatnonzero(head)[eye]] = 0.9, 90
        albedo = np.zeros((len(face), 3))
        albedo[head] = colour
        if (~head).any():
            self._cloth(rng, kind, uv, hair, skin, albedo, gloss, sharp)
        return albedo, gloss, sharp, skin

    def _cloth(self, rng, kind, uv, hair, skin, albedo, gloss, sharp):
        """Colour hair, frames, hat, shirt, hand and mask."""
        for material in np.unique(kind[kind > 0]):
            chosen = kind == material
            u, v = uv[chosen].T
            if material == scene.HAIR:
                streak = self.streaks[rng.integers(4)]
                lean, across = rng.uniform(-0.3, 0.3), rng.uniform(1, 3)
                column = ((u * across + lean * v) * 256).astype(int) % 256
                value = streak[(v * rng.uniform(0.3, 1) * 256).astype(int) % 256, column]
                albedo[chosen] = hair * (0.35 + 1.3 * value[:, None])
                gloss[chosen], sharp[chosen] = abs(rng.normal()) * 0.12, 12
            elif material == scene.FRAME:
                albedo[chosen] = _dye(rng) * 0.4 if rng.random() < 0.4 else rng.uniform(0.005, 0.05)
                gloss[chosen], sharp[chosen] = 0.6, 40
            elif material == scene.HAND:
                albedo[chosen] = skin * np.exp(rng.normal() * 0.1)
                gloss[chosen], sharp[chosen] = 0.06, 12
            elif material == scene.MASK:
                choices = ([0.45, 0.66, 0.8], [0.8, 0.82, 0.82], [0.03, 0.03, 0.035])
                weave = 1 - 0.12 * (np.cos(v * 2 * np.pi * 4) > 0.85)  # the pleats' lines
                albedo[chosen] = choices[rng.choice(3, p=(0.55, 0.3, 0.15))] * weave[:, None]
            else:
                knit = self.noise[rng.integers(3)]
                scale = rng.uniform(0.3, 3)
                value = knit[
                    (v * 97 * scale).astype(int) % 256, (u * 203 * scale).astype(int) % 256
                ]
                colour = np.tile(_dye(rng), (len(u), 1))
                if rng.random() < 0.4:
                    stripes, checks = rng.uniform(8, 60), rng.choice([0, rng.uniform(10, 80)])
                    odd = ((v * stripes).astype(int) + (u * checks).astype(int)) % 2 == 1
                    colour[odd] = _dye(rng)
                albedo[chosen] = colour * (0.8 + 0.4 * value[:, None])

    def _light(self, rng, points, triangles, place, normal, view, occlusion, sharp, kind):
        """Diffuse light (P, 3) and highlights (P, 3) from a sky and one to three lamps."""
        warm = np.exp(np.array([-1, 0, 1]) * rng.normal() * 0.10)
        sky = rng.uniform(0.15, 0.8) * warm * np.exp(rng.normal(size=3) * 0.05)
        ground = sky * rng.uniform(0.3, 0.95) * np.exp(rng.normal(size=3) * 0.06)
        up = 0.5 + 0.5 * normal[:, 1:2]
        diffuse = (ground + (sky - ground) * up) * occlusion[:, None]
        shine = np.zeros_like(diffuse)
        wrap = rng.uniform(0, 0.45)
        for k in range(rng.integers(1, 4)):
            way = (np.array([rng.normal() * 0.8, rng.normal() * 0.5 + 0.35, rng.uniform(0.15, 1.1)])
                   if k == 0 else rng.normal(size=3) * [1, 0.6, 0.8])  # fmt: skip
            way /= np.linalg.norm(way)
            colour = np.exp(rng.normal(size=3) * 0.06 + np.array([1, 0, -1]) * rng.normal() * 0.12)
            colour = colour * (rng.uniform(0.3, 1.3) if k == 0 else rng.uniform(0.05, 0.5))
            seen = 0.35 + 0.65 * occlusion
            if k == 0 and rng.random() < 0.75:
                seen = seen * self._shadow(points, triangles, place, way)
            cosine = normal @ way
            soft = np.clip((cosine + wrap) / (1 + wrap), 0, None)
            # red light travels further under the skin
            flesh = (kind == scene.SKIN) | (kind == scene.HAND)
            red = np.clip((cosine + wrap + 0.12) / (1.12 + wrap), 0, None)
            red = np.where(flesh, red, soft)
            diffuse += np.stack([red, soft, soft], -1) * colour * seen[:, None]
            half = view + way
            half /= np.linalg.norm(half, axis=1, keepdims=True) + 1e-9
            peak = np.clip((normal * half).sum(1), 0, 1) ** sharp * (cosine > 0) * seen
            shine += peak[:, None] * colour
        return diffuse, shine

    def _shadow(self, points, triangles, place, way, size=120, radius=0.19):
        """(P,) share of the lamp that is not blocked: a depth picture from the lamp's side."""
        up = np.array([0, 1.0, 0]) if abs(way[1]) < 0.95 else np.array([1.0, 0, 0])
        x_axis = np.cross(up, way)
        x_axis /= np.linalg.norm(x_axis)
        axes = np.stack([-x_axis, np.cross(way, x_axis), -way])
        count = len(self.flame.v_template)
        centre = points[:count].mean(0)

        def seen_from(p):
            q = ((p - centre) @ axes.T).astype(np.float32)
            q[:, :2] /= radius
            q[:, 2] += 1
            return q

        ndc = torch.from_numpy(seen_from(points))[None]
        _, depth = self.zbuffer(ndc, triangles, size, size)
        depth = depth[0].numpy()
        depth = np.where(depth < 0, np.inf, depth)
        q = seen_from(place)
        column = ((1 - q[:, 0]) / 2 * size).astype(int)
        row = ((1 - q[:, 1]) / 2 * size).astype(int)
        lit = np.zeros(len(q))
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                r, c = np.clip(row + dy, 0, size - 1), np.clip(column + dx, 0, size - 1)
                lit += q[:, 2] < depth[r, c] + 0.004
        return lit / 9

    def _lenses(self, rng, image, lenses, pixels, points):
        """Lay clear or dark glass over the picture."""
        outlines, dark = lenses
        side = image.shape[0]
        strength = rng.uniform(0.8, 0.985) if dark else rng.uniform(0, 0.18)
        tint = (
            _dye(rng) * 0.15 if dark else np.array([0.8, 0.85, 0.9]) * rng.uniform(0, 0.6)
        ) * 255
        # the lenses' pixels follow from those of the head: the camera is a perspective of space
        design = np.concatenate([points, np.ones((len(points), 1))], 1).astype(np.float64)
        depth = pixels[:, 2].numpy().astype(np.float64)
        scaled = pixels[:, :2].numpy() * depth[:, None]
        chosen = np.random.default_rng(0).choice(len(points), 400, replace=False)
        solution, *_ = np.linalg.lstsq(
            design[chosen], np.column_stack([scaled, depth])[chosen], rcond=None
        )
        for outline in outlines:
            projected = np.column_stack([outline[:-1], np.ones(len(outline) - 1)]) @ solution
            corners = (projected[:, :2] / projected[:, 2:]).round().astype(np.int32)
            mask = np.zeros((side, side), np.float32)
            camera.cv2.fillPoly(mask, [corners], 1.0)
            image = (
                image * (1 - strength * mask[..., None]) + tint * strength * mask[..., None] * 0.6
            )
            if rng.random() < 0.4:  # a window's reflection
                y, x = np.mgrid[:side, :side] / side
                glare = np.clip(
                    np.sin(6 * (x * rng.normal() + y * rng.normal()) + rng.uniform(0, 6)), 0, 1
                )
                image = image + (mask * glare * rng.uniform(0, 70))[..., None]
        return np.clip(image, 0, 255)


def _beard(rng, uv):
    """Which part of the beard's map is grown, (P,) 0…1."""
    x, y = np.abs(uv[:, 0] - 0.5), 1 - uv[:, 1]
    style = str(rng.choice(BEARDS))
    return {
        "full": np.ones(len(uv)),
        "chin": (x < 0.10) & (y > 0.665),
        "moustache": (y < 0.645) & (x < 0.13),
        "goatee": x < 0.12,
    }[style] * 1.0


def _painted_lips(rng, colour, lip, upper, skin):
    """Colours (P, 3) with lips of two tones, pale or with lipstick, and how much these shine.

    ``lip`` and ``upper`` (P,) say how much of a pixel is lip, and upper lip. Lips as the head model
    has them are of one tone; in photographs the upper is mostly the darker, in shade or by itself.
    """
    style, shine = rng.random(), rng.uniform(0, 0.35)
    tones = np.exp(rng.uniform([-1.1, -0.3], [0.1, 0.5]))  # of the upper and the lower lip
    if style < 0.4:  # lipstick: red, rose, berry, brown
        dye = np.array([0.5, 0.06, 0.07]) * np.exp(rng.normal(size=3) * [0.5, 0.6, 0.6])
        strength, shine = rng.uniform(0.4, 1), rng.uniform(0, 0.8)
        tones = tones ** rng.uniform(0, 0.6)
    else:  # bare: from the lips' own colour to the skin's
        dye, strength = skin * [1, 0.85, 0.85], rng.uniform(0, 0.8)
    tone = tones[1] + (tones[0] - tones[1]) * upper
    wanted = (colour + (np.clip(dye, 0, 0.8) - colour) * strength) * tone[:, None]
    return colour + (np.clip(wanted, 0, 0.9) - colour) * lip[:, None], shine


def _cross(a, b):
    return a[0] * b[1] - a[1] * b[0]


def _dye(rng):
    if rng.random() < 0.4:
        return np.full(3, rng.uniform(0.01, 0.85))
    colour = rng.uniform(0, 1, 3) ** 1.5 * rng.uniform(0.05, 0.9)
    return colour.mean() + (colour - colour.mean()) * rng.uniform(0.1, 1)


def _streaks(rng, fine, long):
    """A texture of strands, (256, 256) 0…1."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.normal(size=(256, 256)), (long, fine), mode="wrap")
    field += 2.4 * gaussian_filter(rng.normal(size=(256, 256)), (2 * long, 5 * fine), mode="wrap")
    low, high = np.percentile(field, [1, 99])
    return np.clip((field - low) / (high - low), 0, 1)


def _vertex_normals(points, triangles):
    corners = points[triangles]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.stack(
        [np.bincount(triangles.T.ravel(), np.tile(face[:, k], 3), len(points)) for k in range(3)],
        -1,
    )
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _axis_angle(yaw, pitch, roll):
    """Axis-angle (3,) of a head turned by yaw, then pitch, then roll, in degrees."""
    from scipy.spatial.transform import Rotation

    # intrinsic: R = Rz·Rx·Ry, so that yaw comes first
    turn = Rotation.from_euler("ZXY", [roll, pitch, yaw], degrees=True)
    return torch.from_numpy(turn.as_rotvec()).float()
