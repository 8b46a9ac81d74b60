"""What telemetry costs a training step: `Telemetry.step` with all its metrics, beside one step of the laptop J-DiT in the same process.

A row and a log line come every ten steps, and Prometheus asks once a second, far more often than it would.
"""

import argparse
import logging
import os
import socket
import statistics
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import torch
from torch import nn

from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import DIT_PRESETS, LATENT_CHANNELS
from lavin_dit.training.exporter import PORT_VARIABLE
from lavin_dit.training.processes import Processes
from lavin_dit.training.step_report import StepReport
from lavin_dit.training.telemetry import Telemetry

BATCH, NUM_PAIRS, LATENT_SIDE, LOG_EVERY_STEPS = 16, 2, 8, 10
TASKS, TIMES = (tuple(f"{kind}{index}" for index in range(10)) for kind in ("task", "time"))


class Training:
    """Real steps of the laptop J-DiT."""

    def __init__(self) -> None:
        self.dit = JDit(DIT_PRESETS["laptop"])
        self.dit.initialise(torch.Generator().manual_seed(0))
        self.optimizer = torch.optim.AdamW(self.dit.parameters(), fused=True)
        self.answer = torch.randn(BATCH, LATENT_CHANNELS, 1, LATENT_SIDE, LATENT_SIDE)
        self.prompt = torch.randn(BATCH, LATENT_CHANNELS, 2 * NUM_PAIRS + 1, LATENT_SIDE, LATENT_SIDE)
        self.times = torch.rand(BATCH)

    def step(self, number: int) -> StepReport:
        started = time.perf_counter()
        loss = self.dit(self.answer, self.prompt, self.times).square().mean()
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.dit.parameters(), 1.0))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        losses = dict.fromkeys(("loss", "squared", "absolute"), float(loss.detach()))
        seconds = time.perf_counter() - started
        return StepReport(number, losses, norm, 1e-3, BATCH, BATCH * 96, 1e11, 0.001, seconds, "learnt")


def told(telemetry: Telemetry, report: StepReport) -> tuple[float, float]:
    """Seconds that telemetry took of the training thread: by the clock, and of its processor."""
    started, started_cpu = time.perf_counter(), time.thread_time()
    telemetry.step(report)
    if report.step % LOG_EVERY_STEPS == 0:
        telemetry.buckets(report.step, {"task": dict.fromkeys(TASKS, 0.1), "time": dict.fromkeys(TIMES, 0.2)})
    return time.perf_counter() - started, time.thread_time() - started_cpu


def keep_asking(port: int, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            answer.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    steps = parser.parse_args().steps
    logging.basicConfig(level=logging.INFO, filename=os.devnull)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ[PORT_VARIABLE] = str(port)
    training, stop = Training(), threading.Event()
    with (
        tempfile.TemporaryDirectory() as folder,
        Telemetry("dit", Processes(0, 1, torch.device("cpu")), Path(folder), resume_at=0, peak_flops=1e12) as telemetry,
    ):
        asking = threading.Thread(target=keep_asking, args=(port, stop))
        asking.start()
        reports, costs = [], []
        for number in range(1, steps + 1):
            reports.append(training.step(number))
            costs.append(told(telemetry, reports[-1]))
        stop.set()
        asking.join()
    step_s = statistics.median(report.step_s for report in reports)
    wall_s, cpu_s = (statistics.fmean(seconds) for seconds in zip(*costs, strict=True))
    print(
        f"J-DiT laptop step {step_s * 1e3:.1f} ms   telemetry {wall_s * 1e6:.0f} us a step by the clock ({wall_s / step_s:.3%}), "
        f"{cpu_s * 1e6:.0f} us of the processor ({cpu_s / step_s:.3%}), rows and log lines included"
    )


if __name__ == "__main__":
    main()
