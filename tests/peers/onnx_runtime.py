"""Graphs that `seedling convert --to onnx` writes, beside ONNX Runtime and PyTorch.

    python tests/peers/onnx_runtime.py [--seedling target/release/seedling]

For every network: weights by PyTorch (torchvision's or timm's own initial ones, running statistics moved by
two batches), converted to ONNX at 96 px, computed by ONNX Runtime for batches of 1 and 3, and held against
PyTorch's features. Needs torch, torchvision, timm, onnx, onnxruntime. Fails where they differ by more than
1e-4 of the largest feature.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn


def networks():
    for name in ("mobilenet_v3_small", "mobilenet_v3_large"):
        net = getattr(torchvision.models, name)(weights=None)
        yield name, net, nn.Sequential(net.features, net.avgpool, nn.Flatten(1), net.classifier[:2])
    for name in ("mobilenet_v2", "efficientnet_b0"):
        net = getattr(torchvision.models, name)(weights=None)
        yield name, net, nn.Sequential(net.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    for name in ("resnet18", "resnet50"):
        net = getattr(torchvision.models, name)(weights=None)
        yield name, net, nn.Sequential(*list(net.children())[:-1], nn.Flatten(1))
    net = timm.create_model("deit_tiny_patch16_224", num_heads=6, dynamic_img_size=True)
    yield "deit_tiny", net, lambda x: net.forward_features(x)[:, 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seedling", default="target/release/seedling")
    args = parser.parse_args()
    torch.manual_seed(0)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, net, features in networks():
            # Small steps: with torchvision's own momentum of 0.01 two batches would change nothing.
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.5
            with torch.no_grad():
                net.train()
                for _ in range(2):
                    net(torch.randn(8, 3, 96, 96))
            net.eval()
            weights, graph = Path(folder, "w.safetensors"), Path(folder, name + ".onnx")
            save_file({k: v.contiguous() for k, v in net.state_dict().items()}, weights)
            command = [args.seedling, "convert", weights, "--to", "onnx", "--out", graph, "--image-size", "96", "--arch", name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            onnx.checker.check_model(onnx.load(graph), full_check=True)
            session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
            for batch in (1, 3):
                x = torch.randn(batch, 3, 96, 96)
                with torch.no_grad():
                    want = features(x).numpy()
                (got,) = session.run(["features"], {"images": x.numpy()})
                assert got.shape == want.shape, (name, got.shape, want.shape)
                off = float(np.abs(got - want).max() / np.abs(want).max())
                worst = max(worst, off)
                print(f"{name:20} batch {batch}: {off:.1e} of the largest of {want.shape[1]} features")
    print(f"worst {worst:.1e}")
    return 1 if worst > 1e-4 else 0


if __name__ == "__main__":
    sys.exit(main())
