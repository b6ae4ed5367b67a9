import io
import socket

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from course import photo


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


GRADIENT = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "JPEG", "GIF"])
def test_common_formats(kind):
    read = photo.read(encoded(Image.fromarray(GRADIENT), kind))
    assert read.shape == (48, 64, 3)
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - GRADIENT).mean() < 12


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16", "I", "F", "LAB"])
def test_every_mode_becomes_rgb(mode):
    grey = Image.fromarray(GRADIENT[..., 0])
    if mode.startswith("I") or mode == "F":
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        values = GRADIENT[..., 0].astype(kind) * (257 if mode != "F" else 1)
        image = Image.fromarray(values)
    elif mode in ("LA", "RGBA"):
        image = Image.fromarray(GRADIENT).convert(mode)
        image.putalpha(Image.new("L", image.size, 0))
    else:
        image = Image.fromarray(GRADIENT).convert(mode) if mode != "1" else grey.convert("1")
    read = photo.read(encoded(image, "TIFF"))
    assert read.shape == (48, 64, 3)
    if mode in ("LA", "RGBA"):
        assert (read == 255).all()  # what is transparent shows white paper
    if mode.startswith("I"):
        assert np.abs(read[..., 0].astype(int) - GRADIENT[..., 0]).max() <= 1


def test_exif_turns_the_picture():
    exif = Image.Exif()
    exif[274] = 6  # the camera was held upright
    read = photo.read(encoded(Image.fromarray(GRADIENT), "JPEG", exif=exif))
    assert read.shape == (64, 48, 3)


def test_animation_gives_its_first_picture():
    frames = [Image.new("RGB", (40, 30), c) for c in ("red", "blue")]
    read = photo.read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert read[10, 10].tolist() == [255, 0, 0]


def test_bad_files_get_one_sentence(tmp_path):
    whole = encoded(Image.fromarray(astronaut()), "JPEG")
    cases = {
        "empty.jpg": (b"", "not a picture"),
        "text.png": (b"hello, this is text", "not a picture"),
        "phone.heic": (b"\0\0\0 ftypheic", "save it as JPEG"),
        "cut.jpg": (whole[: len(whole) // 3], "damaged or cut short"),
        "tiny.png": (encoded(Image.new("RGB", (5, 5)), "PNG"), "5×5"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(photo.PhotoError, match=message) as error:
            photo.read(path)
        assert name in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(photo.PhotoError, match="no picture"):
        photo.read(tmp_path / "absent.png")
    with pytest.raises(photo.PhotoError, match=r"folder|read"):
        photo.read(tmp_path)


def test_a_decompression_bomb_is_refused_unopened():
    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    assert len(bomb) < 1_000_000
    with pytest.raises(photo.PhotoError, match="too many"):
        photo.read(bomb)


@pytest.fixture(scope="module")
def found():
    return photo.detect(astronaut(), detector="built-in")


def test_the_astronauts_face(found):
    """Against where a person sees them in this picture, read off a grid laid over it."""
    assert found.n_faces == 1
    eyes = found.points[36:42].mean(0), found.points[42:48].mean(0)
    nose, mouth, chin = found.points[30], found.points[48:60].mean(0), found.points[8]
    seen = {"eye": ((203, 100), eyes[0]), "other eye": ((247, 103), eyes[1]),
            "nose": ((225, 125), nose), "mouth": ((223, 145), mouth),
            "chin": ((220, 178), chin)}  # fmt: skip
    for name, (expected, point) in seen.items():
        assert np.linalg.norm(point - expected) < 7, name
    assert (found.sigma > 0).all()


def test_faces_of_every_size_and_turn(found):
    face = astronaut()[40:260, 100:350]
    truth = found.points - [100, 40]
    for scale in (0.5, 2.0, 5.0):
        turned = cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        again = photo.detect(turned, detector="built-in").points / scale
        error = np.linalg.norm(again - truth, axis=1).mean()
        assert error < 4, scale
    upside_down = photo.detect(np.ascontiguousarray(face[::-1, ::-1]), detector="built-in")
    back = np.array([face.shape[1], face.shape[0]]) - upside_down.points
    assert np.linalg.norm(back - truth, axis=1).mean() < 5


@pytest.mark.parametrize("roll", range(0, 181, 36))
@pytest.mark.parametrize("height", [40, 90])
def test_small_faces_however_they_are_turned(found, height, roll):
    """So many pixels from brows to chin; the error is in distances between the eyes' corners."""
    scale, a = height / np.ptp(found.points[:, 1]), np.deg2rad(roll)
    small = cv2.resize(astronaut(), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    points, side = found.points * scale, 4 * height
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    shift = side / 2 - turn @ points.mean(0)
    # OpenCV counts from the middle of the first pixel, the course from its corner
    affine = np.c_[turn, shift + turn @ [0.5, 0.5] - 0.5]
    canvas = cv2.warpAffine(small, affine, (side, side), borderMode=cv2.BORDER_REFLECT)
    points = points @ turn.T + shift
    again = photo.detect(canvas, detector="built-in").points
    error = np.linalg.norm(again - points, axis=1).mean()
    assert error < 0.05 * np.linalg.norm(points[36] - points[45])


def test_several_faces_largest_first():
    face = astronaut()[20:280, 90:360]
    small = cv2.resize(face, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    canvas = np.full((300, 470, 3), 128, np.uint8)
    canvas[100 : 100 + small.shape[0], 10 : 10 + small.shape[1]] = small
    canvas[20:280, 190:460] = face
    boxes = photo.find_faces(canvas)
    assert len(boxes) == 2
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    assert areas[0] > areas[1]
    first, second = (photo.detect(canvas, k, "built-in") for k in (0, 1))
    assert first.points.mean(0)[0] > 190 > second.points.mean(0)[0]
    with pytest.raises(photo.NoFaceError, match="number 3: the picture has 2 faces"):
        photo.detect(canvas, 2, "built-in")


@pytest.mark.parametrize("name", ["coffee", "brick", "text", "moon", "coins"])
def test_no_face_where_there_is_none(name):
    import skimage.data

    image = getattr(skimage.data, name)()
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    with pytest.raises(photo.NoFaceError, match="No face"):
        photo.detect(image)


def test_detectors(monkeypatch):
    with pytest.raises(ValueError, match="no detector 'magic'"):
        photo.detect(astronaut(), detector="magic")

    def offline(*_, **__):
        raise OSError("unreachable")

    photo._face_alignment.cache_clear()
    monkeypatch.setattr(socket, "create_connection", offline)
    monkeypatch.setattr(photo, "face_alignment_weights", lambda: None)
    assert photo.detect(astronaut(), detector="auto").detector == "built-in"
    with pytest.raises(photo.PhotoError, match="does not answer; connect"):
        photo.detect(astronaut(), detector="face_alignment")
    photo._face_alignment.cache_clear()


def test_crop_and_back():
    rng = np.random.default_rng(2)
    points = rng.uniform(50, 150, (68, 2))
    for upright in (False, True):
        crop = photo.crop_around(points, 96, 1.5, upright)
        assert np.allclose(crop.to_photo(crop.to_crop(points)), points)
    level = photo.crop_around(points, 96, 1.5, True)
    eyes = level.to_crop(points)[42:48].mean(0) - level.to_crop(points)[36:42].mean(0)
    assert eyes[1] == pytest.approx(0, abs=1e-9)
    assert eyes[0] > 0


def test_a_crop_puts_pixels_where_it_says():
    image = np.zeros((200, 200, 3), np.uint8)
    image[120:124, 60:64] = 255  # a dot whose middle is at (62, 122)
    crop = photo.Crop(np.array([80.0, 110.0]), 100.0, 0.3, 200)
    picture = crop.apply(image)[0].numpy()
    rows, columns = np.mgrid[:200, :200] + 0.5
    middle = [(picture * columns).sum() / picture.sum(), (picture * rows).sum() / picture.sum()]
    assert np.allclose(middle, crop.to_crop([62, 122]), atol=0.1)


@pytest.mark.parametrize(("top", "kind"), [(4095, np.uint16), (65535, np.uint16), (1, np.float32)])
def test_white_of_other_depths(top, kind):
    """Cameras write 12 bits into 16; NumPy's pictures go from 0 to 1."""
    values = (GRADIENT[..., 0] / 255 * top).astype(kind)
    read = photo.read(encoded(Image.fromarray(values), "TIFF"))
    assert np.abs(read[..., 0].astype(int) - GRADIENT[..., 0]).max() <= 1
