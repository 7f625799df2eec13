"""The stages: download, encode, train, evaluate.

Child processes of this one must not import what lies in the folder where a user happens to start
them: a `logging.py` or a `pipeline/` of theirs. Their environment says so here, once for all kinds
of them: `-m`, `-c`, multiprocessing, and those that a library starts.
"""

import os
import sys
from pathlib import Path

os.environ["PYTHONSAFEPATH"] = "1"
_checkout, _standard_library = str(Path(__file__).parents[1]), str(Path(os.__file__).parent)
_python_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
_first = [os.path.realpath(path) for path in sys.path[: sys.path.index(_standard_library)]]
if os.path.realpath(_checkout) in _first and _checkout not in _python_path:
    # A checkout that is not installed, as in `python -m flows.cli`: children find it as we did.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*_python_path, _checkout]))
