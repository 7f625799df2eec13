"""Pretrained encoders: `names.py` finds their folders and identities, `config_files.py` reads their
configs without torch, `pretrained.py` loads and checks their weights, `vae.py` converts between
pixels and latents, and `clip.py` embeds captions and images."""
