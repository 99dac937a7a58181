"""What torch says of a GPU that it can't use, in one line that says what to do. The messages are torch 2.13's."""

from __future__ import annotations

import warnings

import pytest
import torch

from tui_llm.common.errors import UserError
from tui_llm.llm.model import device, device_names, gpu_problems

OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by "
    "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver. (Triggered "
    "internally at /pytorch/c10/cuda/CUDAFunctions.cpp:109.)"
)
BUSY = "CUDA initialization: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling it?"


def pretend(monkeypatch: pytest.MonkeyPatch, message: str, cuda: str | None = "13.0") -> None:
    def is_available() -> bool:
        if message:
            warnings.warn(message, stacklevel=1)
        return False

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)


@pytest.mark.parametrize(
    ("message", "cuda", "told"),
    [
        (
            OLD_DRIVER,
            "13.0",
            "the NVIDIA driver is too old (it can do CUDA 11.4) for this torch (CUDA 13.0); update it",
        ),
        (BUSY, "13.0", "Unexpected error from cudaGetDeviceCount()"),
        ("", "13.0", "torch finds no GPU; see nvidia-smi"),
        ("", None, "is built without CUDA; see docs/install.md"),
    ],
    ids=["old-driver", "other", "none", "cpu-build"],
)
def test_why_there_is_no_cuda(message: str, cuda: str | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, message, cuda)
    with pytest.raises(UserError) as error, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        device.choose("cuda")
    assert told in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.filterwarnings("ignore:CUDA initialization")
def test_a_gpu_that_auto_does_not_use_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, OLD_DRIVER)
    cpu = torch.device("cpu")
    monkeypatch.setattr(device, "is_cpu", lambda _: False)  # a driver's files are there
    assert device.note("auto", cpu, "auto").startswith("on the CPU: the NVIDIA driver is too old")
    assert device.note("cpu", cpu, "auto") == ""
    monkeypatch.setattr(device, "is_cpu", device_names.is_cpu)


def test_a_gpu_without_bf16_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    gpu = torch.device("cuda")
    assert not device.trains_in_bfloat16(gpu)
    assert device.note("auto", gpu, "auto") == "Tesla T4 has no bf16: products are in fp32. "
    assert "emulates it" in device.note("cuda", gpu, "bf16") and device.note("cuda", gpu, "fp32") == ""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert device.trains_in_bfloat16(gpu) and device.note("auto", gpu, "auto") == ""


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be asynchronously …", "another process"),
        ("CUDA error: no kernel image is available for execution on the device\nFor debugging …", "built for it"),
        ("CUDA error: out of memory\nCUDA kernel errors …", "its memory is full"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "its memory is full"),
        ("CUDA error: unspecified launch failure", "it was lost or reset"),
        ("CUDA error: uncorrectable ECC error encountered", "reset or replace it"),
    ],
)  # fmt: skip
def test_a_gpus_error_is_one_line_with_advice(message: str, advice: str) -> None:
    for error in (RuntimeError(message), torch.AcceleratorError(message)):
        told = gpu_problems.of_error(error)
        assert told is not None and advice in told and "\n" not in told
        assert told.startswith("the GPU stopped working (CUDA error: ")


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2"), ValueError("CUDA error: no"), torch.OutOfMemoryError("CUDA out of memory")])  # fmt: skip
def test_other_errors_are_not_the_gpus(error: Exception) -> None:
    assert gpu_problems.of_error(error) is None
