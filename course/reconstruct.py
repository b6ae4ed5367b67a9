"""``python -m course reconstruct``: photographs in, textured 3D faces out."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy.io import savemat

from course import export, fit, metrics, photo, quality, texture
from course.detail import DetailModel
from course.encode import first_guess
from course.encoder import FaceModel
from course.facecode import ROOT, resolve_device
from course.files import any_path, whole_folder, write_text
from course.flame import FLAME, yaw_pose
from course.rasterize import BACKENDS
from course.render import Renderer
from course.train_encoder import WEIGHTS

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".heic", ".avif"}
PANEL = 448  # pixels a side of the panels in _vis.png
BACKGROUND = (0.945, 0.95, 0.955)


def _flag(text):
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"true or false, not {text}")


def add_arguments(parser):
    parser.add_argument("-i", "--inputpath", nargs="*", metavar="PATH",
                        help="pictures, folders of them, films; without it, the sample "
                        "photograph")  # fmt: skip
    parser.add_argument("--film", action="store_true",
                        help="folders after -i hold the frames of a film of one person: one "
                        "identity, smooth motion")  # fmt: skip
    parser.add_argument("--every", type=int, default=1, metavar="N",
                        help="take each n-th frame of a film")  # fmt: skip
    reading_arguments(parser)
    parser.add_argument("--same_person", action="store_true",
                        help="all pictures show one person: fit one identity to them")  # fmt: skip
    parser.add_argument("--resume", action="store_true",
                        help="leave out what has its code.json already")  # fmt: skip
    saving_arguments(parser)


def reading_arguments(parser):
    """How faces are found and explained: the same for every command that reads photographs."""
    parser.add_argument("-s", "--savefolder", type=any_path, default=Path("results"))
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda when there)")
    parser.add_argument("--rasterizer_type", choices=["auto", *BACKENDS], default="auto")
    parser.add_argument("--detector", choices=photo.DETECTORS, default="auto")
    parser.add_argument("--face", type=int, default=1, metavar="N",
                        help="which face of a picture, counted from the largest")  # fmt: skip
    parser.add_argument(
        "--encoder",
        type=any_path,
        default=None,
        metavar="FILE",
        help="weights that the start is read with (default: those that ship)",
    )
    parser.add_argument("--no-encoder", action="store_true", help="start from the mean face")
    parser.add_argument(
        "--no-refine",
        action="store_true",
        help="what the encoder reads, without fitting: fast, less exact",
    )
    parser.add_argument("--detail", action="store_true",
                        help="wrinkles too: they move with the expression")  # fmt: skip


def saving_arguments(parser):
    """DECA's flags for what is written."""
    for name, default, text in (
        ("saveObj", True, "mesh as .obj and .glb with texture"),
        ("saveKpt", True, "landmarks as text"),
        ("saveDepth", False, "depth picture"),
        ("saveMat", False, "everything as a MATLAB file"),
        ("saveImages", False, "each picture of the panel by itself"),
        ("saveVis", True, "the panel"),
    ):
        parser.add_argument(f"--{name}", type=_flag, nargs="?", const=True, default=default,
                            metavar="BOOL", help=f"{text} (default {default})")  # fmt: skip


def run(args):
    """Reconstruct every input; exit code 0, or 2 when a picture could not be used."""
    device = resolve_device(args.device)
    films, pictures = film_mode().divide(args.inputpath, args.film)
    if args.resume:
        films = missing(films, args, "films")
        pictures = missing(pictures, args, "faces", args.same_person)
    flame = FLAME.load(device=device)
    Renderer(flame, 16, args.rasterizer_type)  # a rasterizer that is not there fails here, early
    model = load_encoder(args, flame)
    branch = DetailModel.load(flame, device=device) if args.detail else None
    failed = 0
    for name, path in films:
        try:
            film_mode().run(args, name, path, flame, model, branch)
        except ValueError as error:
            print(f"{name}: {error}")
            failed += 1
    started, loaded = time.perf_counter(), []
    for name, source in pictures:
        try:
            image = source() if callable(source) else photo.read(source)
            found = photo.detect(image, args.face - 1, args.detector)
        except photo.PhotoError as error:
            print(f"{name}: {error}")
            failed += 1
            continue
        others = f", the largest of {found.n_faces} faces" if found.n_faces > 1 else ""
        chosen = f", face {args.face} of {found.n_faces}" if args.face > 1 else others
        print(f"{name}: 68 landmarks by the {found.detector} detector{chosen}")
        for trouble, sentence in quality.check(image, found, flame).troubles.items():
            if trouble != "several faces":  # said already
                print(f"{name}: hint: {sentence}")
        loaded.append((name, image, found))
    detect_seconds = time.perf_counter() - started
    groups = [loaded] if args.same_person and loaded else [[item] for item in loaded]
    for group in groups:
        _, images, detections = zip(*group, strict=True)
        result = explain(list(images), list(detections), flame, model, args)
        clock = time.perf_counter()
        colours, _ = texture.sample(result, flame)
        result.seconds["texture"] = time.perf_counter() - clock
        if branch is not None:
            clock = time.perf_counter()
            result.codes = result.codes.replace(detail=detail_photo().fit_detail(branch, result))
            result.seconds["detail"] = time.perf_counter() - clock
        result.seconds = {"read and detect": detect_seconds / max(len(loaded), 1)} | result.seconds
        for n, (name, image, found) in enumerate(group):
            save(args, name, flame, result, n, image, found, colours, branch)
    return 2 if failed else 0


def detail_photo():
    """The module that writes and draws detail: it is built on this one."""
    from course import detail_photo

    return detail_photo


def film_mode():
    """The module that reads films: it is built on this one."""
    from course import reconstruct_film

    return reconstruct_film


def load_encoder(args, flame):
    """The encoder that gives the start, or None: a head that it was not made for has none.

    Raises ValueError or FileNotFoundError in a sentence when one is needed or was asked for.
    """
    if args.no_encoder:
        if args.no_refine or args.encoder:
            raise ValueError("--no-encoder leaves nothing to do for --no-refine and --encoder.")
        return None
    try:
        return FaceModel.load(args.encoder or WEIGHTS, flame, flame.v_template.device)
    except (ValueError, FileNotFoundError) as error:
        if args.encoder or args.no_refine:
            raise
        print(f"starting from the mean face: {error}")
        return None


def explain(images, detections, flame, model, args):
    """FitResult of one person's photographs, as the arguments want it."""
    if model is None:
        return fit.fit(images, detections, flame, backend=args.rasterizer_type)
    clock = time.perf_counter()
    start, trust = first_guess(model, images, detections, flame)
    seconds = time.perf_counter() - clock
    steps = dict.fromkeys(fit.STEPS_FROM_START, 0) if args.no_refine else None
    result = fit.fit(images, detections, flame, backend=args.rasterizer_type, steps=steps,
                     start=start, trust=trust)  # fmt: skip
    spent = {k: v for k, v in result.seconds.items() if not args.no_refine}
    result.seconds = {"encoder": seconds} | spent
    return result


def collect(paths):
    """[(name, path or function that gives the picture)], names unique. Raises ValueError.

    Nothing stands for the sample photograph.
    """
    if not paths:
        return [("astronaut", sample_photo)]
    files = []
    for path in map(any_path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise ValueError(f"There is no picture in the folder {path}.")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"There is no picture or folder {path}.")
    return unique([(path.stem, path) for path in files])


def unique(found):
    """[(name, path)] with names that differ: a second ``me`` becomes ``me_2``."""
    names = {}
    for wish, path in found:
        name, count = wish, 2
        while name in names:
            name, count = f"{wish}_{count}", count + 1
        names[name] = path
    return list(names.items())


def missing(jobs, args, what="faces", together=False):
    """Those of the (name, source) that have no face in their folder yet; ``together``: if one has
    none, all."""
    left = [job for job in jobs if not (args.savefolder / job[0] / "code.json").is_file()]
    left = jobs if together and left else left
    if jobs:
        print(f"{len(jobs) - len(left)} of {len(jobs)} {what} are there already")
    return left


def sample_photo():
    """A NASA photograph of Eileen Collins that ships inside scikit-image."""
    from skimage.data import astronaut

    return astronaut()


def save(args, name, flame, result, n, image, found, colours, branch=None):
    """Write one face's folder, whole or not at all, and say how good it is.

    ``branch`` is the DetailModel of faces with detail.
    """
    clock = time.perf_counter()
    target = args.savefolder / name
    with whole_folder(target) as workplace:
        save_face(args, workplace, name, flame, result, n, found, colours, branch)
        panels = None
        if args.saveVis or args.saveImages:
            panels = draw_panels(flame, result, n, image, found, colours, args.rasterizer_type)
        if args.saveVis:
            export.save_png(workplace / f"{name}_vis.png", join(panels))
        if args.saveImages:
            save_images(workplace, name, panels, colours)
        if args.saveVis and branch is not None:
            picture = detail_photo().draw_detail(branch, result.codes[n], colours)
            export.save_png(workplace / f"{name}_detail.png", picture)
    result.seconds["write"] = time.perf_counter() - clock
    model = result.landmarks[n]
    # hair and hands before the face are not the model's to explain
    seen = result.mask[n] * (texture.trust(result, n)[0] > 0.5)
    share = 100 * float(seen.sum() / result.mask[n].sum().clamp_min(1))
    quality = metrics.psnr(result.rendered[n], result.images[n], seen) if share else float("nan")
    print(f"{name}: landmark NME {metrics.nme(model, found.points):.1f} % of the eye distance; "
          f"PSNR {quality:.1f} dB in the {share:.0f} % of the face that nothing hides")  # fmt: skip
    stages = ", ".join(f"{k} {v:.1f}" for k, v in result.seconds.items())
    print(f"{name}: seconds: {stages}; total {sum(result.seconds.values()):.1f}")
    print(f"{name}: {target}/: {', '.join(sorted(p.name for p in target.iterdir()))}")


def save_face(args, folder, name, flame, result, n, found, colours, branch=None):
    """Write the files of one face that are asked for, all but the pictures of the panel.

    ``found`` is what was detected, or None for a face that no photograph shows.
    """
    code, vertices = result.codes[n], result.vertices[n].cpu().numpy()
    model, detected = result.landmarks[n], {} if found is None else {"detected": found.points}
    code.save(folder / "code.json", head=flame.name)
    normals = None
    if branch is not None:
        writer = detail_photo()
        depth, normals = writer.pictures_of(branch, code, result.vertices[n : n + 1])
        writer.save_detail(folder, name, depth, normals)
    if args.saveObj:
        mesh = export.textured_mesh(vertices, flame.faces.cpu(), flame.vt.cpu(), flame.ft.cpu(),
                                    export.to_uint8(colours), normals)  # fmt: skip
        export.save_obj(folder / f"{name}.obj", mesh)
        export.save_glb(folder / f"{name}.glb", mesh)
    if args.saveKpt:
        _save_points(folder / f"{name}_kpt2d.txt", model)
        for points in detected.values():
            _save_points(folder / f"{name}_detected.txt", points)
        marks = flame.landmarks(result.vertices[n : n + 1], code.pose)[0]
        _save_points(folder / f"{name}_kpt3d.txt", marks.cpu().numpy(), 5)
    if args.saveDepth:
        picture = depth_picture(flame, result, n, args.rasterizer_type)
        export.save_png(folder / f"{name}_depth.png", picture)
    if args.saveMat:
        savemat(folder / f"{name}.mat",
                {k: v.cpu().numpy() for k, v in vars(code).items()}
                | {"vertices": vertices, "faces": flame.faces.cpu().numpy() + 1,
                   "landmarks2d": model} | detected)  # fmt: skip


def save_images(folder, name, panels, colours):
    """Each picture of a panel by itself, and the texture."""
    for label, panel in panels.items():
        export.save_png(folder / f"{name}_{label}.png", panel)
    export.save_png(folder / f"{name}_texture.png", colours)


def _save_points(path, points, decimals=2):
    lines = [" ".join(f"{q:.{decimals}f}" for q in point) for point in np.asarray(points)]
    write_text(path, "\n".join(lines) + "\n")


@torch.no_grad()
def depth_picture(flame, result, n, backend="auto"):
    """(H, W) uint16: white is near, black is empty."""
    renderer = Renderer(flame, result.images.shape[-1], backend)
    depth = renderer(result.seen[n : n + 1], result.codes[n].camera).depth[0, 0]
    seen = depth > 0
    low, high = depth[seen].min(), depth[seen].max()
    near = torch.where(seen, (high - depth) / (high - low + 1e-9), -1.0)
    return (torch.where(seen, 0.1 + 0.9 * near, 0.0) * 65535).cpu().numpy().astype(np.uint16)


# ------------------------------------------------------------------ pictures


@torch.no_grad()
def draw_panels(flame, result, n, image, found, colours, backend="auto"):
    """The panel's pictures, name → (PANEL, PANEL, 3) uint8."""
    crop = photo.crop_around(found.points, PANEL, 2.0)
    picture = export.to_uint8(crop.apply(image))
    code = result.codes[n]
    renderer = Renderer(flame, 2 * PANEL, backend)
    camera = camera_in(crop, result.crops[n], code.camera)
    texture_, light = colours[None], code.light
    vertices = result.seen[n : n + 1]
    backdrop = F.interpolate(crop.apply(image)[None].to(vertices), scale_factor=2, mode="bicubic")
    overlay = renderer(vertices, camera, None, studio_light(vertices), background=backdrop)
    mix = 0.80 * overlay.mask
    clay_on_photo = overlay.image * mix + backdrop * (1 - mix)
    textured = renderer(vertices, camera, texture_, light, background=backdrop)
    panels = {
        "photo": _dots(picture, crop.to_crop(found.points)),
        "overlay": halved(clay_on_photo),
        "render": halved(textured.image),
    }
    lamp = studio_light(vertices)
    exposed = texture.exposed(lamp, result, colours, flame)
    for yaw, label in ((-35, "left"), (0, "front"), (35, "right")):
        posed = _turned(flame, code, yaw)
        panels[f"{label}"] = halved(portrait(flame, renderer, posed, texture_, exposed))
    panels["geometry"] = halved(portrait(flame, renderer, _turned(flame, code, -20), None, lamp))
    return panels


def join(panels):
    """Two rows: the photograph explained, then the head from other sides."""
    labels = {"photo": "photograph and landmarks", "overlay": "fitted head",
              "render": "rendered into the photograph",
              "geometry": "geometry", "left": "turned left", "right": "turned right"}  # fmt: skip
    return sheet({text: panels[name] for name, text in labels.items()}, 3)


def sheet(pictures, columns):
    """Pictures of one size side by side, row after row, with their labels: (H, W, 3) uint8.

    ``pictures`` maps a label to a picture (S, S, 3) uint8.
    """
    from matplotlib import font_manager
    from PIL import ImageFont

    side = len(next(iter(pictures.values())))
    size, gap = max(11, round(17 * side / PANEL)), 8
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * (side + gap) - gap, rows * (side + gap) - gap),
                       (255, 255, 255))  # fmt: skip
    draw = ImageDraw.Draw(canvas)
    for k, (label, picture) in enumerate(pictures.items()):
        x, y = k % columns * (side + gap), k // columns * (side + gap)
        canvas.paste(Image.fromarray(picture), (x, y))
        draw.text((x + 12, y + side - 13 - size), label, (255, 255, 255), font,
                  stroke_width=2, stroke_fill=(40, 44, 52))  # fmt: skip
    return np.asarray(canvas)


def halved(batch):
    return export.to_uint8(F.avg_pool2d(batch, 2)[0])


def _dots(picture, points):
    big = Image.fromarray(picture).resize((2 * PANEL, 2 * PANEL), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(big)
    for x, y in 2 * points:
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(255, 221, 87), outline=(30, 30, 30))
    return np.asarray(big.resize((PANEL, PANEL), Image.Resampling.LANCZOS))


def camera_in(crop, fitted_crop, camera):
    """A camera fitted in one crop, for another (unturned) crop of the same photograph."""
    scale = camera[:, :1] * fitted_crop.side / crop.side
    # where the model's origin of x, y lands, in the photo, then in the new crop
    middle = fitted_crop.out / 2
    origin = camera[:, :1] * camera[:, 1:]
    pixel = torch.stack([middle + middle * origin[:, 0], middle - middle * origin[:, 1]], -1)
    there = crop.to_crop(fitted_crop.to_photo(pixel.cpu().numpy())) / crop.out
    shift = torch.from_numpy(np.stack([2 * there[:, 0] - 1, 1 - 2 * there[:, 1]], -1)).to(camera)
    return torch.cat([scale, shift / scale], 1)


def studio_light(like):
    light = torch.zeros(1, 9, 3).to(like)
    light[:, 0], light[:, 1], light[:, 2], light[:, 3] = 2.3, -0.3, 0.22, 0.4
    return light


def _turned(flame, code, yaw):
    """The same face at rest in another pose: expression kept, head turned to ``yaw``."""
    pose = code.pose.clone()
    pose[:, ROOT] = yaw_pose(yaw, device=pose.device)[:, ROOT]
    return code.replace(pose=pose)


def portrait(flame, renderer, code, colours, light):
    vertices = flame(code.shape, code.expression, code.pose)
    return renderer(vertices, portrait_camera(flame, vertices), colours, light,
                    background=BACKGROUND).image  # fmt: skip


def portrait_camera(flame, vertices):
    """A camera (1, 3) that shows the whole head of vertices (1, V, 3), in the middle."""
    camera = torch.tensor([flame.default_camera]).to(vertices)
    camera[:, 0] *= 0.66
    middle = (vertices.amax(1) + vertices.amin(1)) / 2
    camera[:, 1:] = -middle[:, :2] - torch.tensor([[0.0, 0.018]]).to(camera)
    return camera
