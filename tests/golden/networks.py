"""Golden files of all networks: tests/golden/<name in the registry>.safetensors.

    python tests/golden/networks.py [NAME ...] [--teacher ../shared/weights/mobilenet_v2_imagenet.safetensors]

Weights and images follow the formulas at the top of common.py; nothing that a formula gives is
stored. The reference runs in f64 and is stored as f32.

Cases (image stream t, scale 4; NHWC):
    b4_64      4 x 64 x 64, t = 9999 and up                 eval features and a training step
    b3_47x61   3 x 47 x 61 (H = 47, W = 61), t = 10000 and up      both
    b1_32      1 x 32 x 32, t = 10001                       eval features only
ResNet-50, which has most activations, has b4_40 (4 x 40 x 40) and b3_33x47 (H = 33, W = 47) instead of the first two.
Where a network has ReLU, ReLU6 or max pooling, t is the one of TRIES streams, 10 apart, whose activations lie
farthest from these kinks (in units of a tensor's RMS) among those whose f32 gradients are the f64 ones: within rounding of a kink a gradient is all or nothing,
and no two programs agree on it. Which t it is stands in the metadata (`streams`).
MobileNetV3: batch norm eps 1e-3, momentum 0.1, no dropout; features = global mean pool ->
classifier.0 -> hard-swish (1024 small, 1280 large).
EfficientNet-B0 (no stochastic depth) and ResNet: eps 1e-5, momentum 0.1; features = global mean pool.
DeiT-Tiny: six heads, eps 1e-6; positions are resampled by timm (bicubic, antialias); no gradient of the
patch embedding; features = the class token's.
MobileNetV2: eps 1e-5, momentum 0.1; features = global mean pool (1280). `b4_64` and `b1_32` use
torchvision's symmetric padding; `same_b3_47x61` (instead of `b3_47x61`) uses SAME padding.
`teacher_64` (2 x 64 x 64, t = 9999), `teacher_96` (1 x 96 x 96, t = 10000) and `teacher_97x75`
(1 x H 97 x W 75, t = 10001), all with scale 2, are eval features of the real ImageNet teacher
(SAME padding, eps 1e-3, f16 weights widened), the numbers fed as they are (no mean and std).
Present only if the teacher's file was there.

Tensors per case:
    <case>.features_eval    (N, F)   eval mode, the running statistics of the formula
    <case>.features_train   (N, F)   training mode (batch statistics), from the same weights
    <case>.loss             (1,)     L = sum(features_train * r) / N,  r[n, f] = u(7777, n*F + f)
    <case>.grad_norm        (1,)     sqrt of the sum of squares over all gradients
    <case>.grad.<name>.norm, .dot, .sample      dL/d<name> for every trainable entry
    <case>.buffer.<name>.norm, .dot, .sample    running statistics after that one forward
norm and dot have shape (1,); sample 16 elements (all where the tensor has <= 64). `<name>` is the
state dict's; the `t` of its dot (5555 + t) is its entry index, as for its values. Gradients are in
PyTorch's layout of the parameter.

Metadata:
    arch, entries (JSON list of names in order, so that the index t can be checked)
    streams         JSON {case: t}
    f32_deviation   JSON {case: {"features_eval": d, "features_train": d, "loss": |difference|,
                    "grad": {name: d}, "buffer": {name: d}, "grad_max": d, "buffer_max": d}}
What torch's own f32 run differs by from the f64 one, Euclidean, per tensor: d = |f32 - f64| / scale.
The scale of features and buffers is |f64|; of a gradient max(|f64|, G / 1000), where G is the norm
of all gradients together (tensor `<case>.grad_norm`, (1,)): the gradient of a projection's norm
bias is 0 in exact arithmetic where another batch norm follows without a residual, so it has no
scale of its own, and there only the smallness can be tested.
A test's tolerance is a multiple of these: for a tensor of that scale and deviation allow
|norm difference|, |dot difference| and |sample difference| <= scale * max(4 d, 2e-5).
MobileNetV3's d are below 5e-5, those of the networks with kinks below 2e-4.
"""

import argparse
import functools
import json
import math
from pathlib import Path

import torch
from common import (DeiT, EfficientNet, MobileNetV2, MobileNetV3, deviation, gate_first, dot, f32, fill, images, norm, rounded,
                    resnet, sample, u)
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
TRIES = 100
CASES = [("b4_64", 9999, 4, 64, 64, True), ("b3_47x61", 10000, 3, 47, 61, True), ("b1_32", 10001, 1, 32, 32, False)]

SMALL_CASES = [("b4_40", 9999, 4, 40, 40, True), ("b3_33x47", 10000, 3, 33, 47, True), CASES[2]]


MAKERS = {
    "mobilenet_v3_small": lambda: MobileNetV3("small"),
    "mobilenet_v3_small_gate_first": lambda: gate_first(MobileNetV3("small")),
    "mobilenet_v3_large": lambda: MobileNetV3("large"),
    "efficientnet_b0": EfficientNet,
    "resnet18": lambda: resnet(18),
    "resnet50": lambda: resnet(50),
    "deit_tiny": DeiT,
}


def one_run(make, dtype, stream, n, h, w, train):
    """One case in one precision: eval features, and the training step if `train`."""
    model = make()
    names = fill(model)
    model = model.to(dtype)
    x = images(stream, n, h, w, 4.0).to(dtype)
    with torch.no_grad():
        out = {"features_eval": model.eval()(x).double()}
    if not train:
        return names, out
    features = model.train()(x)
    r = f32(u(7777, features.numel())).reshape(features.shape).to(dtype)
    loss = (features * r).sum() / n
    loss.backward()
    out["features_train"] = features.detach().double()
    out["loss"] = loss.detach().double().reshape(1)
    parameters = dict(model.named_parameters())
    state = model.state_dict()
    trained = [k for k in names if k in parameters and parameters[k].requires_grad]
    out["grad"] = {k: parameters[k].grad.double() for k in trained}
    out["buffer"] = {k: state[k].double() for k in names if k not in parameters}
    return names, out


def distance_from_kinks(make, stream, n, h, w):
    """The least distance of any activation from a kink of ReLU, ReLU6 or max pooling, in units of its tensor's
    RMS, in training mode; None where there is no such layer."""
    model, least = make(), []

    def relu(module, inputs):
        x = inputs[0]
        distance = x.abs().min()
        if isinstance(module, torch.nn.ReLU6):
            distance = torch.minimum(distance, (x - 6).abs().min())
        least.append((distance / x.square().mean().sqrt()).item())

    def pool(module, inputs):
        x = inputs[0]
        padded = torch.nn.functional.pad(x, [module.padding] * 4, value=-math.inf)
        windows = padded.unfold(2, module.kernel_size, module.stride).unfold(3, module.kernel_size, module.stride)
        first, second = windows.flatten(4).topk(2, dim=4).values.unbind(4)
        # Where both are 0 (behind a ReLU) nothing flows back from either.
        gaps = (first - second)[first > 0]
        least.append((gaps.min() / x.square().mean().sqrt()).item())

    fill(model)
    for module in model.modules():
        if isinstance(module, (torch.nn.ReLU, torch.nn.ReLU6)):
            module.register_forward_pre_hook(relu)
        elif isinstance(module, torch.nn.MaxPool2d):
            module.register_forward_pre_hook(pool)
    with torch.no_grad():
        model.double().train()(images(stream, n, h, w, 4.0).double())
    return min(least, default=None)


def away_from_kinks(name, make, first, n, h, w):
    """The stream of images, of TRIES from `first` on, that stays farthest from kinks. MobileNetV3's few (in
    squeeze-excite) have never mattered."""
    if name.startswith("mobilenet_v3") or distance_from_kinks(make, first, n, h, w) is None:
        return first
    streams = range(first, first + 10 * TRIES, 10)
    for distance, t in sorted(((distance_from_kinks(make, t, n, h, w), t) for t in streams), reverse=True):
        # Rounding may still carry one across that lies behind many layers.
        tensors, deviations = {}, {}
        add_case(tensors, deviations, "case", make, t, n, h, w, True)
        if deviations["case"]["grad_max"] < 2e-4:
            print(f"{name}, {n} x {h} x {w}: stream {t}, {distance:.1e} from any kink", flush=True)
            return t
    raise SystemExit(f"{name}: no stream of {TRIES} will do")


def add_case(tensors, deviations, case, make, *shape):
    names, want = one_run(make, torch.float64, *shape)
    _, got = one_run(make, torch.float32, *shape)
    mine = deviations[case] = {}
    for key, value in want.items():
        if isinstance(value, dict):
            total = norm(torch.tensor([norm(v) for v in value.values()]))
            floor = total / 1000 if key == "grad" else 0.0
            if key == "grad":
                tensors[f"{case}.grad_norm"] = torch.tensor([total])
            for name, v in value.items():
                t = names.index(name)
                prefix = f"{case}.{key}.{name}"
                tensors[prefix + ".norm"] = torch.tensor([norm(v)])
                tensors[prefix + ".dot"] = torch.tensor([dot(v, t)])
                tensors[prefix + ".sample"] = sample(v, 16, 64)
            mine[key] = {name: deviation(got[key][name], v, floor) for name, v in value.items()}
            mine[key + "_max"] = max(mine[key].values(), default=0.0)
        else:
            tensors[f"{case}.{key}"] = value.float().contiguous()
            mine[key] = (got[key] - value).abs().item() if key == "loss" else deviation(got[key], value)
    return names


def save(arch, names, tensors, deviations, streams):
    path = HERE / f"{arch}.safetensors"
    metadata = {"arch": arch, "entries": json.dumps(names), "f32_deviation": json.dumps(rounded(deviations)),
                "streams": json.dumps(streams)}
    save_file(tensors, path, metadata=metadata)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, {len(names)} entries")
    for case, d in deviations.items():
        print("  ", case, {k: f"{v:.1e}" for k, v in d.items() if not isinstance(v, dict)})


def teacher_features(path, tensors, deviations):
    state = {k: v.double() for k, v in load_file(path).items() if k.startswith("features.")}
    for case, stream, n, h, w in [("teacher_64", 9999, 2, 64, 64), ("teacher_96", 10000, 1, 96, 96), ("teacher_97x75", 10001, 1, 97, 75)]:
        results = []
        for dtype in (torch.float64, torch.float32):
            model = MobileNetV2(same=True, eps=1e-3)
            missing, unexpected = model.load_state_dict(state, strict=False)
            assert not unexpected and all(k.endswith("num_batches_tracked") for k in missing)
            with torch.no_grad():
                results.append(model.to(dtype).eval()(images(stream, n, h, w, 2.0).to(dtype)).double())
        tensors[f"{case}.features_eval"] = results[0].float()
        deviations[case] = {"features_eval": deviation(results[1], results[0])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = HERE.parents[1].parent / "shared" / "weights" / "mobilenet_v2_imagenet.safetensors"
    parser.add_argument("names", nargs="*", help="networks to make anew (default: all)")
    parser.add_argument("--teacher", type=Path, default=shared)
    args = parser.parse_args()
    torch.set_num_threads(2)
    for name, make in MAKERS.items():
        if not args.names or name in args.names:
            tensors, deviations, streams = {}, {}, {}
            for case, stream, *shape, train in SMALL_CASES if name == "resnet50" else CASES:
                streams[case] = away_from_kinks(name, make, stream, *shape) if train else stream
                names = add_case(tensors, deviations, case, make, streams[case], *shape, train)
            save(name, names, tensors, deviations, streams)
    if args.names and "mobilenet_v2" not in args.names:
        return
    tensors, deviations, streams = {}, {}, {}
    for case, stream, *shape, train in CASES:
        same = case == "b3_47x61"
        case = "same_" + case if same else case
        make = functools.partial(MobileNetV2, same, 1e-5)
        streams[case] = away_from_kinks("mobilenet_v2", make, stream, *shape) if train else stream
        names = add_case(tensors, deviations, case, make, streams[case], *shape, train)
    if args.teacher.exists():
        teacher_features(args.teacher, tensors, deviations)
    save("mobilenet_v2", names, tensors, deviations, streams)


if __name__ == "__main__":
    main()
