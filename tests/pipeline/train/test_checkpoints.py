"""Checkpoints: any damage is found and told, the one before is taken; wrappers and pickles stay
out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from data_catalog.model_files import checkpoints
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.mixture import TrainingPairs
from pipeline.dataset.split import split_pairs
from pipeline.train.checkpoints import CheckpointNotRead, resume
from pipeline.train.loop import TrainState, initial_state, train_steps
from pipeline.train.sharding import shard
from tests.support.training import MODEL, SETTINGS, save_checkpoint, write_encodings

CONFIG = TrainConfig(**SETTINGS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingPairs:
    encodings = write_encodings(tmp_path_factory.mktemp("data") / "encodings")
    split = split_pairs(encodings, CONFIG.held_out_fraction)
    return TrainingPairs.alone(open_dataset(encodings), split.train)


def fresh() -> TrainState:
    return initial_state(CONFIG, MODEL, "cpu")


def trained(data: TrainingPairs, steps: int, state: TrainState | None = None) -> TrainState:
    state = state or fresh()
    list(islice(train_steps(state, data, CONFIG, "cpu"), steps))
    return state


def numbers(state: TrainState) -> list[Tensor]:
    moments = [
        value
        for values in state.optimizer.state_dict()["state"].values()
        for value in values.values()
    ]
    return [*state.denoiser.state_dict().values(), *state.ema.state_dict().values(), *moments]


def equal(a: TrainState, b: TrainState) -> bool:
    return all(torch.equal(one, other) for one, other in zip(numbers(a), numbers(b), strict=True))


def test_every_flipped_bit_is_found_or_harmless(tmp_path: Path, data: TrainingPairs) -> None:
    before, last = trained(data, 2), trained(data, 3)
    save_checkpoint(before, tmp_path)
    older = checkpoints(tmp_path)[0].read_bytes()
    save_checkpoint(last, tmp_path)
    whole = checkpoints(tmp_path)[1].read_bytes()
    rng = random.Random(5)
    places = [rng.randrange(len(whole)) for _ in range(40)] + list(
        range(len(whole) - 40, len(whole))
    )
    detected = 0
    for place in places:
        (tmp_path / "step-00000002.pt").write_bytes(older)
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        (tmp_path / "step-00000003.pt").write_bytes(flipped)
        state, warnings = fresh(), list[str]()
        resume(state, tmp_path, "cpu", warn=warnings.append)
        assert equal(state, before if warnings else last), f"byte {place} of {len(whole)}"
        detected += bool(warnings)
    assert detected >= 30, "most bytes matter"


def test_a_damaged_newest_one_is_told_set_aside_and_gone_with_the_next(
    tmp_path: Path, data: TrainingPairs
) -> None:
    for step in (1, 4):
        save_checkpoint(trained(data, step), tmp_path)
    newest = tmp_path / "step-00000004.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    state, warnings = fresh(), list[str]()
    resume(state, tmp_path, "cpu", warn=warnings.append)
    assert warnings == [
        "step-00000004.pt is damaged (File is not a zip file): resuming from step 1; 3 steps are "
        "repeated"
    ]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001.pt"]
    assert newest.with_suffix(".damaged").exists()
    save_checkpoint(trained(data, 1, state), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000001.pt",
        "step-00000002.pt",
    ]


def test_without_a_whole_one_it_starts_again_and_says_so(
    tmp_path: Path, data: TrainingPairs
) -> None:
    save_checkpoint(trained(data, 2), tmp_path)
    checkpoints(tmp_path)[0].write_bytes(b"")
    state, warnings = fresh(), list[str]()
    resume(state, tmp_path, "cpu", warn=warnings.append)
    assert state.step == 0
    assert warnings[0].endswith("starting from step 0; 2 steps are repeated")


class Intruder:
    """What a pickle may do to who loads it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code of a checkpoint was run')",))


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    torch.save({"step": 3, "denoiser": Intruder()}, tmp_path / "step-00000003.pt")
    state, warnings = fresh(), list[str]()
    resume(state, tmp_path, "cpu", warn=warnings.append)
    assert state.step == 0
    assert len(warnings) == 1


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # torch's compiler, of itself
@pytest.mark.filterwarnings(
    "ignore:Grad strides do not match"
)  # of the depthwise kernel; costs a copy
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrapper", ["compile", "ddp", "compiled ddp"])
def test_plain_compiled_and_parallel_models_share_checkpoints(
    tmp_path: Path, data: TrainingPairs, wrapper: str
) -> None:
    state = fresh()
    if "ddp" in wrapper:
        state.network = DistributedDataParallel(state.denoiser, forward_sync_buffers=False)
    if "compile" in wrapper:
        state.network = torch.compile(state.network, backend="eager")
    save_checkpoint(trained(data, 2, state), tmp_path / "wrapped")
    save_checkpoint(trained(data, 2), tmp_path / "plain")
    contents = [torch.load(tmp_path / name / "step-00000002.pt") for name in ("wrapped", "plain")]
    assert [list(content["denoiser"]) for content in contents] == [
        list(state.denoiser.state_dict())
    ] * 2

    plain = fresh()
    resume(plain, tmp_path / "wrapped", "cpu")
    assert equal(trained(data, 2, plain), trained(data, 2, state))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Grad strides do not match")
@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")  # nothing is added in place to its view
@pytest.mark.parametrize("how", ["alone", "resumed", "ddp", "fsdp"])
def test_averages_have_no_gradient_and_no_history(
    tmp_path: Path, data: TrainingPairs, how: str
) -> None:
    """A history would grow with every step, by all the weights that it was made from."""
    state = fresh()
    if how == "resumed":
        save_checkpoint(trained(data, 1), tmp_path)
        resume(state, tmp_path, "cpu")
    if how == "ddp":
        state.network = DistributedDataParallel(state.denoiser, forward_sync_buffers=False)
    if how == "fsdp":
        shard(state, CONFIG, init_device_mesh("cpu", (1,)))
    trained(data, 2, state)
    for average in state.averages:
        for weight in average.denoiser.parameters():
            assert weight.is_leaf
            assert weight.grad_fn is None
            assert not weight.requires_grad


def _without_average(content: dict[str, Any]) -> None:
    del content["averages"]


def _with_another_average(content: dict[str, Any]) -> None:
    content["averages"] = {"0.5": content["averages"].popitem()[1]}


def _with_a_renamed_weight(content: dict[str, Any]) -> None:
    content["denoiser"]["renamed"] = content["denoiser"].pop(next(iter(content["denoiser"])))


def _with_a_wider_weight(content: dict[str, Any]) -> None:
    name, weight = next(iter(content["denoiser"].items()))
    content["denoiser"][name] = torch.cat([weight, weight])


def _with_renamed_moments(content: dict[str, Any]) -> None:
    content["optimizer"]["state"] = {
        number: {f"new_{name}": value for name, value in memory.items()}
        for number, memory in content["optimizer"]["state"].items()
    }


def _with_moments_of_another_shape(content: dict[str, Any]) -> None:
    content["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)


def _with_fewer_weights_to_optimize(content: dict[str, Any]) -> None:
    content["optimizer"]["param_groups"][0]["params"].pop()


def _without_optimizer(content: dict[str, Any]) -> None:
    content["optimizer"] = None


def _of_a_newer_version(content: dict[str, Any]) -> None:
    content["layout"] = 99


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_without_average, "it has no average of decay 0.999"),
        (_with_another_average, "it has no average of decay 0.999"),
        (_with_a_renamed_weight, "the weights lack"),
        (_with_a_wider_weight, "the weights have another shape of"),
        (_with_renamed_moments, "it is the state of another optimizer"),
        (_with_moments_of_another_shape, "it is the state of another optimizer"),
        (_with_fewer_weights_to_optimize, "it is the state of another optimizer"),
        (_without_optimizer, "it is the state of another optimizer"),
        (_of_a_newer_version, "it has layout 99, of a newer version of tld"),
        (dict.clear, "it does not contain a training state"),
    ],
)
def test_a_whole_checkpoint_that_does_not_fit_is_set_aside_for_good(
    tmp_path: Path,
    data: TrainingPairs,
    change: Callable[[dict[str, Any]], None],
    why: str,
) -> None:
    before = trained(data, 1)
    save_checkpoint(before, tmp_path)
    save_checkpoint(trained(data, 3), tmp_path)
    newest = checkpoints(tmp_path)[1]
    content = torch.load(newest, weights_only=True)
    change(content)
    torch.save(content, newest)

    state, warnings = fresh(), list[str]()
    resume(state, tmp_path, "cpu", warn=warnings.append)
    assert equal(state, before)
    assert f"step-00000003.pt does not fit this training ({why}" in warnings[0]
    assert (
        "renamed to step-00000003.unfit: resuming from step 1; 2 steps are repeated" in warnings[0]
    )
    save_checkpoint(trained(data, 3, state), tmp_path)
    assert (tmp_path / "step-00000003.unfit").exists()


def test_a_checkpoint_of_the_first_layout_and_of_another_torch_is_resumed(
    tmp_path: Path, data: TrainingPairs
) -> None:
    """The first checkpoints did not say their layout; other versions of torch have other settings
    of an optimizer."""
    save_checkpoint(trained(data, 2), tmp_path)
    path = checkpoints(tmp_path)[0]
    content = torch.load(path, weights_only=True)
    del content["layout"]
    for group in content["optimizer"]["param_groups"]:
        del group["foreach"]
    torch.save(content, path)
    state = fresh()
    resume(state, tmp_path, "cpu", warn=pytest.fail)
    assert equal(trained(data, 1, state), trained(data, 3))


def test_a_checkpoint_that_may_not_be_read_is_no_damaged_one(
    tmp_path: Path, data: TrainingPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(trained(data, 1), tmp_path)

    def refuse(path: Path) -> None:  # root, as whom tests may run, may read anything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tld_model.training_state.zipfile.ZipFile", refuse)
    with pytest.raises(
        CheckpointNotRead,
        match=r"cannot read .*step-00000001\.pt: Permission denied",
    ):
        resume(fresh(), tmp_path, "cpu")
    assert len(checkpoints(tmp_path)) == 1
