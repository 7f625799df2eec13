"""The training stage: encodings -> model. stage.py starts the processes that job.py describes
(node_processes.py starts and watches those of one node), after model_fit.py has compared model and
encodings; join.py does so on further machines, ray_nodes.py on those of a Ray cluster. worker.py is
one process, which stop.py ends; loop.py is its training loop. pair_sets.py opens the pairs that it
draws from, step_inputs.py prepares what a step takes in, loss.py is its loss, row_gradients.py lets
threads compute the gradients, optimizers.py and muon.py are the update of the weights, ema.py their
moving averages, fast_blocks.py the choice of a faster way on a GPU, sharding.py the distribution
over ranks, step_memory.py computes what a step holds. checkpoints.py saves and resumes the state if
checkpoint_fit.py allows it, checkpoint_writer.py saves it beside training, continuation.py begins a
training with a checkpoint of another, which trunk.py looks for. held_out_checks.py computes loss,
samples and scores on held-out pairs: sample_scores.py has the scores, best_average.py keeps the
best average. divergence.py detects a training that has failed, and events.py is the log that the
stage follows. distillation.py is the loss of the stage distill, whose processes are the same.
"""
