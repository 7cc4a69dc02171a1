"""`clean`: what engines that were killed left in shared memory and in the runtime folder."""

import click

from symphony.cli import leave, show
from symphony.cli.show import Settings, settled


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be taken away.")
@settled
def clean(settings: Settings, dry_run: bool) -> None:
    """Take away what engines that were killed left behind.

    Only this user's, and only of engines whose every process is gone: each is told by pid, start time and boot. With
    -n only that engine's.
    """
    from symphony.pit.stale import sweep

    planned = sweep.plan(instance=settings.named)
    swept = sweep.Swept() if dry_run else sweep.sweep(planned)
    items = [
        {
            "engine": entry.instance,
            "state": entry.state,
            "reason": entry.reason,
            "segments": len(entry.segments),
            "size_bytes": entry.size_bytes,
            "taken": entry.instance in swept.instances,
        }
        for entry in planned.entries
    ]
    if settings.output == "json":
        show.document("clean", dry_run=dry_run, items=items)
        return
    columns = [
        ("engine", "engine"),
        ("state", "state"),
        ("segments", "segments"),
        ("size", lambda e: show.size(e["size_bytes"])),
        ("taken", lambda e: "yes" if e["taken"] else "no"),
        ("reason", "reason"),
    ]
    if items or settings.output == "jsonl":
        show.listing(settings, "clean", items, columns)
    else:
        print("nothing is there")
    for name, reason in swept.refused:
        leave.say(f"{name} was not taken away: {reason}")
