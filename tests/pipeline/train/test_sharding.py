"""A sharded model trains to the weights of a whole one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from pipeline.compute.ranks import full_tensor
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.loop import TrainState, initial_state, train_step
from pipeline.train.loss import step_randomness
from pipeline.train.sharding import shard
from tests.support.training import MODEL, SETTINGS
from tld_model.config import DenoiserConfig, Precision

pytestmark = [
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module"),  # nothing is added to its views
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning"
    ),  # torch's own
]


@pytest.fixture(autouse=True)
def _process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def trained(state: TrainState, config: TrainConfig) -> list[Tensor]:
    """The weights and averages after three steps."""
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        batch = Batch(
            torch.randn(8, 4, 4, 4, generator=generator), torch.randn(8, 8, generator=generator)
        )
        train_step(state, batch, step_randomness(config, MODEL, 8, step), config)
    models = (state.denoiser, state.ema)
    return [full_tensor(weight.detach()) for model in models for weight in model.parameters()]


def sharded(config: TrainConfig, model: DenoiserConfig) -> TrainState:
    state = initial_state(config, model, "cpu")
    shard(state, config, init_device_mesh("cpu", (1,)))
    return state


@pytest.mark.parametrize("blocks", ["original", "joint"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_sharded_model_trains_to_the_weights_of_a_whole_one(
    precision: Precision, blocks: str
) -> None:
    config = TrainConfig(**SETTINGS | {"precision": precision})
    model = MODEL.model_copy(update={"blocks": blocks})
    whole = trained(initial_state(config, model, "cpu"), config)
    torch.testing.assert_close(trained(sharded(config, model), config), whole, rtol=0, atol=1e-6)
