"""Exports of trained models for diffusers, and their model cards.

Read diffusers.py first (the exported folder), then diffusers_pipeline.py and
diffusers_transformer.py (the code that the folder carries) and bundle_source.py (how that code
becomes self-contained files). model_card.py writes the card, for exports and for MLflow. hub.py
uploads a folder to the Hugging Face hub, space.py writes the files of a Space that samples with it.
"""
