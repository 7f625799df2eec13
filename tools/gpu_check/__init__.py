"""Everything that a GPU shows of this project, measured by one command: `__main__.py` says how.

`watch.py` runs the sections of `sections.py` in child processes (`worker.py`) and keeps what they
find; each section is a generator of figures in a module of its own name. `machine.py` holds the
clocks and sizes, `table.py` the goals and the rows of BENCHMARKS.md.
"""
