"""Golden file of the fused ops: tests/golden/ops.safetensors.

    python tests/golden/ops.py

PyTorch's forward and backward in f64, inputs rounded to f32 before and results stored as f32.
Activations (x, y, dy, dx, residual) are NHWC; weights and their gradients have PyTorch's layout
(conv [out, in/groups, k, k], linear [out, in]). `dy` is the gradient handed to the backward, the
others starting with d are what it must return. Names are `<op>.<case>.<tensor>`:

pointwise.<case>        x, weight, dy -> y, dx, dweight               1x1 conv, no bias
depthwise.k<K>_s<S>_<case>   x, weight [C,1,K,K], dy -> y, dx, dweight     stride S, padding (K-1)/2
depthwise.same_k<K>_s<S>_<case>   the same with TensorFlow's SAME padding (stride 2: the odd row and
                        column of padding go right and bottom)
stem.<case>             x, weight [O,3,3,3], dy -> y, dweight         3x3, stride 2, padding 1
stem.same_<case>        the same with SAME padding
bn.<mode>_<act>_<case>  x, weight, bias, running_mean, running_var, dy (and residual)
                        -> y, dx, dweight, dbias, new_running_mean, new_running_var (and dresidual)
    mode train | eval; eps 1e-3, momentum 0.1 (unbiased variance into the running one; eval leaves
    both as they are). act: none, relu, relu6, hardswish: y = act(bn(x)).
    none_residual: y = bn(x) + residual. residual_relu: y = relu(bn(x) + residual) (ResNet).
    In eval mode the statistics are constants for the gradient.
se.<case>               x, fc1_weight [R,C], fc1_bias, fc2_weight [C,R], fc2_bias, dy
                        -> y, dx, dfc1_weight, dfc1_bias, dfc2_weight, dfc2_bias
    y = x * hardsigmoid(fc2(relu(fc1(mean over H, W of x)))), hardsigmoid(z) = relu6(z + 3) / 6;
    the inputs are wide enough that some gates saturate.
pool.<case>             x, dy [N,C] -> y [N,C], dx                    global mean
linear.<act>_<case>     x [N,I], weight, bias, dy -> y, dx, dweight, dbias     act none | relu | hardswish
l2.<case>               x [N,D], dy -> y, dx                          rows / max(|row|, 1e-12)
info_nce.<case>         query [N,D], key [N,D], queue [K,D] (unit rows), masked [N,K] (u8, 1 = left
                        out of that query's negatives), temperature [1]
                        -> losses [N], loss [1] (their mean), dquery = dloss/dquery
    logits = [query.key, query.queue] / temperature, target 0; masked negatives are -inf.
distill_loss.<case>     student [N,D], teacher [N,D], queue [K,D] (unit rows),
                        temperatures [2] = student's, teacher's -> losses [N], loss [1], dstudent
    losses = -sum_j softmax([t.t, t.Q]/tt)_j * log_softmax([s.t, s.Q]/ts)_j

Values sit away from the kinks of ReLU and its kin except where an input is exactly one (relu case
`kinks`: zeros in, PyTorch's gradient there is 0). Tolerance: f32 sums of this length are good to
1e-5 of the largest magnitude in the tensor.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from common import EPS, f32, u
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
TENSORS: dict[str, torch.Tensor] = {}
_stream = 500


def fresh(*shape, scale=2.0, shift=0.0):
    """Hashed numbers of their own stream, uniform in shift + scale * [-0.5, 0.5)."""
    global _stream
    _stream += 1
    count = 1
    for n in shape:
        count *= n
    return f32(u(_stream, count) * scale + shift).reshape(shape)


def unit(*shape):
    return F.normalize(fresh(*shape), dim=-1).float().double()


def store(prefix, **tensors):
    for name, value in tensors.items():
        value = value.detach()
        value = value if value.dtype == torch.uint8 else value.float()
        TENSORS[f"{prefix}.{name}"] = value.contiguous().clone()


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def case(prefix, function, inputs, without=(), **extra):
    """Runs `function(**inputs)` forward and backward and stores all of it.

    `without` are inputs that are constants; `extra` is stored (or returned late, if callable).
    """
    inputs = {k: v.clone().requires_grad_(k not in without) for k, v in inputs.items()}
    y = function(**inputs)
    dy = fresh(*y.shape)
    y.backward(dy)
    store(prefix, **inputs, y=y, dy=dy)
    store(prefix, **{"d" + k: v.grad for k, v in inputs.items() if k not in without})
    store(prefix, **{k: v() if callable(v) else v for k, v in extra.items()})


def pad_same(x, k, s):
    """SAME padding of NCHW."""
    pads = []
    for n in (x.shape[3], x.shape[2]):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def convolutions():
    for n, h, w, c, o in [(1, 1, 1, 1, 1), (1, 1, 1, 17, 3), (2, 5, 7, 3, 17), (1, 3, 3, 24, 40), (3, 2, 3, 40, 24), (1, 7, 5, 16, 1)]:
        def pointwise(x, weight):
            return nhwc(F.conv2d(nchw(x), weight))
        case(f"pointwise.{n}x{h}x{w}_{c}to{o}", pointwise, {"x": fresh(n, h, w, c), "weight": fresh(o, c, 1, 1)})

    shapes = [(1, 1, 1, 17), (2, 2, 2, 1), (1, 5, 7, 3), (1, 4, 6, 24), (2, 3, 5, 17), (1, 7, 6, 40)]
    for k in (3, 5):
        for s in (1, 2):
            for n, h, w, c in shapes:
                for same in (False, True):
                    if same and (s == 1 or c not in (3, 24)):
                        continue
                    def depthwise(x, weight):
                        x = pad_same(nchw(x), k, s) if same else F.pad(nchw(x), [(k - 1) // 2] * 4)
                        return nhwc(F.conv2d(x, weight, stride=s, groups=weight.shape[0]))
                    name = f"depthwise.{'same_' if same else ''}k{k}_s{s}_{n}x{h}x{w}x{c}"
                    case(name, depthwise, {"x": fresh(n, h, w, c), "weight": fresh(c, 1, k, k)})

    for n, h, w, o in [(1, 1, 1, 16), (2, 5, 7, 16), (1, 9, 8, 17), (1, 6, 6, 32)]:
        for same in (False, True):
            def stem(x, weight):
                x = pad_same(nchw(x), 3, 2) if same else F.pad(nchw(x), [1] * 4)
                return nhwc(F.conv2d(x, weight, stride=2))
            name = f"stem.{'same_' if same else ''}{n}x{h}x{w}_to{o}"
            case(name, stem, {"x": fresh(n, h, w, 3), "weight": fresh(o, 3, 3, 3)}, without=("x",))


def batch_norms():
    activations = {
        "none": lambda z, r: z, "relu": lambda z, r: F.relu(z), "relu6": lambda z, r: F.relu6(z),
        "hardswish": lambda z, r: F.hardswish(z), "none_residual": lambda z, r: z + r,
        "residual_relu": lambda z, r: F.relu(z + r),
    }
    for mode in ("train", "eval"):
        for act, activation in activations.items():
            for n, h, w, c in [(2, 3, 5, 17), (4, 1, 1, 24), (1, 1, 3, 1)]:
                inputs = {"x": fresh(n, h, w, c, scale=6.0, shift=0.5), "weight": fresh(c, scale=3.0, shift=2.0), "bias": fresh(c, scale=4.0)}
                mean, var = fresh(c), fresh(c, scale=1.0, shift=1.0)
                new_mean, new_var = mean.clone(), var.clone()
                if "residual" in act:
                    inputs["residual"] = fresh(n, h, w, c)
                def norm(x, weight, bias, residual=None):
                    z = F.batch_norm(nchw(x), new_mean, new_var, weight, bias, mode == "train", 0.1, EPS)
                    return activation(nhwc(z), residual)
                case(f"bn.{mode}_{act}_{n}x{h}x{w}x{c}", norm, inputs, running_mean=mean, running_var=var,
                     new_running_mean=lambda: new_mean, new_running_var=lambda: new_var)


def squeeze_excites():
    def squeeze_excite(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias):
        hidden = F.relu(F.linear(x.mean(dim=(1, 2)), fc1_weight, fc1_bias))
        return x * F.hardsigmoid(F.linear(hidden, fc2_weight, fc2_bias))[:, None, None, :]
    for n, h, w, c, r in [(1, 1, 1, 3, 8), (2, 3, 5, 17, 8), (3, 2, 2, 24, 8), (1, 4, 3, 40, 16)]:
        case(f"se.{n}x{h}x{w}x{c}_r{r}", squeeze_excite, {
            "x": fresh(n, h, w, c, scale=4.0, shift=0.3), "fc1_weight": fresh(r, c), "fc1_bias": fresh(r),
            "fc2_weight": fresh(c, r, scale=6.0), "fc2_bias": fresh(c, scale=4.0)})


def dense():
    for n, h, w, c in [(1, 1, 1, 1), (2, 3, 5, 17), (3, 1, 1, 40), (1, 7, 4, 24)]:
        case(f"pool.{n}x{h}x{w}x{c}", lambda x: x.mean(dim=(1, 2)), {"x": fresh(n, h, w, c)})
    for act, activation in {"none": lambda z: z, "relu": F.relu, "hardswish": F.hardswish}.items():
        for n, i, o in [(1, 1, 1), (3, 17, 5), (8, 24, 40)]:
            def linear(x, weight, bias):
                return activation(F.linear(x, weight, bias))
            case(f"linear.{act}_{n}x{i}to{o}", linear, {"x": fresh(n, i, scale=4.0), "weight": fresh(o, i), "bias": fresh(o)})
    kinks = {"x": torch.zeros(2, 3).double(), "weight": fresh(4, 3), "bias": torch.zeros(4).double()}
    case("linear.relu_kinks", lambda x, weight, bias: F.relu(F.linear(x, weight, bias)), kinks)
    for n, d in [(1, 1), (3, 17), (8, 128)]:
        case(f"l2.{n}x{d}", lambda x: F.normalize(x, dim=1), {"x": fresh(n, d)})


def losses():
    for name, n, k, d, temperature, share in [("plain", 4, 20, 16, 0.2, 0.0), ("one", 1, 1, 3, 0.07, 0.0), ("masked", 5, 23, 17, 0.1, 0.3), ("all_masked", 2, 6, 8, 0.2, 1.0)]:
        query, key, queue = unit(n, d).requires_grad_(), unit(n, d), unit(k, d)
        masked = (fresh(n, k) < 2.0 * share - 1.0).to(torch.uint8)
        if name == "masked":
            masked[1] = 0
            masked[2] = 1
        logits = torch.cat([(query * key).sum(1, keepdim=True), (query @ queue.T).masked_fill(masked.bool(), -torch.inf)], 1) / temperature
        rows = F.cross_entropy(logits, torch.zeros(n, dtype=torch.long), reduction="none")
        rows.mean().backward()
        store(f"info_nce.{name}", query=query, key=key, queue=queue, masked=masked, temperature=torch.tensor([temperature]),
              losses=rows, loss=rows.mean().reshape(1), dquery=query.grad)
    for name, n, k, d, spread, ts, tt in [("soft", 4, 20, 16, 0.3, 0.2, 0.05), ("sharp", 3, 7, 17, 1.0, 0.2, 0.01), ("one", 1, 1, 5, 0.3, 0.1, 0.1)]:
        center = unit(1, d)
        near = lambda rows: F.normalize(center + spread * unit(rows, d), dim=1).float().double()
        student, teacher, queue = unit(n, d).requires_grad_(), near(n), near(k)
        target = torch.softmax(torch.cat([(teacher * teacher).sum(1, keepdim=True), teacher @ queue.T], 1) / tt, 1)
        logits = torch.cat([(student * teacher).sum(1, keepdim=True), student @ queue.T], 1) / ts
        rows = -(target * torch.log_softmax(logits, 1)).sum(1)
        rows.mean().backward()
        store(f"distill_loss.{name}", student=student, teacher=teacher, queue=queue, temperatures=torch.tensor([ts, tt]),
              losses=rows, loss=rows.mean().reshape(1), dstudent=student.grad)


def main():
    for group in (convolutions, batch_norms, squeeze_excites, dense, losses):
        group()
    assert all(torch.isfinite(v.float()).all() for v in TENSORS.values())
    path = HERE / "ops.safetensors"
    save_file(TENSORS, path)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, {len(TENSORS)} tensors")


if __name__ == "__main__":
    main()
