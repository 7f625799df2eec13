"""Evaluation of trained models: stage 4 of the pipeline, and comparisons of models and settings.

Read stage.py first (the stage itself), then held_out_samples.py (the models, and several samples of
a caption) and report.py (the report's page), with verdict.py (what it says first),
training_history.py (curves and samples of the training), earlier_report.py (what has changed since
the report before) and stage_graph.py (the stages as a drawing). real_comparison.py compares samples
with real images one by one, nearest_images.py with the nearest training image. compare.py compares
two trained models on the same prompts, score_rows.py says which is better, and comparison_page.py
writes the result. sweep.py measures one model under many sampling settings, sweep_points.py defines
the points and picks the best, and sweep_page.py writes the result.
"""
