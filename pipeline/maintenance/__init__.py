"""Maintenance of a workspace: inventory.py lists its outputs, cleanup.py finds and deletes unneeded
files, trash.py moves them aside and restores them, verify.py checks finished files, and
excluded_rows.py lists the rows of the input that have no encoding. reasons.py says why the stages
of a run are not fresh, stage_costs.py what they will take, and runs.py lists the finished runs.
diagnosis.py checks the installation and the machine.
"""
