"""Scores of models and samples: metrics.py defines the metrics, bootstrap.py their confidence
intervals, image_scores.py applies both to sets of images, and held_out_loss.py is the loss on
held-out pairs. prompt_accuracy.py and open_attributes.py grade samples of the built-in data set: in
what their captions say, and in what they leave open. image_features.py is the choice of features
that distances compare, feature_networks.py loads their networks, and neighbours.py finds the
nearest images by features.
"""
