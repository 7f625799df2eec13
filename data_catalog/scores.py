"""The scores of a model: their names, explanations and directions."""

from __future__ import annotations

from data_catalog.shapes.dataset import ATTRIBUTE_NAMES

SCORES = (
    *("prompt_accuracy", *(f"accuracy/{name}" for name in ATTRIBUTE_NAMES)),
    *("clip_score", "clip_score_reference", "cmmd", "kernel_distance", "frechet_distance"),
    *("diversity", "held_out_loss", "latency_s"),
)

EXPLAINED = {
    "prompt_accuracy": (
        "share of samples whose pixels show all attributes of the caption; higher is better"
    ),
    "clip_score": "100 × cosine of the CLIP embeddings of sample and caption; higher is better",
    "clip_score_reference": (
        "the CLIP score of the held-out images: about the best that a model can reach"
    ),
    "cmmd": "CMMD to the held-out images; 0 is best",
    "kernel_distance": (
        "KID's measure to the held-out images, on CLIP features; near 0 is best; "
        "not an Inception KID"
    ),
    "frechet_distance": (
        "Fréchet distance of CLIP features to the held-out images; 0 is best; not an Inception FID"
    ),
    "diversity": (
        "100 × mean CLIP distance between samples of the same caption; 0 if all are alike"
    ),
    "held_out_loss": (
        "mean squared error of the clean latent on held-out pairs, over all noise levels"
    ),
}

# Prefixes of the names of scores for which higher is better.
HIGHER_IS_BETTER = ("clip_score", "prompt_accuracy", "accuracy/", "diversity")
