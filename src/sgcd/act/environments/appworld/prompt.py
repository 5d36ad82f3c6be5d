"""What the policy reads before its first turn, and how code is read from a turn."""

import re
from collections.abc import Mapping
from typing import Any

_SYSTEM = """\
You act for a person in a world of apps, by writing Python. The person is {first_name} {last_name}, with the e-mail \
address {email} and the phone number {phone_number}. It is {time}.

Each of your turns must have a block of code:

```python
print(apis.api_docs.show_app_descriptions())
```

The code is run, and its output is the next message. Variables stay from one turn to the next. Only what is printed is \
shown, and a long output loses its middle.

Every app is an attribute of `apis`, and each of its functions is called with named arguments. These functions tell \
you what there is:
- apis.api_docs.show_api_descriptions(app_name=...) lists the functions of an app.
- apis.api_docs.show_api_doc(app_name=..., api_name=...) describes a function: its arguments and what it returns.
- apis.supervisor has the person's profile, addresses, payment cards and passwords. Most apps need a login, which \
returns an access token.

The apps are:
{apps}

Look up a function before you first call it. Functions that list something return it page by page. Never guess a \
password, an id or a date. Nobody answers questions: decide yourself. Leave everything unchanged that the task does \
not ask for.

When the task is done, call apis.supervisor.complete_task(answer=...), with the answer if the task asks for one, as \
short as it can be, and without one otherwise. This ends the task. If it cannot be done, call \
apis.supervisor.complete_task(status="fail")."""

NO_CODE = "No code was run: a turn needs a block that begins with ```python and ends with ```."
_BLOCK = re.compile(r"^[ \t]*```(?:python|py)?[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def write_system_message(opened: Mapping[str, Any]) -> str:
    """The system message of a world that was opened."""
    apps = "\n".join(f"- {name}: {description}" for name, description in opened["apps"].items())
    return _SYSTEM.format(**opened["person"], time=opened["time"].replace("T", " "), apps=apps)


def read_code(text: str) -> str | None:
    """The code in a turn, all its blocks in order; None where there is no block. The last one may lack its end.

    >>> read_code("I look.\\n```python\\nx = 1\\n```\\nThen\\n```python\\nprint(x)\\n```")
    'x = 1\\n\\nprint(x)\\n'
    >>> read_code("print(x)") is None
    True
    """
    blocks = _BLOCK.findall(text)
    return "\n".join(blocks) if blocks else None
