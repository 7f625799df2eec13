"""The data that stages exchange: formats, file names and storage, without torch.

`input_rows.py` gives the rows of stage 1 (form 1): of a table of URLs and captions, which
`url_table/` reads and checks, or of images that exist already, which `image_sources/` reads.
`images.py` reads image shards (form 2), `tar_samples.py` any tar in webdataset layout,
`encodings.py` reads and writes encoded shards (form 3), and `model_files.py` names the files of a
trained model (form 4). `storage/` holds manifests, locks and object storage. `sources/` lists known
data sets, and `shapes/` is the built-in one. `image_formats.py` opens image files safely,
`text_files.py` reads text files, and `redaction.py` hides credentials in URLs. `deduplication.py`
finds duplicate images, `excluded_rows.py` records rows that are left out on purpose,
`row_counts.py` lists rows by outcome, `scores.py` names the scores of a model, and `figures.py`
with `latent_figures.py` and `text_figures.py` says what manifests hold of an output.
"""
