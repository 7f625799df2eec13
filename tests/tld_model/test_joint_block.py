"""Joint attention against attention that is written out token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tld_model.checkpoint import CheckpointError
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.joint_block import JointAttention
from tld_model.original_layouts import to_layout

TOKENS = DenoiserConfig(
    latent_size=8,
    text="tokens",
    text_dim=16,
    width=64,
    layers=2,
    noise_embed_dim=32,
    blocks="joint",
)


def by_hand(attention: JointAttention, x: Tensor, condition: Tensor) -> Tensor:
    """Each token's mean of the values of all tokens [n + m, d], for one head."""
    q, k, v = attention.qkv(x).chunk(3, dim=-1)  # each [n, d]
    condition_k, condition_v = attention.condition_kv(condition).chunk(2, dim=-1)  # each [m, d]
    keys, values = torch.cat([condition_k, k]), torch.cat([condition_v, v])
    rows = [torch.softmax(keys @ query / 64**0.5, dim=0) @ values for query in q]
    return attention.out(torch.stack(rows))  # type: ignore[no-any-return]


def test_a_token_attends_to_the_tokens_and_to_the_condition_under_one_softmax() -> None:
    torch.manual_seed(0)
    attention, x, condition = JointAttention(64), torch.randn(5, 64), torch.randn(3, 64)
    expected = by_hand(attention, x, condition)
    torch.testing.assert_close(attention(x[None], condition[None])[0], expected)

    present = torch.tensor([[True, False, True]])
    masked = attention(x[None], condition[None], present)[0]
    torch.testing.assert_close(masked, by_hand(attention, x, condition[present[0]]))
    assert not torch.allclose(masked, expected)


def test_padding_behind_the_caption_changes_nothing() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(TOKENS)
    noisy, sigma, text = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9]), torch.randn(2, 5, 16)
    padded = torch.cat([text, torch.zeros(2, 4, 16)], dim=1)
    torch.testing.assert_close(denoiser(noisy, sigma, padded), denoiser(noisy, sigma, text))
    assert not torch.allclose(denoiser(noisy, sigma, text[:, :4]), denoiser(noisy, sigma, text))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"norm": "post"}, "norm=post"),
        ({"cross_attention_heads": 1}, "cross_attention_heads=1"),
        ({"norm": "post", "cross_attention_heads": 1}, "norm=post and cross_attention_heads=1"),
    ],
)
def test_settings_of_the_original_blocks_are_refused(other: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=f"blocks=joint does not go with {named}; leave that out"):
        DenoiserConfig(**TOKENS.model_dump() | other)


@pytest.mark.parametrize("text", ["pooled", "tokens"])
@pytest.mark.parametrize(
    "other",
    [
        {},
        {"inpainting": True, "predicts": "v"},
        {"positions": "none", "qk_norm": True},
        {"inpainting": True, "positions": "none", "predicts": "v", "qk_norm": True},
    ],
)
def test_each_setting_of_a_model_goes_with_joint_blocks(
    text: str, other: dict[str, object]
) -> None:
    """Every weight takes part, and every input changes the output, of latents of any shape."""
    torch.manual_seed(0)
    denoiser = Denoiser(DenoiserConfig(**TOKENS.model_dump() | other | {"text": text}))
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    inputs = [torch.randn(2, 4, 8, 12), torch.tensor([0.2, 0.9])]
    inputs.append(torch.randn(2, 5, 16) if text == "tokens" else torch.randn(2, 16))
    if denoiser.config.inpainting:
        inputs.append(torch.randn(2, 5, 8, 12))
    out = denoiser(*inputs)
    out.square().sum().backward()
    assert out.shape == (2, 4, 8, 12)
    for name, weight in denoiser.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name
    for number, tensor in enumerate(inputs):
        changed = [*inputs[:number], tensor * 0.9, *inputs[number + 1 :]]
        assert not torch.allclose(denoiser(*changed), out)


def test_the_original_layout_refuses_joint_blocks_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"model\.blocks is 'joint'"):
        to_layout({}, TOKENS, "main")
