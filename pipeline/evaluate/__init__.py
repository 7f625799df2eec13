"""Evaluation of trained models: stage 4 of the pipeline, and comparisons of models and settings.

Read stage.py first (the stage itself), then held_out_samples.py (samples of held-out captions and
the models that make them) and report.py (the report's page). compare.py compares two trained models
on the same prompts, and comparison_page.py writes the result. sweep.py measures one model under
many sampling settings, sweep_points.py defines the points and picks the best, and
sweep_page.py writes the result.
"""
