"""Weight files as other programs write them: tests/golden/foreign/*.gz, and what they compute.

    python tests/golden/foreign.py          (needs torch, torchvision, timm, efficientnet_pytorch)

Each is written by torch.save or safetensors from the program's own module (or one with its names), and
gzipped: their numbers repeat, so that megabytes become kilobytes. Element i of tensor number t of a state
dict (from 0) is, with p = ((7 i + 13 t) mod 61) / 30 - 1:

    4-d and 2-d weights   p * sqrt(2 / numbers of one output)         1-d weights  1 + 0.2 p
    running_mean          0.1 p        running_var   1 + 0.3 p        all else     0.1 p

`expected.safetensors` has for each file its network's features in eval mode of one hashed image (see
common.py: stream 4242, 1 x 64 x 64, scale 4), and its embedding before normalizing where it has a head of
ours.
"""

import gzip
import io
from pathlib import Path

import timm
import torch
import torchvision
from common import images
from efficientnet_pytorch import EfficientNet as Lukemelas
from safetensors.torch import save as to_safetensors
from safetensors.torch import save_file
from torch import nn

OUT = Path(__file__).resolve().parent / "foreign"
IMAGE = images(4242, 1, 64, 64, 4.0).float()
EXPECTED = {}


def fill(module):
    with torch.no_grad():
        for t, (name, v) in enumerate(module.state_dict().items()):
            if not v.is_floating_point():
                continue
            i = torch.arange(v.numel(), dtype=torch.float64)
            p = ((7 * i + 13 * t) % 61) / 30 - 1
            if name.endswith("running_mean"):
                x = 0.1 * p
            elif name.endswith("running_var"):
                x = 1 + 0.3 * p
            elif name.endswith("weight") and v.dim() >= 2:
                x = p * (2 / v[0].numel()) ** 0.5
            elif name.endswith("weight"):
                x = 1 + 0.2 * p
            else:
                x = 0.1 * p
            v.copy_(x.reshape(v.shape).float())
    return module.eval()


def write(name, data):
    OUT.mkdir(exist_ok=True)
    path = OUT / (name + ".gz")
    path.write_bytes(gzip.compress(data, 9, mtime=0))
    print(f"{path.name}: {len(data) / 2**20:.1f} MiB, {path.stat().st_size / 1024:.0f} KiB")


def saved(content, **how):
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def expect(name, features, head=None):
    with torch.no_grad():
        found = features(IMAGE)
        EXPECTED[name + ".features"] = found.contiguous()
        if head is not None:
            EXPECTED[name + ".embedding"] = head(found).contiguous()


def mlp(width, *others):
    layers = [nn.Linear(width, others[0])]
    for a, b in zip(others, others[1:]):
        layers += [nn.ReLU(), nn.Linear(a, b)]
    return nn.Sequential(*layers)


def with_head(net, attribute, head):
    setattr(net, attribute, head)
    return net


def resnet(depth):
    net = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    net.fc = nn.Identity()
    return net


def resnet_features(net):
    head, net.fc = net.fc, nn.Identity()

    def run(x):
        found = net(x)
        return found

    return run, head


class Container(nn.Module):
    """Modules under the names given."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


class HardSwish(nn.Module):
    def forward(self, x):
        return x * nn.functional.relu6(x + 3) / 6


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        hidden = max(8, (channels // 4 + 4) // 8 * 8)
        hidden = hidden + 8 if hidden < 0.9 * (channels // 4) else hidden
        self.fc = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x):
        gate = nn.functional.relu6(self.fc(x.mean((2, 3))) + 3) / 6
        return x * gate[:, :, None, None]


class DLi14Block(nn.Module):
    """Squeeze-excite before the activation where it expands, behind it where it does not."""

    def __init__(self, cin, hidden, cout, k, stride, squeeze, swish):
        super().__init__()
        act = HardSwish() if swish else nn.ReLU()
        depthwise = [nn.Conv2d(hidden, hidden, k, stride, k // 2, groups=hidden, bias=False), nn.BatchNorm2d(hidden)]
        gate = Squeeze(hidden) if squeeze else nn.Identity()
        project = [nn.Conv2d(hidden, cout, 1, bias=False), nn.BatchNorm2d(cout)]
        if cin == hidden:
            self.conv = nn.Sequential(*depthwise, act, gate, *project)
        else:
            expand = [nn.Conv2d(cin, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act]
            self.conv = nn.Sequential(*expand, *depthwise, gate, act, *project)
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class DLi14(nn.Module):
    """MobileNetV3 under d-li14's names."""

    def __init__(self, rows, features):
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), HardSwish())]
        cin = 16
        for k, hidden, cout, squeeze, swish, stride in rows:
            layers.append(DLi14Block(cin, hidden, cout, k, stride, squeeze, swish))
            cin = cout
        self.features = nn.Sequential(*layers)
        self.conv = nn.Sequential(nn.Conv2d(cin, 6 * cin, 1, bias=False), nn.BatchNorm2d(6 * cin), HardSwish())
        self.classifier = nn.Sequential(nn.Linear(6 * cin, features), HardSwish())

    def forward(self, x):
        return self.classifier(self.conv(self.features(x)).mean((2, 3)))


SMALL = [
    (3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2), (5, 240, 40, 1, 1, 1),
    (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1), (5, 288, 96, 1, 1, 2),
    (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1),
]


def torchvision_small():
    net = fill(torchvision.models.mobilenet_v3_small(weights=None))
    write("torchvision_mobilenet_v3_small.pth", saved(net.state_dict()))
    cut = nn.Sequential(net.features, net.avgpool, nn.Flatten(1), net.classifier[:2])
    expect("torchvision_mobilenet_v3_small.pth", cut)


def of_timm(name, ours, **how):
    net = fill(timm.create_model(name, **how))
    if ours.endswith(".safetensors"):
        write(ours, to_safetensors({k: v.contiguous() for k, v in net.state_dict().items()}))
    else:
        write(ours, saved(net.state_dict()))
    expect(ours, lambda x: net.forward_head(net.forward_features(x), pre_logits=True))


def moco():
    query, key = (with_head(resnet(18), "fc", mlp(512, 512, 128)) for _ in range(2))
    model = fill(Container(encoder_q=query, encoder_k=key))
    model.register_buffer("queue", torch.randn(128, 64))
    model.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
    optimizer = torch.optim.SGD(query.parameters(), 0.03, momentum=0.9)
    content = {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": {"module." + k: v for k, v in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
    }
    write("moco_resnet18.pth.tar", saved(content))
    features, head = resnet_features(query)
    expect("moco_resnet18.pth.tar", features, head)


def seed():
    student = with_head(resnet(18), "fc", mlp(512, 512, 128))
    teacher = torchvision.models.mobilenet_v3_small(weights=None)
    teacher.classifier = teacher.classifier[:2]
    model = fill(Container(student=student, teacher=teacher))
    model.register_buffer("queue", torch.randn(128, 64))
    content = {"state_dict": {"module." + k: v for k, v in model.state_dict().items()}, "epoch": 2}
    write("seed.pth", saved(content))
    features, head = resnet_features(student)
    expect("seed.pth", features, head)
    expect("seed.pth.teacher", teacher)


def moco_v3():
    def encoder():
        net = timm.create_model("deit_tiny_patch16_224", num_heads=6, dynamic_img_size=True)
        net.head = nn.Sequential(
            nn.Linear(192, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 256, bias=False)
        )
        return net

    base = encoder()
    predictor = nn.Sequential(nn.Linear(256, 64, bias=False), nn.BatchNorm1d(64))
    model = fill(Container(base_encoder=base, momentum_encoder=encoder(), predictor=predictor))
    content = {"epoch": 300, "arch": "vit_tiny", "state_dict": {"module." + k: v for k, v in model.state_dict().items()}}
    write("moco_v3_deit_tiny.pth.tar", saved(content))
    expect("moco_v3_deit_tiny.pth.tar", lambda x: base.forward_features(x)[:, 0])


def lightning(name, net, features, head, **others):
    """What a Lightning checkpoint has around a state dict."""
    content = {
        "epoch": 10,
        "global_step": 1000,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": net.state_dict(),
        "callbacks": {},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "hyper_parameters": {"method": "mocov2plus", "lr": 0.3, "crops": [224, 96]},
        **others,
    }
    write(name, saved(content))
    expect(name, features, head)


def solo_learn():
    backbone, projector = resnet(18), mlp(512, 1024, 128)
    net = Container(backbone=backbone, projector=projector, momentum_backbone=resnet(18), momentum_projector=mlp(512, 1024, 128))
    lightning("solo_learn_resnet18.ckpt", fill(net), backbone, projector)


def lightly():
    backbone = nn.Sequential(*list(resnet(18).children())[:-1])
    head = Container(layers=mlp(512, 512, 128))
    momentum = nn.Sequential(*list(resnet(18).children())[:-1])
    net = fill(Container(backbone=backbone, projection_head=head, backbone_momentum=momentum))
    lightning("lightly_resnet18.ckpt", net, lambda x: backbone(x).flatten(1), head.layers)


def ssl_small():
    query, key = (with_head(DLi14(SMALL, 1024), "fc", mlp(1024, 2048, 128)) for _ in range(2))
    model = fill(Container(encoder_q=query, encoder_k=key))
    content = {"epoch": 200, "state_dict": {"module." + k: v for k, v in model.state_dict().items()}}
    write("ssl_small_mobilenet_v3_small.pth.tar", saved(content))
    expect("ssl_small_mobilenet_v3_small.pth.tar", query, query.fc)


def lukemelas():
    net = fill(Lukemelas.from_name("efficientnet-b0", image_size=64))
    write("lukemelas_efficientnet_b0.pth", saved(net.state_dict()))
    expect("lukemelas_efficientnet_b0.pth", lambda x: net.extract_features(x).mean((2, 3)))


def kinds():
    """Number types, and tensors that do not lie row by row."""
    x = torch.arange(24, dtype=torch.float64).reshape(4, 6) / 8
    content = {
        "f64": x, "f32": x.float(), "f16": x.half(), "bf16": x.bfloat16(), "i64": x.long(), "u8": x.byte(),
        "turned": x.float().T, "part": x.float()[1:3, 2:5], "steps": x.float()[:, ::2],
        "inner": {"deep": {"er": x.float()}}, "parameter": nn.Parameter(x.float()), "none": None, "scalar": torch.tensor(2.5),
        "shared": x.float().T,
    }
    write("dtypes.pth", saved(content))
    EXPECTED["dtypes"] = x.float()


def main():
    torch.manual_seed(0)
    torchvision_small()
    of_timm("mobilenetv3_small_100", "timm_mobilenet_v3_small.safetensors")
    of_timm("mobilenetv3_large_100", "timm_mobilenet_v3_large.pth")
    of_timm("efficientnet_b0", "timm_efficientnet_b0.pth")
    of_timm("mobilenetv2_100", "timm_mobilenet_v2.pth")
    of_timm("deit_tiny_patch16_224", "timm_deit_tiny.pth", num_heads=6, dynamic_img_size=True)
    moco()
    seed()
    moco_v3()
    solo_learn()
    lightly()
    ssl_small()
    lukemelas()
    kinds()
    for name in ("dtypes", "torchvision_mobilenet_v3_small"):
        content = torch.load(io.BytesIO(gzip.decompress((OUT / (name + ".pth.gz")).read_bytes())), weights_only=True)
        write(name + ".old.pth", saved(content, _use_new_zipfile_serialization=False))
    save_file(EXPECTED, OUT / "expected.safetensors")


if __name__ == "__main__":
    main()
