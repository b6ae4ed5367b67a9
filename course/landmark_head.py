"""The part of a head that its 68 landmarks hang on, for losses that look at nothing else."""

import torch

from course.flame import FLAME


def landmark_head(flame):
    """A ``FLAME`` of a few hundred vertices with the codes and the landmarks of the whole head.

    Kept are the corners of the triangles that hold landmarks at any yaw. Joints are regressed from
    all vertices; here five vertices more, where the joints are and moving as they do, stand in for
    them. Has no texture. Raises ValueError when ``flame`` has no landmark embedding.
    """
    if not flame.has_landmarks:
        raise ValueError(f"{flame.name} comes without a 68-landmark embedding.")
    static, dynamic = flame.static_lmk_faces_idx, flame.dynamic_lmk_faces_idx
    triangles = torch.cat([static.flatten(), dynamic.flatten()]).unique()
    kept, corners = flame.faces[triangles].unique(return_inverse=True)
    blend = torch.cat([flame.shapedirs, flame.expressiondirs], 2)
    to_joints, five = flame.J_regressor, torch.eye(5, device=blend.device)

    def with_joints(of_vertices, of_joints):
        return torch.cat([of_vertices[kept], of_joints]).cpu().numpy()

    model = {
        "v_template": with_joints(flame.v_template, to_joints @ flame.v_template),
        "f": corners.cpu().numpy(),
        "shapedirs": with_joints(blend, torch.einsum("jv,vck->jck", to_joints, blend)),
        "n_shape": flame.n_shape,
        "posedirs": with_joints(flame.posedirs, torch.zeros_like(flame.posedirs[:5])),
        "J_regressor": torch.cat([five.new_zeros(5, len(kept)), five], 1).cpu().numpy(),
        "weights": with_joints(flame.lbs_weights, five),
        "static_lmk_bary_coords": flame.static_lmk_bary_coords.cpu().numpy(),
        "dynamic_lmk_bary_coords": flame.dynamic_lmk_bary_coords.cpu().numpy(),
    }
    for name, rows in (("static", static), ("dynamic", dynamic)):
        model[f"{name}_lmk_faces_idx"] = torch.searchsorted(triangles, rows).cpu().numpy()
    return FLAME(model, f"{flame.name}, landmarks only").to(blend.device)
