"""ONNX Runtime against eager torch on the CPU: each graph and a whole prediction, each side in a process of its own, median of several.

python benchmarks/onnx_runtime.py --preset laptop --threads 1
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

NUM_PAIRS, NUM_POINTS = 2, 12
SIDES = ("torch", "onnxruntime")


def measure(work: Callable[[], object], *, repeats: int) -> float:
    """Seconds, the median after one run to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def pictures(*shape: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, side, side, 3), np.uint8)


def write_model(folder: Path, preset: str, side: int) -> None:
    """A model with random weights, and its bundle without default contexts."""
    import torch

    from lavin_dit.config import SamplingConfig
    from lavin_dit.dit.j_dit import JDit
    from lavin_dit.export.bundle import Model, gather_facts, write_table
    from lavin_dit.export.graphs import export_graph, graphs_of
    from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS
    from lavin_dit.vae.st_vae import STVae
    from lavin_dit.weights import LatentStatistics, TrainedVae, load_dit, load_vae, save_dit, save_vae

    generator = torch.Generator().manual_seed(0)
    vae, dit = STVae(VAE_PRESETS[preset]), JDit(DIT_PRESETS[preset])
    vae.initialise(generator)
    dit.initialise(generator)
    for name in ("vae", "dit"):
        (folder / name).mkdir()
    save_vae(folder / "vae", TrainedVae(vae, LatentStatistics(0.0, 1.0), side))
    save_dit(folder / "dit", dit)

    sampling = SamplingConfig(num_points=NUM_POINTS, guidance_scale=1.0, num_pairs=NUM_PAIRS)
    model = Model(load_vae(folder / "vae"), load_dit(folder / "dit"), sampling)
    for graph in graphs_of(model.vae, model.dit):
        started = time.perf_counter()
        export_graph(graph, folder)
        print(f"exported {graph.name} in {time.perf_counter() - started:.1f} s", flush=True)
    write_table(folder, model)
    (folder / "bundle.json").write_text(json.dumps(gather_facts(model, [], metrics={}, lineage={})))


def measure_torch(folder: Path, batch: int, threads: int, repeats: int) -> dict[str, float]:
    """Seconds of each part, and of all of a prediction."""
    import torch

    from lavin_dit.config import SamplingConfig
    from lavin_dit.dit.j_dit import TimeTable
    from lavin_dit.inference import decode_images, encode_images, predict, to_model
    from lavin_dit.weights import load_dit, load_vae

    torch.set_num_threads(threads)
    vae, dit = load_vae(folder / "vae"), load_dit(folder / "dit")
    images = torch.stack([to_model(image) for image in pictures(batch, side=vae.resolution)])
    clips = images[:, :, None]
    context = clips[:, None].expand(-1, NUM_PAIRS, -1, -1, -1, -1)
    sampling = SamplingConfig(num_points=NUM_POINTS, guidance_scale=1.0, num_pairs=NUM_PAIRS)
    with torch.inference_mode():
        latents = encode_images(vae, images)
        answer, prompt = latents[:, :, None], latents[:, :, None].expand(-1, -1, 2 * NUM_PAIRS + 1, -1, -1)
        table = dit.time_table(torch.tensor([0.3]))
        row = TimeTable(table.blocks, table.final)
        everything = {
            "vae_encoder": lambda: encode_images(vae, images),
            "dit_velocity": lambda: dit.forward_tabled(answer, prompt, row),
            "vae_decoder": lambda: decode_images(vae, latents),
            "prediction": lambda: predict(
                vae, dit, context_inputs=context, context_targets=context, queries=clips, noise=answer, sampling=sampling
            ),
        }
        return {name: measure(work, repeats=repeats) for name, work in everything.items()}


def measure_onnxruntime(folder: Path, batch: int, threads: int, repeats: int) -> dict[str, float]:
    """Seconds of each part, and of all of a prediction."""
    import onnxruntime

    from lavin_dit.export.runtime import Bundle

    bundle = Bundle.open(folder, verify=False, num_threads=threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    side, random = bundle.resolution, np.random.default_rng(0)
    sizes = {"b": batch, "h": side, "w": side, "y": side // 8, "x": side // 8, "f": 2 * NUM_PAIRS + 1, "rows": 1}

    def runner(name: str) -> Callable[[], object]:
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
        ports = bundle.facts["graphs"][name]["inputs"]
        feeds = {key: random.standard_normal([sizes.get(n, n) for n in port["shape"]], np.float32) for key, port in ports.items()}
        return lambda: session.run(None, feeds)

    queries, pairs = pictures(batch, side=side), pictures(batch, NUM_PAIRS, side=side)
    seconds = {name: measure(runner(name), repeats=repeats) for name in bundle.facts["graphs"]}
    return {**seconds, "prediction": measure(lambda: bundle.predict(queries, pairs, pairs), repeats=repeats)}


def compare(options: argparse.Namespace) -> None:
    """Prints a table of milliseconds and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, options.preset, options.side)
        seconds = {}
        for which in SIDES:
            command = [sys.executable, __file__, "--measure", which, "--folder", name]
            command += [f"--{key}={getattr(options, key)}" for key in ("batch", "threads", "repeats")]
            seconds[which] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{options.preset}, {options.side} px, batch {options.batch}, {NUM_PAIRS} pairs, {NUM_POINTS} points, {options.threads} threads")
    print(f"{'':14}{'torch ms':>12}{'ort ms':>12}{'ratio':>8}")
    for name, eager in seconds["torch"].items():
        other = seconds["onnxruntime"][name]
        print(f"{name:14}{1e3 * eager:12.1f}{1e3 * other:12.1f}{eager / other:8.2f}")


def main() -> None:
    """Reads the command line; `--measure` is how it calls itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="laptop", help="of both networks (default: laptop)")
    parser.add_argument("--side", type=int, default=64, help="pixels a side (default: 64)")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is None:
        compare(options)
        return
    work = measure_torch if options.measure == "torch" else measure_onnxruntime
    print(json.dumps(work(options.folder, options.batch, options.threads, options.repeats)))


if __name__ == "__main__":
    main()
