"""Stage report: tables, plots and significance tests from the other stages' results."""
