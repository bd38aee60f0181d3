"""Fakes of NVIDIA's Python modules against the real ones: what pybind11 says of names and arguments."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from typing import Any

DESCRIBE = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
def text(owner, name):
    found = getattr(owner, name, None)
    if found is None or not callable(found):
        return None if found is None else "property"
    return found.__doc__ or ""
wanted = json.loads(sys.argv[2]).items()
print(json.dumps({kind: {name: text(getattr(trt, kind), name) for name in names} for kind, names in wanted}))
"""


def describe(module: str, wanted: dict[str, list[str]]) -> dict[str, dict[str, str | None]]:
    """Docstrings of the members ``wanted`` by class, "property" for one, None for what there is not.

    From a process of its own: two TensorRTs do not share one.
    """
    command = [sys.executable, "-c", DESCRIBE, module, json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    described: dict[str, dict[str, str | None]] = json.loads(done.stdout.splitlines()[-1])
    return described


def public(kind: type) -> list[str]:
    """What maskring may use of a class of a fake: its own methods and properties."""
    described = (property, type(lambda: None))
    names = [name for name, value in vars(kind).items() if isinstance(value, described)]
    return [name for name in names if not name.startswith("_")]


def arguments(signature_of: Any) -> list[str]:
    """Names of the arguments after ``self``."""
    return [name for name in inspect.signature(signature_of).parameters if name != "self"]


def fits(doc: str, name: str, given: list[str]) -> bool:
    """Whether one of the overloads that pybind11 lists is called rightly with ``given``, by these names."""
    for overload in re.findall(rf"\b{name}\(self: [^,)]+(?:, )?(.*?)\) -> ", doc):
        text = re.sub(r"<[^>]*>", "", overload)
        names = re.findall(r"(\w+): ", text)
        optional = re.findall(r"(\w+): [^,]*=", text)
        if names[: len(given)] == given and set(names[len(given) :]) <= set(optional):
            return True
    return False
