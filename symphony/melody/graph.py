"""A score to look at: the graph as text, and as plain data for `-o json`."""

from typing import Any

from symphony.model.score import InputType, Score, Source, Step


def graph_text(score: Score) -> str:
    """The melody's inputs, its steps in playing order with what each waits for, and its outputs; one line a step."""
    inputs = ", ".join(_input_text(name, score.inputs[name]) for name in score.input_order)
    rows = [_row(score, step) for step in score.steps]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{score.name}({inputs})"]
    lines += [
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in rows
    ]
    lines += [f"  -> {name} = {source_text(score, source)}" for name, source in score.outputs.items()]
    return "\n".join(lines)


def graph_data(score: Score) -> dict[str, Any]:
    """The same as plain data."""
    inputs = [
        {"name": name, "type": score.inputs[name].type, "required": score.inputs[name].required,
         "default": score.inputs[name].default} for name in score.input_order
    ]  # fmt: skip
    steps = [
        {"name": step.name, "use": step.use, "each": source_text(score, step.each) if step.each else None,
         "batch": step.batch, "needs": step.dependencies(), "outputs": step.outputs} for step in score.steps
    ]  # fmt: skip
    outputs = {name: source_text(score, source) for name, source in score.outputs.items()}
    return {"name": score.name, "inputs": inputs, "steps": steps, "outputs": outputs}


def source_text(score: Score, source: Source) -> str:
    """A source as an author would write it: "walk.files", "chunk", "{path}"."""
    if not source.step:
        return f"{{{score.input_order[source.output]}}}"
    output = score.step(source.step).outputs[source.output]
    return f"{source.step}.{output}" if output else source.step


def _input_text(name: str, kind: InputType) -> str:
    return f"{name}: {kind.type}" + ("" if kind.required else f" = {kind.default!r}")


def _row(score: Score, step: Step) -> tuple[str, str, str, str]:
    each = f"each {source_text(score, step.each)}" if step.each else ""
    if step.batch:
        each += f" by {step.batch}"
    needs = step.dependencies()
    shown = ", ".join(needs[:6]) + (f" and {len(needs) - 6} more" if len(needs) > 6 else "")
    return step.name, step.use, each, f"<- {shown}" if needs else ""
