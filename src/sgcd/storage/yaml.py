"""YAML 1.2 as recipes use it: read a mapping, lay key=value over it, write it out again."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.representer import SafeRepresenter

from sgcd.errors import RecipeError

YamlData = dict[str, Any]


def load_yaml(source: Path | str, where: str, kind: str = "recipe") -> YamlData:
    """The mapping in a file (a Path) or in a text (a str), in what JSON can hold; `kind` is what errors call it."""
    data = _parse(_read_text(source, kind), where)
    if data is None:
        raise RecipeError(f"{where}: empty; expected a {kind}, which begins with version: 1")
    if not isinstance(data, dict):
        raise RecipeError(f"{where}: expected a mapping of keys to values, got {short_json(data)}")
    return cast(YamlData, _to_json_value(data, where))


def dump_yaml(data: Mapping[str, Any]) -> str:
    out = io.StringIO()
    yaml = _build_yaml()
    yaml.Representer = _Writer
    yaml.dump(data, out)
    return out.getvalue()


def apply_override(data: YamlData, override: str) -> None:
    """Lay one `a.b=c` over the data."""
    path, equals, text = override.partition("=")
    *sections, last = path.split(".")
    if not equals or not all([*sections, last]):
        raise RecipeError(f"{override}: expected key=value with the key's full path, such as optimizer.lr=1e-4")
    for depth, section in enumerate(sections, 1):
        if data.get(section) is None:
            data[section] = {}
        inner = data[section]
        if not isinstance(inner, dict):
            raise RecipeError(f"{override}: no such key; {'.'.join(sections[:depth])} holds {short_json(inner)}")
        data = cast(YamlData, inner)
    data[last] = _to_json_value(_parse_value(override, text), override)


def short_json(value: Any) -> str:
    """A value on one line and not too long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_text(source: Path | str, kind: str) -> str:
    if isinstance(source, str):
        return source
    try:
        return source.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"{source}: expected a YAML file in UTF-8, got something else") from None
    except OSError as error:
        raise RecipeError(f"{source}: expected a {kind}'s YAML file, got: {error.strerror}") from None


def _build_yaml() -> YAML:
    """1.2, in which 1e-4 is a number and no is text."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 4096
    return yaml


def _parse(text: str, where: str) -> Any:
    try:
        return _build_yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{place}: not valid YAML: {error.problem or error.context}") from None
    except (YAMLError, ValueError) as error:
        raise RecipeError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None


def _parse_value(override: str, text: str) -> Any:
    """Numbers, true, false, null, quoted text and flow collections as YAML reads them; any other text as it stands."""
    if text.lstrip()[:1] in {"{", "[", '"', "'"}:
        return _parse(text, override)
    try:
        value = _build_yaml().load(text)
    except (YAMLError, ValueError):
        return text
    is_bare_null = value is None and text.strip() not in {"", "~", "null", "Null", "NULL"}
    return text if is_bare_null or isinstance(value, str | dict | list) else value


def _to_json_value(value: Any, where: str, depth: int = 0) -> Any:
    """What JSON can hold; keys and dates become text, so that the check can name them."""
    if depth > 32:
        raise RecipeError(f"{where}: nested too deeply, or a section that contains itself")
    if isinstance(value, dict):
        return {str(key): _to_json_value(inner, where, depth + 1) for key, inner in cast(dict[Any, Any], value).items()}
    if isinstance(value, list | tuple | set):
        return [_to_json_value(inner, where, depth + 1) for inner in cast(list[Any], value)]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


class _Writer(SafeRepresenter):
    """Keys in their own order; quotes around line breaks, which would be folded, and around the words that YAML 1.1,
    which PyYAML reads, takes for truth values."""

    def represent_in_order(self, data: YamlData) -> Any:
        return self.represent_mapping("tag:yaml.org,2002:map", list(data.items()))

    def represent_text(self, text: str) -> Any:
        quoted = text.lower() in {"yes", "no", "on", "off", "y", "n"} or not text.isprintable()
        style = '"' if quoted else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Writer.add_representer(dict, _Writer.represent_in_order)
_Writer.add_representer(str, _Writer.represent_text)
