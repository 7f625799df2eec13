import pytest
import torch

from tld_model.quantize import Quantization, clipped_fraction, dequantize, quantize


@pytest.mark.parametrize("clip", [1.0, 4.0, 7.5])
def test_the_error_stays_within_half_a_level_and_has_no_bias(clip: float) -> None:
    quantization = Quantization(clip)
    latents = torch.empty(100_000).uniform_(-clip, clip, generator=torch.Generator().manual_seed(0))
    error = dequantize(quantize(latents, quantization), quantization) - latents
    assert error.abs().max().item() <= quantization.scale / 2 * 1.0001
    assert abs(error.mean().item()) < quantization.scale / 100


def test_zero_is_exact_and_what_is_too_large_becomes_the_clip() -> None:
    quantization = Quantization(4.0)
    latents = torch.tensor([0.0, 100.0, -100.0])
    assert dequantize(quantize(latents, quantization), quantization).tolist() == pytest.approx([0.0, 4.0, -4.0])
    assert clipped_fraction(latents[None], quantization).tolist() == pytest.approx([2 / 3])
