"""Encoded pairs as training data: encoded_dataset.py opens them and makes batches, split.py decides
which pairs are held out, batch_order.py in which order the others come, and caption_sampling.py
which of its captions a pair shows in an epoch; pair_draws.py has the random numbers of pairs.
mixture.py draws the pairs of a training from one set or from a mix of several.
training_captions.py has a few captions as examples.
"""
