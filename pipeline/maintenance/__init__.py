"""Maintenance of a workspace: inventory.py lists its outputs, cleanup.py finds and deletes unneeded
files, trash.py moves them aside and restores them, verify.py checks finished files, and
excluded_rows.py lists the rows of the input that have no encoding. diagnosis.py checks the
installation and the machine.
"""
