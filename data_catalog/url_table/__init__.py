"""The table of URLs and captions, read in bounded memory: `table.py` opens it and yields checked
rows in shards, `numbered_rows.py` numbers rows across the files of a table, `built_in.py` has those
of the built-in data set, `row_checks.py` decides which rows can be used, and `packed_columns.py`
packs their further columns as JSON. `files.py` finds and decompresses files, `formats.py` chooses
the reader of a file, `rows.py` defines the row batches that all readers give, `csv_rows.py`,
`json_rows.py` and `parquet_rows.py` are the readers, and `text_lines.py` splits text into lines."""
