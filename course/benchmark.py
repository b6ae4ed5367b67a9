"""``python -m course benchmark``: our rasterizers, renderer and skinning beside other packages."""

import importlib.metadata
import json
import math
import os
import platform
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from course import benchmark_skinning
from course.camera import project, to_ndc
from course.facecode import FaceCode
from course.files import any_path, write_text
from course.flame import FLAME, yaw_pose
from course.rasterize import available_backends, rasterize
from course.render import Renderer
from course.silhouette import NEGLIGIBLE, soft_silhouette

SIGMA = 1e-5  # with more blur, 50 faces a pixel no longer hold all that are near
FACES_PER_PIXEL = 50  # of pytorch3d's soft silhouette; ours takes every triangle near a pixel
BACKENDS = ("pytorch3d", "torch", "numba")
MOST_THREADS, MOST_PIXELS = 256, 4096
PACKAGES = ("torch", "numba", "numpy", "pytorch3d", "smplx")
NOTE = ("Ratios are against pytorch3d's CPU path, which tests every triangle at every pixel; "
        "they say nothing about its CUDA path.")  # fmt: skip


def add_arguments(parser):
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--json", type=any_path, metavar="FILE", help="also write the table here")
    parser.add_argument("--repeats", type=int, default=9, help="runs of each case; medians count")
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224], help="pixels a side")
    parser.add_argument("--notebooks", action="store_true",
                        help="time the notebooks instead, and write data/results/notebooks.csv and "
                        "the table in notebooks/README.md")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a small picture and few runs")


def run(args):
    """Time everything, print the table; exit code 0. Raises ValueError for counts below 1."""
    if args.quick:
        args.repeats, args.sizes = 3, [64]
    if not 1 <= args.threads <= MOST_THREADS or args.repeats < 1:
        raise ValueError(f"--threads goes from 1 to {MOST_THREADS}, --repeats starts at 1")
    if not 1 <= min(args.sizes) <= max(args.sizes) <= MOST_PIXELS:
        raise ValueError(f"--sizes go from 1 to {MOST_PIXELS} pixels a side")
    if args.notebooks:
        from course import benchmark_notebooks

        versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "numba", "numpy"))
        return benchmark_notebooks.run(args.threads, _machine(), versions)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        cases, agreement = rasterizer_cases(args.sizes, args.repeats)
        skinning = skinning_cases(args.threads, 5 if args.quick else 41)
        adaptive = benchmark_skinning.adaptive_cases(5 if args.quick else 41)
        augmentation = augmentation_cases(args.repeats)
        threads = _threads()
    finally:
        torch.set_num_threads(before)
    report = {
        "threads": args.threads,
        "threads_of": threads,
        "machine": _machine(),
        "versions": {name: _version(name) for name in PACKAGES},
        "note": NOTE,
        "cases": cases,
        "agreement_with_pytorch3d": agreement,
        "skinning": skinning,
        "adaptive": adaptive,
        "augmentation": augmentation,
    }
    print(as_table(report))
    if args.json:
        write_text(args.json, json.dumps(report, indent=1) + "\n")
    return 0


def _threads():
    """Threads that torch and numba really use: numba's call can change torch's number."""
    counts = {"torch": torch.get_num_threads()}
    if "numba" in available_backends():
        import numba

        from course.rasterize_numba import match_threads

        match_threads()
        counts["numba"] = numba.get_num_threads()
    return counts


def _machine():
    processor, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    return (f"{platform.system()} {platform.machine()}, {processor}, {os.cpu_count()} cores, "
            f"Python {platform.python_version()}")  # fmt: skip


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def timed(functions, repeats, seconds=60.0):
    """Median milliseconds of each function, run in turn so that a busy moment hits all alike.

    In its turn a quick function runs as often as fits into 20 ms, as timeit does, or waking up
    threads after the slow one's turn would be most of what is measured. A function that alone takes
    long gets fewer turns: all together get about ``seconds``.
    """
    times, number = [], []
    for function in functions:
        function()  # compile, fill caches
        start = time.perf_counter()
        function()
        once = time.perf_counter() - start
        number.append(max(1, round(0.02 / max(once, 1e-6))))
        times.append([once] if number[-1] == 1 else [])
    for turn in range(repeats):
        for k, function in enumerate(functions):
            if turn >= 2 and number[k] * sum(times[k]) > seconds / len(functions):
                continue
            start = time.perf_counter()
            for _ in range(number[k]):
                function()
            times[k].append((time.perf_counter() - start) / number[k])
    return [1000 * float(np.median(t)) for t in times]


def rasterizer_cases(sizes, repeats):
    """[{case, pytorch3d, torch, numba (ms or None), torch_ratio, numba_ratio}], and how far the
    results are from pytorch3d's (None where it is not installed)."""
    flame = FLAME.load(device="cpu")
    there = [b for b in BACKENDS if b in available_backends()]
    cases, agreement = [], {}
    code = FaceCode.zeros(flame)
    code = code.replace(pose=yaw_pose(20), camera=code.camera * torch.tensor([0.85, 1, 1]))
    vertices = flame(code.shape, code.expression, code.pose).detach()
    colours = torch.rand(1, len(flame.v_template), 3, generator=torch.Generator().manual_seed(0))
    for size in sizes:
        ndc = to_ndc(project(vertices, code.camera, size), size)
        covered = (rasterize(ndc, flame.faces, size).pix_to_face >= 0).float().mean().item()
        head = f"{len(flame.faces)} triangles, {size} px, {100 * covered:.0f} % covered"

        def forward(backend, ndc=ndc, size=size):
            if backend == "pytorch3d":
                return lambda: _pytorch3d_fragments(ndc, flame.faces, size)
            return lambda: rasterize(ndc, flame.faces, size, backend)

        def picture(backend, size=size):
            if backend == "pytorch3d":
                return _pytorch3d_picture(flame, vertices, code, colours, size)
            return _our_picture(flame, vertices, code, colours, size, backend)

        if "pytorch3d" in there:
            agreement[f"{size} px"] = _agreement(ndc, flame.faces, size, there)
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
    return cases, agreement or None


def _agreement(ndc, faces, size, there):
    """Share of pixels with pytorch3d's triangle, and the largest difference of barycentrics."""
    theirs, _, weights, _ = _pytorch3d_fragments(ndc, faces, size)
    found = {}
    for backend in there[1:]:
        mine = rasterize(ndc, faces, size, backend)
        same = mine.pix_to_face == theirs[..., 0]
        apart = (mine.barycentric - weights[..., 0, :])[same].abs().max().item()
        found[backend] = {"same_triangle": same.double().mean().item(), "barycentrics": apart}
    return found


def _pytorch3d_fragments(ndc, faces, size, blur_radius=0.0, faces_per_pixel=1):
    """pytorch3d's own call: pix_to_face, zbuf, barycentrics, distances, each (N, H, W, K, …)."""
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    return rasterize_meshes(Meshes(ndc, faces[None]), size, blur_radius, faces_per_pixel, 0,
                            perspective_correct=False)  # fmt: skip


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
        v = ndc.clone().requires_grad_()
        soft_silhouette(v, flame.faces, size, SIGMA, backend).sum().backward()

    return once


def _pytorch3d_picture(flame, vertices, code, colours, size):
    """The same picture with pytorch3d's own parts: rasterizer, interpolation, vertex normals."""
    from pytorch3d.ops import interpolate_face_attributes
    from pytorch3d.structures import Meshes

    from course.render import shade

    def once():
        v, c, light = (t.clone().requires_grad_() for t in (vertices, colours, code.light))
        ndc = to_ndc(project(v, code.camera, size), size)
        fragments = _pytorch3d_fragments(ndc, flame.faces, size)
        normals = Meshes(v, flame.faces[None]).verts_normals_packed()
        corners = torch.cat([normals, c[0]], 1)[flame.faces]
        pixels = interpolate_face_attributes(fragments[0], fragments[2], corners)[..., 0, :]
        pixels = pixels.permute(0, 3, 1, 2)
        shade(pixels[:, 3:], pixels[:, :3], light).abs().mean().backward()

    return once


def _pytorch3d_silhouette(flame, ndc, size):
    from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend

    radius = math.log(1 / NEGLIGIBLE - 1) * SIGMA
    colour = torch.ones(1, size, size, FACES_PER_PIXEL, 3)
    blend = BlendParams(sigma=SIGMA, background_color=(0, 0, 0))

    def once():
        v = ndc.clone().requires_grad_()
        found = SimpleNamespace()
        found.pix_to_face, found.zbuf, found.bary_coords, found.dists = _pytorch3d_fragments(
            v, flame.faces, size, radius, FACES_PER_PIXEL
        )
        sigmoid_alpha_blend(colour, found, blend)[..., 3].sum().backward()

    return once


def skinning_cases(threads, repeats=41):
    """Our FLAME beside smplx's, see ``benchmark_skinning``."""
    return benchmark_skinning.cases(threads, repeats)


def augmentation_cases(repeats, count=32, size=224):
    """[{name, ms}]: a batch of pictures through what course.gridmask has."""
    from course import gridmask

    images = torch.rand(count, 3, size, size)
    generator = torch.Generator().manual_seed(0)
    names = ("GridMask", "Cutout", "RandomErasing", "Mixup", "CutMix")
    kinds = [getattr(gridmask, name)(probability=1.0) for name in names]
    # in place, as training does: pages that are new to the process would be most of what is timed
    calls = [lambda k=kind: k(images, generator, out=images) for kind in kinds]
    calls.append(lambda: kinds[0](images, generator))
    calls.append(lambda: kinds[0].mask(count, (size, size), generator))
    names = [*names, "GridMask, pictures kept", "GridMask, masks alone"]
    times = timed(calls, repeats)
    return [{"name": f"{name}, {count} pictures of {size} px", "ms": ms}
            for name, ms in zip(names, times, strict=True)]  # fmt: skip


def as_table(report):
    """The report as text."""
    missing = "not installed"
    lines = [f"{report['machine']}; threads: "
             + ", ".join(f"{k} {v}" for k, v in report["threads_of"].items()) + "; "
             + ", ".join(f"{k} {v or missing}" for k, v in report["versions"].items()),
             "", f"{'milliseconds':66s}{'pytorch3d':>14s}{'torch':>16s}{'numba':>16s}"]  # fmt: skip
    for row in report["cases"]:
        cells = [f"{row['pytorch3d']:.0f}" if row["pytorch3d"] else missing]
        for backend in ("torch", "numba"):
            ratio = row[f"{backend}_ratio"]
            times = f" ({ratio:.0f}×)" if ratio else ""
            cells.append(f"{row[backend]:.1f}{times}" if row[backend] else missing)
        lines.append(f"{row['case']:66s}{cells[0]:>14s}{cells[1]:>16s}{cells[2]:>16s}")
    for size, found in (report["agreement_with_pytorch3d"] or {}).items():
        for backend, row in found.items():
            share, apart = row["same_triangle"], row["barycentrics"]
            lines.append(f"{size}, {backend}: the same triangle as pytorch3d in {share:.4%} of the "
                         f"pixels, barycentrics within {apart:.1e}")  # fmt: skip
    lines += ["", f"{'milliseconds':66s}{'smplx':>14s}{'ours':>16s}"]
    for row in report["skinning"]:
        theirs = f"{row['smplx_ms']:.1f}" if row["smplx_ms"] else missing
        ratio = f" ({row['ratio']:.2f}×)" if row["ratio"] else ""
        ours = f"{row['ours_ms']:.1f}{ratio}"
        lines.append(f"{row['name']:66s}{theirs:>14s}{ours:>16s}")
    # older files have none of these
    for row in (*report.get("adaptive", ()), *report.get("augmentation", ())):
        lines.append(f"{row['name']:66s}{row['ms']:30.1f}")
    return "\n".join([*lines, "", report["note"]])
