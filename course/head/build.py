"""``python -m course build-head``: sculpt the head and write ``data/head.npz``, the same bytes
every time."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from io import BytesIO

import numpy as np
from tqdm import tqdm

from course.files import any_path, atomic_path
from course.flame_files import BUILT_IN
from course.head import expressions, identity, rig, skin
from course.head.anatomy import Sculpt, sculpt, topology
from course.head.untangle import untangle

# standard deviation of each expression as a share of its full strength: two of them either way
# must look human, so an action that goes one way only (a blink) gets a small one
SPREAD = {"blink": 0.2, "smile": 0.4, "lip stretch": 0.4, "pucker": 0.35, "funnel": 0.3,
          "lips part": 0.35, "mouth corner down": 0.4, "mouth left": 0.4,
          "mouth right": 0.4}  # fmt: skip
# closed lips can open but not close further: below zero these would push them into each other
ONE_WAY = ("funnel", "upper lip raised", "lower lip down", "lips part")
JAW, LEFT_EYE, RIGHT_EYE = 1, 2, 3  # blocks of nine columns in posedirs (the neck is block 0)
LID_FOLLOW = 0.55  # share of the eye's pitch that the upper lid goes along


def add_arguments(parser):
    parser.add_argument("--output", type=any_path, default=BUILT_IN, help="file to write")
    parser.add_argument(
        "--sheets", type=any_path, metavar="DIR", help="also draw contact sheets here"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")


def run(args):
    """Build in a process with single-threaded linear algebra, whose sums come in a fixed order."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        once = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        command = [sys.executable, "-m", "course", "build-head", "--output", str(args.output),
                   "--workers", str(args.workers)]  # fmt: skip
        command += ["--sheets", str(args.sheets)] if args.sheets else []
        return _run_below(command, os.environ | once)
    start = time.perf_counter()
    model, kept = build(args.workers, quiet=bool(os.environ.get("COURSE_QUIET")))
    write(args.output, model)
    seconds = time.perf_counter() - start
    print(f"{args.output}: {len(model['v_template'])} vertices, {len(model['f'])} triangles, "
          f"{int(model['n_shape'])} identity components ({100 * kept:.1f} % of the variance), "
          f"{int(model['n_expression'])} expressions, {len(model['albedo_names'])} albedo "
          f"components, {args.output.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s")  # fmt: skip
    if args.sheets:
        from course.head.sheets import write_sheets

        for path in write_sheets(args.output, args.sheets):
            print(path)
    return 0


def _run_below(command, environment):
    """Exit code of a command that gets this process's Ctrl-C, and says itself that it stopped."""
    with subprocess.Popen(command, env=environment) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(1)  # a terminal's Ctrl-C went to both
            child.terminate() if os.name == "nt" else child.send_signal(signal.SIGINT)
            return child.wait()


def build(workers=2, quiet=True):
    """The model as a dict of arrays with FLAME's keys, and the variance that its basis keeps."""
    g = Sculpt()
    with tqdm(total=6, desc="head", disable=quiet) as bar:
        head = sculpt(g)
        vt, ft = rig.texture_coordinates(head)
        bar.update()
        shapes, kept = identity.identity_basis(head, workers=workers, quiet=quiet)
        bar.update()
        actions = expression_basis(head)
        bar.update()
        names, count = list(actions), shapes.shape[-1]
        directions = without_folds(head, np.concatenate([shapes, *actions.values()], -1))
        joints = rig.joint_places(g)
        model = {
            "v_template": _metres(head.vertices),
            "f": head.faces.astype(np.int32),
            "shapedirs": _metres(directions),
            "n_shape": np.int64(count),
            "n_expression": np.int64(len(names)),
            "posedirs": _metres(pose_correctives(head)),
            "J_regressor": rig.joint_regressor(head, joints).astype(np.float32),
            "kintree_table": rig.KINTREE,
            "weights": rig.skinning_weights(head).astype(np.float32),
            "vt": vt.astype(np.float32),
            "ft": ft.astype(np.int32),
            "part": head.part.astype(np.int8),
            "mirror": full_mirror(head),
            "expression_names": np.array(names),
            "expression_one_way": np.isin(names, ONE_WAY),
        }
        bar.update()
        model |= {
            k: v.astype(np.float32 if "bary" in k else np.int32)
            for k, v in rig.landmark_embedding(head).items()
        }
        masks = rig.masks(head)
        model |= {f"mask_{name}": mask for name, mask in masks.items()}
        model["ao"] = ambient_occlusion(head, masks).astype(np.float16)
        bar.update()
        model |= skin.build_albedo(head, vt, ft)
        bar.update()
    return model, kept


def _metres(millimetres):
    """Float32 metres, rounded to 10 nanometres: noise below that only costs space."""
    return np.round(millimetres / 1000, 8).astype(np.float32)


def without_folds(head, directions):
    """The same directions (V, 3, K), smoothed where they would turn a triangle of the skin over."""
    t = topology()
    out = directions.copy()
    out[: t.n] = untangle(directions[: t.n], head.vertices[: t.n], t.triangles, t.adjacency)
    return out


def expression_basis(head):
    """Name → (V, 3, 1) displacement at one standard deviation, mm."""
    n = topology().n
    out = {}
    for name, field in expressions.expressions(head.vertices[:n]).items():
        size = next((s for key, s in SPREAD.items() if name.startswith(key)), 0.5)
        out[name] = np.zeros((len(head.vertices), 3, 1))
        out[name][:n, :, 0] = size * field
    return out


def pose_correctives(head):
    """posedirs (V, 3, 36) for the entries of R − I of neck, jaw and eyes, mm.

    As the jaw opens, the lips narrow; as an eye looks up or down, its upper lid goes along.
    """
    n = topology().n
    out = np.zeros((len(head.vertices), 3, 36))
    narrow = expressions.jaw_narrowing(head.vertices[:n])
    sine = 9 * JAW + 7, 9 * JAW + 5  # R[2,1] = sin, R[1,2] = −sin of a turn about x
    out[:n, :, sine[0]] = 0.5 * narrow / np.sin(0.42)
    out[:n, :, sine[1]] = -0.5 * narrow / np.sin(0.42)
    for block, name in ((LEFT_EYE, "left"), (RIGHT_EYE, "right")):
        # a full blink lowers the lid's margin by about the angle that a gaze 40° down would
        lid = expressions.blink_field(Sculpt(), **{name: 0.3}) / 0.3
        follow = LID_FOLLOW * lid / np.sin(np.radians(40))
        out[:n, :, 9 * block + 7] = 0.5 * follow
        out[:n, :, 9 * block + 5] = -0.5 * follow
    return out


def full_mirror(head):
    """(V,) the vertex on the other side, for the skin, eyeballs, teeth and tongue."""
    mirror = np.zeros(len(head.vertices), np.int32)
    n = topology().n
    mirror[:n] = topology().mirror
    for part, twin in ((1, 2), (2, 1), (3, 3), (4, 4), (5, 5)):
        here, there = np.flatnonzero(head.part == part), np.flatnonzero(head.part == twin)
        flipped = head.vertices[here] * [-1, 1, 1]
        square = ((flipped[:, None] - head.vertices[there]) ** 2).sum(-1)
        mirror[here] = there[square.argmin(1)]
    return mirror


def ambient_occlusion(head, masks, directions=96, size=256):
    """(V,) the share of a cloudy sky that each vertex sees, cosine weighted, 0…1.

    One orthographic depth picture from each of evenly spread directions. The mouth's inside gets a
    fixed value by depth, since the mouth will open.
    """
    import torch

    from course.rasterize import zbuffer_of

    v = head.vertices.astype(np.float32)
    normals = expressions.vertex_normals(v, head.faces)
    centre = (v.max(0) + v.min(0)) / 2
    radius = np.linalg.norm(v - centre, axis=1).max() * 1.02
    k = np.arange(directions) + 0.5
    polar, turn = np.arccos(1 - 2 * k / directions), np.pi * (1 + 5**0.5) * k
    ways = np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], -1)
    zbuffer, faces = zbuffer_of("auto", "cpu"), torch.as_tensor(head.faces.astype(np.int64))
    seen, total = np.zeros(len(v)), np.zeros(len(v))
    for way in ways:
        up = np.array([0, 1.0, 0]) if abs(way[1]) < 0.95 else np.array([1.0, 0, 0])
        x_axis = np.cross(up, way)
        x_axis /= np.linalg.norm(x_axis)
        axes = np.stack([x_axis, np.cross(way, x_axis), way])
        place = (v - centre) @ axes.T
        ndc = np.stack([-place[:, 0] / radius, place[:, 1] / radius, 2 * radius - place[:, 2]], -1)
        ndc = torch.as_tensor(ndc.astype(np.float32))[None]
        _, depth = zbuffer(ndc, faces, size, size)
        u = np.clip(((1 - ndc[0, :, 0].numpy()) / 2 * size).astype(int), 0, size - 1)
        w = np.clip(((1 - ndc[0, :, 1].numpy()) / 2 * size).astype(int), 0, size - 1)
        near = depth[0].numpy()[w, u]
        cosine = normals @ way
        slack = 1.5 + 2 * (1 - np.clip(cosine, 0, 1))
        visible = (near < 0) | (ndc[0, :, 2].numpy() < near + slack)
        share = np.clip(cosine, 0, 1) * (0.75 + 0.25 * way[1])
        seen, total = seen + share * visible, total + share
    occlusion = seen / np.maximum(total, 1e-6)
    # one step of smoothing hides the depth pictures' grain
    skin_ao = occlusion[: topology().n]
    adjacency = topology().adjacency
    mean = adjacency @ skin_ao / np.asarray(adjacency.sum(1)).ravel()
    occlusion[: topology().n] = 0.5 * skin_ao + 0.5 * mean
    inside = masks["mouth_interior"]
    lips = head.vertices[masks["lips"], 2].max()
    occlusion[inside] = np.clip(0.95 - (lips - head.vertices[inside, 2]) / 90, 0.45, 0.95)
    occlusion[masks["eyes"]] = 0.9
    # only a part: bounced light and the light's own shading fill the hollows
    return 1 - 0.75 * (1 - np.clip(occlusion, 0, 1))


def write(path, model):
    """Write a dict of arrays as .npz, whole or not at all, the same bytes for the same arrays."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, value in model.items():
            content = BytesIO()
            np.lib.format.write_array(content, np.asanyarray(value), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue())
