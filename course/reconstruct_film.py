"""``python -m course reconstruct`` on a film: one head for all frames, that moves as they do."""

import numpy as np
import torch
from scipy.io import savemat
from tqdm import tqdm

from course import export, film, gltf, metrics
from course.actor import Stage, read_film
from course.files import any_path, quiet, whole_folder, write_text
from course.reconstruct import collect, depth_picture, sheet, unique

PANEL = 256  # pixels a side of each picture in the film
NO_MAPS = ("of a film, wrinkles are in its frames; displacement and normal maps are written for "
           "single pictures.")  # fmt: skip


def film_of(path, folders):
    """Whether ``path`` is to be read as a film: a video file, or a folder where ``folders`` are.

    Raises ValueError for a single picture where folders of frames were announced.
    """
    path = any_path(path)
    if folders and path.is_file() and path.suffix.lower() not in film.VIDEOS:
        raise ValueError(f"{path} is one picture; --film wants a folder of frames or a video file.")
    if folders:
        return True
    return path.suffix.lower() in film.VIDEOS - {".gif"}


@torch.no_grad()
def save(args, name, actor, flame, branch=None):
    """Write one film's folder, whole or not at all, and say how good it is.

    <name>.gif, .mp4, .webm (photograph, head drawn into it, geometry) and what ``save_frames``
    leaves.
    """
    result, target = actor.result, args.savefolder / name
    with whole_folder(target) as folder:
        save_frames(args, folder, name, actor, result, flame)
        if args.saveVis or args.saveImages:
            _save_pictures(args, folder, name, actor, flame, branch)
    error = np.mean([metrics.nme(m, d.points)
                     for m, d in zip(result.landmarks, actor.found, strict=True)])  # fmt: skip
    print(f"{name}: {len(actor)} frames, one head; landmark NME {error:.1f} % of the eye distance")
    if branch is not None:
        print(f"{name}: {NO_MAPS}")
    print(f"{name}: {target}/: {', '.join(sorted(p.name for p in target.iterdir()))}")


def save_frames(args, folder, name, actor, result, flame):
    """Write what is asked for of the frames of an actor, all but their pictures.

    code.json (a row a frame), <name>.obj (at rest), <name>.glb (the head that moves), <name>_kpt2d
    and _kpt3d.csv, <name>.mat, <name>_depth_<frame>.png, with --saveImages the texture.
    """
    codes, colours = result.codes, actor.colours
    codes.save(folder / "code.json", head=flame.name)
    if args.saveObj:
        rest = flame(codes.shape[:1])[0].cpu().numpy()
        mesh = export.textured_mesh(rest, flame.faces.cpu(), flame.vt.cpu(), flame.ft.cpu(),
                                    export.to_uint8(colours))  # fmt: skip
        export.save_obj(folder / f"{name}.obj", mesh)
        gltf.save_animation(folder / f"{name}.glb", flame, codes, colours, actor.fps)
    if args.saveKpt:
        write_text(folder / f"{name}_kpt2d.csv", _points(result.landmarks, "uv", 2))
        marks = flame.landmarks(result.vertices, codes.pose).cpu().numpy()
        write_text(folder / f"{name}_kpt3d.csv", _points(marks, "xyz", 5))
    if args.saveDepth:
        for k in range(len(codes)):
            picture = depth_picture(flame, result, k, args.rasterizer_type)
            export.save_png(folder / f"{name}_depth_{k:04d}.png", picture)
    if args.saveMat:
        savemat(folder / f"{name}.mat",
                {k: v.cpu().numpy() for k, v in vars(codes).items()}
                | {"landmarks2d": result.landmarks, "fps": actor.fps})  # fmt: skip
    if args.saveImages:
        export.save_png(folder / f"{name}_texture.png", colours)


def _points(landmarks, axes, decimals):
    """Landmarks (K, 68, d) as CSV: a row a point, its frame and number before it."""
    lines = [",".join([str(k), str(j), *(f"{q:.{decimals}f}" for q in point)])
             for k, frame in enumerate(landmarks) for j, point in enumerate(frame)]  # fmt: skip
    return "\n".join([",".join(["frame", "point", *axes]), *lines]) + "\n"


def _save_pictures(args, folder, name, actor, flame, branch):
    stage, frames = Stage(actor, flame, PANEL, args.rasterizer_type, branch), []
    for k in tqdm(range(len(actor)), "film", disable=quiet()):
        face, geometry = stage.pictures(actor.result, k)
        panels = {"photograph": actor.view(k, PANEL), "rendered": face, "geometry": geometry}
        frames.append(sheet(panels, len(panels)))
        if args.saveImages:
            export.save_png(folder / f"{name}_{k:04d}.png", frames[-1])
    if args.saveVis:
        film.save_all(folder / f"{name}.gif", frames, actor.fps)


def divide(paths, folders):
    """Films and pictures among ``paths``, each [(name, path)] with names of its own: a film's ends
    in ``_film``, because telephones give a photograph and its film one name.

    Raises ValueError for what is not there.
    """
    films = [path for path in map(any_path, paths or []) if film_of(path, folders)]
    for path in films:
        if not path.exists():
            raise ValueError(f"There is no film {path}.")
    pictures = [path for path in paths or [] if any_path(path) not in films]
    pictures = [] if films and not pictures else collect(pictures)
    named = unique([*pictures, *((f"{path.stem}_film", path) for path in films)])
    return named[len(pictures) :], pictures


def run(args, name, path, flame, model, branch):
    """Reconstruct one film."""
    save(args, name, read_film(name, path, flame, model, args, branch), flame, branch)
