import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tld_model.checkpoint import CheckpointError
from tld_model.config import DenoiserConfig, SolverName
from tld_model.denoiser import Denoiser
from tld_model.original_checkpoint import export_published, import_published
from tld_model.original_layouts import LAYOUTS, Layout, to_layout
from tld_model.sampler import guided, noise_levels, sample

PUBLISHED = Path(__file__).parents[3] / "shared/fixtures/published_checkpoints"
BOTH: tuple[Layout, ...] = ("main", "legacy")
SIZES = {
    "latent_size": 8,
    "text_dim": 16,
    "width": 128,
    "layers": 2,
    "noise_embed_dim": 32,
    "mlp_multiplier": 1,
}
beside = pytest.mark.skipif(
    not PUBLISHED.exists(), reason="the published checkpoints are not beside this checkout"
)


def config_of(layout: Layout, **changed: Any) -> DenoiserConfig:
    return DenoiserConfig.model_validate(SIZES | LAYOUTS[layout] | changed)


def original(layout: Layout = "main") -> dict[str, Tensor]:
    torch.manual_seed(0)
    config = config_of(layout)
    return to_layout(Denoiser(config).state_dict(), config, layout)


def furthest(computed: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((computed - expected).abs().max() / expected.abs().max())


@beside
@pytest.mark.parametrize("layout", BOTH)
def test_published_weights_give_the_published_numbers(layout: Layout) -> None:
    settings: dict[str, Any] = json.loads((PUBLISHED / f"{layout}.json").read_text())
    arrays = {
        name: torch.from_numpy(array)
        for name, array in np.load(PUBLISHED / f"{layout}.npz").items()
    }
    published = import_published(PUBLISHED / f"{layout}.pth", layout)
    denoiser = Denoiser(published.config).eval()
    denoiser.load_state_dict(published.weights)
    with torch.no_grad():
        output = denoiser(arrays["x"], arrays["noise_level"].flatten(), arrays["text"])
    assert furthest(output, arrays["output"]) < 1e-5

    solvers: dict[SolverName, str] = {"dpmpp_2m": "sample_dpmpp2m", "ddim": "sample_ddim"}
    denoise, levels = guided(denoiser, settings["class_guidance"]), noise_levels(settings["n_iter"])
    for solver, name in solvers.items():
        sampled = sample(solver, denoise, arrays["init_noise"], arrays["text_sample"], levels)
        assert furthest(sampled, arrays[name]) < 1e-4


@beside
@pytest.mark.parametrize("layout", BOTH)
def test_a_published_checkpoint_goes_back_bit_for_bit(layout: Layout, tmp_path: Path) -> None:
    published = import_published(PUBLISHED / f"{layout}.pth", layout)
    export_published(tmp_path / "back.pth", published.weights, published.config, layout)
    before = torch.load(PUBLISHED / f"{layout}.pth", weights_only=True)
    after = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(after) == list(before)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor)


@pytest.mark.parametrize("width", [64, 128, 256, 512])
def test_legacy_weights_of_every_width_that_fits_go_and_come_back(
    width: int, tmp_path: Path
) -> None:
    config = config_of("legacy", width=width, layers=1)
    ours = Denoiser(config).state_dict()
    export_published(tmp_path / "legacy.pth", ours, config, "legacy")
    back = import_published(tmp_path / "legacy.pth", "legacy")
    assert back.config == config
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in ours.items())


@pytest.mark.parametrize("layout", BOTH)
def test_a_trained_model_shows_its_layout_and_contradicts_the_other(
    layout: Layout, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config, path = config_of(layout), tmp_path / "trained.pth"
    denoiser = Denoiser(config)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=4e-3)
    for _ in range(60):
        clean = F.interpolate(torch.randn(16, 4, 4, 4), size=(8, 8), mode="bicubic")
        sigma = torch.rand(16) * 0.2
        noisy = torch.lerp(clean, torch.randn_like(clean), sigma[:, None, None, None])
        loss = F.mse_loss(denoiser(noisy, sigma, torch.zeros(16, 16)), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    export_published(path, denoiser.state_dict(), config, layout)

    imported = import_published(path)
    assert imported.layout == layout
    assert imported.config == config
    assert f"read as {layout}" in imported.reason
    other: Layout = "main" if layout == "legacy" else "legacy"
    with pytest.raises(CheckpointError, match=f"has the layout {layout}, not {other}"):
        import_published(path, other)


def test_weights_that_do_not_show_their_layout_need_a_word(tmp_path: Path) -> None:
    torch.save(original(), tmp_path / "random.pth")
    with pytest.raises(
        CheckpointError, match=r"does not show its layout: .*choose it with --layout"
    ):
        import_published(tmp_path / "random.pth")


@pytest.mark.parametrize(
    ("prefix", "wrapping"),
    [
        ("_orig_mod.", None),
        ("module._orig_mod.", "model_ema"),
        ("ema_model.", "state_dict"),
        ("model.", "model"),
    ],
)
def test_whatever_training_wrapped_around_weights_is_taken_off(
    prefix: str, wrapping: str | None, tmp_path: Path
) -> None:
    weights = original()
    wrapped: dict[str, Any] = {prefix + name: tensor for name, tensor in weights.items()}
    wrapped = (
        {wrapping: wrapped, "opt_state": {"state": {}}, "global_step": 7} if wrapping else wrapped
    )
    torch.save(wrapped, tmp_path / "wrapped.pth")
    torch.save(weights, tmp_path / "bare.pth")
    bare, imported = (
        import_published(tmp_path / f"{name}.pth", "main") for name in ("bare", "wrapped")
    )
    assert imported.config == bare.config
    assert all(torch.equal(imported.weights[name], tensor) for name, tensor in bare.weights.items())


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("it was run",))


def test_files_that_hold_no_such_model_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, path = original(), tmp_path / "odd.pth"
    torch.save(whole, path)
    short = path.read_bytes()[:5000]

    def check(says: str) -> None:
        with pytest.raises(CheckpointError, match=says):
            import_published(path, "main")

    path.write_bytes(short)
    check("odd.pth is (damaged|not a readable)")
    path.write_bytes(b"")
    check("odd.pth is (damaged|not a readable)")
    torch.save({"model": Trap()}, path)
    check("could run code")
    assert "it was run" not in capsys.readouterr().out
    torch.save([1, 2], path)
    check("holds a list")
    torch.save({"conv.weight": torch.zeros(1)}, path)
    check("holds no apapiu/transformer_latent_diffusion model: .*it begins with conv.weight")
    torch.save({name: tensor for name, tensor in whole.items() if name != "norm.bias"}, path)
    check(r"norm.bias \[128\] is missing")
    torch.save(whole | {"label_proj.bias": torch.zeros(3), "extra": torch.zeros(2)}, path)
    check(r"(?s)label_proj.bias is \[3\], not \[128\].*extra \[2\] is unknown")
    torch.save(
        {name: tensor for name, tensor in whole.items() if name != "label_proj.weight"}, path
    )
    check("lacks label_proj.weight")
    path.unlink()
    check("there is no file")


def test_what_a_layout_does_not_know_is_refused_by_name() -> None:
    config = config_of("legacy")
    with pytest.raises(
        CheckpointError,
        match=r"(?s)cross_attention_heads is 4, .*norm is 'post', but layout main always has 'pre'",
    ):
        to_layout(Denoiser(config).state_dict(), config, "main")
    six = config_of("legacy", width=384, layers=1, cross_attention_heads=4)
    with pytest.raises(CheckpointError, match="width 384 has 6 heads"):
        to_layout(Denoiser(six).state_dict(), six, "legacy")
