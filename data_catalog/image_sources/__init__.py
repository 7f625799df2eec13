"""Images that exist already, as stage 1 reads them in place of URLs: `source.py` finds out what is
at a path and opens it, and reads the content of images by their addresses. `find_tree.py` finds the
files of a source and `file_tree.py` lists them; `tar_images.py`, `folder_images.py`,
`parquet_images.py` and `hub_images.py` read webdataset tars, folders, Parquet files with image
bytes, and Hugging Face data sets. `sample_columns.py` gives the texts beside an image by column."""
