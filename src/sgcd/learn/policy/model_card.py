"""Writes the model card that is saved with a policy."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

_CARD_TEMPLATE = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [agent, tool-use, reinforcement-learning, sgcd]
---

# A policy trained with sgcd

An agent that calls tools: {kind}, {size:,} parameters, trained by reinforcement on its own
rollouts. It needs nothing of the trainer: plain transformers loads it, and its chat template
renders a conversation as in training, earlier turns unchanged.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/of/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```

{bias}{facts}"""

WRITER_FACT = "references written by"
"""The fact that names the language model, if one wrote references."""

USER_FACT = "users played by"
"""The fact that names the language model, if one played the users."""

_REFERENCE_BIAS_NOTE = """\
Where credit went in training was guided by references that a language model ({writer}) wrote after reading the agent's
attempts. What that model prefers, overlooks or takes for wrong may have moved credit and so this policy, though only
verified outcomes decided what was rewarded. It is not needed to use the policy. Keep a person in charge of actions that
cannot be undone.

"""


def build_model_card(model: PreTrainedModel, facts: Mapping[str, Any]) -> str:
    """README.md of a policy, with `facts` and nothing else: no paths, no machine, no date."""
    fact_rows = "".join(f"| {_escape_cell(name)} | {_escape_cell(value)} |\n" for name, value in facts.items())
    return _CARD_TEMPLATE.format(
        kind=type(model).__name__,
        size=sum(parameter.numel() for name, parameter in model.named_parameters() if ".lora_" not in name),
        bias=_REFERENCE_BIAS_NOTE.format(writer=_escape_cell(facts[WRITER_FACT])) if WRITER_FACT in facts else "",
        facts="| fact | value |\n|---|---|\n" + fact_rows if fact_rows else "",
    )


def _escape_cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
