"""What the numbers say, for one run and for a study alike: results, contrasts, audit, tables, figures, pages."""
