import math
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from lavin_dit.dit.j_dit import JDit, TimeTable
from lavin_dit.export.format import DIT_VELOCITY, GRAPHS, VAE_DECODER, VAE_ENCODER, graph_file
from lavin_dit.export.graphs import Graph, export_graph, graphs_of
from lavin_dit.inference import decode_images, encode_images
from lavin_dit.weights import TrainedVae, load_dit, load_vae

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def vae(export_inputs: dict[str, Path]) -> TrainedVae:
    return load_vae(export_inputs["vae"])


@pytest.fixture(scope="module")
def dit(export_inputs: dict[str, Path]) -> JDit:
    return load_dit(export_inputs["dit"])


@pytest.fixture(scope="module")
def sessions(exported_bundle: Path) -> dict[str, onnxruntime.InferenceSession]:
    return {name: load(exported_bundle / graph_file(name)) for name in GRAPHS}


def load(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, **inputs: Tensor) -> Tensor:
    (output,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(output)


def relative_error(value: Tensor, reference: Tensor) -> float:
    assert value.shape == reference.shape
    assert reference.norm() > 0
    return float((value - reference).norm() / reference.norm())


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (3, 16, 80)])
def test_the_encoder_equals_torch(vae: TrainedVae, sessions: dict, batch: int, height: int, width: int) -> None:
    images = normal(batch, 3, height, width)
    assert relative_error(run(sessions[VAE_ENCODER], images=images), encode_images(vae, images)) < TOLERANCE


@pytest.mark.parametrize(("batch", "rows", "columns"), [(1, 4, 4), (3, 2, 10)])
def test_the_decoder_equals_torch(vae: TrainedVae, sessions: dict, batch: int, rows: int, columns: int) -> None:
    latents = normal(batch, 16, rows, columns)
    assert relative_error(run(sessions[VAE_DECODER], latents=latents), decode_images(vae, latents)) < TOLERANCE


@pytest.mark.parametrize(("batch", "num_pairs", "rows", "columns"), [(1, 1, 4, 4), (3, 2, 4, 4), (2, 4, 2, 10)])
def test_the_velocity_equals_torch(dit: JDit, sessions: dict, batch: int, num_pairs: int, rows: int, columns: int) -> None:
    answer, prompt = normal(batch, 16, 1, rows, columns), normal(batch, 16, 2 * num_pairs + 1, rows, columns)
    table = dit.time_table(torch.tensor([0.3]))
    velocity = run(sessions[DIT_VELOCITY], answer=answer, prompt=prompt, blocks=table.blocks, final=table.final)
    assert relative_error(velocity, dit(answer, prompt, torch.full((batch,), 0.3))) < TOLERANCE


def test_the_velocity_takes_a_time_a_sample(dit: JDit, sessions: dict) -> None:
    answer, prompt, times = normal(3, 16, 1, 4, 4), normal(3, 16, 3, 4, 4), torch.tensor([0.0, 0.2, 0.9])
    table = dit.time_table(times)
    velocity = run(sessions[DIT_VELOCITY], answer=answer, prompt=prompt, blocks=table.blocks, final=table.final)
    assert relative_error(velocity, dit(answer, prompt, times)) < TOLERANCE
    shuffled = TimeTable(table.blocks.flip(0), table.final.flip(0))
    assert relative_error(velocity, dit.forward_tabled(answer, prompt, shuffled)) > 10 * TOLERANCE


def test_the_velocity_holds_no_weight_that_sees_only_the_time(dit: JDit, exported_bundle: Path) -> None:
    graph = onnx.load(exported_bundle / graph_file(DIT_VELOCITY)).graph
    held = sum(math.prod(weight.dims) for weight in graph.initializer if weight.data_type == onnx.TensorProto.FLOAT)
    weights = [weight.detach().requires_grad_() for weight in dit.parameters()]
    table = dit.time_table(torch.tensor([0.3]))
    inputs = (normal(1, 16, 1, 4, 4), normal(1, 16, 3, 4, 4), TimeTable(table.blocks.detach(), table.final.detach()))
    velocity = torch.func.functional_call(Tabled(dit), dict(zip(names_of(dit), weights, strict=True)), inputs)
    gradients = torch.autograd.grad(velocity.sum(), weights, allow_unused=True)
    needed = sum(weight.numel() for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None)
    assert needed <= held < needed + 32  # and a few constants
    assert needed < 0.75 * sum(weight.numel() for weight in weights)


class Tabled(torch.nn.Module):
    def __init__(self, dit: JDit) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, answer: Tensor, prompt: Tensor, table: TimeTable) -> Tensor:
        return self.dit.forward_tabled(answer, prompt, table)


def names_of(dit: JDit) -> list[str]:
    return [f"dit.{name}" for name, _ in dit.named_parameters()]


def test_attention_is_one_node_a_block_with_grouped_heads(dit: JDit, exported_bundle: Path) -> None:
    nodes = [node.op_type for node in onnx.load(exported_bundle / graph_file(DIT_VELOCITY)).graph.node]
    assert nodes.count("Attention") == dit.shape.depth
    assert nodes.count("Softmax") == 0
    assert "RMSNormalization" in nodes
    assert "ReduceMean" not in nodes


def test_kernels_are_summed_over_time_once_at_export(vae: TrainedVae, exported_bundle: Path) -> None:
    graph = onnx.load(exported_bundle / graph_file(VAE_ENCODER)).graph
    assert "ReduceSum" not in {node.op_type for node in graph.node}
    assert all(len(weight.dims) < 5 for weight in graph.initializer)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_names_its_ports_and_sizes_as_it_says(vae: TrainedVae, dit: JDit, exported_bundle: Path, name: str) -> None:
    model = onnx.load(exported_bundle / graph_file(name))
    (graph,) = (graph for graph in graphs_of(vae, dit) if graph.name == name)
    for found, said in ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs)):
        assert {port.name: dimensions(port) for port in found} == dict(said)
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 23}


def dimensions(port: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(size.dim_param or size.dim_value for size in port.type.tensor_type.shape.dim)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_holds_no_paths_of_the_machine_that_made_it(exported_bundle: Path, name: str) -> None:
    content = (exported_bundle / graph_file(name)).read_bytes()
    assert b".py" not in content
    assert str(Path(torch.__file__).parent).encode() not in content


def test_large_weights_go_into_a_file_beside_the_graph(tmp_path: Path) -> None:
    linear = torch.nn.Linear(64, 64)
    graph = Graph("linear", linear, {"x": ("b", 64)}, {"y": ("b", 64)})
    export_graph(graph, tmp_path, max_inline_bytes=64 * 64)
    assert (tmp_path / "linear.onnx.data").stat().st_size >= 4 * 64 * 64 > (tmp_path / "linear.onnx").stat().st_size
    x = normal(3, 64)
    torch.testing.assert_close(run(load(tmp_path / "linear.onnx"), x=x), linear(x))
