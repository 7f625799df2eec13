"""Pretrained encoders: `names.py` finds their folders and identities, `config_files.py` and
`text_config.py` read their configs without torch, `pretrained.py` loads and checks their weights,
`vae.py` converts between pixels and latents, and `clip.py` embeds captions and images.
`text_encoder.py` embeds captions with any model: `text_model.py` loads it, `sentence_modules.py`
reads how a sentence encoder pools, and `text_states.py` computes."""
