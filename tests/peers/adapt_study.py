"""Which recipe of `seedling adapt` helps, and where: the experiment behind its defaults.

    cargo build --release
    python tests/peers/adapt_study.py ALBUM [--seeds 0 1 2] [--variants default lr=0.02 ...]
        [--shifts none dark tinted blurred rotated] [--jobs 2] [--out study.json]

ALBUM is a folder with class subfolders (used for measuring only). Every variant is a list of
settings joined by commas (`lr=0.02,epochs=48`) over the defaults; `default` is none. A shift is
what a camera does to every photo of the album in the same way; the shifted copy is made in a
temporary folder. The figure is leave-one-out best-NN over the album in percent, Euclidean, before
and after, as `adapt` writes it into metrics.jsonl. The table goes to stdout, everything to --out.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def shift(photo, kind):
    """One systematic fault of a camera."""
    from PIL import Image, ImageEnhance, ImageFilter

    if kind == "dark":
        return ImageEnhance.Brightness(photo).enhance(0.35)
    if kind == "tinted":
        r, g, b = photo.split()
        return Image.merge("RGB", (r, g.point(lambda x: int(x * 0.75)), b.point(lambda x: int(x * 0.45))))
    if kind == "blurred":
        return photo.filter(ImageFilter.GaussianBlur(2.5))
    if kind == "rotated":
        return photo.rotate(90, expand=True)
    raise SystemExit(f"unknown shift {kind}")


def shifted_album(album, kind, folder):
    from PIL import Image

    target = Path(folder) / kind
    for file in sorted(p for p in album.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")):
        out = target / file.relative_to(album).with_suffix(".jpg")
        out.parent.mkdir(parents=True, exist_ok=True)
        shift(Image.open(file).convert("RGB"), kind).save(out, quality=95)
    return target


def one_run(args, album, kind, variant, seed, folder):
    out = Path(folder) / f"{kind}-{variant.replace('=', '_').replace(',', '-')}-{seed}"
    command = [args.binary, "adapt", str(album), "--out", str(out), "--seed", str(seed), "--threads", str(args.threads), "-q"]
    command += ["--init", args.init] if args.init else []
    command += [] if variant == "default" else [part for setting in variant.split(",") for part in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    figures = {"shift": kind, "variant": variant, "seed": seed}
    for line in (out / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "measure":
            figures[record["when"]] = {k: record.get(k) for k in ("best_nn", "instance_discrimination", "alignment", "uniformity")}
    print(json.dumps(figures), flush=True)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("album", type=Path)
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "seedling"))
    parser.add_argument("--init", help="weights to start from (the shipped ones)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=["default"])
    parser.add_argument("--shifts", nargs="+", default=["none"])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        albums = {kind: args.album if kind == "none" else shifted_album(args.album, kind, folder) for kind in args.shifts}
        jobs = [(albums[kind], kind, variant, seed) for variant in args.variants for kind in args.shifts for seed in args.seeds]
        with ThreadPoolExecutor(args.jobs) as pool:
            results = list(pool.map(lambda job: one_run(args, *job, folder), jobs))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))
    print("\n| album | settings | before | after (mean of seeds) | seeds |\n|---|---|---|---|---|")
    for variant in args.variants:
        for kind in args.shifts:
            rows = [r for r in results if r["variant"] == variant and r["shift"] == kind]
            after = [r["after"]["best_nn"] for r in rows]
            before = statistics.mean(r["before"]["best_nn"] for r in rows)
            print(f"| {kind} | {variant} | {before:.1f} | {statistics.mean(after):.1f} | {', '.join(f'{x:.1f}' for x in after)} |")


if __name__ == "__main__":
    main()
