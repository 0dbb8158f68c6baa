"""Cells of CSV files that people open in a spreadsheet."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would calculate


def quote_cell(cell: str | None) -> str:
    """The cell, with an apostrophe before what a spreadsheet would take for a formula."""
    cell = cell or ""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def unquote_cell(cell: str) -> str:
    """The text that `quote_cell` wrote."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
