"""What is checked before a run begins, so that a mistake costs no work.

check.py collects the problems; data_checks.py looks at the table, the encoders and the model,
continuation_checks.py at the checkpoint of train.continue_from, phase_checks.py at what a phase
changes, mix_checks.py at train.mix, gate_checks.py at evaluate.require, machine_checks.py at the
workspace, the devices and the other machines.
"""
