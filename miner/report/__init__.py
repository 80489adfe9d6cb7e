"""The report of a session: one HTML page that stands alone, its main chart as PNG, and the numbers as JSON."""
