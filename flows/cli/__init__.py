"""The command line `tld`: one module for each command.

Start with `app`, which registers all commands and turns errors into exit codes; `groups` holds
their shared arguments. The stages: `stages` and `download`, with `servers`, `results` and
`run_naming`; `watch` and `stop` with `run_view`, from another terminal. Images:
`sample` (`sample_options`, `sample_request`), `interpolate`, `edit`, `panorama`, which share
`image_options`, `model_source`, `out_path` and `problems`; `serve`. Measurements: `compare`,
`sweep`, `bench`, with the text of `tables`. Models: `promote`, `export`, `convert_checkpoint`.
Upkeep: `status` with `reasons`, `runs`, `clean` with `clean_models`, `deploy`, `ui` with
`ui_servers`, `config`, `catalog`.
"""
