"""Medians, quartiles and ratios of what the contestants measured, as JSON and as a table."""

import statistics
from typing import Any

NGRL = "ngrl"
_HEAD = (
    "| row | threads | contestant | envs | steps/s | update, ms | ngrl is × as fast | its update is × as fast "
    "| ÷ one thread |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles of at least two values."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": float(f"{median:.4g}"), "q1": float(f"{low:.4g}"), "q3": float(f"{high:.4g}")}


def ratios(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Median and quartiles of each round's ratio."""
    return quartiles([a / b for a, b in zip(numerator, denominator, strict=True)])


def rates(segments: list[dict[str, Any]]) -> list[float]:
    """Environment steps per second of each round."""
    return [segment["env_steps"] / segment["seconds"] for segment in segments]


def update_times(segments: list[dict[str, Any]]) -> list[float] | None:
    """Each round's median milliseconds of an update; None where they can't be told."""
    if not all(segment["update_seconds"] for segment in segments):
        return None
    return [1e3 * statistics.median(segment["update_seconds"]) for segment in segments]


def summarise(measured: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """One row's figures.

    Args:
      measured: By threads ("1", "default"), then by contestant, "ngrl" among them: what each round measured.

    Returns:
      By threads and contestant: `env_steps_per_second`, `update_ms` where it can be told; for peers
      `ngrl_speedup`, ngrl's rate over the peer's, and `ngrl_update_speedup`, the peer's update time over ngrl's; with
      default threads `over_one_thread`, the rate over that with one thread. All with median and quartiles over rounds.
    """
    result: dict[str, Any] = {}
    for threads, contestants in measured.items():
        for name, segments in contestants.items():
            mine, times = rates(segments), update_times(segments)
            figures: dict[str, Any] = {"env_steps_per_second": quartiles(mine)}
            if times is not None:
                figures["update_ms"] = quartiles(times)
            if name != NGRL:
                figures["ngrl_speedup"] = ratios(rates(contestants[NGRL]), mine)
                ngrl_times = update_times(contestants[NGRL])
                if times is not None and ngrl_times is not None:
                    figures["ngrl_update_speedup"] = ratios(times, ngrl_times)
            if threads != "1" and "1" in measured:
                figures["over_one_thread"] = ratios(mine, rates(measured["1"][name]))
            result.setdefault(threads, {})[name] = figures
    return result


def shown(figures: dict[str, Any], name: str) -> str:
    """`1,234 (1,200–1,300)`, or a dash."""
    if name not in figures:
        return "–"
    value = figures[name]

    def number(x: float) -> str:
        return f"{x:,.0f}" if abs(x) >= 1_000 else f"{x:.3g}"

    return f"{number(value['median'])} ({number(value['q1'])}–{number(value['q3'])})"


def table(report: dict[str, Any]) -> str:
    """The rows that were measured as a Markdown table, then what each of them means."""
    lines, notes = list(_HEAD), []
    for name, row in report["rows"].items():
        if "error" in row:
            notes.append(f"{name}: not measured: {row['error']}")
            continue
        notes.append(f"{name}: {row['env_id']}, {row['note']}")
        for threads, contestants in row["figures"].items():
            for contestant, figures in contestants.items():
                cells = [name, threads, row["contestants"][contestant]["name"]]
                cells.append(str(row["contestants"][contestant]["num_envs"] or "–"))
                cells += [
                    shown(figures, column)
                    for column in (
                        "env_steps_per_second",
                        "update_ms",
                        "ngrl_speedup",
                        "ngrl_update_speedup",
                        "over_one_thread",
                    )
                ]
                lines.append(f"| {' | '.join(cells)} |")
    measured = "\n".join(lines) + "\n\n" if len(lines) > len(_HEAD) else ""
    return f"{measured}Medians (quartiles) over {report['rounds']} rounds.\n" + "\n".join(notes)
