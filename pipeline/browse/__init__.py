"""The images and captions of a run, to look through before training.

Read rows.py first (the columns that are in memory), then read_rows.py (where they come from),
queries.py (filters, order and counts), shard_images.py (images out of tars), duplicate_pairs.py
(each duplicate beside what it repeats) and browser.py, which answers with pages of rows.
"""
