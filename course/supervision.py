"""What a training picture can teach: everything (full), what a detector sees (weak), or both."""

import torch
import torch.nn.functional as F
from torch import nn

from course import losses
from course.camera import project
from course.facecode import JAW, LEFT_EYE, RIGHT_EYE, ROOT
from course.flame import rodrigues

MODES = ("full", "weak", "mixed")
# full supervision; millimetres² where the loss is in millimetres, tuned so that at the start of
# training no term drowns the others
FULL = {"points": 12.0, "shape": 1.0, "codes": 0.05, "expression": 0.3, "turn": 20.0, "jaw": 10.0,
        "gaze": 2.0, "landmarks": 15.0, "albedo": 0.2, "light": 0.5, "trust": 0.01}  # fmt: skip
# weak supervision: landmarks, pixels and priors, close to DECA's weights
WEAK = {"landmarks": 15.0, "eyes": 5.0, "lips": 3.0, "photometric": 2.0, "identity": 0.2,
        "consistency": 0.2, "prior": 2e-3, "white": 0.5, "colour": 1e-3}  # fmt: skip


class FullSupervision(nn.Module):
    """Terms of a Batch whose codes are known: ``terms(model, features, code, batch)``."""

    def __init__(self, flame, weights=None):
        super().__init__()
        self.flame = [flame]
        self.weights = FULL | (weights or {})
        self.shape = losses.SurfaceMetric(flame)
        self.expression = losses.SurfaceMetric(flame, "expressiondirs", aligned=False, slide=0.5)

    def forward(self, model, features, code, batch):
        """{name: loss}, unweighted."""
        truth, terms = batch.code, {}
        if hasattr(model.encoder, "votes"):
            offset = 5 * (model.encoder.votes.where(features) - batch.points)  # tenths of a picture
            offset = offset.nan_to_num(0)  # where nobody knows the truth
            terms["points"] = F.smooth_l1_loss(offset, torch.zeros_like(offset), beta=0.1)
        terms["shape"] = self.shape(code.shape, truth.shape)
        terms["codes"] = F.mse_loss(code.shape, truth.shape)
        terms["expression"] = self.expression(code.expression, truth.expression)
        gap = rodrigues(code.pose[:, ROOT]) - rodrigues(truth.pose[:, ROOT])
        terms["turn"] = gap.square().sum((1, 2)).mean()
        terms["jaw"] = F.mse_loss(code.pose[:, JAW], truth.pose[:, JAW])
        gaze = torch.cat([code.pose[:, LEFT_EYE], code.pose[:, RIGHT_EYE]], 1)
        terms["gaze"] = F.mse_loss(
            gaze, torch.cat([truth.pose[:, LEFT_EYE], truth.pose[:, RIGHT_EYE]], 1)
        )
        flame, size = self.flame[0], batch.images.shape[-1]
        posed = flame(code.shape, code.expression, code.pose)
        marks = project(flame.landmarks(posed, code.pose), code.camera, size)[..., :2]
        even = torch.ones(68, device=marks.device)
        terms["landmarks"] = losses.landmark_loss(marks, batch.landmarks, size, even)
        terms["albedo"] = F.mse_loss(code.albedo, truth.albedo)
        terms["light"] = F.mse_loss(code.light, truth.light)
        if model.config["confidence"]:
            terms["trust"] = self._trust(model, features, code, truth)
        return terms

    def _trust(self, model, features, code, truth):
        """½ mean(c e² − ln c) of confidences c and squared errors e²: least where c = 1/e².

        Features and errors are taken as they are: trust is learned on the side.
        """
        trust = model.confidence(features.detach())
        total = 0.0
        for name, c in trust.items():
            square = (getattr(code, name) - getattr(truth, name)).detach().square()
            total = total + 0.5 * (c * square - c.log()).mean()
        return total


class WeakSupervision(nn.Module):
    """Terms of a Batch that is only pictures and landmarks; no truth is looked at.

    The head is drawn at ``size`` pixels and compared where it shows skin. ``network`` is a frozen
    IdentityNet or None.
    """

    def __init__(self, flame, weights=None, size=56, network=None, backend="auto"):
        super().__init__()
        from course.fit import VertexAlbedo, compared_faces
        from course.render import Renderer

        self.flame, self.weights = [flame], WEAK | (weights or {})
        self.size, self.network = size, network
        self.renderer, self.albedo = Renderer(flame, size, backend), VertexAlbedo(flame)
        self.colour = losses.SkinColour(flame)
        self.register_buffer("compared", compared_faces(flame), persistent=False)
        self.skin = flame.masks["skin"]

    def draw(self, code):
        """The head's pictures in black, and where they show what is compared."""
        vertices = self.flame[0](code.shape, code.expression, code.pose)
        colours = self.albedo(code.albedo)
        drawn = self.renderer(vertices, code.camera, colours, code.light)
        mask = drawn.shows(self.compared).unsqueeze(1).float()
        return drawn.image, mask, vertices, colours

    def forward(self, model, features, code, batch):
        """{name: loss}, unweighted."""
        flame, size = self.flame[0], batch.images.shape[-1]
        image, mask, vertices, colours = self.draw(code)
        photo = F.interpolate(batch.images, (self.size, self.size), mode="area")
        marks = project(flame.landmarks(vertices, code.pose), code.camera, size)[..., :2]
        terms = {
            "landmarks": losses.landmark_loss(marks, batch.landmarks, size),
            "eyes": losses.eye_closure(marks, batch.landmarks, size),
            "lips": losses.lip_distance(marks, batch.landmarks, size),
            "photometric": losses.photometric_l21(image, photo, mask),
            "consistency": losses.shape_consistency(code.shape, batch.person),
            "prior": losses.gaussian_prior(code.shape) + losses.gaussian_prior(code.albedo)
            + 3 * losses.gaussian_prior(code.expression),
            "white": losses.white_light(code.light),
            "colour": self.colour(colours[:, self.skin].mean(1)),
        }  # fmt: skip
        if self.network is not None:
            worn = photo * (1 - mask) + image * mask
            terms["identity"] = losses.identity(worn, photo, self.network)
        return terms


def total(terms, weights):
    """Σ of weighted terms."""
    return sum(weights[name] * value for name, value in terms.items())
