import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course import fit, metrics, texture
from course.camera import project
from course.encode import match_colours
from course.facecode import JAW, FaceCode
from course.faces import Photographer, Variety
from course.faces_camera import background_bank
from course.flame import yaw_pose
from course.photo import Detection
from course.render import Renderer

QUICK = {"landmarks": 160, 56: 120, 112: 60}


def seen(photo, rng, noise):
    """What a good detector would say: the truth, ``noise`` pixels off."""
    points = photo.landmarks + rng.normal(size=(68, 2)) * noise
    box = np.concatenate([points.min(0), points.max(0)])
    return Detection(points.astype(np.float32), np.full(68, noise, np.float32), box, "truth", 1)


@pytest.fixture(scope="module")
def studio(flame):
    return Photographer(flame, Variety.plain(), background_bank(4), size=160)


def error(flame, shape, truth):
    return metrics.identity_error(flame(shape)[0].numpy(), flame(truth)[0].numpy(), flame)[0]


def test_twenty_people_are_found_better_than_the_mean(flame, studio):
    """The median scan-to-mesh error after fitting is under 60 % of the mean face's."""
    rng = np.random.default_rng(11)
    fitted, mean = [], []
    for _ in range(20):
        photo = studio(rng)
        result = fit.fit([photo.image], [seen(photo, rng, 1.0)], flame, steps=QUICK, progress=False)
        fitted.append(error(flame, result.codes.shape, photo.code.shape))
        mean.append(error(flame, torch.zeros_like(photo.code.shape), photo.code.shape))
    ratio = np.mean(fitted) / np.mean(mean)
    print(f"\n20 people: mean face {np.mean(mean):.2f} mm, fitted {np.mean(fitted):.2f} mm, "
          f"{100 * ratio:.0f} %")  # fmt: skip
    assert ratio < 0.60


def test_photographs_of_one_person_share_an_identity(flame, studio):
    rng = np.random.default_rng(5)
    code = studio.person(rng)
    photos = []
    for yaw in (-0.4, 0.0, 0.4):
        pose = code.pose.clone()
        pose[0, 1] = yaw
        photos.append(studio(rng, code.replace(pose=pose)))
    detections = [seen(p, rng, 1.0) for p in photos]
    quick = {"landmarks": 120, 56: 30, 112: 0}
    together = fit.fit([p.image for p in photos], detections, flame, steps=quick, progress=False)
    assert torch.equal(together.codes.shape[0], together.codes.shape[2])
    assert not torch.equal(together.codes.pose[0], together.codes.pose[2])
    alone = fit.fit([photos[1].image], detections[1:2], flame, steps=quick, progress=False)
    assert error(flame, together.codes.shape[:1], code.shape) < 1.1 * error(
        flame, alone.codes.shape, code.shape
    )


@pytest.mark.parametrize("count", [fit.MANY - 1, fit.MANY])
def test_many_photographs_take_longer_and_turn_faster(flame, studio, monkeypatch, count):
    """From MANY on, a fit has the steps and the rates of many; what is asked for comes first."""
    rng, rates = np.random.default_rng(8), []
    monkeypatch.setattr(fit, "STEPS", {"landmarks": 3, 56: 2, 112: 2})
    monkeypatch.setattr(fit, "STEPS_OF_MANY", {112: 5})
    plain = fit.Fitter.run
    monkeypatch.setattr(
        fit.Fitter, "run", lambda self, *a: rates.append(self.rates) or plain(self, *a)
    )
    code = studio.person(rng)
    photos = [studio(rng, code) for _ in range(count)]
    arguments = [p.image for p in photos], [seen(p, rng, 1.0) for p in photos], flame
    result = fit.fit(*arguments, progress=False)
    lengths = [len(result.losses[f"pixels {size}"]) for size in (56, 112)]
    many = count >= fit.MANY
    assert lengths == [2, 5 if many else 2]
    assert (rates[0]["pose"] > fit.RATES["pose"]) == many
    assert result.codes.shape.shape[0] == count
    shorter = fit.fit(*arguments, steps={112: 1}, progress=False)
    assert len(shorter.losses["pixels 112"]) == 1


def test_lamps_leave_the_contrast_and_moved_edges_do_not():
    """A stronger lamp that falls off slowly changes colours, hardly contrast; a moved line does."""
    image = torch.full((1, 3, 64, 64), 0.5)
    image[..., 30:33] = 0.2
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 4:60, 4:60] = 1
    lamp = torch.linspace(0.7, 1.3, 64).view(1, 1, 1, 64)
    inside = (mask > 0).expand_as(image)
    lit = fit.local_contrast(lamp * image, image, mask, 3.0)[inside].abs()
    moved = fit.local_contrast(image.roll(2, -1), image, mask, 3.0)[inside].abs()
    assert lit.mean() < 0.02 < 0.1 < (lamp * image - image)[inside].abs().mean() / 0.5
    assert moved.max() > 0.5
    same = fit.local_contrast(image, image, mask, 3.0)
    assert same.abs().max() < 1e-6


@pytest.fixture(scope="module")
def one(flame, studio):
    rng = np.random.default_rng(2)
    photo = studio(rng)
    return photo, fit.fit(
        [photo.image], [seen(photo, rng, 0.5)], flame, steps=QUICK, progress=False
    )


def test_hair_over_more_than_half_of_a_face_is_not_taken_for_skin(flame):
    """Brown from the outline inwards: light and skin are those of the rest, not of the hair."""
    code = FaceCode.zeros(flame).replace(pose=yaw_pose(15))
    drawn = Renderer(flame, fit.IMAGE_SIZE).render(code)
    nose = flame.v_template[flame.faces].mean(1) - flame.landmarks(flame.v_template[None])[0, 30]
    compared = fit.compared_faces(flame)
    hidden = drawn.shows(compared & (nose.norm(dim=1) > 0.055))
    left = drawn.shows(compared) & ~hidden
    assert hidden.sum() > 1.5 * left.sum()
    brown = torch.tensor([0.22, 0.16, 0.12]).view(1, 3, 1, 1)
    photo = torch.where(hidden.unsqueeze(1), brown, drawn.image)

    dark = code.replace(light=0.4 * code.light)
    marks = flame.landmarks(flame(code.shape, code.expression, code.pose), code.pose)
    marks = project(marks, code.camera, fit.IMAGE_SIZE)[..., :2]
    fitter = fit.Fitter(flame, photo, marks, torch.ones(1, 68), "auto", fit.FAR, dark)
    fitter.solve_light(112)
    for found in (fitter.code().detach(), match_colours(dark, photo, flame)):
        again = Renderer(flame, fit.IMAGE_SIZE).render(found).image
        error = (again - drawn.image).abs().mean(1)
        assert error[left].mean() < 0.06, error[left].mean()


def test_the_fit_explains_the_photograph(one):
    photo, result = one
    assert metrics.nme(result.landmarks[0], photo.landmarks) < 4
    assert metrics.psnr(result.rendered[0], result.images[0], result.mask[0]) > 18
    for values in result.losses.values():
        if values:
            assert values[-1] < values[0]
    assert result.codes.shape.abs().max() < 5  # the prior holds


def test_the_texture_shows_the_photograph_without_a_seam(flame, one):
    _, result = one
    colours, seen_mask = texture.sample(result, flame, 256)
    assert colours.shape == (3, 256, 256)
    assert 0 <= colours.min() <= colours.max() <= texture.BRIGHTEST
    assert (colours > 1).float().mean() < 0.02
    assert 0.05 < seen_mask.float().mean() < 0.6
    model = F.interpolate(flame.albedo(result.codes.albedo), (256, 256))[0]
    change = (colours - model).abs().sum(0)
    assert change[seen_mask].mean() > 0.01
    # at the border of what was seen, skin is about as rough as where it was seen
    border = F.max_pool2d(seen_mask[None].float(), 5, 1, 2)[0] > seen_mask
    skin = F.interpolate(flame.uv_masks["skin"][None, None].float(), (256, 256))[0, 0] > 0.5
    step = (
        (colours[:, :, 1:] - colours[:, :, :-1] - model[:, :, 1:] + model[:, :, :-1]).abs().sum(0)
    )
    at_border, inside = (step[(where & skin)[:, 1:]].mean() for where in (border, seen_mask))
    assert at_border < 1.25 * inside


def test_a_lamp_shows_the_face_as_bright_as_photographed(flame, one):
    _, result = one
    colours, _ = texture.sample(result, flame, 256)
    tinted = result.codes.light * torch.tensor([0.6, 1.0, 1.5])
    light = texture.exposed(tinted, result, colours, flame)
    assert torch.allclose(light, texture.exposed(result.codes.light, result, colours, flame),
                          rtol=1e-3)  # fmt: skip
    assert torch.allclose(light, result.codes.light, rtol=0.15)  # the texture is the photograph's


def test_a_photograph_that_shows_nothing_leaves_the_lamp_alone(flame, one):
    _, result = one
    blue = torch.zeros_like(result.images)
    blue[:, 2] = 1
    nothing = dataclasses.replace(result, images=blue)
    light = result.codes.light[:1]
    colours = torch.full((3, 256, 256), 0.5)
    assert torch.equal(texture.exposed(light, nothing, colours, flame), light)


def test_what_is_not_skin_is_not_trusted(one):
    """A blue patch is not; bare skin where the model has a brow is."""
    _, result = one
    drawn = result.rendered.clone()
    u, v = result.crops[0].to_crop(result.landmarks[0])[19].round().astype(int)  # of a brow
    brow = (slice(v - 3, v + 4), slice(u - 7, u + 8))
    skin = drawn[0][:, result.mask[0, 0] > 0].median(1).values[:, None, None]
    bare, covered = drawn.clone(), drawn.clone()
    bare[0, :, *brow], covered[0, :, *brow] = skin, torch.tensor([0.1, 0.2, 0.9])[:, None, None]
    found = [texture.trust(dataclasses.replace(result, images=i), 0)[0, 0][brow].mean()
             for i in (drawn, bare, covered)]  # fmt: skip
    assert found[0] > 0.99
    assert found[1] > 0.8
    assert found[2] < 0.2


def test_nothing_to_fit(flame):
    with pytest.raises(ValueError, match="at least one photograph"):
        fit.fit([], [], flame)


def test_pixels_are_compared_with_textures_not_with_vertices_colours(flame, studio):
    """A fit draws the head's texture, which is nearer to the whole one than vertex colours are."""
    rng, size = np.random.default_rng(17), 112
    photo = studio(rng)
    crop = fit.crop_around(photo.landmarks, size)
    observed = fit.observed([photo.image], [seen(photo, rng, 0.0)], [crop], flame)
    fitter = fit.Fitter(flame, *observed, "auto", photo.distance, photo.code)
    codes, camera, renderer = photo.code.albedo, fitter.free["camera"], Renderer(flame, size)
    with torch.no_grad():
        vertices, _ = fitter._head()
        drawn = fitter._draw(renderer, vertices).albedo
        exact = renderer(vertices, camera, flame.albedo(codes), supersample=4).image
        by_vertex = renderer(vertices, camera, fit.VertexAlbedo(flame)(codes)).albedo
    assert (drawn - exact).abs().mean() < 0.8 * (by_vertex - exact).abs().mean()


def test_a_texture_is_as_coarse_as_asked_and_no_finer_than_the_basis(flame):
    codes = torch.randn(2, flame.n_albedo, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(flame.albedo(codes), (128, 128), mode="area")
    coarse = fit.AlbedoTexture(flame, 128)(codes)
    assert coarse.shape == (2, 3, 128, 128)
    assert (coarse - whole).abs().mean() < 0.01
    assert fit.AlbedoTexture(flame, 4096)(codes).shape[-1] == flame.albedo_dirs.shape[-1]


@pytest.mark.parametrize(("count", "says"), [(1, 1.0), (8, 8**-0.25), (20, 8**-0.25)])
def test_what_errs_alike_in_many_photographs_counts_less_in_them(flame, studio, count, says):
    """Their landmarks have less weight, and their shading's slope towards depth is less steep."""
    photo, size = studio(np.random.default_rng(3)), 32
    crop = fit.crop_around(photo.landmarks, size)
    detection = seen(photo, np.random.default_rng(4), 0.0)
    observed = fit.observed(*([thing] * count for thing in (photo.image, detection, crop)), flame)
    start = type(photo.code).cat(count * [photo.code])
    fitter = fit.Fitter(flame, *observed, "auto", 1.0, start)
    assert fitter.alike == pytest.approx(says)
    renderer, camera = Renderer(flame, size), fitter.free["camera"].detach()
    vertices = fitter._head()[0].detach().requires_grad_()

    def depth_slope(drawn):
        return torch.autograd.grad(drawn.shading.square().sum(), vertices)[0][..., 2]

    whole = depth_slope(renderer(vertices, camera, light=fitter.free["light"],
                                 occlusion=fit.CREASES))  # fmt: skip
    assert whole.abs().max() > 0
    torch.testing.assert_close(depth_slope(fitter._draw(renderer, vertices)), says * whole)


def test_a_jaw_opens_again_after_it_was_pressed_shut(flame, studio):
    """A start with teeth through each other is brought back, and follows the photograph again."""
    rng = np.random.default_rng(23)
    code = studio.person(rng)
    code.pose[:, JAW] = torch.tensor([0.25, 0.0, 0.0])
    photo = studio(rng, code)
    start = code.clone()
    start.pose[:, JAW] = torch.tensor([-0.3, 0.0, 0.0])
    result = fit.fit([photo.image], [seen(photo, rng, 0.0)], flame, progress=False, start=start,
                     steps={"landmarks": 80, 56: 0, 112: 0})  # fmt: skip
    jaw = result.codes.pose[0, JAW][0]
    assert fit.JAW_OPENS[0] <= jaw <= fit.JAW_OPENS[1]
    assert jaw > 0.05
