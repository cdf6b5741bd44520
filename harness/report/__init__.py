"""What a run leaves behind: the result document, tables, figures and the page."""
