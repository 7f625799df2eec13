"""The former name of pipeline.train.worker, for `torchrun -m pipeline.train_rank`. Removed in
0.3."""

from pipeline.train.worker import run_from_arguments

if __name__ == "__main__":
    run_from_arguments()
