"""The page of ``encoder.py``: its results as tables of Markdown."""

import numpy as np

COLUMNS = {"published": "ours, same function", "default": "our default encoder", "peer": "peer"}
"""Contestants by name, as columns of the sweeps."""


def format_page(result: dict) -> str:
    hardware = result["hardware"]
    lines = [
        "# Training steps beside torch-brain 0.1.2's CalciumPOYOPlus",
        "",
        f"`{result['command']}`: {result['minutes']} minutes on {hardware['cpu']}, "
        f"{hardware['cores']} cores, {hardware['threads']} threads, torch {hardware['torch']}"
        + (f", {hardware['gpu']}." if hardware["gpu"] else "."),
        "",
        "Medians over rounds in which the models took turns, each in a process of its own; in "
        "brackets the least and the largest ratio of a round. A step is forward, backward and "
        "AdamW. Windows/s are end to end in one process: step and pipeline, one after the other. "
        "The pipeline of the peer slices HDF5 files, makes tokens and collates; ours gathers from "
        "activity in memory. All repetitions are in `encoder.json.gz`.",
    ]
    for part in result["precisions"]:
        lines += ["", f"## {part['device']}, {'bfloat16' if part['bf16'] else 'single precision'}"]
        lines += ["", *_main_table(part["main"]), "", *_floor_table(part)]
        for name, rows in part["sweeps"].items():
            lines += ["", f"### By {name}", "", *_sweep_table(name, rows)]
    return "\n".join(lines) + "\n"


def _main_table(rows: list[dict]) -> list[str]:
    first = rows[0]
    heading = (
        f"{first['batch']} windows x {first['timesteps']} timesteps x {first['units']} units, "
        f"depth {first['depth']}, heads {first['cross_heads']}/{first['self_heads']} of "
        f"{first['dim_head']}, {first['latents_per_step']} latents x {first['latent_steps']} steps "
        "(our default encoder: its own depth, heads and latents)."
    )
    columns = (
        "model | dim | recordings in a step | forward ms | backward ms | step ms | pipeline ms "
        "| windows/s | peak MB | beyond imports MB | step, times as fast as the peer "
        "| windows/s, times the peer's"
    )
    cells = [
        [row["label"], row["dim"], row["recordings"], row["not_run"]]
        if "not_run" in row
        else [
            row["label"],
            row["dim"],
            row["recordings"],
            *(_milliseconds(row[f"{part}_seconds"]) for part in ("forward", "backward", "step")),
            _milliseconds(row["pipeline_seconds"]),
            f"{row['windows_per_second']:.0f}",
            *_memory(row),
            _ratio(row.get("step_speedups")),
            _ratio(row.get("windows_per_second_gains")),
        ]
        for row in rows
    ]
    return [heading, "", *_table(columns, cells)]


def _floor_table(part: dict) -> list[str]:
    speed = part["speed"]
    text = (
        "How far from the floor. Matrix products are counted by formula, without computing "
        "anything again (the default encoder's as they ran), and run at no more than "
        f"{speed['multiply_adds_per_second'] / 1e9:.0f} billion multiply-adds per second, measured "
        "on one large product; what a step keeps between its passes, and weights, pass at no more "
        f"than {speed['bytes_per_second'] / 1e9:.0f} GB/s, measured by copying. The floor is the "
        "larger of the two times."
    )
    columns = (
        "model | dim | recordings in a step | billion multiply-adds, by formula | as they ran "
        "| arithmetic ms | MB moved | memory ms | step ms | step / floor"
    )
    cells = [
        [
            row["label"],
            row["dim"],
            row["recordings"],
            f"{row['multiply_adds'] / 1e9:.3g}",
            f"{row['multiply_adds_counted'] / 1e9:.3g}",
            _milliseconds(row["arithmetic_seconds"]),
            f"{row['bytes_moved'] / 1e6:,.0f}",
            _milliseconds(row["memory_seconds"]),
            _milliseconds(row["step_seconds"]),
            f"{row['step_over_floor']:.1f}",
        ]
        for row in part["main"]
        if "not_run" not in row
    ]
    return [text, "", *_table(columns, cells)]


def _sweep_table(name: str, rows: list[dict]) -> list[str]:
    sizes = list(dict.fromkeys(row[name] for row in rows))
    at = {(row["contestant"], row[name]): row for row in rows}
    cells = [
        [
            f"{size:,}",
            *(_step(at[who, size]) for who in COLUMNS),
            _ratio(at["published", size].get("step_speedups")),
            *(_beyond_imports(at[who, size]) for who in COLUMNS),
        ]
        for size in sizes
    ]
    slopes = [_slopes(sizes, [at[who, size] for size in sizes]) for who in COLUMNS]
    cells.append(["exponent: all; last two", *slopes])
    columns = " | ".join(
        [
            name,
            *(f"{label}: step ms" for label in COLUMNS.values()),
            "same function, times as fast as the peer",
            *(f"{label}: MB beyond imports" for label in COLUMNS.values()),
        ]
    )
    varied = {"batch", "recordings", "timesteps", "units", "dim"} - {name}
    fixed = [key for key in sorted(varied) if len({row[key] for row in rows}) == 1]
    constant = ", ".join(f"{key} {rows[0][key]:,}" for key in fixed)
    first = rows[0]
    return [
        f"With {constant}, {first['latents_per_step']} latents x {first['latent_steps']} steps. "
        "Cost grows as size to the exponent.",
        "",
        *_table(columns, cells),
    ]


def _slopes(sizes: list[int], rows: list[dict]) -> str:
    """Slope of log step time over log size: of all points, and between the two largest."""
    points = [
        (size, row["step_seconds"])
        for size, row in zip(sizes, rows, strict=True)
        if "not_run" not in row
    ]
    if len(points) < 2:
        return "too few points"
    size, seconds = np.log(points).T
    everything, last = (
        np.polyfit(size[part], seconds[part], 1)[0] for part in (..., slice(-2, None))
    )
    return f"{everything:.2f}; {last:.2f}"


def _step(row: dict) -> str:
    return row["not_run"] if "not_run" in row else _milliseconds(row["step_seconds"])


def _beyond_imports(row: dict) -> str:
    return "" if "not_run" in row else _memory(row)[1]


def _memory(row: dict) -> list[str]:
    """Peak of the process, and beyond its imports; on a GPU what its tensors took there."""
    if "device_megabytes" in row:
        return [f"{row['device_megabytes']:,.0f} on the GPU"] * 2
    return [f"{row['peak_megabytes']:,.0f}", f"{row['beyond_imports_megabytes']:,.0f}"]


def _ratio(rounds: list[float] | None) -> str:
    if rounds is None:
        return ""
    middle = f"{np.median(rounds):.2f}"
    return middle if len(rounds) == 1 else f"{middle} [{min(rounds):.2f}, {max(rounds):.2f}]"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.3g}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def _table(columns: str, rows: list[list]) -> list[str]:
    count = columns.count("|") + 1
    filled = [[*row, *[""] * (count - len(row))] for row in rows]
    return [
        f"| {columns} |",
        "|---" * count + "|",
        *("| " + " | ".join(map(str, row)) + " |" for row in filled),
    ]
