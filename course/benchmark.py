"""``python -m course benchmark``: rasterizers, renderer and skinning, timed side by side.

Everything in a case runs in turns, so that all meet the same machine; the figures are medians.
Ratios are against pytorch3d's CPU path, which tries every triangle at every pixel: they say nothing
about its CUDA path.
"""

import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

from course import benchmark_skinning
from course.camera import project, to_ndc
from course.files import write_text
from course.flame import FLAME
from course.rasterize import available_backends, rasterize
from course.render import Renderer, spherical_harmonics, vertex_normals
from course.silhouette import NEGLIGIBLE, soft_silhouette

PACKAGES = ("torch", "numba", "numpy", "pytorch3d", "smplx")
FACES_PER_PIXEL = 50  # of pytorch3d's soft silhouette; with 20 it is visibly wrong on a head
SIGMA = 1e-5  # of the soft silhouette, squared picture units
NOTE = (
    "Ratios are against pytorch3d on the CPU, where it tries every triangle at every pixel;\n"
    "they say nothing about its CUDA path."
)


def add_arguments(parser):
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="small pictures, few repeats")


def run(args):
    """Time everything and print the table; exit code 0. Raises ValueError for threads < 1."""
    report = measure(args.threads, args.quick, progress=sys.stderr.isatty())
    print(table(report))
    if args.json:
        write_text(args.json, json.dumps(report, indent=2) + "\n")
    return 0


def measure(threads=2, quick=False, progress=False):
    """All figures as plain data: machine, versions, threads, rows, agreement, note.

    A row has case, backend, ms and ratio (of the other library's time to this one's); both are
    None where something is not installed. ``agreement`` says how far pytorch3d's results are from
    ours, None where it is not installed.
    """
    if threads < 1:
        raise ValueError(f"{threads} threads cannot run anything; --threads needs at least 1.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows, agreement = [], {}
        scene = Scene()
        for name, backends, check in cases(scene, quick):
            if progress:
                print(f"{name} …", file=sys.stderr)
            there = {key: function for key, function in backends.items() if function}
            times = dict(zip(there, in_turns(there.values(), quick), strict=True))
            slow = times.get("pytorch3d")
            for backend in backends:
                ms = times.get(backend)
                ratio = slow / ms if slow and backend != "pytorch3d" else None
                rows.append({"case": name, "backend": backend, "ms": ms, "ratio": ratio})
            agreement[name] = check() if slow else None
        if progress:
            print("skinning …", file=sys.stderr)
        for case in benchmark_skinning.cases(threads, repeats=5 if quick else 41):
            ours, theirs, ratio = case["ours_ms"], case["smplx_ms"], case["ratio"]
            rows.append({"case": case["name"], "backend": "course", "ms": ours, "ratio": ratio})
            rows.append({"case": case["name"], "backend": "smplx", "ms": theirs, "ratio": None})
        counts = _threads()
    finally:
        torch.set_num_threads(before)
    return {
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "threads": counts,
        "mesh": {"vertices": scene.vertices.shape[1], "triangles": len(scene.faces)},
        "rows": rows,
        "agreement": agreement,
        "note": NOTE.replace("\n", " "),
    }


def in_turns(functions, quick=False):
    """Median milliseconds of each function. A round calls each in turn, quick ones more often."""
    functions = list(functions)
    first = []
    for function in functions:
        function()  # compiles, fills caches
        first.append(_milliseconds(function))
    budget = 50 if quick else 300  # milliseconds that a quick function may use in a round
    calls = [max(1, min(20, int(budget / ms))) for ms in first]
    rounds = 2 if quick else 3 if max(first) > 1500 else 5
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, record, count in zip(functions, times, calls, strict=True):
            record += [_milliseconds(function) for _ in range(count)]
    return [statistics.median(record) for record in times]


def _milliseconds(function):
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


class Scene:
    """The head model in front of its default camera, with colours and a light to draw it by."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.flame = FLAME.load(device="cpu")
        self.faces = self.flame.faces
        with torch.no_grad():
            self.vertices = self.flame()
        self.camera = torch.tensor([self.flame.default_camera])
        self.colours = torch.rand(self.vertices.shape, generator=generator)
        self.light = torch.rand(1, 9, 3, generator=generator)

    def ndc(self, size, batch=1):
        return to_ndc(project(self.vertices, self.camera, size), size).expand(batch, -1, -1)


def cases(scene, quick=False):
    """Name, {backend: function or None}, and a function that compares the results with pytorch3d's.

    None stands for a backend that is not installed.
    """
    sizes = [(64, 1)] if quick else [(112, 1), (224, 1), (224, 8), (512, 1)]
    for size, batch in sizes:
        yield rasterize_case(scene, size, batch)
    yield render_case(scene, 64 if quick else 224)
    yield silhouette_case(scene, 48 if quick else 112)


def rasterize_case(scene, size, batch):
    """Triangle, barycentrics and depth of every pixel, forward."""
    ndc = scene.ndc(size, batch).contiguous()

    def ours(backend):
        return lambda: rasterize(ndc, scene.faces, size, backend)

    functions = {name: _if_there(name, ours) for name in ("numba", "torch", "pytorch3d")}
    if functions["pytorch3d"]:
        functions["pytorch3d"] = lambda: pytorch3d_fragments(ndc, scene.faces, size)

    def check():
        theirs, found = functions["pytorch3d"](), {}
        for name in ("numba", "torch"):
            mine = functions[name]()
            same = mine.pix_to_face == theirs.pix_to_face[..., 0]
            apart = (mine.barycentric - theirs.bary_coords[..., 0, :])[same].abs().max()
            found[name] = {
                "same triangle": same.double().mean().item(),
                "barycentrics": apart.item(),
            }
        return found

    return f"rasterize, {size} px, batch {batch}, forward", functions, check


def render_case(scene, size):
    """Vertex normals, colours and light to an L1 loss, and its gradients to all of them."""
    inputs = [scene.vertices, scene.camera, scene.colours, scene.light]
    target = torch.full((1, 3, size, size), 0.3)

    def step(draw):
        leaves = [value.detach().clone().requires_grad_() for value in inputs]
        image = draw(*leaves)
        (image - target).abs().mean().backward()
        return image.detach(), torch.cat([leaf.grad.flatten() for leaf in leaves])

    def ours(backend):
        renderer = Renderer(scene.flame, size, backend)
        return lambda: step(lambda *leaves: renderer(*leaves, occlusion=False).image)

    def theirs(vertices, camera, colours, light):
        from pytorch3d.ops import interpolate_face_attributes

        ndc = to_ndc(project(vertices, camera, size), size)
        found = pytorch3d_fragments(ndc, scene.faces, size)
        normals = vertex_normals(vertices, scene.faces)
        corners = torch.cat([normals, colours], 2)[0][scene.faces]
        values = interpolate_face_attributes(found.pix_to_face, found.bary_coords, corners)
        normal, colour = values[..., 0, :3], values[..., 0, 3:]
        normal = torch.nn.functional.normalize(normal, dim=-1)
        image = colour * (spherical_harmonics(normal) @ light[:, None])
        return (image * (found.pix_to_face >= 0)).permute(0, 3, 1, 2)

    functions = {name: _if_there(name, ours) for name in ("numba", "torch", "pytorch3d")}
    if functions["pytorch3d"]:
        functions["pytorch3d"] = lambda: step(theirs)

    def check():
        image, slope = functions["pytorch3d"]()
        found = {}
        for name in ("numba", "torch"):
            mine, gradient = functions[name]()
            cosine = torch.cosine_similarity(gradient, slope, 0).item()
            found[name] = {"picture": (mine - image).abs().max().item(), "gradient cosine": cosine}
        return found

    return f"render, {size} px, forward + backward", functions, check


def silhouette_case(scene, size):
    """The soft silhouette and the gradient of its squared difference from a disc."""
    line = torch.linspace(-1, 1, size)
    disc = (line.square() + line.square()[:, None] < 0.3).float()
    ndc = scene.ndc(size)

    def step(draw):
        leaf = ndc.detach().clone().requires_grad_()
        alpha = draw(leaf)
        (alpha - disc).square().sum().backward()
        return alpha.detach(), leaf.grad[..., :2].flatten()

    def ours(backend):
        return lambda: step(lambda v: soft_silhouette(v, scene.faces, size, SIGMA, backend))

    def theirs(vertices):
        from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend

        found = pytorch3d_fragments(
            vertices, scene.faces, size, math.log(1 / NEGLIGIBLE - 1) * SIGMA, FACES_PER_PIXEL
        )
        colours = torch.ones(*found.pix_to_face.shape, 3)
        return sigmoid_alpha_blend(colours, found, BlendParams(sigma=SIGMA))[..., 3]

    functions = {name: _if_there(name, ours) for name in ("numba", "torch", "pytorch3d")}
    if functions["pytorch3d"]:
        functions["pytorch3d"] = lambda: step(theirs)

    def check():
        alpha, slope = functions["pytorch3d"]()
        found = {}
        for name in ("numba", "torch"):
            mine, gradient = functions[name]()
            cosine = torch.cosine_similarity(gradient, slope, 0).item()
            found[name] = {"alpha": (mine - alpha).abs().max().item(), "gradient cosine": cosine}
        return found

    return f"soft silhouette, {size} px, forward + backward", functions, check


def pytorch3d_fragments(ndc, faces, size, blur_radius=0.0, faces_per_pixel=1):
    """pytorch3d's own rasterizer: pix_to_face, zbuf, bary_coords, dists, each (N, H, W, K, …)."""
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.renderer.mesh.rasterizer import Fragments
    from pytorch3d.structures import Meshes

    return Fragments(
        *rasterize_meshes(
            Meshes(ndc, faces.expand(len(ndc), -1, -1)),
            image_size=size,
            blur_radius=blur_radius,
            faces_per_pixel=faces_per_pixel,
            bin_size=0,
            perspective_correct=False,
        )
    )


def _if_there(backend, make):
    return make(backend) if backend in available_backends() else None


def _threads():
    counts = {"torch": torch.get_num_threads()}
    if "numba" in available_backends():
        import numba

        counts["numba"] = numba.get_num_threads()
    return counts


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine():
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = named[0] if named else name
    return {"processor": name, "cores": os.cpu_count(), "system": platform.platform()}


def table(report):
    """The report as text."""
    rows = report["rows"]
    wide = max(len(row["case"]) for row in rows)
    lines = [f"{'case':{wide}}  {'backend':10} {'ms':>14} {'ratio':>9}"]
    previous = None
    for row in rows:
        case = row["case"] if row["case"] != previous else ""
        previous = row["case"]
        ms = "not installed" if row["ms"] is None else f"{row['ms']:.2f}"
        ratio = (
            "" if row["ratio"] is None else f"{row['ratio']:,.{1 if row['ratio'] < 20 else 0}f}×"
        )
        lines.append(f"{case:{wide}}  {row['backend']:10} {ms:>14} {ratio:>9}")
    for case, found in report["agreement"].items():
        if found:
            lines += ["", f"{case}: against pytorch3d"]
            for backend, figures in found.items():
                said = ", ".join(f"{name} {value:.6g}" for name, value in figures.items())
                lines.append(f"  {backend}: {said}")
    machine, mesh = report["machine"], report["mesh"]
    threads = ", ".join(f"{name} {count}" for name, count in report["threads"].items())
    versions = ", ".join(f"{p} {v or 'not installed'}" for p, v in report["versions"].items())
    lines += [
        "",
        f"Mesh: {mesh['vertices']} vertices, {mesh['triangles']} triangles. Threads: {threads}.",
        f"Versions: {versions}.",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}.",
        NOTE,
        "Ratio: times pytorch3d's time (rasterizing and drawing) or smplx's (skinning).",
    ]
    return "\n".join(lines)
