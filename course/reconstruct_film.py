"""``python -m course reconstruct`` on a film: one head for all frames, that moves as they do."""

import numpy as np
import torch
from scipy.io import savemat
from tqdm import tqdm

from course import export, film, gltf, metrics
from course.actor import Stage, read_film
from course.files import any_path, quiet, whole_folder, write_text
from course.reconstruct import sheet

PANEL = 256  # pixels a side of each picture in the film


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

    <name>.gif, .mp4, .webm (photograph, head drawn into it, geometry), <name>.glb (the head that
    moves), <name>.obj (at rest), code.json (a row a frame), <name>_kpt2d.csv, <name>.mat.
    """
    result, target = actor.result, args.savefolder / name
    with whole_folder(target) as folder:
        result.codes.save(folder / "code.json", head=flame.name)
        if args.saveObj:
            rest = flame(result.codes.shape[:1])[0].cpu().numpy()
            mesh = export.textured_mesh(rest, flame.faces.cpu(), flame.vt.cpu(), flame.ft.cpu(),
                                        export.to_uint8(actor.colours))  # fmt: skip
            export.save_obj(folder / f"{name}.obj", mesh)
            gltf.save_animation(folder / f"{name}.glb", flame, result.codes, actor.colours,
                                actor.fps)  # fmt: skip
        if args.saveKpt:
            write_text(folder / f"{name}_kpt2d.csv", _points(result.landmarks))
        if args.saveMat:
            savemat(folder / f"{name}.mat",
                    {k: v.cpu().numpy() for k, v in vars(result.codes).items()}
                    | {"landmarks2d": result.landmarks, "fps": actor.fps})  # fmt: skip
        if args.saveVis or args.saveImages:
            _save_pictures(args, folder, name, actor, flame, branch)
    error = np.mean([metrics.nme(m, d.points)
                     for m, d in zip(result.landmarks, actor.found, strict=True)])  # fmt: skip
    print(f"{name}: {len(actor)} frames, one head; landmark NME {error:.1f} % of the eye distance")
    print(f"{name}: {target}/: {', '.join(sorted(p.name for p in target.iterdir()))}")


def _points(landmarks):
    """Landmarks (K, 68, 2), pixels of the frames, as CSV: a row a point."""
    lines = [f"{k},{j},{u:.2f},{v:.2f}" for k, frame in enumerate(landmarks)
             for j, (u, v) in enumerate(frame)]  # fmt: skip
    return "\n".join(["frame,point,u,v", *lines]) + "\n"


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


def run(args, path, flame, model, branch):
    """Reconstruct one film."""
    path = any_path(path)
    save(args, path.stem, read_film(path.stem, path, flame, model, args, branch), flame, branch)
