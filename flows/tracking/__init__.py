"""Tracking of runs in MLflow, and in TensorBoard; stages see only a Tracker and neither of them.

Start with `tracker`: the parent run and the runs of stages, which `run_lifecycle` begins and ends.
`stage_tracker` is what a stage reports to, `run_names` names runs by what differs, `pages` knows
their addresses. Their content is described by `messages`, sent by `outbox` in a background thread,
and written to MLflow by `delivery`. `store` opens MLflow, `local_store` is its database in a
workspace, `open_runs` ends the runs of killed processes, `system_metrics` samples the machine.
`tensorboard_tracker` is a second tracker, to which `stage_tracker` passes on what a stage reports.
`logged_model` stores a model in MLflow, and `registry` selects the champion.
"""
