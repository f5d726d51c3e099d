"""What the golden-file generators share: numbers by formula, so that no weights are stored.

The hash. Element `i` of stream `t` (both non-negative integers):

    x = (i * 2654435761 + t * 40503 + 12345) mod 2^32      (exact integer arithmetic)
    x ^= x >> 16;  x = x * 0x7feb352d mod 2^32
    x ^= x >> 15;  x = x * 0x846ca68b mod 2^32
    x ^= x >> 16
    u(t, i) = x / 2^32 - 0.5                               (f64, in [-0.5, 0.5))

Everything derived from u is computed in f64 and rounded to f32 once, at the end; the f64
reference then starts from those f32 values.

The entries. A network's entries are its state dict in torchvision's order, without
`num_batches_tracked`, restricted to what leads to the features (MobileNetV3: `features.*`,
`classifier.0.*`; MobileNetV2 and EfficientNet: `features.*`; ResNet: all but `fc`; DeiT, under timm's
names: all but `head`, the patch embedding's first), followed by the projection head's
(`projection_head.0.weight`, `.0.bias`, `.2.weight`, `.2.bias`) where there is one. So running
statistics count: a batch norm is the four entries weight, bias, running_mean, running_var. Entry
`t` (from 0) has the values, element `i` in PyTorch's (row-major) layout of the tensor:

    conv weight (4-d)    u * 2*sqrt(3) * sqrt(2 / fan_in)   fan_in = (in / groups) * k * k
    linear weight (2-d)  u * 2*sqrt(3) * sqrt(1 / fan_in)   fan_in = in
    norm weight          1 + 0.4 u          norm bias     0.4 u
                         (a fifth of both at the end of ResNet-50's branches, `bn3`: rounding grows
                         thirtyfold through its 16 blocks otherwise)
    running_mean         0.2 u              running_var   1 + 0.5 u
    any other bias       0.1 u              (squeeze-excite fc1/fc2, classifier.0, head, DeiT's layers)
    class token, positions (3-d)   as a linear weight of fan_in = numbers of the whole tensor

Squeeze-excite fc1/fc2 are 4-d 1x1 convs in torchvision, so they follow the conv line.

Images. u * scale, element i in NHWC order: i = ((n*H + y)*W + x)*3 + c.

A summary of a tensor v that is entry `t` of its list:
    norm    sqrt(sum v^2)
    dot     sum_i v_i * u(5555 + t, i)
    sample  v at the indices floor(j * n / S), j = 0..S-1, for S samples of n elements
            (the whole tensor, in order, where n <= `whole`)
"""

import functools
import math

import numpy as np
import torch
import torchvision

EPS = 1e-3
BN_MOMENTUM = 0.1


@functools.lru_cache(maxsize=600)
def u(t: int, count: int) -> np.ndarray:
    """The first `count` elements of stream `t`, f64 in [-0.5, 0.5)."""
    mask = np.uint64(0xFFFFFFFF)
    x = np.arange(count, dtype=np.uint64) * np.uint64(2654435761)
    x = (x + np.uint64(t * 40503 + 12345)) & mask
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x7FEB352D)) & mask
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(0x846CA68B)) & mask
    x ^= x >> np.uint64(16)
    values = x.astype(np.float64) / 2.0**32 - 0.5
    values.flags.writeable = False  # cached: every caller sees the same array
    return values


def f32(values: np.ndarray) -> torch.Tensor:
    """Rounded to f32 once; kept as an f64 tensor of exactly those values."""
    return torch.from_numpy(values.astype(np.float32)).double()


def images(t: int, n: int, h: int, w: int, scale: float) -> torch.Tensor:
    """A hashed image batch, (N, 3, H, W) with its numbers laid out in NHWC order."""
    x = f32(u(t, n * h * w * 3) * scale).reshape(n, h, w, 3)
    return x.permute(0, 3, 1, 2).contiguous()


def unit_rows(t: int, rows: int, dim: int) -> torch.Tensor:
    """Hashed rows of length 1 (normalized in f64, then rounded to f32)."""
    x = u(t, rows * dim).reshape(rows, dim)
    return f32(x / np.sqrt((x * x).sum(axis=1, keepdims=True)))


def entry_names(model: torch.nn.Module) -> list[str]:
    """The model's entries in order (see the top of this file)."""
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    return sorted(names, key=lambda name: not name.startswith("patch_embed."))


def fill(model: torch.nn.Module) -> list[str]:
    """Gives every entry its values by the formula; returns the entries' names."""
    names = entry_names(model)
    state = model.state_dict()
    norms = {
        name.removesuffix("weight") for name in names if name.endswith(".weight") and state[name].dim() == 1
    }
    for t, name in enumerate(names):
        tensor = state[name]
        values = u(t, tensor.numel())
        stem, _, kind = name.rpartition(".")
        if kind == "running_mean":
            values = 0.2 * values
        elif kind == "running_var":
            values = 1.0 + 0.5 * values
        elif stem + "." in norms:
            values = 1.0 + 0.4 * values if kind == "weight" else 0.4 * values
            if stem.endswith(".bn3"):
                values = 0.2 * values
        elif kind == "bias":
            values = 0.1 * values
        else:
            fan_in = tensor[0].numel()
            gain = 2.0 if tensor.dim() == 4 else 1.0
            values = values * (2.0 * math.sqrt(3.0)) * math.sqrt(gain / fan_in)
        tensor.copy_(f32(values).reshape(tensor.shape))
    return names


class MobileNetV3(torch.nn.Module):
    """torchvision's MobileNetV3 up to its features, with an optional projection head.

    Batch norm eps 1e-3, momentum 0.1; no dropout.
    """

    def __init__(self, size: str, head: tuple[int, ...] | None = None):
        super().__init__()
        net = getattr(torchvision.models, f"mobilenet_v3_{size}")(weights=None)
        self.features = net.features
        self.classifier = torch.nn.Sequential(net.classifier[0], net.classifier[1])
        if head:
            width, hidden, dim = head
            self.projection_head = torch.nn.Sequential(
                torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, dim)
            )
        set_batch_norm(self, EPS)

    def backbone(self, x):
        return self.classifier(self.features(x).mean(dim=(2, 3)))

    def forward(self, x):
        features = self.backbone(x)
        if hasattr(self, "projection_head"):
            return torch.nn.functional.normalize(self.projection_head(features), dim=1)
        return features


def gate_first(model: torch.nn.Module) -> torch.nn.Module:
    """torchvision's MobileNetV3 with squeeze-excite before the activation where a block expands, as
    d-li14's and the paper's program have it. Names stay."""
    from torchvision.models.mobilenetv3 import InvertedResidual
    from torchvision.ops.misc import SqueezeExcitation

    for block in [m.block for m in model.modules() if isinstance(m, InvertedResidual)]:
        layers = list(block)
        at = next((i for i, layer in enumerate(layers) if isinstance(layer, SqueezeExcitation)), None)
        if at is None or len(layers) < 4:
            continue
        act = layers[at - 1][2]
        layers[at - 1][2] = torch.nn.Identity()
        layers[at].register_forward_hook(lambda _, __, y, act=act: act(y))
    return model


class EfficientNet(torch.nn.Module):
    """torchvision's EfficientNet-B0 up to its 1280 pooled features; no image skips a branch."""

    def __init__(self):
        super().__init__()
        self.features = torchvision.models.efficientnet_b0(weights=None).features
        for module in self.modules():
            if isinstance(module, torchvision.ops.StochasticDepth):
                module.p = 0.0
        set_batch_norm(self, 1e-5)

    def forward(self, x):
        return self.features(x).mean(dim=(2, 3))


def resnet(depth: int) -> torch.nn.Module:
    """torchvision's ResNet up to its pooled features."""
    net = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    net.fc = torch.nn.Identity()
    set_batch_norm(net, 1e-5)
    return net


class DeiT(torch.nn.Module):
    """timm's DeiT-Tiny with six heads up to the class token's features. Whole patches only: what is
    left over at the right and at the bottom is cut off. The patch embedding is frozen."""

    def __new__(cls):
        import timm

        net = timm.create_model("deit_tiny_patch16_224", num_heads=6, num_classes=0, dynamic_img_size=True)
        for parameter in net.patch_embed.parameters():
            parameter.requires_grad = False
        net.register_forward_pre_hook(_whole_patches)
        return net


def _whole_patches(_, args):
    (x,) = args
    return (x[:, :, : x.shape[2] // 16 * 16, : x.shape[3] // 16 * 16],)


class MobileNetV2(torch.nn.Module):
    """torchvision's MobileNetV2 up to its 1280 pooled features.

    `same` replaces the symmetric padding of stride-2 convs by TensorFlow's SAME.
    """

    def __init__(self, same: bool, eps: float):
        super().__init__()
        self.features = torchvision.models.mobilenet_v2(weights=None).features
        set_batch_norm(self, eps)
        if same:
            for conv in [m for m in self.modules() if isinstance(m, torch.nn.Conv2d)]:
                if conv.kernel_size[0] > 1 and conv.stride[0] == 2:
                    conv.padding = (0, 0)
                    conv.register_forward_pre_hook(_pad_same)

    def forward(self, x):
        return self.features(x).mean(dim=(2, 3))


def _pad_same(conv, args):
    """TensorFlow's SAME: total = max((ceil(n/s) - 1)*s + k - n, 0), the smaller half first."""
    (x,) = args
    pads = []
    for n, k, s in zip(x.shape[2:], conv.kernel_size, conv.stride):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pads.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = pads
    return torch.nn.functional.pad(x, (left, right, top, bottom))


def set_batch_norm(model: torch.nn.Module, eps: float) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps, module.momentum = eps, BN_MOMENTUM


def entry_values(model: torch.nn.Module) -> list[torch.Tensor]:
    """Copies of all entries, f64, in order."""
    state = model.state_dict()
    return [state[name].detach().double().clone() for name in entry_names(model)]


def sample(v: torch.Tensor, count: int, whole: int) -> torch.Tensor:
    flat = v.detach().double().reshape(-1)
    n = flat.numel()
    if n <= whole:
        return flat.float()
    return flat[[j * n // count for j in range(count)]].float()


def norm(v: torch.Tensor) -> float:
    return v.detach().double().norm().item()


def dot(v: torch.Tensor, t: int) -> float:
    return float(np.dot(v.detach().double().reshape(-1).numpy(), u(5555 + t, v.numel())))


def deviation(got: torch.Tensor, want: torch.Tensor, floor: float = 0.0) -> float:
    """|got - want| / max(|want|, floor) in the Euclidean norm."""
    return norm(got.double() - want.double()) / max(norm(want), floor, 1e-30)


def movement(names, start, want, got) -> dict[str, float]:
    """How far f32 entries `got` are from f64 ones, relative to how far those have moved.

    Per kind (parameters, running statistics): all together, and the worst single tensor.
    """
    out = {}
    for kind in ("parameters", "buffers"):
        rows = [
            (norm(g - w), norm(w - s))
            for name, s, w, g in zip(names, start, want, got)
            if name.endswith(("running_mean", "running_var")) == (kind == "buffers")
        ]
        moved = norm(torch.tensor([m for _, m in rows]))
        out[kind] = norm(torch.tensor([d for d, _ in rows])) / moved if moved > 0 else 0.0
        out[kind + "_worst"] = max(d / max(m, moved / 1000) for d, m in rows) if moved > 0 else 0.0
    return out


class Trajectory:
    """Per-step summaries of one encoder's entries (see moco.py for the tensors' meaning)."""

    def __init__(self, start, sampled_steps):
        self.start, self.sampled_steps = start, sampled_steps
        self.rows = {"norm": [], "dot": [], "change_norm": [], "change_dot": []}
        self.samples = {}

    def add(self, step, entries):
        change = [v - s for v, s in zip(entries, self.start)]
        self.rows["norm"].append([norm(v) for v in entries])
        self.rows["dot"].append([dot(v, t) for t, v in enumerate(entries)])
        self.rows["change_norm"].append([norm(v) for v in change])
        self.rows["change_dot"].append([dot(v, t) for t, v in enumerate(change)])
        if step in self.sampled_steps:
            self.samples[step] = torch.stack([sample(v, 8, 0) for v in entries])

    def write(self, prefix, tensors):
        for kind, values in self.rows.items():
            tensors[f"{prefix}.{kind}"] = torch.tensor(values)
        for step, values in self.samples.items():
            tensors[f"{prefix}.sample.step{step:02}"] = values


class F32Runs:
    """PyTorch's own f32 runs of a program, beside the f64 one: what rounding alone does.

    Three of them, so that one that happens to stay on the right side of every ReLU does not pass
    for the rule: oneDNN, plain kernels, and oneDNN channels last.
    """

    VARIANTS = {"onednn": (True, torch.contiguous_format), "plain": (False, torch.contiguous_format),
                "channels_last": (True, torch.channels_last)}

    def __init__(self, make_run):
        """`make_run(memory_format)` returns a generator that yields one tuple a step."""
        self.runs = {name: make_run(layout) for name, (_, layout) in self.VARIANTS.items()}

    def step(self):
        """The next step of each run."""
        out = []
        for name, run in self.runs.items():
            with torch.backends.mkldnn.flags(enabled=self.VARIANTS[name][0]):
                out.append(next(run))
        return out


def rounded(value):
    """Three significant digits everywhere, to keep the metadata small."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    return float(f"{value:.2e}") if isinstance(value, float) else value
