"""Saved results become one HTML page that opens offline; nothing here trains."""

from poyo_ssl.report.page import write_report
from poyo_ssl.report.results import ReportError

__all__ = ["ReportError", "write_report"]
