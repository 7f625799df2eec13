"""Rules that all stages share: dag.py lists the stages, contract.py defines what a stage receives
and returns, output_settings.py which settings an output depends on, run_inputs.py its fingerprint,
setting_changes.py in which settings two outputs differ, freshness.py its state, run_stage.py runs
or skips a stage, progress.py shows how far unfinished work is, integrity.py checks files before
they are read, and remote_workspace.py handles workspaces in object storage.
"""
