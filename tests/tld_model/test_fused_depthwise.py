"""The fused kernel, without a GPU: its numbers in Triton's interpreter, and that it compiles for
GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY
from tests.support.interpreter import needs_triton, run_interpreted

# The steps of a launch before the GPU is needed, in triton's own functions.
COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature
from tld_model import fused_depthwise as module

def vector_loads(kernel, target, arguments):
    "How often a kernel loads a vector. It must add nothing in an order that changes."
    backend = make_backend(target)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(*arguments)
    options, *source = kernel._pack_args(backend, {}, bound, specialization, options)
    compiled = triton.compile(ASTSource(kernel, *source), target=target, options=options.__dict__)
    ptx = compiled.asm["ptx"]
    assert "atom." not in ptx and "red.global" not in ptx
    return ptx.count("ld.global.v4")

x, filters = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1)
for capability, sizes in ((80, (32, 4, 4, 64)), (90, (15, 1, 15, 7))):
    target = GPUTarget("cuda", capability, 32)
    print(
        vector_loads(module._forward_kernel, target, (x, filters, x, sizes)),
        vector_loads(module._gelu_backward_kernel, target, (x, filters, x, x, sizes)),
        vector_loads(module._convolution_backward_kernel, target, (x, filters, x, x, filters, sizes)),
    )
"""


@needs_triton
@pytest.mark.slow
def test_the_kernels_agree_with_the_layers(tmp_path: Path) -> None:
    run_interpreted("tests/tld_model/interpreted_fused_depthwise.py", tmp_path)


@needs_triton
def test_the_kernels_compile_and_load_vectors_where_channels_are_aligned(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=REPOSITORY,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    aligned, odd = (list(map(int, line.split())) for line in done.stdout.splitlines())
    assert min(aligned) > 9
    assert odd == [0, 0, 0]


def test_the_module_of_the_layers_needs_no_triton() -> None:
    code = "import sys; import tld_model.denoiser; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
