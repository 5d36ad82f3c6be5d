"""B9, B10, B11 and the cost curves of docs/performance.md, from kept figures."""

from typing import Any

_Json = dict[str, Any]
_MAX_STEP_RATIO, _MIN_SPEEDUP = 0.5, 1.2


def real_step_section(measured: _Json) -> _Json:
    """B9: a step with common prefixes over the same step without, and where its seconds go."""
    shared, alone = measured["shared"], measured["alone"]
    ratio = sum(shared["seconds"].values()) / sum(alone["seconds"].values())
    case = {"name": "a whole step, CPU time", "figure": ratio, "target": _MAX_STEP_RATIO, "least": False}
    lines = [measured["note"], ""]
    lines += _row("part of the step", "seconds, sharing", "seconds, each row by itself") + _row(*["---"] * 3)
    for name in shared["seconds"]:
        lines += _row(name, f"{shared['seconds'][name]:.2f}", f"{alone['seconds'][name]:.2f}")
    lines += _row("peak of memory, GB", f"{shared['bytes'] / 1e9:.2f}", f"{alone['bytes'] / 1e9:.2f}")
    return {
        "title": "a step of SGCD on the real 135M model, common prefixes once over each row by itself",
        "cases": [case],
        "note": "\n".join(lines),
    }


def sampling_section(measured: _Json) -> _Json:
    """B10: sampled tokens a CPU second, beside `generate` and transformers' continuous batching."""
    cases = [
        {
            "name": f"sampler over generate: {each['case']}",
            "figure": each["ratio"],
            "target": _MIN_SPEEDUP,
            "least": True,
        }
        for each in measured["cases"]
    ]
    lines = ["Random weights in the shape of SmolLM2-135M, float32. Sampled tokens a CPU second:", ""]
    lines += _row("conversations", "sampler", "generate", "continuous batching") + _row(*["---"] * 4)
    for each in measured["cases"]:
        speeds = [f"{each[arm]:.1f}" for arm in ("sampler", "generate", "continuous batching")]
        lines += _row(each["case"], *speeds)
    return {"title": "sampling", "cases": cases, "note": "\n".join(lines)}


TRAINER_CASES: dict[str, tuple[str, float]] = {
    "verl_overhead": ("verl: (step of SGCD - step of GRPO) over one forward pass of the teacher", 1.25),
    "verl_driver_memory": ("verl: the driver's resident memory after the last step over that after the third", 1.02),
    "trl_time": ("TRL: SGCDTrainer's step over GRPOTrainer's, on the same rollouts", 1.5),
    "trl_memory": ("TRL: peak memory of SGCDTrainer over GRPOTrainer's", 1.1),
}
"""Cases of B11, in words, and their targets: at most this."""
_TRAINERS_NOTE = (
    "verl: its worker and FSDP engine in one process, random Qwen3 as in B5, 4 rollouts of 288 tokens, CPU seconds, "
    "the least of interleaved rounds; TransferQueue and Ray are not in it. Its driver: a run of the lab on Ray. TRL: "
    "CPU seconds of rollouts whose sampling costs nothing, the least of three interleaved runs."
)


def trainers_section(measured: _Json) -> _Json:
    """B11: what SGCD costs inside other trainers, each figure with its day."""
    cases = [
        {"name": words, "figure": measured.get(name, {}).get("figure"), "target": target, "least": False}
        for name, (words, target) in TRAINER_CASES.items()
    ]
    days = ", ".join(f"{name} on {one['date']}" for name, one in measured.items() if name in TRAINER_CASES)
    return {
        "title": "SGCD inside verl and inside TRL's trainer, beside their GRPO",
        "cases": cases,
        "note": f"{_TRAINERS_NOTE} Measured: {days}.",
    }


def curves_section(measured: _Json) -> list[str]:
    """The picture, and the exponents beside the expected ones."""
    lines = ["![cost curves](pictures/cost-curves.svg)", ""]
    lines += [
        "A step of SGCD over one group: teacher, student, gradient, optimizer; random Qwen3 of two layers, float32.",
        "The exponent is the slope of the least-squares line through the logarithms; one is linear. What does not grow",
        "with the size, such as the optimizer, flattens a curve; attention bends it up.",
        "",
    ]
    lines += _row("curve", "from", "to", "time", "expected", "memory", "seconds", "MB")
    lines += _row(*["---"] * 8)
    for curve in measured["curves"]:
        ends = [f"{curve['x'][index]:,}" for index in (0, -1)]
        seconds = " to ".join(f"{curve['seconds'][index]:.2f}" for index in (0, -1))
        megabytes = " to ".join(f"{curve['bytes'][index] / 1e6:.0f}" for index in (0, -1))
        exponents = [f"{curve['time exponent']:.2f}", f"{curve['expected']:g}", f"{curve['memory exponent']:.2f}"]
        lines += _row(f"{curve['name']}, {curve['unit']}", *ends, *exponents, seconds, megabytes)
    return [*lines, ""]


def _row(*cells: str) -> list[str]:
    return [f"| {' | '.join(cells)} |"]
