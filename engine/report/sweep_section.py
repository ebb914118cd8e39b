"""The report's section about sweeps: a table of all points, and each metric against each swept field."""

from engine.report import pictures
from engine.report.blocks import Block, Picture, Remark, Section, Table
from engine.report.collect import ReportData
from engine.results.sweeps import SEED, VALIDATION_LOSS, Sweep, lines, sweep_table


def sweep_section(data: ReportData, metrics: list[str]) -> list[Section]:
    """One section if any spec has a sweep, else none; METRICS are the measured ones, the main one first."""
    blocks = [block for sweep in data.sweeps for block in _blocks(sweep, metrics[0] if metrics else VALIDATION_LOSS)]
    return [Section("sweeps", "Sweeps", blocks)] if blocks else []


def _blocks(sweep: Sweep, main: str) -> list[Block]:
    if not sweep.metrics:
        return [Remark(f"Not built yet: the points of {sweep.name}. Run: engine build {sweep.spec}")]
    shown = main if main in sweep.metrics else sweep.metrics[0]
    blocks: list[Block] = [Table(f"{sweep.name}: {shown} by point [interval]", *sweep_table(sweep, shown))]
    # A plot against seeds shows no trend: if other fields are swept too, the seed only separates lines.
    for field in [field for field in sweep.fields if field != SEED] or sweep.fields:
        for metric in dict.fromkeys((shown, VALIDATION_LOSS)):
            if found := [line for line in lines(sweep, field, metric) if line.points]:
                name = f"sweep-{sweep.name}-{field.replace('.', '-')}-{metric}"
                caption = f"{sweep.name}: {metric} against {field}, one line per task and combination of the other fields"
                blocks.append(Picture(name, caption, pictures.against(name, field, metric, found)))
    return blocks
