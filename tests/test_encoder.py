"""Backbones against a second, functional reading of the papers; heads, files, sets, ensembles."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course.backbones import BACKBONES, FeatureExtractor
from course.encoder import (
    PARTS,
    FaceModel,
    ShapeReconstructor,
    average_identity,
    ensemble,
    group_mean,
)
from course.facecode import FaceCode

# torchvision's parameters and state entries without the classifier, counted in its model zoo
TORCHVISION = {
    "resnet18": (11_176_512, 120),
    "resnet34": (21_284_672, 216),
    "resnet50": (23_508_032, 318),
    "densenet121": (6_953_856, 725),
}


def randomized(model, seed=0):
    """Weights, biases and running statistics that a wrong reading could not survive."""
    g = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=g))
        elif name.endswith("running_mean") or tensor.ndim == 1:
            tensor.copy_(1 + 0.2 * torch.randn(tensor.shape, generator=g))
    return model.eval()


def norm(state, name, x):
    keys = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{k}"] for k in keys))


def reference_resnet(state, x, counts):
    """A ResNet's features from nothing but a state dict with torchvision's names."""
    conv = lambda name, x, stride, pad: F.conv2d(x, state[f"{name}.weight"], None, stride, pad)  # noqa: E731
    x = F.max_pool2d(norm(state, "bn1", conv("conv1", x, 2, 3)).relu(), 3, 2, 1)
    for layer, count in enumerate(counts, 1):
        for k in range(count):
            at, way = f"layer{layer}.{k}", x
            stride = 2 if layer > 1 and k == 0 else 1
            if f"{at}.conv3.weight" in state:
                y = norm(state, f"{at}.bn1", conv(f"{at}.conv1", x, 1, 0)).relu()
                y = norm(state, f"{at}.bn2", conv(f"{at}.conv2", y, stride, 1)).relu()
                y = norm(state, f"{at}.bn3", conv(f"{at}.conv3", y, 1, 0))
            else:
                y = norm(state, f"{at}.bn1", conv(f"{at}.conv1", x, stride, 1)).relu()
                y = norm(state, f"{at}.bn2", conv(f"{at}.conv2", y, 1, 1))
            if f"{at}.downsample.0.weight" in state:
                way = norm(state, f"{at}.downsample.1", conv(f"{at}.downsample.0", x, stride, 0))
            x = (y + way).relu()
    return x.mean((2, 3))


def reference_densenet(state, x, counts):
    """DenseNet's features likewise."""
    at = "features"
    x = F.conv2d(x, state[f"{at}.conv0.weight"], None, 2, 3)
    x = F.max_pool2d(norm(state, f"{at}.norm0", x).relu(), 3, 2, 1)
    for block, count in enumerate(counts, 1):
        for k in range(1, count + 1):
            layer = f"{at}.denseblock{block}.denselayer{k}"
            y = norm(state, f"{layer}.norm1", x).relu()
            y = F.conv2d(y, state[f"{layer}.conv1.weight"])
            y = norm(state, f"{layer}.norm2", y).relu()
            x = torch.cat([x, F.conv2d(y, state[f"{layer}.conv2.weight"], padding=1)], 1)
        if block < len(counts):
            y = norm(state, f"{at}.transition{block}.norm", x).relu()
            x = F.avg_pool2d(F.conv2d(y, state[f"{at}.transition{block}.conv.weight"]), 2)
    return norm(state, f"{at}.norm5", x).relu().mean((2, 3))


@pytest.mark.parametrize(("name", "counts"), [
    ("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3)), ("resnet50", (3, 4, 6, 3)),
    ("densenet121", (6, 12, 24, 16)),
])  # fmt: skip
def test_numerics_and_names_are_torchvisions(name, counts):
    model = randomized(FeatureExtractor(name, normalize=False))
    parameters, entries = TORCHVISION[name]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    reference = reference_densenet if name == "densenet121" else reference_resnet
    with torch.no_grad():
        got, wish = model(x), reference(model.state_dict(), x, counts)
    assert got.shape == (2, model.channels)
    assert (got - wish).abs().max() <= 1e-5 * max(1, wish.abs().max())


def test_normalized_input_is_imagenets():
    raw, scaled = (FeatureExtractor("small", normalize=n).eval() for n in (False, True))
    scaled.load_state_dict(raw.state_dict())
    x = torch.rand(1, 3, 40, 40)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in
                 ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(scaled(x), raw((x - mean) / std), atol=1e-6)


def test_classifier_and_old_names_are_understood():
    model = FeatureExtractor("densenet121")
    state = {k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v
             for k, v in model.state_dict().items()}  # fmt: skip
    FeatureExtractor("densenet121").load_state_dict(state | {"classifier.weight": torch.zeros(1)})
    state = FeatureExtractor("resnet18").state_dict()
    FeatureExtractor("resnet18").load_state_dict(state | {"fc.weight": torch.zeros(1)})
    state.pop("conv1.weight")
    with pytest.raises(RuntimeError, match=r"conv1\.weight"):
        FeatureExtractor("resnet18").load_state_dict(state)


@pytest.mark.parametrize("name", BACKBONES)
def test_maps_end_in_the_features(name):
    model = randomized(FeatureExtractor(name))
    x = torch.rand(1, 3, 112, 112)
    with torch.no_grad():
        maps, features = model.maps(x), model(x)
    last = list(maps.values())[-1]
    assert torch.allclose(last.mean((2, 3)), features, atol=1e-6)
    assert len(maps) >= (1 if name == "points" else 5)


@pytest.mark.parametrize("images", [torch.rand(3, 64, 64), torch.rand(1, 1, 64, 64), [1],
                                    torch.rand(1, 3, 16, 64),
                                    torch.zeros(1, 3, 64, 64, dtype=torch.uint8)])  # fmt: skip
def test_wrong_pictures_get_a_sentence(images):
    with pytest.raises(ValueError, match="Pictures are"):
        FeatureExtractor("small")(images)


def test_unknown_backbone():
    with pytest.raises(ValueError, match="no backbone 'vgg'"):
        FeatureExtractor("vgg")


# ------------------------------------------------------------------ heads


def test_before_training_every_picture_shows_the_start(flame):
    model = FaceModel(flame, "small").eval()
    code, start = model(torch.rand(2, 3, 64, 64)), FaceCode.zeros(flame, 2)
    for part in PARTS:
        assert torch.equal(getattr(code, part), getattr(start, part)), part


def test_scaled_outputs_and_fixed_joints(flame):
    head = ShapeReconstructor(4, FaceCode.zeros(flame), hidden=8, joints=(0, 2))
    with torch.no_grad():
        head.layers[2].bias.fill_(1.0)
    code = head(torch.zeros(3, 4))
    assert torch.allclose(code.shape, torch.ones(3, flame.n_shape))
    assert torch.allclose(code.camera[0] - torch.tensor(flame.default_camera),
                          torch.tensor([2.5, 0.03, 0.03]))  # fmt: skip
    wish = torch.zeros(15)
    wish[[0, 1, 2, 6, 7, 8]] = 0.3
    assert torch.allclose(code.pose[1], wish)


def test_predict_gives_codes_and_numpy_vertices(flame):
    model = FaceModel(flame, "small")
    with pytest.raises(ValueError, match=r"eval\(\)"):
        model.predict(torch.rand(3, 64, 64))
    code, vertices = model.eval().predict(torch.rand(3, 64, 64))
    assert len(code) == 1
    assert vertices.shape == (len(flame.v_template), 3)
    assert isinstance(vertices, np.ndarray)
    with pytest.raises(ValueError, match="one picture"):
        model.predict(torch.rand(1, 3, 64, 64))


def test_features_are_what_the_codes_come_from(flame):
    model = FaceModel(flame, "small").eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(model.reconstructor(model.features(x)).shape, model(x).shape)
    assert model.features(x).shape == (2, model.encoder.channels)


# ------------------------------------------------------------------ files


def test_save_and_load(flame, tmp_path):
    model = randomized(FaceModel(flame, "small", joints=(0, 2, 3, 4), confidence=True))
    model.save(tmp_path / "model.pt")
    again = FaceModel.load(tmp_path / "model.pt", flame, "cpu")
    x = torch.rand(2, 3, 64, 64)
    assert not again.training
    assert torch.allclose(model(x).shape, again(x).shape, atol=2e-2)  # half precision
    assert again.config == model.config
    assert (tmp_path / "model.pt").stat().st_size < 3e6


def test_files_that_are_no_model(flame, tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match="train encoder"):
        FaceModel.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="nothing in it was run"):
        FaceModel.load(path)
    torch.save({"format": "other"}, path)
    with pytest.raises(ValueError, match="not a saved FaceModel"):
        FaceModel.load(path)
    FaceModel(flame, "small").save(path)
    content = torch.load(path, weights_only=True)
    content["state"].pop("reconstructor.layers.0.weight")
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"lacks reconstructor\.layers\.0\.weight"):
        FaceModel.load(path)
    content["config"]["hidden"] = "many"
    torch.save(content, path)
    with pytest.raises(ValueError, match="config is damaged"):
        FaceModel.load(path)


def test_a_head_of_other_sizes_is_refused(flame, tmp_path):
    FaceModel(flame, "small", start=FaceCode.zeros(flame).replace(shape=torch.zeros(1, 5))).save(
        tmp_path / "model.pt"
    )
    with pytest.raises(ValueError, match="made for a head with"):
        FaceModel.load(tmp_path / "model.pt", flame)


def deca_file(path, **changes):
    """A file with DECA's names and shapes and random contents."""
    g = torch.Generator().manual_seed(0)
    encoder = randomized(FeatureExtractor("resnet50", normalize=False))
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    shapes = {"layers.0.weight": (1024, 2048), "layers.0.bias": (1024,),
              "layers.2.weight": (236, 1024), "layers.2.bias": (236,)}  # fmt: skip
    state |= {k: 0.02 * torch.randn(s, generator=g) for k, s in shapes.items()}
    state |= changes
    torch.save({"E_flame": {k: v for k, v in state.items() if v is not None},
                "E_detail": {}, "D_detail": {}}, path)  # fmt: skip
    return state


def test_decas_checkpoint(tmp_path, flame):
    path = tmp_path / "deca_model.tar"
    state = deca_file(path)
    model = FaceModel.from_deca(path, device="cpu")
    assert model.config["crop"] == pytest.approx([224, 1.375])
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        code = model(x)
        part = {k[8:]: v for k, v in state.items() if k.startswith("encoder.")}
        features = reference_resnet(part, x, (3, 4, 6, 3))
    y = F.linear(features, state["layers.0.weight"], state["layers.0.bias"]).relu()
    y = F.linear(y, state["layers.2.weight"], state["layers.2.bias"])
    shape, albedo, expression, pose, camera, light = y.split([100, 50, 50, 6, 3, 27], 1)
    wish = {"shape": shape, "albedo": albedo, "expression": expression, "camera": camera,
            "light": light.reshape(2, 9, 3)}  # fmt: skip
    for name, value in wish.items():
        assert torch.allclose(getattr(code, name), value, rtol=1e-4, atol=1e-4), name
    assert torch.allclose(code.pose[:, [0, 1, 2, 6, 7, 8]], pose, rtol=1e-4, atol=1e-4)
    assert not code.pose[:, [3, 4, 5, *range(9, 15)]].any()
    with pytest.raises(ValueError, match="FLAME 2020"):
        FaceModel.from_deca(path, flame)


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"layers.2.bias": None}, r"lacks layers\.2\.bias"),
    ({"layers.2.bias": torch.zeros(159)}, r"layers\.2\.bias is not of shape \(236,\)"),
    ({"layers.4.bias": torch.zeros(3)}, r"also holds layers\.4\.bias"),
    ({"encoder.conv1.weight": None}, r"lacks encoder\.conv1\.weight"),
])  # fmt: skip
def test_a_wrong_deca_file_gets_a_clear_sentence(tmp_path, changes, sentence):
    deca_file(tmp_path / "deca_model.tar", **changes)
    with pytest.raises(ValueError, match=sentence):
        FaceModel.from_deca(tmp_path / "deca_model.tar")


def test_no_deca_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="registration"):
        FaceModel.from_deca(tmp_path / "deca_model.tar")
    torch.save({"state_dict": {}}, tmp_path / "deca_model.tar")
    with pytest.raises(ValueError, match="no E_flame"):
        FaceModel.from_deca(tmp_path / "deca_model.tar")


# ------------------------------------------------------------------ sets and ensembles


def test_group_mean_weighs_and_keeps_groups_apart():
    values = torch.tensor([[0.0], [4.0], [10.0]])
    weights = torch.tensor([[3.0], [1.0], [7.0]])
    groups = torch.tensor([5, 5, 2])
    assert group_mean(values, groups).flatten().tolist() == [2, 2, 10]
    assert group_mean(values, groups, weights).flatten().tolist() == [1, 1, 10]
    with pytest.raises(ValueError, match="positive"):
        group_mean(values, groups, 0 * weights)
    with pytest.raises(ValueError, match="groups"):
        group_mean(values, groups[:2])


def test_inverse_variance_is_the_best_weight(flame):
    """Average error of a set: plain, and weighted by confidences that know the noise."""
    g = torch.Generator().manual_seed(0)
    truth = FaceCode.random(flame, 200, g)
    noise = torch.rand(8, 200, flame.n_shape, generator=g) * 1.5 + 0.1
    shape = truth.shape + noise * torch.randn(noise.shape, generator=g)
    groups = torch.arange(200).repeat(8)
    codes = FaceCode.cat([truth] * 8).replace(shape=shape.flatten(0, 1))
    plain = average_identity(codes, groups=groups)
    wise = average_identity(codes, {"shape": noise.flatten(0, 1) ** -2}, groups)
    error = [(c.shape[:200] - truth.shape).square().mean() for c in (codes, plain, wise)]
    assert error[2] < 0.5 * error[1] < 0.1 * error[0]
    assert torch.equal(plain.expression, codes.expression)


@pytest.mark.parametrize("n", [1, 2, 8])
def test_averages_of_careful_readings_are_drawn_out_again(flame, n):
    """Readings that are drawn to the mean face, with errors partly in common: what is known of both
    gives the estimate that is right on average, and nearer than the plain mean."""
    g = torch.Generator().manual_seed(0)
    people, shared = 3000, 0.6
    truth = FaceCode.random(flame, people, g)
    spread = torch.rand(flame.n_shape, generator=g) + 0.3
    common, own = torch.randn(n + 1, people, flame.n_shape, generator=g).split([1, n])
    noise = spread * (shared**0.5 * common + (1 - shared) ** 0.5 * own)
    left = spread**2 / (1 + spread**2)  # variance that one reading leaves open
    careful = (1 - left) * (truth.shape + noise)
    codes = FaceCode.cat([truth] * n).replace(shape=careful.flatten(0, 1))
    trust = {"shape": (1 / left).expand(n * people, -1)}
    groups = torch.arange(people).repeat(n)
    plain, best = (average_identity(codes, trust, groups, s).shape[:people] for s in (1.0, shared))
    slope = (best * truth.shape).sum(0) / best.square().sum(0)
    assert (slope - 1).abs().max() < 0.1
    if n == 1:
        assert torch.equal(plain, best)
    else:
        wrong = [(a - truth.shape).square().mean() for a in (plain, best)]
        assert wrong[1] < 0.99 * wrong[0]


def test_image_set_uses_learned_confidences(flame):
    model = FaceModel(flame, "small", confidence=True).eval()
    with torch.no_grad():
        model.trust.weight.normal_()
        model.reconstructor.layers[2].weight.normal_()
    x = torch.rand(3, 3, 64, 64)
    code, single = model.image_set(x), model(x)
    assert torch.allclose(code.shape[0], code.shape[2])
    trust = model.confidence(model.features(x))["shape"]
    wish = (trust * single.shape).sum(0) / trust.sum(0)
    assert torch.allclose(code.shape[0], wish, atol=1e-5)
    with pytest.raises(ValueError, match="no confidences"):
        FaceModel(flame, "small").confidence(model.features(x))


def test_ensemble_is_mean_and_spread(flame):
    models = [FaceModel(flame, "small").eval() for _ in range(3)]
    with torch.no_grad():
        for k, model in enumerate(models):
            model.reconstructor.layers[2].bias[0] = k - 1.0
    found = ensemble(models, torch.rand(2, 3, 64, 64))
    assert torch.allclose(found.code.shape, torch.zeros(2, flame.n_shape), atol=1e-6)
    length = flame.shapedirs[:, :, 0].norm(dim=1)  # codes -1, 0, 1: variance 1
    assert torch.allclose(found.spread[0], length, atol=1e-6)
    assert torch.allclose(found.vertices[0], flame()[0], atol=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        ensemble(models[:1], torch.rand(1, 3, 64, 64))
    models[1].train()
    with pytest.raises(ValueError, match="Model 1 is in training mode"):
        ensemble(models, torch.rand(1, 3, 64, 64))
