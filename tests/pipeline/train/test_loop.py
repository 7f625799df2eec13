"""Training on made-up encodings: exact resume, order, split, learning. Real loop, real
checkpoints."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_catalog.encodings import SCHEMA, EncodedArrays, write_encoded_shard
from data_catalog.model_files import checkpoints
from data_catalog.storage.manifest import Manifest
from pipeline.config.train import TrainConfig
from pipeline.dataset.batch_order import PairOrder
from pipeline.dataset.caption_sampling import CaptionColumnError
from pipeline.dataset.encoded_dataset import EncodedDataset, open_dataset
from pipeline.dataset.mixture import TrainingPairs
from pipeline.dataset.split import HELD_OUT, Split, SplitError, key_hash, split_pairs
from pipeline.scoring.held_out_loss import held_out_loss
from pipeline.train.checkpoints import resume
from pipeline.train.loop import initial_state, train_steps
from pipeline.train.model_fit import ModelMismatch, check_fit
from pipeline.train.optimizers import learning_rate
from pipeline.train.stage import train
from tests.support.manifests import encodings_manifest
from tests.support.tracker import RememberingTracker
from tests.support.training import save_checkpoint
from tld_model.config import DenoiserConfig, TextForm

MODEL = DenoiserConfig(
    latent_size=4, latent_channels=4, text_dim=8, width=64, layers=1, noise_embed_dim=16
)
CONFIG = TrainConfig(steps=8, batch_size=8, warmup_steps=2, lr=1e-3, device="cpu")


def is_held_out(key: str, split: str, fraction: float) -> bool:
    """The rule of `split_pairs` for one pair."""
    return split == HELD_OUT if split else key_hash(key) < fraction


def make_encodings(
    folder: Path,
    sizes: tuple[int, ...] = (13, 7),
    split: str = "",
    captions: int = 1,
    by_token: bool = False,
) -> Manifest:
    """Latents follow from the main caption; the k-th of `captions` is a multiple of it. By token it
    is spread over one to three tokens."""
    rng = np.random.default_rng(0)
    for number, n in enumerate(sizes):
        keys = [f"{number:05d}{i:04d}" for i in range(n)]
        text = rng.standard_normal((n, 8)).astype(np.float16)
        latents = (
            (128 + 40 * text.repeat(8, axis=1).reshape(n, 4, 4, 4)).clip(0, 255).astype(np.uint8)
        )
        rows: dict[str, list[Any]] = {name: [0] * n for name in SCHEMA.names}
        rows |= {"key": keys, "url": keys, "caption": [f"caption {key}" for key in keys]}
        rows |= {"split": [split] * n, "sha256": keys}
        arrays = EncodedArrays(latents, text, np.array(keys, np.bytes_))
        if captions > 1:
            text = (
                (text[:, None] * np.arange(1, captions + 1)[:, None])
                .reshape(-1, 8)
                .astype(np.float16)
            )
            starts, columns = (
                np.arange(0, captions * n + 1, captions),
                np.tile(np.arange(captions, dtype=np.uint8), n),
            )
            arrays = replace(arrays, text=text, text_start=starts, text_column=columns)
        if by_token:
            lengths = np.arange(len(text)) % 3 + 1
            arrays = replace(
                arrays, tokens=text.repeat(lengths, axis=0), token_start=np.cumsum([0, *lengths])
            )
        write_encoded_shard(folder, f"{number:05d}", rows, arrays)
    figures: dict[str, Any] = {}
    if captions > 1:
        figures["caption_columns"] = ("caption", "alt", "long")[:captions]
    if by_token:
        figures |= {"token_dim": 8, "longest_caption": 3}
    return encodings_manifest(folder, sizes, **figures)


@pytest.fixture
def pairs(tmp_path: Path) -> EncodedDataset:
    return open_dataset(make_encodings(tmp_path))


@pytest.fixture
def split(tmp_path: Path, pairs: EncodedDataset) -> Split:  # noqa: ARG001 (the encodings must be there)
    return split_pairs(make_encodings(tmp_path), 0.1)


def test_a_resumed_training_ends_with_the_same_weights_bit_for_bit(
    tmp_path: Path, pairs: EncodedDataset, split: Split
) -> None:
    whole = initial_state(CONFIG, MODEL, "cpu")
    losses = [
        step.loss.item()
        for step in train_steps(whole, TrainingPairs.alone(pairs, split.train), CONFIG, "cpu")
    ]

    first = initial_state(CONFIG, MODEL, "cpu")
    list(islice(train_steps(first, TrainingPairs.alone(pairs, split.train), CONFIG, "cpu"), 3))
    save_checkpoint(first, tmp_path / "checkpoints")
    torch.manual_seed(12345)  # the global generator must not matter
    second = initial_state(CONFIG, MODEL, "cpu")
    resume(second, tmp_path / "checkpoints", "cpu")
    assert second.step == 3
    rest = [
        step.loss.item()
        for step in train_steps(second, TrainingPairs.alone(pairs, split.train), CONFIG, "cpu")
    ]

    assert rest == losses[3:]
    for ours, theirs in ((whole.denoiser, second.denoiser), (whole.ema, second.ema)):
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("form", ["pooled", "tokens"])
def test_a_resume_shows_the_captions_that_an_unstopped_training_would_show(
    tmp_path: Path, form: TextForm
) -> None:
    encodings = make_encodings(tmp_path, captions=3, by_token=True)
    pairs, split = open_dataset(encodings, form), split_pairs(encodings, 0.1)
    model = MODEL.model_copy(update={"text": form})
    config = CONFIG.model_copy(update={"caption_weights": {"caption": 0.5, "long": 2}})
    losses: dict[int, list[float]] = {}
    for first in (0, 3):
        state = initial_state(config, model, "cpu")
        list(
            islice(
                train_steps(state, TrainingPairs.alone(pairs, split.train), config, "cpu"), first
            )
        )
        save_checkpoint(state, tmp_path / f"from {first}")
        resumed = initial_state(config, model, "cpu")
        resume(resumed, tmp_path / f"from {first}", "cpu")
        losses[first] = [
            step.loss.item()
            for step in train_steps(resumed, TrainingPairs.alone(pairs, split.train), config, "cpu")
        ]
    assert losses[3] == losses[0][3:]

    def losses_with(weights: dict[str, float], pairs: EncodedDataset = pairs) -> list[float]:
        other = CONFIG.model_copy(update={"caption_weights": weights})
        return [
            step.loss.item()
            for step in train_steps(
                initial_state(other, model, "cpu"),
                TrainingPairs.alone(pairs, split.train),
                other,
                "cpu",
            )
        ]

    main_alone = losses_with({"alt": 0, "long": 0})
    assert main_alone == losses_with({}, replace(pairs, caption_columns=("caption",)))
    assert main_alone != losses[0] != losses_with({})
    with pytest.raises(CaptionColumnError, match="no such caption column: recaptioned"):
        losses_with({"recaptioned": 1})


def test_the_epoch_of_a_pair_is_that_of_the_order_it_stands_in(split: Split) -> None:
    order = PairOrder(split.train, seed=1, position=0)
    numbers, epochs = zip(*(order.take(5) for _ in range(12)), strict=True)
    assert sorted(np.concatenate(numbers)[np.concatenate(epochs) == 1]) == sorted(split.train)


def test_a_damaged_checkpoint_falls_back_on_the_one_before(
    tmp_path: Path, pairs: EncodedDataset, split: Split
) -> None:
    state = initial_state(CONFIG, MODEL, "cpu")
    for _ in train_steps(state, TrainingPairs.alone(pairs, split.train), CONFIG, "cpu"):
        save_checkpoint(state, tmp_path / "c")
    remaining = checkpoints(tmp_path / "c")
    assert [path.name for path in remaining] == ["step-00000007.pt", "step-00000008.pt"]
    remaining[-1].write_bytes(remaining[-1].read_bytes()[:1000])
    fresh = initial_state(CONFIG, MODEL, "cpu")
    resume(fresh, tmp_path / "c", "cpu")
    assert fresh.step == 7


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own doings
def test_a_compiled_model_takes_the_steps_of_a_plain_one_and_its_checkpoint(
    tmp_path: Path, pairs: EncodedDataset, split: Split
) -> None:
    config = CONFIG.model_copy(update={"steps": 3, "precision": "fp32"})
    plain, compiled = initial_state(config, MODEL, "cpu"), initial_state(config, MODEL, "cpu")
    compiled.denoiser.compile_blocks()
    losses = [
        [
            step.loss.item()
            for step in train_steps(s, TrainingPairs.alone(pairs, split.train), config, "cpu")
        ]
        for s in (plain, compiled)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)

    save_checkpoint(compiled, tmp_path / "c")
    resume(plain, tmp_path / "c", "cpu")
    for (name, a), (same, b) in zip(
        plain.denoiser.state_dict().items(), compiled.denoiser.state_dict().items(), strict=True
    ):
        assert name == same
        assert torch.equal(a, b)


def test_it_learns(pairs: EncodedDataset, split: Split) -> None:
    config = CONFIG.model_copy(update={"steps": 60, "lr": 3e-3, "ema_decay": (0.9,)})
    state = initial_state(config, MODEL, "cpu")
    before = held_out_loss(state.ema, pairs, split, "cpu")
    list(train_steps(state, TrainingPairs.alone(pairs, split.train), config, "cpu"))
    after = held_out_loss(state.ema, pairs, split, "cpu")
    assert after["held_out_loss"] < 0.5 * before["held_out_loss"]
    assert sum(name.startswith("held_out_loss/") for name in after) == 5


def test_it_learns_from_token_level_text(tmp_path: Path) -> None:
    encodings = make_encodings(tmp_path, by_token=True)
    pairs, split = open_dataset(encodings, "tokens"), split_pairs(encodings, 0.1)
    config = CONFIG.model_copy(update={"steps": 60, "lr": 3e-3, "ema_decay": (0.9,)})
    state = initial_state(config, MODEL.model_copy(update={"text": "tokens"}), "cpu")
    before = held_out_loss(state.ema, pairs, split, "cpu")
    list(train_steps(state, TrainingPairs.alone(pairs, split.train), config, "cpu"))
    after = held_out_loss(state.ema, pairs, split, "cpu")
    assert after["held_out_loss"] < 0.5 * before["held_out_loss"]


def test_an_epoch_shows_every_training_pair_once_and_the_order_follows_from_the_step(
    split: Split,
) -> None:
    order, n = PairOrder(split.train, seed=1, position=0), len(split.train)
    batches = [order.take(5)[0] for _ in range(12)]
    stream = np.concatenate(batches)
    assert sorted(stream[:n]) == sorted(split.train)
    assert list(stream[:n]) != list(stream[n : 2 * n])
    later, _ = PairOrder(split.train, seed=1, position=7 * 5).take(5)
    np.testing.assert_array_equal(later, batches[7])


def test_taken_pairs_are_those_asked_for_across_shards(pairs: EncodedDataset) -> None:
    numbers = np.array([15, 0, 12, 13])
    batch = pairs.batch(numbers)
    for row, number in enumerate(numbers):
        shard, at = (0, number) if number < 13 else (1, number - 13)
        np.testing.assert_array_equal(
            batch.text[row].numpy(), pairs.shards[shard].text[at].astype(np.float32)
        )


def test_the_split_follows_the_key_or_the_table(tmp_path: Path) -> None:
    encodings = make_encodings(tmp_path, sizes=(400,))
    a, b = split_pairs(encodings, 0.1), split_pairs(encodings, 0.2)
    assert 20 <= len(a.held_out) <= 60
    assert set(a.held_out) <= set(b.held_out), "a larger share holds out the same pairs and more"
    assert not set(a.held_out) & set(a.train)
    assert a.held_out_captions[0] == f"caption 00000{a.held_out[0]:04d}"
    assert is_held_out("any", "held_out", 0.0)
    assert not is_held_out("any", "train", 0.5)


@pytest.mark.parametrize(
    ("sizes", "split", "fraction", "says"),
    [
        (
            (13, 7),
            "train",
            0.1,
            "the split column of the table keeps all 20 pairs for training; mark some rows",
        ),
        (
            (13, 7),
            "held_out",
            0.1,
            "the split column of the table holds all 20 pairs out of training; mark some",
        ),
        ((13, 7), "", 1.0, "all 20 pairs are held out of training; lower train.held_out_fraction"),
        (
            (13, 7),
            "",
            0.0,
            "no pair is held out of training because train.held_out_fraction is 0; raise it",
        ),
        (
            (1,),
            "",
            0.1,
            "there is only one pair; training needs one to train on and one to hold out",
        ),
        ((1,), "train", 0.1, "there is only one pair"),
        ((), "", 0.1, "contains no pairs, so there is nothing to train on"),
    ],
)
def test_a_split_with_nothing_on_one_side_is_refused_before_the_training_starts(
    tmp_path: Path,
    track: RememberingTracker,
    sizes: tuple[int, ...],
    split: str,
    fraction: float,
    says: str,
) -> None:
    encodings = make_encodings(tmp_path, sizes=sizes, split=split)
    with pytest.raises(SplitError, match=says):
        split_pairs(encodings, fraction)
    if fraction <= 0.5:
        config = TrainConfig(held_out_fraction=fraction, device="cpu")
        shape = DenoiserConfig(latent_channels=4, latent_size=4, text_dim=8, width=64, layers=1)
        with pytest.raises(SplitError, match=says):
            train(encodings, config, shape, tmp_path / "model", track)
        assert not (tmp_path / "model").exists()


def test_the_split_of_many_shards_is_that_of_its_rows_one_by_one(tmp_path: Path) -> None:
    encodings = make_encodings(tmp_path, sizes=(300, 0, 2, 200))
    keys = [f"{shard:05d}{row:04d}" for shard, n in enumerate((300, 0, 2, 200)) for row in range(n)]
    expected = [is_held_out(key, "", 0.1) for key in keys]
    split = split_pairs(encodings, 0.1)
    assert split.held_out.tolist() == [number for number, is_out in enumerate(expected) if is_out]
    assert split.train.tolist() == [number for number, is_out in enumerate(expected) if not is_out]
    assert split.held_out_captions == [f"caption {keys[number]}" for number in split.held_out]
    alone = split_pairs(encodings, 1e-9)
    assert len(alone.held_out) == 1, (
        "where the share is too small for any pair, the nearest one is held out"
    )
    assert alone.held_out[0] in split.held_out


def test_the_learning_rate_rises_then_falls_or_stays() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, lr=1.0)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.01
    constant = config.model_copy(update={"lr_schedule": "constant"})
    assert learning_rate(constant, 99) == 1.0


def test_a_constant_learning_rate_falls_to_zero_by_one_minus_the_root_of_the_progress() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, lr=2.0, lr_schedule="constant", decay_steps=16)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert set(rates[10:85]) == {2.0}
    assert (rates[88], rates[93]) == (2 * (1 - 0.5), 2 * (1 - 0.75))
    assert 0 < rates[99] < 0.07
    longer = config.model_copy(update={"steps": 300, "decay_steps": 50})
    assert [learning_rate(longer, step) for step in range(84)] == rates[:84]


def test_encodings_that_do_not_fit_name_every_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelMismatch) as raised:
        check_fit(make_encodings(tmp_path), DenoiserConfig())
    for setting in ("model.latent_size=4", "model.text_dim=8"):
        assert setting in str(raised.value)


def test_a_model_that_takes_tokens_is_refused_encodings_without_or_of_another_width(
    tmp_path: Path,
) -> None:
    by_token = MODEL.model_copy(update={"text": "tokens"})
    with pytest.raises(ModelMismatch, match=r"contain only pooled text: set encode\.text=tokens"):
        check_fit(make_encodings(tmp_path), by_token)
    check_fit(make_encodings(tmp_path, by_token=True), by_token)
    with pytest.raises(ModelMismatch, match=r"model\.text_dim is 9, the encodings have 8"):
        check_fit(
            make_encodings(tmp_path, by_token=True), by_token.model_copy(update={"text_dim": 9})
        )
