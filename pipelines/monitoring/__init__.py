"""What watches training on a cluster, as code: rules, scrape targets and a dashboard. `python -m pipelines.monitoring` writes the files."""
