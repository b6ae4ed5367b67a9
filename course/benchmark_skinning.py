"""Timing of the head model beside ``smplx.lbs.lbs``, on random tensors of FLAME's size."""

import statistics
import time

import numpy as np
import torch

from course import flame_files
from course.flame import FLAME

VERTICES, TRIANGLES = 5023, 9976
ACTIVE = {"150 components": (100, 50), "400 components": (300, 100)}
PARENTS = (-1, 0, 1, 1, 1)


def flame_sized(n_shape=300, n_expression=100, vertices=VERTICES, triangles=TRIANGLES, seed=0):
    """Random arrays with FLAME's keys and, unless told otherwise, FLAME's sizes."""
    rng = np.random.default_rng(seed)
    regressor = rng.random((5, vertices)) ** 8
    weights = rng.random((vertices, 5)) ** 4
    return {
        "v_template": rng.normal(size=(vertices, 3)) * 0.1,
        "f": rng.integers(0, vertices, (triangles, 3)).astype(np.uint32),
        "shapedirs": rng.normal(size=(vertices, 3, n_shape + n_expression)) * 1e-3,
        "n_shape": n_shape,
        "posedirs": rng.normal(size=(vertices, 3, 36)) * 1e-3,
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        # FLAME writes the root's parent as 2^32 - 1
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(5)], np.int64),
        "weights": weights / weights.sum(1, keepdims=True),
    }


def smplx_head(flame):
    """``smplx.lbs.lbs`` on the arrays of ``flame``: a function of (betas, pose), or None."""
    try:
        from smplx.lbs import lbs
    except ImportError:
        return None
    basis = torch.cat([flame.shapedirs, flame.expressiondirs], 2).contiguous()
    posedirs = flame.posedirs.flatten(0, 1).T.contiguous()
    parents = torch.tensor(PARENTS)

    def head(betas, pose):
        vertices, _ = lbs(betas, pose, flame.v_template, basis, posedirs, flame.J_regressor,
                          parents, flame.lbs_weights)  # fmt: skip
        return vertices

    return head


def interleaved_medians(functions, repeats):
    """Median milliseconds of each function, run in turns so that all meet the same machine."""
    for function in functions:
        function()
        function()
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, record in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            record.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(record) for record in times]


def skinning_case(batch, components="150 components", backward=True, repeats=41):
    """Time one batch size; a dict of name, ours_ms, smplx_ms (None: not installed) and ratio."""
    n_shape, n_expression = ACTIVE[components]
    flame = FLAME(flame_sized(n_shape, n_expression))
    reference = smplx_head(flame)
    generator = torch.Generator().manual_seed(batch)
    betas = torch.randn(batch, n_shape + n_expression, generator=generator)
    pose = torch.randn(batch, 15, generator=generator) * 0.3
    pull = torch.randn(batch, VERTICES, 3, generator=generator)

    def ours(codes, pose):
        return flame(codes[:, :n_shape], codes[:, n_shape:], pose)

    def step(head):
        codes, turn = betas.clone(), pose.clone()
        if not backward:
            with torch.no_grad():
                return head(codes, turn)
        codes.requires_grad_()
        turn.requires_grad_()
        head(codes, turn).backward(pull)
        return codes.grad, turn.grad

    heads = [ours] if reference is None else [ours, reference]
    medians = interleaved_medians([lambda head=head: step(head) for head in heads], repeats)
    direction = "forward + backward" if backward else "forward"
    theirs = None if reference is None else medians[1]
    return {
        "name": f"skinning, {components}, batch {batch}, {direction}",
        "ours_ms": medians[0],
        "smplx_ms": theirs,
        "ratio": None if theirs is None else theirs / medians[0],
    }


def cases(threads=2, repeats=41):
    """All rows of the skinning table, on ``threads`` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [
            skinning_case(batch, components, backward, repeats)
            for components in ACTIVE
            for backward in (False, True)
            for batch in (1, 8, 32)
        ]
    finally:
        torch.set_num_threads(before)


def adaptive_cases(repeats=41):
    """[{name, ms}]: heads by bones (``course.asm``), forward, the weights made anew each time."""
    from course.asm import ASM

    asm = ASM(FLAME.load(flame_files.BUILT_IN, device="cpu"))
    g = torch.Generator().manual_seed(0)
    codes = [asm.code(torch.randn(batch, asm.size(), generator=g)) for batch in (1, 8)]
    with torch.no_grad():
        times = interleaved_medians([lambda code=code: asm(code) for code in codes], repeats)
    return [{"name": f"adaptive skinning, {asm.bones} bones, batch {len(code)}, forward", "ms": ms}
            for code, ms in zip(codes, times, strict=True)]  # fmt: skip
