"""The page of a run and of a study: data as JSON, one template, one self-contained HTML file."""
