"""Rules that all stages share: dag.py lists the stages, contract.py defines what a stage receives
and returns, output_settings.py which settings an output depends on, freshness.py its fingerprint
and state, run_stage.py runs or skips a stage, integrity.py checks files before they are read, and
remote_workspace.py handles workspaces in object storage.
"""
