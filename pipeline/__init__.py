"""The training pipeline: download, encode, train and evaluate, and what uses their outputs.

In reading order: stages holds the rules that all stages share, config the settings of a run, and
preflight the checks before it starts. download, encode, train and evaluate are stages; distill is
in train, and run is what stands above them. dataset, scoring and held_out serve training and
evaluation, compute runs work in processes and on clusters, reporting builds pages. generate,
serving and export use a trained model; first_config and browse look at data before a training,
bench and maintenance measure and clean up. api.py is the Python API.

Child processes must not import modules from the folder in which a user happens to start the
program, such as a `logging.py` or a `pipeline/` of their own. The environment variables set here
ensure this for all kinds of child: `-m`, `-c`, multiprocessing, and those that a library starts.
"""

import os
import sys
from pathlib import Path

os.environ["PYTHONSAFEPATH"] = "1"
_checkout, _standard_library = str(Path(__file__).parents[1]), str(Path(os.__file__).parent)
_python_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
_first = [os.path.realpath(path) for path in sys.path[: sys.path.index(_standard_library)]]
if os.path.realpath(_checkout) in _first and _checkout not in _python_path:
    # In a checkout that is not installed, as with `python -m flows.cli`, children find it like this
    # process did.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*_python_path, _checkout]))
