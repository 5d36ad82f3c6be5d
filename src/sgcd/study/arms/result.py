"""The result of a study: each arm's success over seeds, its paired differences, and what became of the hypotheses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgcd.measure.matched_seeds import POWER, SIGNIFICANCE, SeedDifference, correct_by_holm, seed_difference
from sgcd.measure.statistics import clip_interval, t_interval
from sgcd.storage.atomic import SCHEMA, Row
from sgcd.study.arms.outcome import OutcomeByPath, RunOutcome
from sgcd.study.arms.plan import PlannedRun, StudyPlan, started_folders
from sgcd.study.arms.study_file import PERMUTED_SUFFIX, START, HypothesisSettings, Study
from sgcd.study.arms.train_runs import read_crash
from sgcd.study.arms.tune import summarise_points

Outcomes = Mapping[str, Mapping[int, RunOutcome]]
"""By arm and seed; a run that is missing is not there."""
BySeed = dict[int, float]


def build_result(
    plan: StudyPlan,
    frozen: Row,
    found: OutcomeByPath,
    *,
    tuning_runs: Sequence[PlannedRun],
    fresh_runs: Sequence[PlannedRun],
) -> dict[str, Any]:
    """The same runs give the same bytes: nothing here depends on time or place."""
    study = plan.study
    outcomes = group_by_arm(study, fresh_runs, found)
    tokens = [outcome.tokens[-1] for by_seed in outcomes.values() for outcome in by_seed.values()]
    return {
        "schema": SCHEMA,
        "study": study.model_dump(mode="json"),
        "committed": frozen["committed"],
        "chosen": frozen["chosen"],
        "split": fresh_runs[0].recipe.evaluation.split,
        "significance": SIGNIFICANCE,
        "power": POWER,
        "runs": count_runs(plan, tuning_runs, fresh_runs, outcomes),
        "tuning": summarise_points(study, tuning_runs, found),
        "equal_tokens": min(tokens, default=None),
        "arms": {arm: summarise_arm(study, arm, outcomes, min(tokens, default=0)) for arm in outcomes},
        "differences": [compare_with_all(study, outcomes, control) for control in study.compare_with],
        "permuted": compare_with_permuted(study, outcomes),
        "hypotheses": judge_hypotheses(study, outcomes),
    }


def group_by_arm(study: Study, runs: Sequence[PlannedRun], found: OutcomeByPath) -> Outcomes:
    outcomes: dict[str, dict[int, RunOutcome]] = {arm: {} for arm in study.arm_names()}
    for run in runs:
        if run.path in found:
            outcomes[run.arm][run.seed] = found[run.path]
    return outcomes


def count_runs(
    plan: StudyPlan, tuning_runs: Sequence[PlannedRun], fresh_runs: Sequence[PlannedRun], outcomes: Outcomes
) -> dict[str, Any]:
    """Every run that was started, under an earlier file too; and each run that has no result, with the reason."""
    planned = {run.path for run in (*tuning_runs, *fresh_runs)}
    started = {*started_folders(plan.folder)}
    missing = [
        {"arm": run.arm, "seed": run.seed, "reason": read_crash(run) or "not finished"}
        for run in fresh_runs
        if run.seed not in outcomes[run.arm]
    ]
    return {
        "planned": len(fresh_runs),
        "finished": len(fresh_runs) - len(missing),
        "missing": missing,
        "started": len(started & {run.path for run in fresh_runs}),
        "started_for_tuning": len(started & {run.path for run in tuning_runs}),
        "started_and_not_in_the_file": len(started - planned),
    }


def summarise_arm(study: Study, arm: str, outcomes: Outcomes, equal_tokens: float) -> dict[str, Any]:
    """Means over seeds with t intervals. `reached` has the median step over all finished seeds, if it is finite."""
    runs = outcomes[arm]
    values = [*runs.values()]
    steps = values[0].steps if values else ()
    return {
        "seeds": {str(seed): outcome.to_json() for seed, outcome in runs.items()},
        "start": rate_over_seeds([run.start for run in values]),
        "end": rate_over_seeds([run.end for run in values]),
        "mean": rate_over_seeds([run.mean for run in values]),
        "training": rate_over_seeds([run.training for run in values]),
        "gain": seed_difference([run.end - run.start for run in values]).to_json(),
        "at_equal_tokens": rate_over_seeds([run.success_at_tokens(equal_tokens) for run in values]),
        "tokens": t_interval([run.tokens[-1] for run in values]).to_json(),
        "reached": {f"{threshold:g}": summarise_steps(values, threshold) for threshold in study.thresholds},
        "curve": [[step, rate_over_seeds([run.success[at] for run in values])] for at, step in enumerate(steps)],
        "categories": summarise_categories(values),
    }


def summarise_categories(runs: Sequence[RunOutcome]) -> dict[str, Any]:
    """Success of each category at the start and at the end."""
    names = dict.fromkeys(name for run in runs for name in run.categories)
    return {
        name: {
            moment: rate_over_seeds([run.categories[name][at] for run in runs if name in run.categories])
            for at, moment in enumerate(("start", "end"))
        }
        for name in names
    }


def rate_over_seeds(values: Sequence[float]) -> dict[str, Any]:
    return clip_interval(t_interval(values), 0.0, 1.0).to_json()


def summarise_steps(runs: Sequence[RunOutcome], threshold: float) -> dict[str, Any]:
    steps = [run.step_of(threshold) for run in runs]
    median = float(np.median([np.inf if step is None else step for step in steps])) if steps else np.inf
    reached = sum(step is not None for step in steps)
    return {"median_step": median if np.isfinite(median) else None, "seeds": reached}


def compare_with_all(study: Study, outcomes: Outcomes, control: str) -> dict[str, Any]:
    """Every other arm less this one, seed by seed, with p-values corrected over these rows."""
    differences = {arm: subtract_arms(study, outcomes, arm, control) for arm in study.arms if arm != control}
    return {"less": control, "rows": correct_rows(study, differences)}


def compare_with_permuted(study: Study, outcomes: Outcomes) -> dict[str, Any]:
    """Every arm with a twin less this twin, and that difference less the one of the first control.

    The first says what an arm learns from the verifier, the second how much more that is than the control learns from
    it. Each list of rows has p-values that are corrected over it.
    """
    beyond = {arm: beyond_permuted(study, outcomes, arm) for arm in study.permuted}
    control = study.compare_with[0]
    beyond_control: dict[str, BySeed] = {}
    if control in beyond:
        beyond_control = {arm: subtract(beyond[arm], beyond[control]) for arm in beyond if arm != control}
    return {"less": control, "beyond": correct_rows(study, beyond), "against": correct_rows(study, beyond_control)}


def correct_rows(study: Study, differences: Mapping[str, BySeed]) -> list[dict[str, Any]]:
    tests = {arm: seed_difference([*by_seed.values()]) for arm, by_seed in differences.items()}
    corrected = correct_by_holm([test.p for test in tests.values()])
    return [
        {
            "arm": arm,
            **test.to_json(),
            "p_corrected": p,
            "missing_seeds": [seed for seed in study.seeds if seed not in differences[arm]],
        }
        for (arm, test), p in zip(tests.items(), corrected, strict=True)
    ]


def judge_hypotheses(study: Study, outcomes: Outcomes) -> list[dict[str, Any]]:
    """Each hypothesis with its test, corrected over all hypotheses of the file, and a verdict."""
    differences = [hypothesis_differences(study, outcomes, one) for one in study.hypotheses]
    tests = [seed_difference([*by_seed.values()]) for by_seed in differences]
    corrected = correct_by_holm([test.p for test in tests])
    return [
        {**one.model_dump(mode="json"), **test.to_json(), "p_corrected": p, "verdict": judge(one, test, p)}
        for one, test, p in zip(study.hypotheses, tests, corrected, strict=True)
    ]


def judge(hypothesis: HypothesisSettings, test: SeedDifference, p: float | None) -> str:
    """That two arms are the same is never shown, only not contradicted."""
    if p is None or test.estimate.value is None:
        return "not tested"
    if p >= SIGNIFICANCE:
        return "not contradicted" if hypothesis.expected == "same" else "not shown"
    return "shown" if hypothesis.expected == ("higher" if test.estimate.value > 0 else "lower") else "contradicted"


def hypothesis_differences(study: Study, outcomes: Outcomes, one: HypothesisSettings) -> BySeed:
    if one.beyond_permuted:
        return subtract(*(beyond_permuted(study, outcomes, name) for name in (one.arm, one.less)))
    if one.less == START:
        return subtract(
            outcome_by_seed(study, outcomes, one.arm), {seed: run.start for seed, run in outcomes[one.arm].items()}
        )
    return subtract_arms(study, outcomes, one.arm, one.less)


def beyond_permuted(study: Study, outcomes: Outcomes, arm: str) -> BySeed:
    """What an arm learns beyond its permuted twin."""
    return subtract_arms(study, outcomes, arm, arm + PERMUTED_SUFFIX)


def subtract_arms(study: Study, outcomes: Outcomes, arm: str, less: str) -> BySeed:
    return subtract(outcome_by_seed(study, outcomes, arm), outcome_by_seed(study, outcomes, less))


def subtract(first: BySeed, second: BySeed) -> BySeed:
    """Seed by seed, over the seeds that both sides have."""
    return {seed: value - second[seed] for seed, value in first.items() if seed in second}


def outcome_by_seed(study: Study, outcomes: Outcomes, arm: str) -> BySeed:
    """The number that the study compares, by seed."""
    return {seed: run.compared(study.outcome) for seed, run in outcomes[arm].items()}
