"""Keys that stand twice in a block of YAML: every reader keeps the last one, in silence."""

from __future__ import annotations

from pathlib import Path

import yaml

from privset import PrivsetError


def refuse_duplicate_keys(path: Path) -> None:
    """Raises PrivsetError, with both lines, for the first key of the file that stands twice in its block."""
    todo = [yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)]
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    continue  # no key of a configuration, as the schema will say
                if key.value in seen and key.value != "<<":
                    raise PrivsetError(f"{path}: line {line}: key {key.value!r} is in line {seen[key.value]} already; remove one")
                seen[key.value] = line
                todo.append(value)
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value
