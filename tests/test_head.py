"""The built head is a sound mesh, in the file and through every component."""

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from course import flame_files
from course.head import build, rig
from course.head.anatomy import topology
from course.head.bulk import Sculpt
from course.head.topology import angles


@pytest.fixture(scope="module")
def model():
    return flame_files.read(flame_files.BUILT_IN)


@pytest.fixture(scope="module")
def skin_mesh(model):
    n = topology().n
    return trimesh.Trimesh(model["v_template"][:n] * 1000.0, topology().triangles, process=False)


def components(flame):
    """Every single component at ±2σ: name, vertices in mm."""
    for kind, count in (("shape", flame.n_shape), ("expression", flame.n_expression)):
        for value in (-2.0, 2.0):
            codes = value * torch.eye(count)
            vertices = flame(**{kind: codes}).numpy() * 1000
            for k in range(count):
                name = f"{kind} {k}" if kind == "shape" else flame.expression_names[k]
                yield f"{name} {value:+.0f}", vertices[k]


def test_what_the_issue_asks_for(model):
    assert model["n_shape"] >= 60
    assert model["n_expression"] >= 24
    assert len(model["albedo_names"]) >= 10
    assert flame_files.BUILT_IN.stat().st_size <= 15e6
    assert model["J_regressor"].shape[0] == 5


def test_mirror_symmetric(model):
    v, mirror = model["v_template"], model["mirror"]
    assert np.array_equal(mirror[mirror], np.arange(len(v)))
    assert np.abs(v[mirror] * [-1, 1, 1] - v).max() < 1e-6


def test_closed_but_for_lids_and_neck(skin_mesh):
    edges = np.sort(skin_mesh.edges, axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert counts.max() == 2  # no edge has three sides
    t = topology()
    border = np.unique(np.sort(skin_mesh.edges, 1), axis=0)[counts == 1]
    allowed = [t.rings["eye_l"][-1], t.rings["eye_r"][-1], t.grid[t.grid_ij[:, 1] == 0]]
    assert np.isin(border, np.concatenate(allowed)).all()
    assert skin_mesh.is_winding_consistent


def test_no_degenerate_triangle(model):
    v = model["v_template"][model["f"]].astype(float) * 1000
    area = np.linalg.norm(np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]), axis=1) / 2
    assert area.min() > 1e-3  # mm²


def test_no_flipped_texture_triangle(model):
    uv = model["vt"][model["ft"]].astype(float)
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    eyeball = np.isin(model["part"][model["f"][:, 0]], (1, 2))
    assert (area[~eyeball] > 0).all()
    # the far pole of an eyeball is a point that its disc spreads into a ring
    assert (area[eyeball] <= 0).sum() <= 40
    assert model["vt"].min() >= 0
    assert model["vt"].max() <= 1


def test_no_seam_through_the_face(model):
    """Triangles of the face that share an edge share its texture coordinates too."""
    face = model["mask_face"][model["f"]].all(1)
    pairs = {}
    for corners, coordinates in zip(model["f"][face], model["ft"][face], strict=True):
        for vertex, coordinate in zip(corners, coordinates, strict=True):
            pairs.setdefault(vertex, set()).add(coordinate)
    assert max(map(len, pairs.values())) == 1


def test_joints_are_where_they_were_sculpted(model):
    joints = model["J_regressor"] @ model["v_template"] * 1000
    assert np.abs(joints - rig.joint_places(Sculpt())).max() < 0.05
    assert np.allclose(model["weights"].sum(1), 1, atol=1e-6)
    assert model["weights"].min() >= 0


def test_face_proportions(flame):
    """Against the tables that the sculpture follows (Farkas 1994), in mm."""
    points = flame.landmarks(flame())[0].numpy() * 1000
    eyes = flame.joints()[0, 3:].numpy() * 1000
    assert 58 < np.abs(eyes[0, 0] - eyes[1, 0]) < 68  # pupils
    assert 28 < np.linalg.norm(points[45] - points[42]) < 32.5  # fissure
    assert 43 < -points[33, 1] < 50  # pupil line to the nose's base
    assert 45 < np.linalg.norm(points[54] - points[48]) < 56  # mouth


def test_landmarks_lie_on_the_surface(model, skin_mesh):
    for part in ("static", "dynamic", "full"):
        weights = model[f"{part}_lmk_bary_coords"]
        assert np.allclose(weights.sum(-1), 1, atol=1e-5)
        assert weights.min() > -1e-5
        assert model[f"{part}_lmk_faces_idx"].max() < len(topology().triangles)


def test_the_contour_slides_to_the_silhouette(flame):
    """Turned by 39°, the hidden side's points move towards the viewer's silhouette."""
    table, bary = flame.dynamic_lmk_faces_idx, flame.dynamic_lmk_bary_coords
    corners = flame.v_template[flame.faces[table]]
    points = (corners * bary.unsqueeze(-1)).sum(2)
    for row, side in ((78, slice(10, 15)), (0, slice(2, 7))):
        turn = np.radians(39 if row else -39)
        right = torch.tensor([np.cos(turn), 0, np.sin(turn)], dtype=torch.float32)
        reach = (points[row] - points[39])[side] @ right * np.sign(turn)
        assert reach.min() >= -1e-4
        assert reach.max() > 0.005
    assert torch.allclose(points[39, 0, 1:], points[39, 16, 1:], atol=2e-3)


def crossings(vertices, faces):
    """How many pairs of triangles without a common vertex cut through each other."""
    corners = vertices[faces]
    low, high, centre = corners.min(1), corners.max(1), corners.mean(1)
    reach = np.linalg.norm(corners - centre[:, None], axis=-1).max()
    i, j = cKDTree(centre).query_pairs(2 * reach, output_type="ndarray").T
    apart = ~(faces[i][:, :, None] == faces[j][:, None]).any((1, 2))
    near = ((low[i] <= high[j]) & (low[j] <= high[i])).all(1) & apart
    i, j = i[near], j[near]
    cut = np.zeros(len(i), bool)
    for a, b in ((i, j), (j, i)):
        origin = corners[b, 0]
        e1, e2 = corners[b, 1] - origin, corners[b, 2] - origin
        normal = np.cross(e1, e2)
        d11, d12, d22 = (e1 * e1).sum(1), (e1 * e2).sum(1), (e2 * e2).sum(1)
        for k in range(3):  # where each edge of a meets the plane of b
            start, way = corners[a, k], corners[a, (k + 1) % 3] - corners[a, k]
            across = (way * normal).sum(1)
            across[np.abs(across) < 1e-12] = np.inf
            t = ((origin - start) * normal).sum(1) / across
            x = start + t[:, None] * way - origin
            b1, b2 = (x * e1).sum(1), (x * e2).sum(1)
            u = (d22 * b1 - d12 * b2) / (d11 * d22 - d12**2)
            w = (d11 * b2 - d12 * b1) / (d11 * d22 - d12**2)
            inside = np.minimum.reduce([t, 1 - t, u, w, 1 - u - w])
            cut |= inside > 1e-6
    return int(cut.sum())


@pytest.fixture(scope="module")
def lips_and_lids(model):
    """Triangles of the lips with the mouth's lining, and of the lids with the eyeballs."""
    t, n = topology(), len(model["v_template"])
    lips, lids = np.zeros(n, bool), np.isin(model["part"], (1, 2))
    lips[np.concatenate(t.rings["mouth"][rig.FIRST_LIP_RING - 2 :])] = True
    for eye in ("eye_l", "eye_r"):
        lids[np.concatenate(t.rings[eye][-8:])] = True
    faces = model["f"]
    return faces[lips[faces].any(1)], faces[lids[faces].all(1)]


def test_crossings_are_counted():
    """Two triangles through each other, two apart, and the two pulled apart again."""
    v = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0], [1, 1, -1], [1, 1, 1], [2, 1, 1.0]])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    assert crossings(v, faces) == 1
    v[3:] += [0, 0, 3]
    assert crossings(v, faces) == 0


def test_lips_and_lids_never_cut_each_other(flame, model, lips_and_lids):
    """At rest and at ±2 σ of every component; lips that only open: on their open side."""
    assert [crossings(model["v_template"] * 1000, f) for f in lips_and_lids] == [0, 0]
    names = flame.expression_names
    closing = {f"{n} -2" for n, only in zip(names, flame.expression_one_way, strict=True) if only}
    assert len(closing) == 4
    for name, vertices in components(flame):
        if name not in closing:
            assert [crossings(vertices, f) for f in lips_and_lids] == [0, 0], name


def lip_gap(vertices):
    """Height of the upper lip's contact line over the lower one's, mm (smallest)."""
    ring = topology().rings["mouth"][rig.CONTACT_RING]
    spokes, height = len(ring), vertices[ring, 1]
    upper = np.arange(3, spokes // 2 - 2)
    return (height[upper] - height[(spokes - upper) % spokes]).min()


def test_no_component_turns_a_face_triangle_inside_out(flame, model):
    """Normals of the face's triangles turn by less than 90° at ±2 σ of every component."""
    chosen = model["mask_skin"][model["f"]].all(1)
    faces = model["f"][chosen]

    def normals(v):
        n = np.cross(v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]])
        return n / np.linalg.norm(n, axis=1, keepdims=True)

    rest = normals(model["v_template"] * 1000.0)
    for name, vertices in components(flame):
        assert (normals(vertices) * rest).sum(1).min() > 0, name


def test_an_open_jaw_shows_teeth_not_a_hole(flame, model):
    pose = torch.zeros(1, 15)
    pose[0, 6] = 0.35
    vertices = flame(pose=pose)[0].numpy() * 1000
    assert lip_gap(vertices) > -0.05
    ring = topology().rings["mouth"][rig.CONTACT_RING]
    middle = vertices[ring][np.abs(np.sin(angles(len(ring)))) > 0.99, 1]
    assert np.ptp(middle) > 20
    teeth = vertices[model["mask_teeth"]]
    assert (teeth[:, 2] < vertices[model["mask_lips"], 2].max()).all()


def test_expressions_are_named_and_do_something(flame):
    assert len(set(flame.expression_names)) == flame.n_expression
    size = flame.expressiondirs.norm(dim=1).amax(0) * 1000
    assert (size > 0.5).all()
    assert (size < 12).all()


def test_left_and_right_expressions_are_mirror_images(flame, model):
    names, mirror = flame.expression_names, model["mirror"]
    flip = torch.tensor([-1.0, 1, 1])
    for k, name in enumerate(names):
        if name.endswith("left"):
            other = names.index(name.replace("left", "right"))
            twin = flame.expressiondirs[..., other][mirror] * flip
            assert (twin - flame.expressiondirs[..., k]).abs().max() < 1e-4, name


def test_skin_tones_span_the_human_range(flame):
    codes = torch.zeros(2, flame.n_albedo)
    codes[:, flame.albedo_names.index("melanin")] = torch.tensor([-2.0, 2.0])
    skin = flame.uv_masks["skin"] > 0.9
    albedo = torch.nn.functional.interpolate(flame.albedo(codes), skin.shape, mode="area")
    light, dark = (a[:, skin].mean() for a in albedo)
    assert light > 0.75
    assert dark < 0.30


def test_writing_gives_the_same_bytes(tmp_path):
    arrays = {"a": np.arange(5.0), "b": np.array(["x", "y"])}
    for name in ("one.npz", "two.npz"):
        build.write(tmp_path / name, arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz") as file:
        assert np.array_equal(file["a"], arrays["a"])
