"""Cells of tables: a figure, a ratio and a verdict, as the benches of posts and commands show
them. Pure; a ratio that cannot be had is an empty cell.
"""

from bench.figures import Summary


def ratio_cell(value: float | None, digits: int) -> str:
    """A ratio."""
    return "" if value is None else f"{value:.{digits}f}"


def summary_cells(values: Summary, digits: int = 0) -> tuple[str, str, str]:
    """Median, least and most."""
    return (
        f"{values.median:,.{digits}f}",
        f"{values.least:,.{digits}f}",
        f"{values.most:,.{digits}f}",
    )


def verdict(target: str, met: bool) -> str:
    """A target, and whether it was met."""
    return f"{target} {'met' if met else 'MISSED'}"
