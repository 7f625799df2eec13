"""The fused kernel against torch's layers, in Triton's interpreter. `test_fused_depthwise.py` runs
these."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tld_model import fused_depthwise
from tld_model.fused_depthwise import depthwise_gelu
from tld_model.layers import FeedForward

SHAPES = [  # images, rows, tokens in a row, channels
    (2, 4, 4, 64),
    (1, 3, 5, 7),
    (3, 7, 2, 70),
    (1, 1, 1, 1),
]
NAMES = ("out", "of_x", "of_weight", "of_bias")


@dataclass(frozen=True)
class Case:
    x: Tensor  # [b, n, c]
    weight: Tensor  # [c, 1, 3, 3]
    bias: Tensor  # [c]
    gradient: Tensor  # [b, n, c]
    rows: int

    def to(self, dtype: torch.dtype) -> Case:
        x, weight, bias, gradient = (
            tensor.to(dtype) for tensor in (self.x, self.weight, self.bias, self.gradient)
        )
        return Case(x, weight, bias, gradient, self.rows)


def case_of(shape: tuple[int, int, int, int]) -> Case:
    b, r, s, c = shape
    generator = torch.Generator().manual_seed(0)
    sizes = ((b, r * s, c), (c, 1, 3, 3), (c,), (b, r * s, c))
    x, weight, bias, gradient = (torch.randn(size, generator=generator) for size in sizes)
    return Case(x, weight, bias, gradient, r)


def plain(x: Tensor, weight: Tensor, bias: Tensor, rows: int) -> Tensor:
    image = x.transpose(1, 2).unflatten(2, (rows, -1))
    out = F.conv2d(image, weight, bias, padding=1, groups=len(weight))
    return F.gelu(out).flatten(2).transpose(1, 2)


def results(case: Case, way: object = depthwise_gelu) -> dict[str, Tensor]:
    assert callable(way)
    leaves = [leaf.clone().requires_grad_() for leaf in (case.x, case.weight, case.bias)]
    out = way(*leaves, case.rows)
    gradients = torch.autograd.grad(out, leaves, case.gradient)
    return dict(zip(NAMES, (out.detach(), *gradients), strict=True))


def error(result: Tensor, exact: Tensor) -> float:
    return float((result.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_those_of_the_layers(shape: tuple[int, int, int, int]) -> None:
    case = case_of(shape)
    exact = results(case.to(torch.float64), plain)
    for name, result in results(case).items():
        assert result.shape == exact[name].shape
        assert result.dtype == torch.float32
        assert error(result, exact[name]) < 1e-5, name


# The interpreter cuts the digits that bf16 lacks, where a GPU rounds, and a CPU with bf16
# instructions rounds less often in the layers.
@pytest.mark.parametrize(("dtype", "factor"), [(torch.bfloat16, 3.0), (torch.float16, 1.0)])
def test_half_precision_is_as_exact_as_the_layers(dtype: torch.dtype, factor: float) -> None:
    case = case_of((2, 4, 6, 70)).to(dtype)
    exact = results(case.to(torch.float64), plain)
    layers = results(case, plain)
    for name, result in results(case).items():
        assert result.dtype == dtype
        assert error(result, exact[name]) < factor * error(layers[name], exact[name]), name


def test_equal_inputs_give_equal_bits() -> None:
    case = case_of((2, 4, 6, 70)).to(torch.bfloat16)
    first, second = results(case), results(case)
    assert all(torch.equal(first[name], second[name]) for name in NAMES)


@pytest.mark.parametrize("parts", [1, 2, 4])  # of five tiles: two parts are of three, four of two
def test_a_part_has_several_tiles_or_none(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of((2, 5, 8, 3))
    exact = results(case.to(torch.float64), plain)
    monkeypatch.setattr(fused_depthwise, "_PARTS", parts)
    for name, result in results(case).items():
        assert error(result, exact[name]) < 1e-5, name


def test_tensors_that_are_views_are_read_as_they_are() -> None:
    case = case_of((2, 3, 5, 7))
    expected = results(case)
    turned = [
        tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in (case.x, case.gradient)
    ]
    views = Case(turned[0], case.weight, case.bias, turned[1], case.rows)
    assert not views.x.is_contiguous()
    assert all(torch.equal(result, expected[name]) for name, result in results(views).items())


def test_autocast_gives_its_type_and_gradients_of_the_weights_type() -> None:
    case = case_of((2, 3, 5, 7))
    leaves = [leaf.clone().requires_grad_() for leaf in (case.x, case.weight, case.bias)]
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise_gelu(leaves[0], leaves[1], leaves[2], case.rows)
    gradients = torch.autograd.grad(out, leaves, case.gradient.to(out.dtype))
    assert out.dtype == torch.bfloat16
    assert [gradient.dtype for gradient in gradients] == [torch.float32] * 3
    exact = results(case.to(torch.float64), plain)
    for name, result in zip(NAMES, (out.detach(), *gradients), strict=True):
        assert error(result, exact[name]) < 0.02, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_layer_calls_the_kernels_in_one_graph(precision: str) -> None:
    layer, x = FeedForward(8, 2), torch.randn(2, 15, 8)
    expected = layer(x, 3)
    layer.fused = depthwise_gelu
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)

    limit = 1e-5 if precision == "fp32" else 0.02

    def gradients(way: object) -> list[Tensor]:
        assert callable(way)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = way(x, 3)
        assert error(out.detach(), expected.detach().double()) < limit
        return [out.detach(), *torch.autograd.grad(out.float().sum(), list(layer.parameters()))]

    for eager, result in zip(gradients(layer), gradients(compiled), strict=True):
        assert torch.equal(eager, result)


def test_the_operators_are_what_torch_expects_of_operators() -> None:
    case = case_of((1, 2, 3, 7))
    filters = torch.cat([case.weight.flatten(1).t(), case.bias[None]])
    torch.library.opcheck(
        torch.ops.tld.depthwise_gelu.default,
        (case.x.requires_grad_(), filters.requires_grad_(), case.rows),
    )
    torch.library.opcheck(
        torch.ops.tld.depthwise_gelu_backward.default,
        (case.gradient, case.x.detach(), filters.detach(), case.rows),
        test_utils=("test_schema", "test_faketensor"),
    )
