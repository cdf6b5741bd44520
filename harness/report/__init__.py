"""Results of a run: the result document, tables, figures and the HTML report."""
