"""The result of a study, from runs whose evaluations are written by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgcd.errors import StudyError
from sgcd.measure.matched_seeds import seed_difference
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import dump_recipe
from sgcd.show.arms.pictures import draw_study
from sgcd.show.arms.tables import render_markdown, render_terminal
from sgcd.storage.metrics import StepMetrics
from sgcd.study.arms import run_study
from sgcd.study.arms.outcome import RunOutcome, mean_training_success
from sgcd.study.arms.plan import PlannedRun, StudyPlan, check_arms
from sgcd.study.arms.result import build_result, judge
from sgcd.study.arms.study_file import HypothesisSettings, Study
from sgcd.study.arms.train_runs import check_same_recipes, crash_path
from sgcd.study.arms.tune import choose_points, summarise_points

RECIPE = Path(__file__).parents[2] / "recipes/lab/grpo.yaml"
GRID = {"seeds": [9, 10], "grid": {"optimizer.lr": [1e-3, 2e-3], "siblings.groups": [2, 4]}}


def make_plan(folder: Path, **changes: Any) -> StudyPlan:
    study = {
        "version": 1, "title": "By hand", "recipe": str(RECIPE), "keys": {"evaluation.trials": 1},
        "arms": {"grpo": {}, "entropy": {"method": {"name": "entropy"}}},
        "compare_with": ["grpo"], "permuted": ["grpo", "entropy"], "seeds": [1, 2, 3],
    }  # fmt: skip
    return StudyPlan(Study.model_validate({**study, **changes}), folder / "study.yaml", folder / "runs")


def outcome(*solved: int, training: float = 0.0, fell: bool = False) -> RunOutcome:
    """A run that solved so many of 20 tasks at steps 0, 20 and 40, with 10 tokens a step."""
    success, categories = tuple(count / 20 for count in solved), {"action": (solved[0] / 20, solved[-1] / 20)}
    return RunOutcome((0, 20, 40), success, (0, 200, 400), categories, 40.0, training, fell)


def conclude(plan: StudyPlan, ends: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The result of runs that solve 8 tasks at the start, 10 on the way, and at the end what `ends` says by seed.

    A run with -1 crashed.
    """
    runs = plan.fresh_runs({})
    found: dict[Path, RunOutcome] = {}
    for run in runs:
        solved = ends[run.arm][plan.study.seeds.index(run.seed)]
        if solved >= 0:
            found[run.path] = outcome(8, 10, solved)
        else:
            crash_path(run).parent.mkdir(parents=True)
            crash_path(run).write_text("sgcd: it broke\n")
    frozen: dict[str, Any] = {"committed": None, "chosen": {}}
    return build_result(plan, frozen, found, tuning_runs=[], fresh_runs=runs)


def start_run(run: PlannedRun) -> None:
    run.path.mkdir(parents=True)
    (run.path / "recipe.yaml").write_text(dump_recipe(run.recipe))


ENDS = {"grpo": (12, 13, 12), "grpo-permuted": (8, 9, 7), "entropy": (14, 14, 15), "entropy-permuted": (12, 11, 13)}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    hypotheses = [
        {"says": "more entropy", "arm": "entropy", "less": "grpo", "expected": "higher"},
        {"says": "none", "arm": "grpo-permuted", "less": "start", "expected": "same"},
        {"says": "beyond", "arm": "entropy", "less": "grpo", "beyond_permuted": True, "expected": "higher"},
    ]
    return conclude(make_plan(tmp_path_factory.mktemp("study"), hypotheses=hypotheses), ENDS)


def test_arms_have_means_and_paired_differences(result: dict[str, Any]) -> None:
    assert [*result["arms"]] == [*ENDS]
    arm = result["arms"]["grpo"]
    assert [arm[name]["value"] for name in ("start", "end")] == pytest.approx([0.4, 37 / 60])
    assert arm["gain"]["value"] == pytest.approx(13 / 60)
    [row] = result["differences"][0]["rows"]
    by_hand = seed_difference([2 / 20, 1 / 20, 3 / 20])
    assert (row["arm"], row["value"], row["p"]) == ("entropy", pytest.approx(0.1), pytest.approx(by_hand.p))
    assert row["p_corrected"] == row["p"]
    assert result["runs"] == {
        "planned": 12, "finished": 12, "missing": [], "started": 0, "started_for_tuning": 0,
        "started_and_not_in_the_file": 0,
    }  # fmt: skip


def test_a_difference_of_differences_is_taken_seed_by_seed(result: dict[str, Any]) -> None:
    beyond = {row["arm"]: row for row in result["permuted"]["beyond"]}
    assert beyond["grpo"]["value"] == pytest.approx((4 + 4 + 5) / 60)
    assert beyond["entropy"]["value"] == pytest.approx((2 + 3 + 2) / 60)
    [row] = result["permuted"]["against"]
    by_hand = seed_difference([-2 / 20, -1 / 20, -3 / 20])
    assert (row["value"], row["p"]) == (pytest.approx(-0.1), pytest.approx(by_hand.p))


def test_each_hypothesis_has_a_verdict_and_a_p_corrected_over_all(result: dict[str, Any]) -> None:
    verdicts = {one["says"]: one["verdict"] for one in result["hypotheses"]}
    assert verdicts == {"more entropy": "not shown", "none": "not contradicted", "beyond": "not shown"}
    assert result["hypotheses"][0]["p_corrected"] == pytest.approx(3 * result["hypotheses"][0]["p"])


@pytest.mark.parametrize(
    ("expected", "differences", "p", "verdict"),
    [
        ("higher", [0.1, 0.2], 0.01, "shown"),
        ("lower", [0.1, 0.2], 0.01, "contradicted"),
        ("lower", [-0.1, -0.2], 0.01, "shown"),
        ("same", [0.1, 0.2], 0.01, "contradicted"),
        ("same", [0.1, 0.2], 0.2, "not contradicted"),
        ("higher", [0.1], None, "not tested"),
    ],
)
def test_verdicts(expected: str, differences: list[float], p: float | None, verdict: str) -> None:
    one = HypothesisSettings.model_validate({"says": "x", "arm": "a", "less": "b", "expected": expected})
    assert judge(one, seed_difference(differences), p) == verdict


def test_the_page_has_what_the_result_has(result: dict[str, Any]) -> None:
    page = render_markdown(result)
    assert page == render_markdown(json.loads(json.dumps(result)))
    assert "| entropy | 3 | +.100 [-.024, +.224] |" in page
    assert "12 of 12 runs have a result" in page


@pytest.mark.slow
def test_pictures_have_the_same_bytes_twice(result: dict[str, Any]) -> None:
    pictures = draw_study(result)
    assert pictures == draw_study(json.loads(json.dumps(result)))
    assert [*pictures] == ["curves.svg", "curves.png", "differences.svg", "differences.png"]
    assert ElementTree.fromstring(pictures["curves.svg"]).tag.endswith("svg")
    assert pictures["curves.png"].startswith(b"\x89PNG")


def test_a_crashed_run_is_shown_as_missing(tmp_path: Path) -> None:
    result = conclude(make_plan(tmp_path), {**ENDS, "entropy": (14, -1, 15)})
    assert result["runs"]["missing"] == [{"arm": "entropy", "seed": 2, "reason": "sgcd: it broke"}]
    [row] = result["differences"][0]["rows"]
    assert (row["seeds"], row["missing_seeds"]) == (2, [2])
    assert "missing: entropy seed 2: sgcd: it broke" in [*render_terminal(result)]


def test_one_seed_has_no_p_value_and_says_so(tmp_path: Path) -> None:
    result = conclude(make_plan(tmp_path, seeds=[1]), {arm: ends[:1] for arm, ends in ENDS.items()})
    [row] = result["differences"][0]["rows"]
    assert (row["p"], row["p_corrected"], row["low"]) == (None, None, None)
    assert row["reason"] == "one seed: no interval and no p-value"
    assert "one seed: no p-value and no interval; give at least two" in [*render_terminal(result)]


def test_runs_of_an_earlier_file_are_counted(tmp_path: Path) -> None:
    other = make_plan(tmp_path, arms={"grpo": {}, "parting": {"method": {"name": "parting"}}}, permuted=[])
    start_run(next(run for run in other.fresh_runs({}) if run.arm == "parting"))
    result = conclude(make_plan(tmp_path), ENDS)
    assert result["runs"]["started_and_not_in_the_file"] == 1


def test_a_run_with_other_keys_is_refused(tmp_path: Path) -> None:
    [run, *_] = make_plan(tmp_path).fresh_runs({})
    start_run(run)
    check_same_recipes([run])
    with_limit = load_recipe(dump_recipe(run.recipe), ["optimizer.micro_batch_tokens=99"])
    (run.path / "recipe.yaml").write_text(dump_recipe(with_limit))  # sgcd train fills it in
    check_same_recipes([run])
    [changed, *_] = make_plan(tmp_path, keys={"optimizer.lr": 0.01}).fresh_runs({})
    with pytest.raises(StudyError, match=r"optimizer\.lr was 0\.001, is 0\.01"):
        check_same_recipes([changed])


def test_every_point_learns_from_equally_many_groups(tmp_path: Path) -> None:
    runs = make_plan(tmp_path, tuning=GRID).tuning_runs()
    assert len(runs) == 2 * 4 * 2
    assert {run.recipe.steps * run.recipe.siblings.groups for run in runs} == {160}
    assert {run.recipe.optimizer.warmup * run.recipe.siblings.groups for run in runs} == {20}
    assert runs[0].point == "lr=0.001,groups=2"


def test_the_best_point_that_never_breaks_is_chosen(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tuning={"seeds": [9, 10], "grid": {"optimizer.lr": [1e-3, 2e-3, 4e-3]}})
    runs = plan.tuning_runs()
    found: dict[Path, RunOutcome] = {}
    for run in runs:
        better = run.arm == "entropy" and run.point == "lr=0.002"
        breaks = run.point == "lr=0.004" and run.seed == 10
        found[run.path] = outcome(8, 20 if run.point == "lr=0.004" else 10, 14 if better else 12, fell=breaks)
    assert choose_points(plan, runs, found) == {"grpo": {"optimizer.lr": 1e-3}, "entropy": {"optimizer.lr": 2e-3}}
    assert [row["breaks"] for row in summarise_points(plan.study, runs, found)] == [False, False, True] * 2
    chosen = {run.arm: run.recipe.optimizer.lr for run in plan.fresh_runs(choose_points(plan, runs, found))}
    assert chosen["entropy-permuted"] == chosen["entropy"] == 2e-3


def test_an_arm_that_crashes_at_every_point_is_named_with_its_last_line(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tuning={"seeds": [9], "grid": {"optimizer.lr": [1e-3, 2e-3]}})
    runs = plan.tuning_runs()
    with pytest.raises(StudyError, match="grpo breaks at every point of the grid; expected one at which no seed ends"):
        choose_points(plan, runs, {})
    crash_path(runs[0]).parent.mkdir(parents=True)
    crash_path(runs[0]).write_text("sgcd: reference.writer: no such writer\n")
    with pytest.raises(StudyError, match=r"grpo breaks .*; it crashed: sgcd: reference\.writer: no such writer"):
        choose_points(plan, runs, {})


def test_success_in_training_is_compared_and_tuned_by_where_the_file_says_so(tmp_path: Path) -> None:
    tuning = {"seeds": [9], "grid": {"optimizer.lr": [1e-3, 2e-3]}}
    plan = make_plan(tmp_path, outcome="training", tuning=tuning, permuted=[])
    runs = plan.tuning_runs()
    found = {run.path: outcome(8, 9, 10, training=0.4 if run.point == "lr=0.002" else 0.3) for run in runs}
    chosen = choose_points(plan, runs, found)
    assert chosen == {"grpo": {"optimizer.lr": 2e-3}, "entropy": {"optimizer.lr": 2e-3}}
    fresh = plan.fresh_runs(chosen)
    found |= {run.path: outcome(8, 9, 10, training=0.5 + 0.1 * (run.arm == "entropy")) for run in fresh}
    result = build_result(plan, {"committed": None, "chosen": chosen}, found, tuning_runs=runs, fresh_runs=fresh)
    [row] = result["differences"][0]["rows"]
    assert row["value"] == pytest.approx(0.1)
    page = render_markdown(result)
    assert "mean success in training, on seeds of its own" in page
    assert "tuned to the largest optimizer.lr of the grid, beyond which they may be better: grpo, entropy" in page
    assert result["arms"]["entropy"]["training"]["value"] == pytest.approx(0.6)


def test_success_in_training_counts_every_rollout_that_did_not_break() -> None:
    rows = [StepMetrics(step=1, rollouts=8, success=0.5), StepMetrics(step=2, rollouts=8, broken=6, success=1.0)]
    assert mean_training_success([*rows, StepMetrics(step=3, rollouts=8, broken=8)]) == pytest.approx(6 / 10)
    assert mean_training_success([]) == 0


def test_seeds_take_the_starts_in_turn(tmp_path: Path) -> None:
    tuning = {"seeds": [9, 10], "grid": {"optimizer.lr": [1e-3]}, "keys": {"policy.start": "lab:plain"}}
    plan = make_plan(tmp_path, starts=["lab:plain", "lab:chatty"], tuning=tuning)
    starts = {run.seed: run.recipe.policy.start for run in plan.fresh_runs({})}
    assert starts == {1: "lab:plain", 2: "lab:chatty", 3: "lab:plain"}
    assert {run.recipe.policy.start for run in plan.tuning_runs()} == {"lab:plain"}


def test_a_declared_difference_is_allowed(tmp_path: Path) -> None:
    arms = {"grpo": {}, "clip": {"surrogate.clip": 0.3}}
    with pytest.raises(StudyError, match=r"surrogate\.clip"):
        check_arms(make_plan(tmp_path, arms=arms, permuted=[]))
    check_arms(make_plan(tmp_path, arms=arms, permuted=[], differences=["surrogate"]))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0.01, 1))
def test_a_threshold_is_reached_between_the_evaluations_around_it(success: list[float], threshold: float) -> None:
    run = RunOutcome(tuple(range(len(success))), tuple(success), tuple(range(len(success))), {}, 0.0)
    step = run.step_of(threshold)
    if step is None:
        assert max(success) < threshold
    else:
        assert run.success_at_tokens(step) == pytest.approx(threshold) or (step == 0 and success[0] >= threshold)
        assert all(value < threshold for value in success[: int(step - 1e-9)])


def test_a_stopped_study_leaves_the_result_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path, permuted=[])
    plan.path.write_text(plan.study.model_dump_json())

    def stop(runs: Sequence[PlannedRun], *_: object) -> None:
        if runs:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_study, "train_runs", stop)
    monkeypatch.setattr(run_study, "draw_study", lambda _: {})
    with pytest.raises(KeyboardInterrupt):
        run_study.run_study(plan.path, plan.folder, jobs=1, report=print)
    result = json.loads((plan.folder / "result.json").read_text())
    assert result["runs"]["finished"] == 0 and {row["reason"] for row in result["runs"]["missing"]} == {"not finished"}
    assert "grpo seed 1" in (plan.folder / "result.md").read_text()
