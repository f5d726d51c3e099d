"""Golden values for the optimizer and the schedules, from torch.optim.

Run: python tests/golden/optim.py   (writes optim.safetensors beside itself)
"""

import pathlib

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
STEPS, SIZES = 8, [40, 6, 21]  # a kernel, a norm, a linear weight


def trajectory(momentum, weight_decay, exempt):
    """Values after every step, under gradients and rates that change."""
    parameters = [torch.nn.Parameter(chunk.clone()) for chunk in START.split(SIZES)]
    groups = [
        {"params": [p], "weight_decay": 0.0 if exempt and i == 1 else weight_decay}
        for i, p in enumerate(parameters)
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=momentum)
    rows = []
    for gradient, lr in zip(GRADIENTS, RATES):
        for p, chunk in zip(parameters, gradient.split(SIZES)):
            p.grad = chunk.clone()
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        optimizer.step()
        rows.append(torch.cat([p.detach().clone() for p in parameters]))
    return torch.stack(rows)


def adamw(exempt):
    parameters = [torch.nn.Parameter(chunk.clone()) for chunk in START.split(SIZES)]
    groups = [
        {"params": [p], "weight_decay": 0.0 if exempt and i == 1 else 0.1} for i, p in enumerate(parameters)
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    rows = []
    for gradient, lr in zip(GRADIENTS, RATES):
        for p, chunk in zip(parameters, gradient.split(SIZES)):
            p.grad = chunk.clone()
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        optimizer.step()
        rows.append(torch.cat([p.detach().clone() for p in parameters]))
    return torch.stack(rows)


def rates(scheduler, steps):
    """Learning rates that a scheduler over SGD(lr=0.06) gives."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.06)
    scheduler = scheduler(optimizer)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return torch.tensor(values, dtype=torch.float64).float()


def warm_cosine(optimizer):
    """Five steps of linear rise, then a cosine over the other fifteen."""
    rise = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 5)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[5])


def cosine(length):
    return lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=length)


START = torch.randn(sum(SIZES))
GRADIENTS = torch.randn(STEPS, sum(SIZES))
RATES = torch.linspace(0.3, 0.01, STEPS)

save_file(
    {
        "start": START,
        "gradients": GRADIENTS,
        "rates": RATES,
        "plain": trajectory(0.0, 0.0, False),
        "momentum": trajectory(0.9, 1e-2, False),
        "exempt": trajectory(0.9, 1e-2, True),
        "adamw": adamw(False),
        "adamw_exempt": adamw(True),
        "cosine": rates(cosine(20), 20),
        "warm_cosine": rates(warm_cosine, 20),
        "epoch_cosine": rates(cosine(4), 4).repeat_interleave(5),
    },
    pathlib.Path(__file__).with_suffix(".safetensors"),
)
