"""sgcd references compare: how much the writer of a run's references matters."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sgcd.cli.answer import print_json, progress, results
from sgcd.errors import FolderError, RecipeError
from sgcd.recipe import Recipe, load
from sgcd.run import RunFolder
from sgcd.show.sensitivity import sensitivity_tables

if TYPE_CHECKING:
    from sgcd.assemble import Assembly
    from sgcd.learn.sensitivity import Case, Scorer

SCHEMA = 1


def compare(run: Path, keys: Sequence[str], groups: int, trials: int, seed: int, as_json: bool) -> None:
    folder = RunFolder.open(run)
    if not folder.played():
        raise FolderError(f"{run}: the run has no rollouts/ to write references of anew; they come with its first step")
    policy = policy_of(folder)
    told = load(folder.path / "recipe.yaml", [*keys, *([f"policy.start={policy}"] if policy else [])])
    from sgcd.assemble import assemble

    built = assemble(told)
    if built.method.needs is None:
        raise RecipeError(
            f"{run}: {told.method.name} reads no reference; to see what one would credit, add method.name=sgcd"
        )
    begun = perf_counter()
    found = asyncio.run(sensitivity(folder, told, built, groups, trials, seed))
    found = {"schema": SCHEMA, "run": str(run), **found, "seconds": round(perf_counter() - begun, 1)}
    if as_json:
        print_json(found)
        return
    for one in sensitivity_tables(found):
        results().print(one, soft_wrap=isinstance(one, str))


async def sensitivity(
    folder: RunFolder, told: Recipe, built: "Assembly", groups: int, trials: int, seed: int
) -> dict[str, Any]:
    """Write anew, score the same rollouts under every text, and in the lab play under every text."""
    from sgcd.contrast.rewrite import rewritten
    from sgcd.learn.sensitivity import OWN, compare, weigh

    say, endpoint = progress().print, built.endpoint
    async with endpoint.opened() if endpoint else nullcontext():
        cases, steps, without = await saved(folder, built, groups)
        say(f"{len(cases)} groups of {len(steps)} steps; writing references anew")
        both = [case.siblings for case in cases], [case.own for case in cases]
        arms, causes = await rewritten(*both, built.contrast, seed)
    every = [[text for arm in arms.values() for text in arm[at]] for at in range(len(cases))]
    say(f"scoring {sum(len(case.siblings.rollouts) for case in cases)} rollouts under each")
    weighed = weigh(scorer(told, built), cases, every)
    itself = {OWN: [[case.own] for case in cases]}
    figures = {name: compare(weighed, cases, arm) for name, arm in {**itself, **arms}.items()}
    played = await success(told, built, cases, {**itself, **arms}, trials, seed, say)
    return {
        "policy": told.policy.start,
        "writer": built.contrast.writer.name,
        "steps": steps,
        "groups": len(cases),
        "groups without a reference": without,
        "not written": dict(causes.most_common()),
        "calls": endpoint.account.split() if endpoint else None,
        "seed": seed,
        "trials": trials if played else 0,
        "arms": {name: {**each, "played": played.get(name)} for name, each in figures.items()},
        "without": played.get("without"),
    }


async def saved(folder: RunFolder, built: "Assembly", most: int) -> tuple[list["Case"], list[int], int]:
    """The latest groups that the run learnt from, with the references that it has kept of them."""
    from sgcd.contrast.literals import literals_of
    from sgcd.contrast.mask import Literals
    from sgcd.learn.sensitivity import Case

    cases, steps, without, mixed = list["Case"](), list[int](), 0, 0
    for step in reversed(folder.played()):
        kept = [group.siblings for group in folder.read_rollouts(step) if group.kept and group.siblings.mixed]
        rows = {row["task"]: row for row in folder.read_references(step)}
        mixed += len(kept)
        for group in kept[: most - len(cases)]:
            row = rows.get(group.task.id) or (await built.contrast.refer(group)).plain()
            if "text" not in row:
                without += 1
                continue
            literals = literals_of(group, built.contrast.chat).joined(Literals.of(row["literals"]))
            cases.append(Case(group, row["text"], literals))
            steps += [step] if step not in steps else []
    if not mixed:
        raise FolderError(f"{folder.path}: no siblings of this run are mixed, so there is nothing to contrast")
    if len(cases) < 2:
        raise FolderError(f"{folder.path}: {len(cases)} groups of this run have a reference; expected at least 2")
    return cases, sorted(steps), without


def scorer(told: Recipe, built: "Assembly") -> "Scorer":
    from sgcd.learn.policy import window_of
    from sgcd.learn.sensitivity import Scorer

    model: Any = built.policy.model
    how = told.surrogate, told.sampler.temperature, told.scoring.tokens, told.scoring.bytes
    return Scorer(model, built.contrast, built.method, *how, window_of(model.config))


async def success(
    told: Recipe, built: "Assembly", cases: Sequence["Case"], arms: Any, trials: int, seed: int, say: Any
) -> dict[str, Any]:
    """For runs of the lab, whose tasks can be played with a reference; of arms with one text for each group."""
    if told.environment.name != "lab" or not trials:
        return {}
    from sgcd.lab.heeded import heeded
    from sgcd.learn.sensitivity import OWN

    texts = {name: [some[0] if some else "" for some in arm] for name, arm in arms.items() if max(map(len, arm)) < 2}
    say(f"playing {len(cases)} tasks, {trials} trials each, with {len(texts)} kinds of references and without any")
    tasks = [case.siblings.task for case in cases]
    return await heeded(tasks, texts, OWN, trials, built.policy.chat, built.sampler, seed)


def policy_of(folder: RunFolder) -> Path | None:
    """The run's last policy, else its newest checkpoint, else where it started from."""
    if folder.policy_path.is_dir():
        return folder.policy_path
    steps = folder.checkpoints()
    return folder.checkpoint_path(steps[-1]) if steps else None
