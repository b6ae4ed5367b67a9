"""What lies between a scene and its file: backgrounds, things in front of the face, the camera."""

import io
from pathlib import Path

import cv2
import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFilter

# scikit-image's own pictures without people, as pieces of real background
PICTURES = ("brick.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
            "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png",
            "retina.jpg", "rocket.jpg", "text.png", "clock_motion.png", "color.png",
            "horse.png")  # fmt: skip


def fractal_noise(rng, height, width, roughness=1.5):
    """A random field (height, width) in 0…1 whose spectrum falls as frequency^−roughness."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.sqrt(fy * fy + fx * fx)
    frequency[0, 0] = 1
    wave = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    wave = wave / frequency**roughness
    wave[0, 0] = 0
    field = np.fft.irfft2(wave, s=(height, width))
    low, high = np.percentile(field, [2, 98])
    return np.clip((field - low) / (high - low), 0, 1)


def background_bank(count=300, size=256, seed=5):
    """Backgrounds (count, size, size, 3) uint8: pieces of pictures, gradients, noise, clutter."""
    rng = np.random.default_rng(seed)
    folder = Path(skimage.__file__).parent / "data"
    pictures = [
        Image.open(folder / name).convert("RGB") for name in PICTURES if (folder / name).is_file()
    ]
    bank = []
    for k in range(count):
        if pictures and rng.random() < 0.3:
            image = _piece(rng, pictures[rng.integers(len(pictures))], size)
        else:
            image = _clutter(rng, size, vertical=bool(k % 2))
        blur = float(rng.choice([0, 0, 1, 2, 4, 8, 14]))
        if blur:
            image = image.filter(ImageFilter.GaussianBlur(blur))
        bank.append(np.asarray(image))
    return np.stack(bank)


def _piece(rng, picture, size):
    side = rng.uniform(0.35, 1) * min(picture.size)
    x, y = (rng.uniform(0, s - side) for s in picture.size)
    piece = picture.crop((int(x), int(y), int(x + side), int(y + side)))
    return piece.resize((size, size), Image.Resampling.BILINEAR)


def _clutter(rng, size, vertical):
    grey = rng.random() < 0.4
    base = np.full(3, rng.uniform(0, 255)) if grey else rng.uniform(0, 255, 3) * rng.uniform(0.4, 1)
    other = np.clip(base + rng.normal(0, 60, 3), 0, 255)
    noise = fractal_noise(rng, size, size, rng.uniform(0.8, 2.2))
    mix = noise
    if rng.random() < 0.5:
        y, x = np.mgrid[:size, :size] / size - 0.5
        angle = rng.uniform(0, 2 * np.pi)
        mix = 0.5 + (np.cos(angle) * x + np.sin(angle) * y) * rng.uniform(0.3, 2)
        mix = np.clip(mix + (noise - 0.5) * rng.uniform(0, 0.4), 0, 1)
    image = Image.fromarray((base + (other - base) * mix[..., None]).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.75:
        _draw_shapes(rng, image, base, size, vertical)
        grain = (fractal_noise(rng, size, size, rng.uniform(0.5, 1.5)) - 0.5) * rng.uniform(0, 60)
        image = Image.fromarray(
            np.clip(np.asarray(image) + grain[..., None], 0, 255).astype(np.uint8)
        )
    return image


def _draw_shapes(rng, image, base, size, vertical):
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 22)):
        near = rng.random() < 0.6
        colour = base + rng.normal(0, 70, 3) if near else rng.uniform(0, 255, 3)
        colour = tuple(int(c) for c in np.clip(colour, 0, 255))
        x, y = rng.uniform(-20, size, 2)
        w, h = rng.exponential(50, 2) + 4
        kind = rng.integers(5)
        if kind == 0:
            draw.rectangle((x, y, x + w, y + 2 * h), fill=colour)
        elif kind == 1:
            draw.ellipse((x, y, x + w, y + h), fill=colour)
        elif kind == 2:
            end = (x + rng.normal(0, 200), y + rng.normal(0, 200))
            draw.line((x, y, *end), fill=colour, width=int(rng.integers(1, 14)))
        elif kind == 3:
            corners = [
                (x + rng.normal(0, 60), y + rng.normal(0, 60)) for _ in range(rng.integers(3, 7))
            ]
            draw.polygon(corners, fill=colour)
        else:
            step = int(rng.integers(4, 30))
            for q in range(0, size, step):
                line = (q, 0, q, size) if vertical else (0, q, size, q)
                draw.line(line, fill=colour, width=max(1, step // 3))


def background(rng, bank, size):
    """One background (size, size, 3) float 0…255."""
    picture = bank[rng.integers(len(bank))]
    side = int(rng.uniform(90, picture.shape[0]))
    x, y = rng.integers(0, picture.shape[0] - side + 1, 2)
    piece = picture[y : y + side, x : x + side]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    piece = cv2.resize(np.ascontiguousarray(piece), (size, size)).astype(np.float32)
    if rng.random() < 0.2:
        piece = piece[..., rng.permutation(3)]
    grey = piece.mean(-1, keepdims=True)
    piece = grey + (piece - grey) * rng.uniform(0, 1.05)
    return np.clip(piece * rng.uniform(0.35, 1.25) + rng.uniform(-20, 20), 0, 255)


def occlude(rng, image, points, skin_colour, bank):
    """Put one or two things in front of the face: shapes, bars, the picture's edge, fingers."""
    size = image.shape[0]
    for _ in range(rng.integers(1, 3)):
        mask = Image.new("L", (size, size))
        draw = ImageDraw.Draw(mask)
        kind = rng.integers(5)
        at = points.mean(0) + rng.normal(size=2) * size * 0.22
        r = size * rng.uniform(0.05, 0.2)
        finger = size * rng.uniform(0.035, 0.07)
        if kind == 0:
            draw.ellipse(
                (at[0] - r, at[1] - r, at[0] + r, at[1] + r * rng.uniform(0.3, 1.5)), fill=255
            )
        elif kind == 1:
            draw.polygon(
                [tuple(at + rng.normal(size=2) * r * 1.2) for _ in range(rng.integers(3, 8))],
                fill=255,
            )
        elif kind == 2:
            angle = rng.uniform(0, 2 * np.pi)
            way = np.array([np.cos(angle), np.sin(angle)]) * size
            start = at - way * (rng.random() < 0.3)
            draw.line((*start, *(at + way)), fill=255, width=int(rng.uniform(4, 40) * size / 160))
        elif kind == 3:
            bottom = (-9, rng.uniform(0.6, 1) * size, size, size)
            left = (-9, -9, rng.uniform(0, 0.25) * size, size)
            draw.rectangle(bottom if rng.random() < 0.5 else left, fill=255)
        else:
            _draw_fingers(rng, draw, at, finger, size)
        soft = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2) * size / 160))
        alpha = np.asarray(soft, np.float32)[..., None] / 255
        image = image * (1 - alpha) + alpha * _cover(
            rng, mask, kind == 4, finger, skin_colour, bank, size
        )
    return image


def _draw_fingers(rng, draw, at, finger, size):
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    palm = at - along * size * 0.9 + across * finger * 1.7
    for k in range(rng.integers(2, 5)):
        tip = at + across * finger * 1.15 * k + along * finger * rng.normal() * 0.6
        knuckle = tip - along * size * rng.uniform(0.12, 0.3)
        draw.line((*tip, *knuckle, *palm), fill=255, width=int(finger), joint="curve")
        draw.ellipse((*(tip - finger / 2), *(tip + finger / 2)), fill=255)


def _cover(rng, mask, is_hand, finger, skin_colour, bank, size):
    if is_hand or rng.random() < 0.15:
        round_ = mask.filter(ImageFilter.GaussianBlur(finger if is_hand else 8))
        lit = 0.45 + 0.6 * np.asarray(round_, np.float32)[..., None] / 255
        return skin_colour * np.exp(rng.normal() * 0.2) * lit
    if rng.random() < 0.6:
        return background(rng, bank, size)
    return rng.uniform(0, 255, 3).astype(np.float32) * rng.uniform(0.2, 1)


def camera_effects(rng, image):
    """A clean picture (S, S, 3) 0…255 as a camera and a web site would leave it, uint8."""
    size = image.shape[0]
    if rng.random() < 0.5:
        image = image * np.exp(rng.normal(size=3) * 0.07)
    grey = image.mean(-1, keepdims=True)
    image = grey + (image - grey) * (0.0 if rng.random() < 0.08 else rng.uniform(0.5, 1.2))
    image = np.clip(image / 255, 0, 1) ** np.exp(rng.normal() * 0.16)
    image = np.clip((image - 0.5) * np.exp(rng.normal() * 0.18) + 0.5 + rng.normal() * 0.05, 0, 1)
    image = (image * 255).astype(np.uint8)
    if rng.random() < 0.25:  # a small picture blown up
        small = max(8, int(size * rng.uniform(0.35, 0.9)))
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    roll = rng.random()
    if roll < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.2, 1.3) * size / 112)
    elif roll < 0.42:  # motion
        length = int(rng.integers(2, 7) * size / 112) + 1
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        for t in np.linspace(-0.5, 0.5, 4 * length):
            x, y = (length - 1) * (0.5 + t * np.array([np.cos(angle), np.sin(angle)]))
            kernel[round(y), round(x)] = 1
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    elif roll < 0.55:
        soft = cv2.GaussianBlur(image, (0, 0), 1.5)
        amount = rng.uniform(0.4, 1.6)
        image = cv2.addWeighted(image, 1 + amount, soft, -amount, 0)
    if rng.random() < 0.6:
        sigma = rng.uniform(0.5, 6) if rng.random() < 0.9 else rng.uniform(6, 18)
        channels = 3 if rng.random() < 0.5 else 1
        grain = rng.standard_normal((size, size, channels), dtype=np.float32) * np.float32(sigma)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(rng.uniform(22, 95)))
        image = np.asarray(Image.open(file).convert("RGB"))
    if rng.random() < 0.08:  # cut off at a side
        turn, wide = rng.integers(4), int(rng.uniform(3, 30) * size / 112)
        image = np.rot90(image, turn).copy()
        image[:wide] = 0 if rng.random() < 0.6 else image[wide : wide + 1]
        image = np.rot90(image, -turn)
    return np.ascontiguousarray(image)
