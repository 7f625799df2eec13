"""The order of a run: its stages phase by phase, each on the outputs of those before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import StageName
from pipeline.stages.dag import parents_among
from pipeline.stages.freshness import EVALUATE_DISTILLED
from pipeline.stages.run_inputs import RunInputs

MakeOutput = Callable[[RunInputs, StageName, Mapping[str, Manifest]], Manifest]
"""(inputs of a phase, stage, parents in the order of its spec) -> its output"""


def run_in_order(
    inputs: RunInputs, until: StageName | None, make_output: MakeOutput
) -> dict[str, Manifest]:
    """The outputs of a run, the last one last: all stages up to `until`; without it also the report
    of a distilled model. Of a run with phases the stages of each, and the later stages of the last.

    Those of the last phase have the names of their stages, those of the earlier ones that of their
    phase too, as in "encode first".
    """
    outputs, phases = dict[str, Manifest](), dict[str, dict[str, Manifest]]()
    for phase in inputs.chain:
        outputs = _run_phase(phase, inputs.stages_until(until), phases, make_output)
        phases[phase.config.phase or ""] = outputs
    phases.popitem()
    if until is None and (of_distilled := inputs.distilled):
        parents = {stage: outputs[stage] for stage in of_distilled.stages["evaluate"].parents}
        outputs[EVALUATE_DISTILLED] = make_output(of_distilled, "evaluate", parents)
    earlier = {
        f"{stage} {name}": output
        for name, of_phase in phases.items()
        for stage, output in of_phase.items()
    }
    return earlier | outputs


def _run_phase(
    phase: RunInputs,
    names: Sequence[StageName],
    earlier: Mapping[str, Mapping[str, Manifest]],
    make_output: MakeOutput,
) -> dict[str, Manifest]:
    """The outputs of the stages of a phase that are among `names`, on those of earlier phases."""
    outputs: dict[str, Manifest] = {}
    for name in [name for name in names if name in phase.stages]:
        if phase.shares(name):
            outputs[name] = [*earlier.values()][-1][name]
        else:
            parents = parents_among(phase.stages[name], outputs, earlier)
            outputs[name] = make_output(phase, name, parents)
    return outputs
