"""The three ONNX graphs of a bundle: ST-VAE encoder, J-DiT velocity, ST-VAE decoder.

Dynamic sizes are named as everywhere in this package: `b` images, `f` prompt frames, `h w` pixels (multiples of 16) and `y x` latents;
`rows` is 1, or b where every sample has a time of its own.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnxscript import ir
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from torch import Tensor, nn
from torch.export import Dim

from lavin_dit.dit.j_dit import JDit, TimeTable
from lavin_dit.export.format import DIT_VELOCITY, VAE_DECODER, VAE_ENCODER, graph_file
from lavin_dit.inference import decode_images, encode_images
from lavin_dit.presets import LATENT_CHANNELS, PATCH_SIZE, PIXEL_CHANNELS, SPATIAL_FACTOR
from lavin_dit.weights import TrainedVae

OPSET = 23
DTYPE = "float32"
MAX_INLINE_BYTES = 3 * 2**29
"""Larger weights go beside the graph, into `<graph>.data`: a protobuf file ends at 2 GiB."""

ROWS = "rows"
UNLIMITED = 2**62
SILENT_LOGGER = "torch.onnx._internal.exporter._registration"

Shape = tuple[int | str, ...]

_BATCH, _FRAMES = Dim("batch"), Dim("frames")
_TOKEN_ROWS, _TOKEN_COLUMNS = Dim("token_rows"), Dim("token_columns")
_PIXELS_A_TOKEN = SPATIAL_FACTOR * PATCH_SIZE
_DYNAMIC = {
    "b": _BATCH,
    "f": _FRAMES,
    "h": _PIXELS_A_TOKEN * _TOKEN_ROWS,
    "w": _PIXELS_A_TOKEN * _TOKEN_COLUMNS,
    "y": PATCH_SIZE * _TOKEN_ROWS,
    "x": PATCH_SIZE * _TOKEN_COLUMNS,
}
# Distinct, and none of them 1: the exporter bakes ones in. `rows` is baked in on purpose, see `_free_rows`.
_TRACED = {"b": 2, "f": 5, "h": 2 * _PIXELS_A_TOKEN, "w": 3 * _PIXELS_A_TOKEN, "y": 2 * PATCH_SIZE, "x": 3 * PATCH_SIZE, ROWS: 1}


@dataclass(frozen=True)
class Graph:
    """A graph to export: a module and the shapes of its inputs and of its one output; a name in a shape is a dynamic size."""

    name: str
    module: nn.Module
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]

    @property
    def facts(self) -> dict[str, object]:
        """What bundle.json says of it."""
        ports = {"inputs": self.inputs, "outputs": self.outputs}
        described = {key: {name: {"dtype": DTYPE, "shape": shape} for name, shape in value.items()} for key, value in ports.items()}
        return {"file": graph_file(self.name), **described}


class _Encoder(nn.Module):
    def __init__(self, vae: TrainedVae) -> None:
        super().__init__()
        self.vae, self.weights = vae, vae.module

    def forward(self, images: Tensor) -> Tensor:
        return encode_images(self.vae, images)


class _Velocity(nn.Module):
    def __init__(self, dit: JDit) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, answer: Tensor, prompt: Tensor, blocks: Tensor, final: Tensor) -> Tensor:
        return self.dit.forward_tabled(answer, prompt, TimeTable(blocks, final))


class _Decoder(nn.Module):
    def __init__(self, vae: TrainedVae) -> None:
        super().__init__()
        self.vae, self.weights = vae, vae.module

    def forward(self, latents: Tensor) -> Tensor:
        return decode_images(self.vae, latents)


def graphs_of(vae: TrainedVae, dit: JDit) -> tuple[Graph, Graph, Graph]:
    """The graphs of a model. Latents are normalised on both sides: the statistics are inside."""
    pixels: Shape = ("b", PIXEL_CHANNELS, "h", "w")
    latents: Shape = ("b", LATENT_CHANNELS, "y", "x")
    answer: Shape = ("b", LATENT_CHANNELS, 1, "y", "x")
    shape = dit.shape
    velocity_inputs: dict[str, Shape] = {
        "answer": answer,
        "prompt": ("b", LATENT_CHANNELS, "f", "y", "x"),
        "blocks": (ROWS, shape.depth, 8 * shape.dim),
        "final": (ROWS, shape.dim),
    }
    return (
        Graph(VAE_ENCODER, _Encoder(vae), {"images": pixels}, {"latents": latents}),
        Graph(DIT_VELOCITY, _Velocity(dit), velocity_inputs, {"velocity": answer}),
        Graph(VAE_DECODER, _Decoder(vae), {"latents": latents}, {"images": pixels}),
    )


def export_graph(graph: Graph, folder: Path, *, max_inline_bytes: int = MAX_INLINE_BYTES) -> None:
    """Writes `<name>.onnx` into a folder and checks it. Equal weights give equal bytes.

    Weights over `max_inline_bytes` go into `<name>.onnx.data`; the two files belong together.
    """
    model = _trace(graph)
    # Sums of kernels over time, transposed weights: what does not depend on the input is worked out here, once.
    fold_constants(model, input_size_limit=UNLIMITED, output_size_limit=UNLIMITED)
    remove_unused_nodes(model)
    _strip(model)
    _name_sizes(model, graph)
    _free_rows(model, graph)
    path = folder / graph_file(graph.name)
    weight_bytes = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    ir.save(model, path, external_data=f"{path.name}.data" if weight_bytes > max_inline_bytes else None)
    onnx.checker.check_model(str(path))


def _trace(graph: Graph) -> ir.Model:
    examples = tuple(torch.zeros([_TRACED[size] if isinstance(size, str) else size for size in shape]) for shape in graph.inputs.values())
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module.eval(),
            examples,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple(_dynamic_sizes(shape) for shape in graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            # Its rewriter takes a quarter of the export's time, and ONNX Runtime runs no faster for it.
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program.model


def _dynamic_sizes(shape: Shape) -> dict[int, object]:
    return {axis: _DYNAMIC[size] for axis, size in enumerate(shape) if isinstance(size, str) and size in _DYNAMIC}


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what the exporter says on every export and nobody can act on; every other warning and error passes."""
    logger = logging.getLogger(SILENT_LOGGER)
    level = logger.level
    # It says that torchvision is not installed: nothing here uses it.
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Inside torch: its own deprecated test for leaves.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated", category=FutureWarning)
            # One size is named in two inputs, on purpose.
            warnings.filterwarnings("ignore", message="# The axis name: .* will not be used", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _strip(model: ir.Model) -> None:
    """Takes out what the exporter notes for itself, such as paths on this machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
    for value in _values(model):
        value.metadata_props.clear()


def _name_sizes(model: ir.Model, graph: Graph) -> None:
    """Gives dynamic sizes their names, wherever a value has them."""
    names = {}
    for value, shape in zip((*model.graph.inputs, *model.graph.outputs), (*graph.inputs.values(), *graph.outputs.values()), strict=True):
        assert value.shape is not None
        names.update({str(traced): name for traced, name in zip(value.shape, shape, strict=True) if isinstance(name, str) and traced != 1})
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([names.get(str(size), size) for size in value.shape])


def _free_rows(model: ir.Model, graph: Graph) -> None:
    """Makes a size that was traced as 1 dynamic, which holds because such inputs are only ever broadcast.

    ONNX Runtime trusts the shapes that a file notes, so those that follow from these inputs alone go.
    """
    free = set()
    for value, shape in zip(model.graph.inputs, graph.inputs.values(), strict=True):
        if ROWS in shape:
            value.shape = ir.Shape(shape)
            free.add(value)
    for node in model.graph:
        varying = {value for value in node.inputs if value is not None and value.const_value is None}
        if varying and varying <= free:
            free.update(node.outputs)
            for value in node.outputs:
                value.shape = None


def _values(model: ir.Model) -> list[ir.Value]:
    made = [value for node in model.graph for value in node.outputs]
    return [*model.graph.inputs, *model.graph.initializers.values(), *made]
