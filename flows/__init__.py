"""Top floor, Prefect and the command line: what runs when, reports and the gallery."""
