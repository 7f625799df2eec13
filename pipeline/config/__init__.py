"""The settings of a run: run.py is the whole, with one section per stage in download.py, encode.py,
train.py and evaluate.py; section.py is their base class, load.py reads them from a file and
overrides, yaml_tree.py parses the YAML, and paths.py expands paths.
"""
