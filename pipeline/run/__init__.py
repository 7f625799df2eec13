"""A whole run, above the stages, which do not know each other: `train_nodes` trains on several
machines.
"""
