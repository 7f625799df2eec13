"""A whole run, above the stages, which do not know each other: `stage_order` calls them phase by
phase, `stage_work` is what each does with the outputs before it, `train_nodes` trains on several
machines. `whole_run` is a run from Python, and `stage_events` what its callback hears.
"""
