"""Reports of a run: one HTML file, or a summary in the terminal."""

__all__ = ["html", "live_page", "live_table", "notebook", "pictures", "study_html", "terminal", "warning_groups"]
