"""``stillup dashboard``: a page for the browser, served by the person who looks at it to nobody else."""
