"""``make sbom``: build/sbom.json, a CycloneDX 1.6 bill of what maskring stands on.

Names, versions and hashes are those of constraints.hashes.txt; licences and who needs whom are what the
installed packages say. ``scope`` is ``required`` for what the base install brings, ``optional`` for training,
tests and docs. The same tree and environment give the same file: it holds no date and no random number.
"""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).parent))
from lock import LOCK, ROOT, Entry, normal, read_lock

OUT = ROOT / "build" / "sbom.json"
WEIGHTS = ROOT / "training" / "weights"


def needs(name: str, extras: frozenset[str]) -> dict[str, frozenset[str]]:
    """Normal names, and extras, of what an installed package asks for on this machine."""
    found: dict[str, frozenset[str]] = {}
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""})):
            needed = normal(requirement.name)
            found[needed] = found.get(needed, frozenset()) | frozenset(requirement.extras)
    return found


def closure(name: str, extras: frozenset[str]) -> set[str]:
    """Normal names of everything that a package brings, itself among them."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, extras)]
    while waiting:
        package = waiting.pop()
        if package not in seen:
            seen.add(package)
            waiting += [(needed, more) for needed, more in needs(*package).items()]
    return {package for package, _ in seen}


def licences(name: str) -> list[dict[str, Any]]:
    """What a package says of its licence: an SPDX expression, its own words, or the first line of its licence file."""
    about = metadata.metadata(name).json
    if expression := about.get("license_expression"):
        return [{"expression": expression}]
    said = str(about.get("license", "")).strip().splitlines()
    classified = [line for line in about.get("classifier", ()) if line.startswith("License ::")]
    words = said if said and len(said[0]) < 100 else [line.rsplit(" :: ", 1)[1] for line in classified]
    if not words:
        files = [file for file in metadata.files(name) or () if file.parent.name == "licenses"]
        words = [file.read_text().splitlines()[0].strip() for file in files]
    return [{"license": {"name": word}} for word in words[:1]]


def component(entry: Entry, required: set[str]) -> dict[str, Any]:
    """A package; its hashes are those of the files that may be installed, one per platform."""
    name = normal(entry.name)
    reference = f"pkg:pypi/{name}@{entry.version}"
    made: dict[str, Any] = {"type": "library", "bom-ref": reference, "name": entry.name}
    made |= {"version": entry.version, "scope": "required" if name in required else "optional"}
    made["hashes"] = [{"alg": "SHA-256", "content": digest} for digest in sorted(entry.hashes)]
    if said := licences(name):
        made["licenses"] = said
    return made | {"purl": reference}


def checkpoint(path: Path) -> dict[str, Any]:
    """Weights that maskring ships."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made = {"type": "machine-learning-model", "bom-ref": f"maskring/{path.name}", "name": path.name}
    return made | {"scope": "required", "hashes": [{"alg": "SHA-256", "content": digest}]}


def bill() -> dict[str, Any]:
    """The document.

    Raises:
        importlib.metadata.PackageNotFoundError: when a package of the lock is not installed.
    """
    entries = read_lock(LOCK.read_text())
    required = closure("maskring", frozenset())
    own = f"pkg:pypi/maskring@{metadata.version('maskring')}"
    references = {name: f"pkg:pypi/{name}@{entry.version}" for name, entry in entries.items()}
    weights = [checkpoint(path) for path in sorted(WEIGHTS.glob("*.safetensors"))]
    components = [component(entry, required) for entry in entries.values()] + weights
    asked = {normal(Requirement(line).name) for line in metadata.requires("maskring") or ()}
    direct = sorted(asked & set(entries))
    shipped = [made["bom-ref"] for made in weights]
    depends = [{"ref": own, "dependsOn": [*shipped, *(references[name] for name in direct)]}]
    for name, reference in references.items():
        wanted = sorted(references[needed] for needed in needs(name, frozenset()) if needed in references)
        depends.append({"ref": reference, "dependsOn": wanted})
    subject: dict[str, Any] = {"type": "application", "bom-ref": own, "name": "maskring", "purl": own}
    subject |= {"version": metadata.version("maskring"), "licenses": [{"expression": "Apache-2.0"}]}
    document: dict[str, Any] = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    document |= {"metadata": {"component": subject}, "components": components, "dependencies": depends}
    content = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
    return {**document, "serialNumber": f"urn:uuid:{uuid.UUID(bytes=content[:16], version=4)}"}


def main() -> None:
    """Write the bill."""
    document = bill()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1) + "\n")
    needed = sum(made["scope"] == "required" for made in document["components"])
    print(f"{OUT.relative_to(ROOT)}: {len(document['components'])} components, {needed} of them to track")


if __name__ == "__main__":
    main()
