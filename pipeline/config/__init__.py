"""The settings of a run: run.py is the whole, with one section per stage in download.py, encode.py,
train.py, distill.py and evaluate.py; launch.py and score.py are parts of train.py; phases.py says
how a phase follows from the one before it, mix.py of which phases a training mixes the encodings;
section.py is the base class of sections, load.py reads them from a file and overrides,
config_file.py finds the file, named_runs.py gives runs names, yaml_tree.py parses the YAML,
paths.py expands paths, and typed_settings.py writes settings as they are typed. feature_weights.py
finds the weights that evaluate.features names, distribution.py the version of tld and how its
extras are installed, command_line.py what was typed, for records. presets/ has the configs that are
shipped and the JSON Schema by which editors check configs, which tools/schema_of_settings.py
writes; conf/ links to them.
"""
