"""The sets of pairs that a training draws from, opened as its job names them."""

from __future__ import annotations

from data_catalog.mix_figures import MixedSetFigures
from data_catalog.storage.manifest import read_manifest
from pipeline.config.mix import mix_shares
from pipeline.dataset.encoded_dataset import EncodedDataset, open_dataset
from pipeline.dataset.mixture import PairSet, TrainingPairs
from pipeline.dataset.split import Split, split_pairs
from pipeline.train.job import TrainJob


def open_training_pairs(job: TrainJob, own: EncodedDataset, split: Split) -> TrainingPairs:
    """The pairs of the job's mix, or else its own, which are open already. Pairs that are held out
    by train.held_out_fraction are in no set.

    Raises:
        EncodingsError: a file of the encodings is damaged.
        SplitError: of a set all pairs are held out, or none.
        MixtureError: the sets do not fit into one batch.
    """
    if not job.mix:
        return TrainingPairs.alone(own, split.train)
    shares, sets = mix_shares(job.config.mix), list[PairSet]()
    for one in job.mix:
        pairs, train = own, split.train
        if one.encodings != job.encodings:
            encodings = read_manifest(one.encodings)
            assert encodings is not None, "the flow made it first"
            pairs = open_dataset(encodings, job.model.text)
            train = split_pairs(encodings, job.config.held_out_fraction).train
        sets.append(PairSet(pairs, train, shares[one.phase], one.phase))
    return TrainingPairs.mixed(sets)


def mixed_set_figures(pairs: TrainingPairs, total: int) -> dict[str, MixedSetFigures] | None:
    """What a training that has drawn so many pairs took from each set of its mix; None without
    one."""
    counts = zip(pairs.sets, pairs.drawn(total), strict=True)
    figures = {
        one.phase: MixedSetFigures(
            share=float(one.share), train_pairs=len(one.train), drawn_pairs=count
        )
        for one, count in counts
        if one.phase
    }
    return figures or None
