import pytest
import torch

from tld_model.quantize import Quantization, clipped_fraction, dequantize, quantize


@pytest.mark.parametrize("clip", [1.0, 4.0, 7.5])
def test_the_error_stays_within_half_a_level_and_has_no_bias(clip: float) -> None:
    quantization = Quantization(clip)
    assert quantization.bound == pytest.approx(clip / 254)
    latents = torch.empty(100_000).uniform_(-clip, clip, generator=torch.Generator().manual_seed(0))
    error = dequantize(quantize(latents, quantization), quantization) - latents
    assert error.abs().max().item() <= quantization.bound * 1.0001
    assert abs(error.mean().item()) < quantization.bound / 50


def test_zero_is_exact_and_what_is_too_large_becomes_the_clip() -> None:
    quantization = Quantization(4.0)
    latents = torch.tensor([0.0, 100.0, -100.0])
    assert dequantize(quantize(latents, quantization), quantization).tolist() == pytest.approx(
        [0.0, 4.0, -4.0]
    )
    assert clipped_fraction(latents[None], quantization).tolist() == pytest.approx([2 / 3])


def test_a_quiet_channel_with_a_range_of_its_own_loses_less() -> None:
    spread = torch.tensor([2.0, 0.2]).view(2, 1, 1)
    latents = torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * spread

    def error_of_the_quiet_one(quantization: Quantization) -> float:
        return (
            (dequantize(quantize(latents, quantization), quantization) - latents)[:, 1]
            .square()
            .mean()
            .sqrt()
            .item()
        )

    assert error_of_the_quiet_one(Quantization((8.0, 0.8))) < 0.2 * error_of_the_quiet_one(
        Quantization(8.0)
    )
    assert clipped_fraction(latents, Quantization((20.0, 1e-6))).tolist() == pytest.approx(
        [0.5] * 64
    )


def test_float16_keeps_eleven_bits_and_clips_nothing() -> None:
    quantization = Quantization(4.0, "float16")
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 10
    stored = quantize(latents, quantization)
    assert stored.dtype == torch.float16
    torch.testing.assert_close(dequantize(stored, quantization), latents, rtol=2**-11, atol=1e-6)
    assert clipped_fraction(latents, quantization).max() == 0
    assert quantization.bound == 4 * 2**-11
