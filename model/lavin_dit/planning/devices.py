"""What devices can do, by their makers' data sheets: what plans and MFU are reckoned with. Imports torch only to look at one."""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from lavin_dit.errors import InputError

if TYPE_CHECKING:
    import torch

CPU = "cpu"
GIGA, TERA = 1e9, 1e12
PEAK_SIDE, PEAK_REPEATS, COPIED_NUMBERS = 1024, 3, 2**24
SENT_BYTES = 2**24


@dataclass(frozen=True)
class Device:
    """A device's limits. Units: operations a second without sparsity, bytes a second, bandwidths in each direction."""

    name: str
    memory_gib: float
    """As its driver reports, which is less than the sheet's decimal gigabytes."""
    float32_flops: float
    """Outside of the tensor cores, as torch multiplies float32 by default."""
    bfloat16_flops: float
    """Dense, with float32 accumulation."""
    memory_bandwidth: float
    node_bandwidth: float
    """Of one device's link to the others of its node (NVLink, or PCIe)."""
    network_bandwidth: float
    """Of one device's share of its node's network: the network cards that the maker's own eight-device node has."""
    gpus_per_node: int
    reported_as: str
    """The name that torch.cuda.get_device_name gives, without its maker's."""

    @property
    def is_gpu(self) -> bool:
        return self.name != CPU

    def peak_flops(self, precision: str) -> float:
        """At a precision that `execution.precision` names."""
        return self.bfloat16_flops if precision == "bfloat16" else self.float32_flops


def _device(
    name: str,
    reported_as: str,
    memory_gib: float,
    *,
    float32: float,
    bfloat16: float,
    memory: float,
    node: float,
    network: float,
) -> Device:
    return Device(
        name=name,
        memory_gib=memory_gib,
        float32_flops=float32 * TERA,
        bfloat16_flops=bfloat16 * TERA,
        memory_bandwidth=memory * GIGA,
        node_bandwidth=node * GIGA,
        network_bandwidth=network * GIGA,
        gpus_per_node=8,
        reported_as=reported_as,
    )


# Sources: NVIDIA's data sheets of each product (tensor figures "with sparsity" halved, totals of NVLink and PCIe halved into one direction;
# the GeForce figure is the Ada white paper's for float32 accumulation). The network is that of DGX A100, H100, H200 and B200: one card a
# GPU, of 200, 400, 400 and 400 Gbit/s; a node of eight PCIe cards is taken to share one card of 100 Gbit/s.
DEVICES = {
    device.name: device
    for device in (
        _device("a100-40", "A100-SXM4-40GB", 39.4, float32=19.5, bfloat16=312, memory=1555, node=300, network=25),
        _device("a100-80", "A100-SXM4-80GB", 79.1, float32=19.5, bfloat16=312, memory=2039, node=300, network=25),
        _device("a100-pcie", "A100 80GB PCIe", 79.1, float32=19.5, bfloat16=312, memory=1935, node=32, network=1.5625),
        _device("h100-pcie", "H100 PCIe", 79.1, float32=51.2, bfloat16=756, memory=2000, node=64, network=1.5625),
        _device("h100", "H100 80GB HBM3", 79.1, float32=66.9, bfloat16=989.4, memory=3350, node=450, network=50),
        _device("h200", "H200", 139.8, float32=66.9, bfloat16=989.4, memory=4800, node=450, network=50),
        _device("b200", "B200", 178.3, float32=75, bfloat16=2250, memory=8000, node=900, network=50),
        _device("l4", "L4", 22.0, float32=30.3, bfloat16=121, memory=300, node=32, network=1.5625),
        _device("l40s", "L40S", 44.4, float32=91.6, bfloat16=362, memory=864, node=32, network=1.5625),
        _device("rtx4090", "GeForce RTX 4090", 23.5, float32=82.6, bfloat16=165.2, memory=1008, node=32, network=1.5625),
    )
}


def device_named(name: str) -> Device:
    """A device of the list, or `cpu`, this machine.

    Raises: InputError naming the ones that there are.
    """
    if name == CPU:
        return this_machine()
    if name not in DEVICES:
        raise InputError(f"--gpu {name}: must be one of {', '.join((*DEVICES, CPU))}")
    return DEVICES[name]


def this_machine() -> Device:
    """This machine's CPU and memory: its speed as measured now, by one process; processes beside it share both."""
    import torch

    threads = torch.get_num_threads()
    link = _loopback_bandwidth()
    return Device(
        name=CPU,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        float32_flops=_cpu_peak("float32", threads),
        bfloat16_flops=_cpu_peak("bfloat16", threads),
        memory_bandwidth=_copy_bandwidth(),
        node_bandwidth=link,
        network_bandwidth=link,
        gpus_per_node=1,
        reported_as=CPU,
    )


def known_device(reported: str) -> Device | None:
    """The device whose driver gives this name; None where it is not on the list."""
    return next((device for device in DEVICES.values() if device.reported_as == reported.removeprefix("NVIDIA ")), None)


def device_peak_flops(device: "torch.device", precision: str) -> float | None:
    """What MFU is a share of: a GPU's data sheet, or the speed of a large matrix product on a CPU, measured once (0.1 s).

    None for a GPU that is not on the list.
    """
    import torch

    if device.type == "cpu":
        return _cpu_peak(precision, torch.get_num_threads())
    known = known_device(torch.cuda.get_device_name(device))
    return known.peak_flops(precision) if known else None


def _copy_bandwidth() -> float:
    import torch

    source, target = torch.ones(COPIED_NUMBERS), torch.empty(COPIED_NUMBERS)
    fastest = min(_seconds(lambda: target.copy_(source)) for _ in range(PEAK_REPEATS + 1))
    return 2 * source.nbytes / fastest


def _loopback_bandwidth() -> float:
    """Of a connection from this machine to itself, through which its processes send each other what they have."""
    sent, place = bytes(SENT_BYTES), memoryview(bytearray(SENT_BYTES))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            fastest = min(_seconds(partial(_send, sender, receiver, sent, place)) for _ in range(PEAK_REPEATS + 1))
    return SENT_BYTES / fastest


def _send(sender: socket.socket, receiver: socket.socket, sent: bytes, place: memoryview) -> None:
    sending = threading.Thread(target=sender.sendall, args=(sent,))
    sending.start()
    arrived = 0
    while arrived < len(sent):
        arrived += receiver.recv_into(place[arrived:])
    sending.join()


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@lru_cache
def _cpu_peak(precision: str, _num_threads: int) -> float:
    import torch

    left, right = (torch.ones(PEAK_SIDE, PEAK_SIDE, dtype=getattr(torch, precision)) for _ in range(2))
    fastest = min(_seconds(lambda: torch.mm(left, right)) for _ in range(PEAK_REPEATS + 1))
    return 2 * PEAK_SIDE**3 / fastest
