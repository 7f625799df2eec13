"""Measures what a GPU shows of this project within six minutes, and writes it down as JSON.

From the root of a checkout, which need not be installed:

    python -m tools.gpu_check --out FOLDER                    # everything
    python -m tools.gpu_check --out FOLDER --only train,sample
    python -m tools.gpu_check --out FOLDER --device cpu       # does it run? tiny, means nothing
    python -m tools.gpu_check --table FOLDER/gpu_check.json   # the rows for BENCHMARKS.md

Each section has a deadline, in a process that it alone can break. FOLDER/gpu_check.json is whole
and complete after each of them; FOLDER/gpu_check.log has what the processes print. The exit code
is 1 if a section failed or no time was left for it. No network is used.

For a GPU machine without a package index, whose Python 3.12 has torch, transformers, pyarrow,
PyYAML, OpenCV, matplotlib, SciPy and psutil, take the rest along as wheels, in a folder that git
ignores:

    echo /.gpu/ >> .git/info/exclude
    for wheel in pydantic==2.14.3 pydantic_core==2.50.4 typing-inspection==0.4.5 \\
        annotated-types==0.8.0 typing_extensions==4.16.0 diffusers==0.42.1 \\
        importlib_metadata==9.1.0 xxhash==4.1.0; do
      python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \\
        --platform manylinux2014_x86_64 --dest .gpu/wheels "$wheel"
    done

and there, in the checkout:

    python3 -m pip install --no-index --no-deps --target /tmp/site .gpu/wheels/*.whl
    PYTHONPATH=/tmp/site python3 -m tools.gpu_check --out "$OUT" --total-s 340
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.gpu_check.report import Report, SectionReport
from tools.gpu_check.sections import SECTIONS
from tools.gpu_check.table import caption, markdown
from tools.gpu_check.watch import Watch

_PRINTED_CHARACTERS = 1500  # of the figures of a section


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or print the table of an earlier report. Returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.table:
        report = Report.model_validate_json(options.table.read_text(encoding="utf-8"))
    else:
        sections = {name: SECTIONS[name] for name in options.only or SECTIONS}
        device = options.device or _best_device()
        report = Watch(sections, device, options.out.resolve(), _print).run(options.total_s)
        if report.left_out:
            print("no time was left for", ", ".join(report.left_out))
    print(caption(report), *markdown(report), sep="\n")
    failed = [name for name, section in report.sections.items() if not section.ended]
    return 1 if failed or report.left_out else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tools.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, metavar="FOLDER", help="measure, and write into FOLDER")
    task.add_argument("--table", type=Path, metavar="JSON", help="print the rows of a report")
    parser.add_argument("--total-s", type=float, default=340, help="seconds for all sections")
    parser.add_argument("--only", type=_names, help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--device", help="cuda or cpu; without it, the GPU if there is one")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(
            f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}"
        )
    return names


def _best_device() -> str:
    """As a child sees it, so that this process, which must not fail, never touches the driver."""
    code = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return done.stdout.strip() or "cpu"


def _print(name: str, section: SectionReport) -> None:
    end = "ended" if section.ended else f"failed: {section.problem.strip().splitlines()[-1]}"
    figures = json.dumps(section.values, default=str)[:_PRINTED_CHARACTERS]
    print(f"{name} {end} after {section.seconds:g} s: {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
