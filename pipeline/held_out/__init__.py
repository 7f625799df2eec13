"""Samples of held-out captions beside held-out images, for the scores during a training and for
those of the evaluation. samples.py samples and decodes, real_images.py decodes and embeds the
images of an encodings output, and retrieval.py searches samples among them.
"""
