"""Teaching a network its own similarities of a dataset, without contrast: SEED with the album as its data.

    python tests/peers/learn_distil.py --init models/mobilenet_v3_small.safetensors --photos ALBUM --out OUT [--seed 0]

The initial weights see every photo at several sizes, mirrored too (--tta-views); the mean of those, less the album's mean,
says how near photos are to each other. The network's own features, less their mean, learn these similarities from
one random view, without a head: a cross-entropy between softmax(teacher / 0.05) over all other photos, with 0.1 of
the target on the photo itself, and softmax(student / 0.05) over the features that the network itself has of the
whole album, taken again every epoch. Otherwise as learn_moco.py: 128 px, batch 64 in groups of 32, lr 0.03 with
cosine per step, SGD momentum 0.9, weight decay 1e-4, 12 epochs, statistics taken again at the end.
"""

import argparse
import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from learn_moco import finish
from learning import IMAGENET, LabeledPhotos, Encoder, common_arguments, learning_rate, loader, normalize, photo_files, prepare


@torch.no_grad()
def features(encoder, images):
    encoder.eval()
    found = torch.cat([encoder.backbone(normalize(x.float() / 255, *IMAGENET)) for x in images.split(100)])
    encoder.train()
    return found


def teacher(files, encoder, args):
    """Unit rows: the mean of unit features over views, less the album's mean."""
    total = 0
    for scale in {2: [1.0], 8: [0.8, 1.0, 1.2, 1.4]}[args.tta_views]:
        size = round(args.measure_size * scale)
        for start in range(0, len(files), 500):
            images = torch.stack([LabeledPhotos.prepare(f, size, args.preprocessing) for f in files[start:start + 500]])
            rows = sum(F.normalize(features(encoder, x), dim=1) for x in (images, images.flip(3)))
            part = rows if start == 0 else torch.cat([part, rows])
        total = total + part
    return F.normalize(total - total.mean(0), dim=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--bn-group", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--temperature", type=float, default=0.05)
    parser.add_argument("--own", type=float, default=0.1, help="share of the target on the photo itself")
    parser.add_argument("--tta-views", type=int, choices=[2, 8], default=8)
    parser.add_argument("--interpolation", type=float, default=1.0, help="interpolation weight of the trained weights")
    parser.add_argument("--measure-size", type=int, default=160)
    common_arguments(parser)
    args = parser.parse_args()
    device = prepare(args)
    assert device.type == "cpu"
    args.out.mkdir(parents=True, exist_ok=True)

    files = photo_files(args.photos)
    batches = loader(files, args.image_size, 1, args.batch_size, args.workers, args.seed)
    encoder = Encoder(0, 0.0, args.linear_init)
    encoder.load(args.init)
    encoder.to(memory_format=torch.channels_last).train()
    initial = copy.deepcopy(encoder.state_dict())
    near = teacher(files, encoder, args)
    plain = torch.stack([LabeledPhotos.prepare(f, args.image_size, args.preprocessing) for f in files])
    trained = [p for n, p in encoder.named_parameters() if not n.startswith("projection_head.")]
    optimizer = torch.optim.SGD(trained, lr=args.lr, momentum=0.9, weight_decay=1e-4)
    steps, step = args.steps or args.epochs * len(batches), 0
    while step < steps:
        bank = features(encoder, plain)
        mean = bank.mean(0)
        bank = F.normalize(bank - mean, dim=1)
        losses = []
        for x, ids in batches:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, args.lr, 0)
            views = normalize(x[:, 0], *IMAGENET).to(memory_format=torch.channels_last)
            rows = torch.cat([encoder.backbone(group) for group in views.split(args.bn_group)])
            student = F.normalize(rows - mean, dim=1) @ bank.T / args.temperature
            own = F.one_hot(ids, len(files)).bool()
            target = (1 - args.own) * (near[ids] @ near.T / args.temperature).masked_fill(own, -torch.inf).softmax(1) + args.own * own
            loss = -(target * student.log_softmax(1)).sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            if step == steps:
                break
        print(f"step {step} of {steps}: loss {sum(losses) / len(losses):.3f}", flush=True)
    finish(encoder, initial, torch.stack([LabeledPhotos.prepare(f, args.measure_size, args.preprocessing) for f in files]), args, device)
    encoder.save(args.out / "weights.safetensors", image_size=str(args.measure_size))


if __name__ == "__main__":
    main()
