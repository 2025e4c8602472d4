"""Stage report: tables, plots and tests of significance from what the other stages measured."""
