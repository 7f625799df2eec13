"""Storage of stage outputs: what a stage leaves behind, where, and who may write it.

`workspace.py` defines the folder layout, `files.py` writes files atomically, and `digests.py`
computes their digests. `receipts.py` records finished shards, `manifest.py` records finished
stages, `lineage.py` finds the outputs that an output was made from, and `shard_reuse.py` shares
finished shards between outputs. `file_lock.py` allows one writer at a time on a machine, and
`run_records.py` says which runs are at work. The rest serves workspaces in object storage:
`object_access.py` accesses objects, `cached_files.py` keeps local copies of them, `object_store.py`
syncs a whole workspace, `lease.py` decides which machine may write, and `uploader.py` uploads
finished files in the background.
"""
