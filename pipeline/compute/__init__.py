"""Where the work runs: worker processes, Ray actors, training processes on one or several machines.

`shard_map.py` applies a worker to shards with back pressure and retries, `worker_pool.py` runs the
workers as processes of this machine, which `spawned_process.py` starts, `ray_pool.py` as actors of
a Ray cluster, which `ray_cluster.py` joins, and `engine.py` chooses between the two.
`child_processes.py` runs training processes, `rendezvous.py` and `node_group.py` bring several
machines together, and `ranks.py` is the process group that trains one model. `isolated_process.py`
calls a function that may crash, `stalled_process.py` and `parent_watch.py` watch processes,
`resource_limits.py` explains shortages of this machine, `devices.py` chooses a device and its
precision, and `hardware.py` names the machine. `core_threads.py` divides a batch among the cores of
a CPU, `inference.py` runs a denoiser for sampling, and `worker_numbers.py` tells a worker its
number, by which it takes a GPU.
"""
