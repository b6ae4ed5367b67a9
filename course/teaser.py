"""``python -m course teaser``: a face that turns, opens its mouth and borrows expressions."""

import torch
from tqdm import tqdm

from course import film, gltf, photo, reenact, texture
from course.actor import clay_of, draw_face, read_picture
from course.detail import DetailModel
from course.facecode import resolve_device
from course.files import any_path, quiet, whole_folder
from course.flame import FLAME
from course.reconstruct import (
    BACKGROUND,
    collect,
    halved,
    load_encoder,
    portrait_camera,
    reading_arguments,
    sheet,
    studio_light,
)
from course.reconstruct_film import film_of
from course.render import Renderer
from course.transfer import expressions, is_film, read_expression


def add_arguments(parser):
    parser.add_argument("-i", "--inputpath", nargs="*", metavar="FACE",
                        help="pictures or folders (default: the sample photograph)")  # fmt: skip
    parser.add_argument("-e", "--exp_path", type=any_path, nargs="*", default=[],
                        metavar="EXPRESSION",
                        help="pictures, folders of pictures, code.json files")  # fmt: skip
    parser.add_argument("--size", type=int, default=256, help="pixels a side of each picture")
    parser.add_argument("--fps", type=float, default=film.FPS, help="frames a second")
    reading_arguments(parser)


def run(args):
    """Make a teaser of every face; exit code 0, or 2 when a picture could not be used."""
    if args.size < 32 or not film.SLOWEST <= args.fps <= film.FASTEST:
        raise ValueError("--size needs 32 pixels or more, --fps goes from "
                         f"{film.SLOWEST:g} to {film.FASTEST:g}.")  # fmt: skip
    films = [path for path in args.exp_path if is_film(path, False)]
    films += [path for path in args.inputpath or [] if film_of(path, False)]
    if films:
        raise ValueError(f"{films[0]} is a film; transfer plays films, a teaser takes pictures.")
    flame = FLAME.load(device=resolve_device(args.device))
    Renderer(flame, 16, args.rasterizer_type)  # a rasterizer that is not there fails here, early
    faces, sources = collect(args.inputpath), expressions(args.exp_path)
    model, failed, borrowed = load_encoder(args, flame), 0, []
    branch = DetailModel.load(flame, device=flame.v_template.device) if args.detail else None
    for name, source in tqdm(sources, "expressions", disable=quiet()):
        try:
            codes, _ = read_expression(name, source, flame, model, args)
            borrowed.append(codes[:1])
        except photo.PhotoError as error:
            tqdm.write(f"{name}: {error}")
            failed += 1
    for name, source in tqdm(faces, "faces", disable=quiet()):
        try:
            actor = read_picture(name, source, flame, model, args, branch)
        except photo.PhotoError as error:
            tqdm.write(f"{name}: {error}")
            failed += 1
            continue
        save(args, actor, reenact.teaser(actor.codes, borrowed), flame, branch)
    return 2 if failed else 0


@torch.no_grad()
def save(args, actor, codes, flame, branch=None):
    """Write one face's folder, whole or not at all: teaser.gif, .mp4, .webm, .glb and .json.

    code.json is what ``reconstruct`` writes into the same folder.
    """
    target = args.savefolder / actor.name
    with whole_folder(target) as folder:
        frames = draw(actor, codes, flame, args.size, args.rasterizer_type, branch)
        film.save_all(folder / "teaser.gif", frames, args.fps)
        gltf.save_animation(folder / "teaser.glb", flame, codes, actor.colours, args.fps)
        codes.save(folder / "teaser.json", head=flame.name)
    files = ", ".join(sorted(p.name for p in target.iterdir()))
    tqdm.write(f"{actor.name}: {len(codes)} frames; {target}/: {files}")


@torch.no_grad()
def draw(actor, codes, flame, size, backend="auto", branch=None):
    """Frames (size, 3 · size + 16, 3) uint8: the photograph, the face, its geometry."""
    renderer, photograph = Renderer(flame, 2 * size, backend), actor.view(0, size)
    camera = portrait_camera(flame, flame(codes.shape[:1], codes.expression[:1], codes.pose[:1]))
    backdrop, frames = camera.new_tensor(BACKGROUND).view(1, 3, 1, 1), []
    lamp = studio_light(actor.result.seen)
    lamps = {"face": texture.exposed(lamp, actor.result, actor.colours, flame), "geometry": lamp}
    for k in tqdm(range(len(codes)), actor.name, disable=quiet()):
        vertices = flame(*(getattr(codes[k], name) for name in ("shape", "expression", "pose")))
        code, panels = codes[k].replace(camera=camera), {}
        for label, albedo in (("face", actor.colours[None]), ("geometry", clay_of(actor.colours))):
            code = code.replace(light=lamps[label])
            drawn, image = draw_face(renderer, code, vertices, albedo, branch)
            panels[label] = halved(image + backdrop * (1 - drawn.mask))
        frames.append(sheet({"photograph": photograph} | panels, 3))
    return frames
