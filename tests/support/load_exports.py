"""Draws with exported folders, where nothing of this project can be imported.

python -I load_exports.py JOBS.json: each job a folder, what to load it with, the arguments of a
call, seeds, and an .npy file for the pictures or the text of the ValueError; of the last folder the
card's own example is run too.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

OURS = {"tld_model", "data_catalog", "pipeline", "flows", "tests"}


class Absent:
    """An importer that has none of our packages."""

    def find_spec(self, name: str, *_rest: object) -> None:
        if name.partition(".")[0] in OURS:
            raise ImportError(f"{name} is not installed here")


def main() -> None:
    sys.meta_path.insert(0, Absent())
    jobs = json.loads(Path(sys.argv[1]).read_text())
    for job in jobs:
        draw(**job)
    os.chdir(jobs[-1]["folder"])
    found = re.search(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert found
    exec(found[1], {})
    assert not OURS & {name.partition(".")[0] for name in sys.modules}


def draw(
    folder: str, load: dict[str, Any], call: dict[str, Any], seeds: list[int], out: str
) -> None:
    import numpy as np
    import torch
    from diffusers import DiffusionPipeline, ImagePipelineOutput

    if "dtype" in load:
        load["dtype"] = getattr(torch, load["dtype"])
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **load)
    generator: Any = [torch.Generator().manual_seed(seed) for seed in seeds]
    try:
        made = pipe(**call, generator=generator)
    except ValueError as error:
        np.save(out, np.array(str(error)))
        return
    assert isinstance(made, ImagePipelineOutput)
    np.save(out, np.stack([np.asarray(image) for image in made.images]))


if __name__ == "__main__":
    main()
