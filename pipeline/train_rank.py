"""Former name of pipeline.train.worker, for `torchrun -m pipeline.train_rank`; to be removed in
0.3."""

from pipeline.train.worker import run_from_arguments

if __name__ == "__main__":
    run_from_arguments()
