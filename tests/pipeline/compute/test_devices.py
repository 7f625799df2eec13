"""Devices that are not there, GPUs that idle or are full, and when training is compiled."""

from __future__ import annotations

import pytest
import torch

from pipeline.compute import devices
from pipeline.compute.devices import (
    DeviceError,
    GpuFailure,
    advice_on_memory,
    choose_device,
    compiles,
    idle_gpus,
    use_device,
)
from pipeline.compute.hardware import c_compiler, usable_cores
from pipeline.config.train import TrainConfig


@pytest.mark.parametrize("device", ["mps", "cuda:99", "tpu", "cpu:1"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(DeviceError, match=f"no device '{device}' on this machine") as caught:
        choose_device(device)
    assert ("Apple's GPUs (mps) are not supported" in str(caught.value)) == (device == "mps")


def test_a_gpu_multiplies_in_tf32_and_attends_without_plans_for_each_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a pretended GPU. What is set for it has no effect on a CPU."""
    precision, plans = torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        assert use_device("cpu") == "cpu"
        assert torch.backends.cuda.cudnn_sdp_enabled()
        assert use_device("auto") == "cuda"
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cuda.enable_cudnn_sdp(plans)


def test_a_gpu_without_memory_left_is_reported_with_advice() -> None:
    with pytest.raises(GpuFailure) as caught, advice_on_memory("Lower encode.batch_size"):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8 GiB"
        )
    assert str(caught.value) == "CUDA out of memory.\nLower encode.batch_size"
    with pytest.raises(KeyError), advice_on_memory("nothing"):
        raise KeyError("something else")


def test_gpus_that_a_training_leaves_idle_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    warning = idle_gpus("cuda", 1)
    assert warning is not None
    assert "1 of the 4 GPUs" in warning
    assert "train.launch.processes=4" in warning
    assert idle_gpus("cuda", 4) is None
    assert idle_gpus("cpu", 1) is None


def test_training_compiles_by_itself_only_where_triton_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    for capability, compiler, expected in (
        ((9, 0), "gcc", True),
        ((7, 0), "clang", True),
        ((6, 1), "gcc", False),
        ((9, 0), None, False),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        monkeypatch.setattr(devices, "c_compiler", lambda c=compiler: c)
        assert compiles(TrainConfig(steps=1), "cuda:0") is expected
        assert compiles(TrainConfig(steps=1, deterministic=True), "cuda:0") is False
    assert compiles(TrainConfig(steps=1), "cpu") is False
    assert compiles(TrainConfig(steps=1, compile=True), "cpu") is True
    assert compiles(TrainConfig(steps=1, compile=False), "cuda") is False


def test_a_compiler_is_the_one_of_the_environment_or_a_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert c_compiler() is None
    monkeypatch.setenv("CC", "python3")
    assert c_compiler() == "python3"
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "/nowhere")
    assert c_compiler() is None


def test_cores_are_counted_where_no_affinity_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() >= 1
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert usable_cores() >= 1
