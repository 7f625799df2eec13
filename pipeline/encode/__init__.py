"""Stage 2: images and captions become VAE latents and text embeddings.

`stage.py` runs the stage and `progress.py` shows how far it is, `shard_encoder.py` encodes one
shard, `image_batches.py` reads, decodes and tokenizes its pairs in batches, `latent_encoder.py`
encodes images with the VAE, `caption_encoder.py` encodes captions with any text encoder,
`shard_encodings.py` is the encodings of a shard in memory, `posterior_noise.py` is the noise of
samples from the VAE's posterior, `latent_statistics.py` measures the latents and their
quantization, `round_trips.py` and `round_trip_page.py` show what the VAE leaves of a few images,
and `unreadable_images.py` finds the images that cannot be decoded.
"""
