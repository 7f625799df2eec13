"""Programs for developers, which no command imports: `python -m tools.NAME`.

`audit_lock` checks the locked versions for known vulnerabilities, `load_serve` and `load_engine`
are load tests, `gpu_check` measures everything on a GPU, `busy_neighbour` what another process
takes from a CPU, `stack_test` starts the containers' commands without containers,
`write_prefect_schema` writes down the tables of Prefect's database, `train_autoencoder` trains a
VAE on the images of a run, by the recipe in `autoencoder_recipe`, and `train_demo_encoders` the
encoders that ship with tld (`partial_captions`, `demo_encoder_scores`). `emoji_tars` builds a set
of emoji with captions from npm packages (`npm_packages`, `emoji_styles`, `emoji_rows`).
"""
