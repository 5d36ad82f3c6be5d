"""What a step costs, on the user's own inputs: sampling, tools, references, teachers, student and update."""

from dataclasses import asdict, dataclass
from math import ceil

from pydantic import ValidationError

from sgcd.assemble import build_controlled_method
from sgcd.credit.methods import Needs
from sgcd.errors import RecipeError
from sgcd.recipe.schema import Recipe
from sgcd.settings import NonNegative, Positive, Settings, Share
from sgcd.storage.yaml import load_yaml


class CostInputs(Settings):
    """Figures of a machine and of its tasks, from a step of GRPO there."""

    sampled: Positive
    """Tokens that all samplers together write in a second."""
    read: Positive
    """Tokens that all processes together read in a second, in a forward pass without a gradient."""
    prompt: Positive
    """Tokens of a task's prompt."""
    response: Positive
    """Tokens of a response, observations included."""
    written: Positive | None = None
    """Those of them that the policy writes; all of them by default."""
    turns: Positive = 1
    """Turns of a rollout."""
    tool: NonNegative = 0
    """Seconds that an environment takes for a turn."""
    reference: NonNegative = 200
    """Tokens of a reference."""
    writer: NonNegative = 0
    """Seconds that the writer takes for a reference."""
    mixed: Share = 0.5
    """The share of groups whose rewards differ."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of a step, by what they are spent on."""

    sampling: float
    tools: float
    references: float
    teachers: float
    student: float
    """Passes of the student, and of the policy as it began, that no gradient comes from."""
    update: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def read_cost_inputs(text: str) -> CostInputs:
    """From the words of `--cost`, such as {sampled: 2000, read: 30000, prompt: 3000, response: 4000}."""
    values = load_yaml(text, "--cost", "list of inputs, such as {sampled: 2000, read: 30000}")
    try:
        return CostInputs.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}" for one in error.errors())
        raise RecipeError(f"--cost: {problems}; its keys are {', '.join(CostInputs.model_fields)}") from None


def estimate_step_cost(recipe: Recipe, inputs: CostInputs) -> StepCost:
    """Seconds of one step of the recipe's method."""
    method = build_controlled_method(recipe)
    return _estimate(recipe, inputs, method.needs, needs_whole_step=method.needs_whole_step)


def estimate_grpo_cost(recipe: Recipe, inputs: CostInputs) -> StepCost:
    """Seconds of the same step without a teacher."""
    return _estimate(recipe, inputs, None, needs_whole_step=False)


def describe_step_cost(recipe: Recipe, inputs: CostInputs) -> str:
    cost = estimate_step_cost(recipe, inputs)
    parts = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in asdict(cost).items() if seconds)
    ratio = cost.total / estimate_grpo_cost(recipe, inputs).total
    return f"about {cost.total:.3g} s a step, {ratio:.2f} times GRPO's: {parts}"


def _estimate(recipe: Recipe, inputs: CostInputs, needs: Needs | None, *, needs_whole_step: bool) -> StepCost:
    siblings = recipe.siblings
    num_kept = siblings.groups * siblings.group_size
    num_played = min(ceil(siblings.groups / inputs.mixed), siblings.groups * siblings.rounds) * siblings.group_size
    forward_seconds = num_kept * (inputs.prompt + inputs.response) / inputs.read
    reference_seconds = num_kept * inputs.reference / inputs.read
    return StepCost(
        sampling=num_played * (inputs.written or inputs.response) / inputs.sampled,
        tools=ceil(num_played / recipe.sampler.slots) * inputs.turns * inputs.tool,
        references=inputs.writer if needs and needs.needs_references else 0.0,
        teachers=count_teacher_passes(needs) * forward_seconds + count_reference_passes(needs) * reference_seconds,
        student=count_student_passes(recipe, needs_whole_step=needs_whole_step) * forward_seconds,
        update=recipe.optimizer.updates * update_passes(recipe) * forward_seconds,
    )


def count_teacher_passes(needs: Needs | None) -> int:
    """One for each teacher; one more for each where the support is the student's or another text is compared with."""
    if needs is None:
        return 0
    return len(needs.teachers) * (1 + (needs.support == "student") + (needs.compare_with != "student"))


def count_reference_passes(needs: Needs | None) -> int:
    """Those of a teacher's passes in which rows are longer by a text."""
    if needs is None:
        return 0
    return sum(teacher.context != "none" for teacher in needs.teachers) * (1 + (needs.compare_with != "student"))


def count_student_passes(recipe: Recipe, *, needs_whole_step: bool) -> int:
    """verl reads the student before every update. The local engine reads it in the update itself, but for a method
    that must see a whole step first."""
    return (recipe.engine == "verl" or needs_whole_step) + (recipe.surrogate.kl > 0)


def update_passes(recipe: Recipe) -> int:
    """An update in forward passes: forward, backward to the activations, backward to the weights, and where
    activations are computed again, that."""
    policy = recipe.policy
    return 2 + (policy.lora.rank == 0) + policy.gradient_checkpointing
