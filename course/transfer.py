"""``python -m course transfer``: a face with the expressions of others, as pictures or as films."""

import numpy as np
import torch
from tqdm import tqdm

from course import export, film, gltf, photo, reenact
from course.actor import Stage, changed, read_film, read_picture
from course.detail import DetailModel
from course.facecode import FaceCode, resolve_device
from course.files import any_path, quiet, whole_folder
from course.flame import FLAME
from course.reconstruct import (
    PANEL,
    collect,
    load_encoder,
    reading_arguments,
    save_face,
    save_images,
    saving_arguments,
    sheet,
    unique,
)
from course.reconstruct_film import NO_MAPS, save_frames
from course.render import Renderer

FILM_PANEL = 256  # pixels a side of each picture in a film
TRAVEL = 16  # frames of a .glb from one expression to the other


def add_arguments(parser):
    parser.add_argument("-i", "--image_path", type=any_path, metavar="FACE",
                        help="a picture, or a film of one person: a video file or a folder of "
                        "frames (default: the sample photograph)")  # fmt: skip
    parser.add_argument("-e", "--exp_path", type=any_path, nargs="+", required=True,
                        metavar="EXPRESSION",
                        help="pictures, folders of them, films, code.json files")  # fmt: skip
    parser.add_argument("--every", type=int, default=1, metavar="N",
                        help="take each n-th frame of a film")  # fmt: skip
    parser.add_argument("--clip", action="store_true",
                        help="folders after -e hold the frames of a film")  # fmt: skip
    parser.add_argument("--pose", action="store_true",
                        help="borrow the turn of the head too")  # fmt: skip
    reading_arguments(parser)
    saving_arguments(parser)


def run(args):
    """Transfer every expression; exit code 0, or 2 when a picture could not be used."""
    flame = FLAME.load(device=resolve_device(args.device))
    Renderer(flame, 16, args.rasterizer_type)  # a rasterizer that is not there fails here, early
    sources, path = expressions(args.exp_path, args.clip), args.image_path
    model = load_encoder(args, flame)
    branch = DetailModel.load(flame, device=flame.v_template.device) if args.detail else None
    if path is not None and is_film(path):
        actor = read_film(path.stem, path, flame, model, args, branch)
    else:
        actor = read_picture(*collect([path] if path else None)[0], flame, model, args, branch)
    failed = 0
    for name, source in tqdm(sources, "expressions", disable=quiet()):
        try:
            codes, lender = read_expression(name, source, flame, model, args)
        except photo.PhotoError as error:
            tqdm.write(f"{name}: {error}")
            failed += 1
            continue
        count = sorted((len(actor), len(codes)))[1 if 1 in (len(actor), len(codes)) else 0]
        codes = reenact.transfer(actor.codes[:count], codes[:count], head=args.pose)
        save(args, f"{actor.name}_{name}", actor, codes, lender, flame, branch)
    return 2 if failed else 0


def expressions(paths, clip=False):
    """[(name, path)] of what -e names, names unique; ``clip``: a folder is one film.

    Raises ValueError for what is not there.
    """
    found = []
    for path in paths:
        if path.suffix.lower() != ".json" and not is_film(path, clip):
            found += collect([path])
        elif (
            path.exists()
        ):  # ``reconstruct`` leaves folder/code.json, ``teaser`` folder/teaser.json
            named = path.name in ("code.json", "teaser.json")
            found.append((path.parent.name if named else path.stem, path))
        else:
            raise ValueError(f"There is no file or folder {path}.")
    return unique(found)


def is_film(path, clip=True):
    """Whether a path is a video file, or a folder of frames (``clip``)."""
    return film.is_film(path) or (clip and path.is_dir())


def read_expression(name, source, flame, model, args):
    """A FaceCode of one row or of a film's frames, and the actor whose they are, if known."""
    if source.suffix.lower() == ".json":
        return FaceCode.load(source, flame.v_template.device, flame.name), None
    lender = (read_film if is_film(source) else read_picture)(name, source, flame, model, args)
    return lender.codes, lender


@torch.no_grad()
def save(args, name, actor, codes, lender, flame, branch=None):
    """Write one transfer's folder, whole or not at all: a still, or a film for several rows."""
    result, target = changed(actor, codes, flame), args.savefolder / name
    with whole_folder(target) as folder:
        if len(codes) == 1:
            save_face(args, folder, name, flame, result, 0, None, actor.colours, branch)
            stage = Stage(actor, flame, PANEL, args.rasterizer_type, branch)
            panels = _panels(stage, result, 0, lender)
            if args.saveVis:
                export.save_png(folder / f"{name}_vis.png", sheet(panels, len(panels)))
            if args.saveImages:
                save_images(folder, name, panels, actor.colours)
            if args.saveObj:
                _save_travel(folder / f"{name}.glb", actor, codes, flame)
        else:
            save_frames(args, folder, name, actor, result, flame)
            if args.saveVis or args.saveImages:
                stage = Stage(actor, flame, FILM_PANEL, args.rasterizer_type, branch)
                _save_film(args, folder, name, stage, result, lender)
    if len(codes) > 1 and branch is not None:
        tqdm.write(f"{name}: {NO_MAPS}")
    tqdm.write(f"{name}: {target}/: {', '.join(sorted(p.name for p in target.iterdir()))}")


def _save_travel(path, actor, codes, flame):
    """A head that goes from its own expression to the other one and back."""
    there = reenact.between(actor.codes, codes, np.arange(TRAVEL + 1) / TRAVEL, "smooth")
    frames = FaceCode.cat([there, there[:-1][list(range(TRAVEL))[::-1]]])
    gltf.save_animation(path, flame, frames, actor.colours, actor.fps)


def _panels(stage, result, k, lender):
    """Label → picture of row k: before, whose expression, after, geometry."""
    face, geometry = stage.pictures(result, k)
    lent = {"expression of": lender.view(min(k, len(lender) - 1), stage.size)} if lender else {}
    own = stage.actor.view(k % len(stage.actor), stage.size)
    return {"photograph": own} | lent | {"with that expression": face, "geometry": geometry}


def _save_film(args, folder, name, stage, result, lender):
    frames = []
    for k in tqdm(range(len(result.codes)), "film", disable=quiet()):
        panels = _panels(stage, result, k, lender)
        frames.append(sheet(panels, len(panels)))
        if args.saveImages:
            export.save_png(folder / f"{name}_{k:04d}.png", frames[-1])
    if args.saveVis:
        film.save_all(folder / f"{name}.gif", frames, stage.actor.fps)
