"""A first config for a user's own data, as `tld init` writes it: `look.py` finds out what is at a
path, `choose.py` picks settings for it and for this machine, and `config.yaml.j2` is the text of
the file."""
