"""Orchestration of runs with Prefect.

`stage_task` makes each stage a Prefect task, `shard_tasks` each shard. `prefect_server` runs a
Prefect server of our own: `prefect_home` is its folder, `prefect_app` its process, `prefect_api`
asks it, `prefect_watch` restarts it, and `background` is work beside its start. `prefect_address`
checks a server that PREFECT_API_URL names, and `proxies` keeps proxies away from local servers.
`run_summary` is the page of a run in Prefect and its closing summary, `flow_run` shows them there,
and `webhook` reports failures to a URL.
"""
