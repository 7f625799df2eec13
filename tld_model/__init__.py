"""The model and its mathematics, independent of the rest of the project: `config.py` holds the
settings of architecture and sampling, `denoiser.py` is the network, `layers.py` has its layers, and
`joint_block.py` its blocks of joint attention.
`diffusion.py` has the noise path and the loss, `sampler.py` has guidance and solvers, and
`inpainting.py` handles known parts of an image. `encoders/` wraps the VAE, CLIP and other text
encoders; `quantize.py` and `quantize_tokens.py` store latents and token states compactly.
`checkpoint.py` saves and loads a denoiser, `weights_file.py` validates the header of its file,
`training_state.py` reads a checkpoint of a training, `weight_transfer.py` initializes one denoiser
from another, and `original_checkpoint.py` and `original_layouts.py` convert models of
apapiu/transformer_latent_diffusion."""
