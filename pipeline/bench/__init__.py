"""Benchmarks: bench.py measures the parts that parts.py names and projects the duration of the run.
data_speed.py measures the encoding and the data loader, model_speed.py training and sampling,
beside a step of the original project (original_step.py), and what fits into memory (memory_fit.py);
measure.py holds the clocks, and synthetic_data.py the inputs.
"""
