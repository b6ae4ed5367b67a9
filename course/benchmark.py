"""``python -m course benchmark``: our rasterizers, renderer and skinning beside other packages."""

import importlib.metadata
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from course.camera import project, to_ndc
from course.facecode import FaceCode
from course.files import write_text
from course.flame import FLAME, yaw_pose
from course.rasterize import available_backends, rasterize
from course.render import Renderer
from course.silhouette import soft_silhouette

BACKENDS = ("pytorch3d", "torch", "numba")
PACKAGES = ("torch", "numba", "numpy", "pytorch3d", "smplx")
NOTE = ("Ratios are against pytorch3d's CPU path, which tests every triangle at every pixel; "
        "they say nothing about its CUDA path.")  # fmt: skip


def add_arguments(parser):
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table here")
    parser.add_argument("--repeats", type=int, default=9, help="runs of each case; medians count")
    parser.add_argument("--sizes", type=int, nargs="*", default=[112, 224], help="pixels a side")


def run(args):
    if args.threads < 1 or args.repeats < 1 or any(s < 1 for s in args.sizes):
        raise ValueError("threads, repeats and sizes must be at least 1")
    torch.set_num_threads(args.threads)
    report = {
        "threads": args.threads,
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "note": NOTE,
        "cases": rasterizer_cases(args.sizes, args.repeats),
        "skinning": skinning_cases(args.threads),
    }
    print(as_table(report))
    if args.json:
        write_text(args.json, json.dumps(report, indent=1) + "\n")
    return 0


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def timed(functions, repeats, seconds=60.0):
    """Median milliseconds of each function, run in turn so that a busy moment hits all alike.

    A function that alone takes long runs fewer times: all together get about ``seconds``.
    """
    first = []
    for function in functions:
        function()  # compile, fill caches
        start = time.perf_counter()
        function()
        first.append(time.perf_counter() - start)
    times = [[t] for t in first]
    for turn in range(repeats - 1):
        for k, function in enumerate(functions):
            if turn >= 2 and sum(times[k]) > seconds / len(functions):
                continue
            start = time.perf_counter()
            function()
            times[k].append(time.perf_counter() - start)
    return [1000 * float(np.median(t)) for t in times]


def rasterizer_cases(sizes, repeats):
    """[{case, pytorch3d, torch, numba (ms or None), torch_ratio, numba_ratio}]"""
    flame = FLAME.load(device="cpu")
    there = [b for b in BACKENDS if b in available_backends()]
    cases = []
    code = FaceCode.zeros(flame)
    code = code.replace(pose=yaw_pose(20), camera=code.camera * torch.tensor([0.85, 1, 1]))
    vertices = flame(code.shape, code.expression, code.pose).detach()
    colours = torch.rand(1, len(flame.v_template), 3, generator=torch.Generator().manual_seed(0))
    for size in sizes:
        ndc = to_ndc(project(vertices, code.camera, size), size)
        covered = (rasterize(ndc, flame.faces, size).pix_to_face >= 0).float().mean().item()
        head = f"{len(flame.faces)} triangles, {size} px, {100 * covered:.0f} % covered"

        def forward(backend, ndc=ndc, size=size):
            return lambda: rasterize(ndc, flame.faces, size, backend)

        def picture(backend, size=size):
            if backend == "pytorch3d":
                return _pytorch3d_picture(flame, vertices, code, colours, size)
            return _our_picture(flame, vertices, code, colours, size, backend)

        cases.append(_case(f"rasterize, {head}", there, forward, repeats))
        cases.append(_case(f"render, forward + backward, {head}", there, picture, repeats))
    size = sizes[0]
    ndc = to_ndc(project(vertices, code.camera, size), size)

    def silhouette(backend):
        if backend == "pytorch3d":
            return _pytorch3d_silhouette(flame, ndc, size)
        return _our_silhouette(flame, ndc, size, backend)

    cases.append(
        _case(f"soft silhouette, forward + backward, {size} px", there, silhouette, repeats)
    )
    return cases


def _case(name, there, make, repeats):
    milliseconds = dict(zip(there, timed([make(b) for b in there], repeats), strict=True))
    row = {"case": name} | {b: milliseconds.get(b) for b in BACKENDS}
    for backend in ("torch", "numba"):
        known = row["pytorch3d"] and row[backend]
        row[f"{backend}_ratio"] = row["pytorch3d"] / row[backend] if known else None
    return row


def _our_picture(flame, vertices, code, colours, size, backend):
    renderer = Renderer(flame, size, backend)

    def once():
        leaves = [t.clone().requires_grad_() for t in (vertices, colours, code.light)]
        renderer(leaves[0], code.camera, leaves[1], leaves[2]).image.abs().mean().backward()

    return once


def _our_silhouette(flame, ndc, size, backend):
    def once():
        soft_silhouette(
            ndc.clone().requires_grad_(), flame.faces, size, 1e-4, backend
        ).sum().backward()

    return once


def _pytorch3d_picture(flame, vertices, code, colours, size):
    """The same picture with pytorch3d's own parts: rasterizer, interpolation, vertex normals."""
    from pytorch3d.ops import interpolate_face_attributes
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    from course.render import shade

    def once():
        v, c, light = (t.clone().requires_grad_() for t in (vertices, colours, code.light))
        ndc = to_ndc(project(v, code.camera, size), size)
        fragments = rasterize_meshes(Meshes(ndc, flame.faces[None]), size, 0.0, 1, 0,
                                     perspective_correct=False)  # fmt: skip
        normals = Meshes(v, flame.faces[None]).verts_normals_packed()
        corners = torch.cat([normals, c[0]], 1)[flame.faces]
        pixels = interpolate_face_attributes(fragments[0], fragments[2], corners)[..., 0, :]
        pixels = pixels.permute(0, 3, 1, 2)
        shade(pixels[:, 3:], pixels[:, :3], light).abs().mean().backward()

    return once


def _pytorch3d_silhouette(flame, ndc, size, sigma=1e-4, faces_per_pixel=50):
    import math

    from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    radius = math.log(1 / 1e-4 - 1) * sigma
    colour = torch.ones(1, size, size, faces_per_pixel, 3)

    class Fragments:
        pass

    def once():
        v = ndc.clone().requires_grad_()
        found = Fragments()
        found.pix_to_face, found.zbuf, found.bary_coords, found.dists = rasterize_meshes(
            Meshes(v, flame.faces[None]),
            size,
            radius,
            faces_per_pixel,
            0,
            perspective_correct=False,
        )
        blend = BlendParams(sigma=sigma, background_color=(0, 0, 0))
        sigmoid_alpha_blend(colour, found, blend)[..., 3].sum().backward()

    return once


def skinning_cases(threads):
    """Our FLAME beside smplx's, see ``benchmark_skinning``."""
    from course.benchmark_skinning import cases

    return cases(threads)


def as_table(report):
    """The report as text."""
    missing = "not installed"
    lines = [f"{report['machine']}, {report['threads']} threads; "
             + ", ".join(f"{k} {v or missing}" for k, v in report["versions"].items()),
             "", f"{'milliseconds':66s}{'pytorch3d':>14s}{'torch':>16s}{'numba':>16s}"]  # fmt: skip
    for row in report["cases"]:
        cells = [f"{row['pytorch3d']:.0f}" if row["pytorch3d"] else missing]
        for backend in ("torch", "numba"):
            ratio = row[f"{backend}_ratio"]
            times = f" ({ratio:.0f}×)" if ratio else ""
            cells.append(f"{row[backend]:.1f}{times}" if row[backend] else missing)
        lines.append(f"{row['case']:66s}{cells[0]:>14s}{cells[1]:>16s}{cells[2]:>16s}")
    lines += ["", f"{'milliseconds':66s}{'smplx':>14s}{'ours':>16s}"]
    for row in report["skinning"]:
        theirs = f"{row['smplx_ms']:.1f}" if row["smplx_ms"] else missing
        ratio = f" ({row['ratio']:.2f}×)" if row["ratio"] else ""
        lines.append(f"{row['name']:66s}{theirs:>14s}{row['ours_ms']:.1f}{ratio}".rstrip())
    return "\n".join([*lines, "", report["note"]])
