"""`extension ls, show`: what extensions can be found, without an engine; their manifests are read, nothing is run."""

from typing import Any

import click

from symphony.cli import leave, show
from symphony.cli.show import Settings, settled


def _found() -> dict[str, Any]:
    from symphony.extension.discovery import discover
    from symphony.model.errors import ManifestError

    mistakes: list[ManifestError] = []
    found = discover(mistakes=mistakes)
    for mistake in mistakes:
        leave.say(str(mistake))
    return found


def _item(manifest: Any) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "name": manifest.name,
        "version": manifest.version,
        "kind": manifest.kind,
        "handlers": sorted(manifest.handlers),
        "players": [manifest.instances_min, manifest.instances_max],
        "isolation": manifest.isolation,
        "directory": manifest.directory,
    }


@click.command()
@settled
def ls(settings: Settings) -> None:
    """Every extension that can be found: in SYMPHONY_EXTENSION_PATH, in installed packages, and those that ship.

    The column "level" is the least isolation level that it accepts; this engine runs extensions at level 0.
    """
    columns = [
        ("extension", "id"),
        ("version", "version"),
        ("kind", "kind"),
        ("players", lambda e: "{}-{}".format(*e["players"])),
        ("level", "isolation"),
        ("handlers", lambda e: ", ".join(e["handlers"])),
    ]
    show.listing(settings, "extension ls", [_item(manifest) for manifest in _found().values()], columns)


@click.command("show")
@click.argument("extension")
@settled
def show_(settings: Settings, extension: str) -> None:
    """One extension with its handlers, their inputs and outputs."""
    from symphony.model.errors import UsageError
    from symphony.model.words import did_you_mean

    found = _found()
    if extension not in found:
        raise UsageError(f"no extension {extension!r} can be found{did_you_mean(extension, found)}")
    manifest = found[extension]
    handlers = [_handler(handler) for handler in manifest.handlers.values()]
    item = {**_item(manifest), "about": manifest.about, "permissions": manifest.permissions, "handlers": handlers}
    show.single(settings, "extension show", item, lambda: _tell(item))


def _handler(handler: Any) -> dict[str, Any]:
    inputs = [
        {"name": name, "type": port.type, "required": port.required, "default": port.default}
        for name, port in handler.inputs.items()
    ]
    outputs = [{"name": name, "type": kind} for name, kind in handler.outputs.items()]
    return {"name": handler.name, "about": handler.about, "inputs": inputs, "outputs": outputs}


def _tell(item: dict[str, Any]) -> None:
    keys = ("id", "name", "version", "kind", "about", "directory")
    show.facts([*((key, item[key] or None) for key in keys), ("players", "{} to {}".format(*item["players"]))])
    for handler in item["handlers"]:
        inputs = ", ".join(
            f"{port['name']}: {port['type']}" + ("" if port["required"] else f" = {port['default']!r}")
            for port in handler["inputs"]
        )
        outputs = ", ".join(
            f"{port['name']}: {port['type']}" if port["name"] else port["type"] for port in handler["outputs"]
        )
        print(f"\n{show.bold(item['id'] + '.' + handler['name'])}({inputs}) -> {outputs}")
        if handler["about"]:
            print(f"    {handler['about']}")
