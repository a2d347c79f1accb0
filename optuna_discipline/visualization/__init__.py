"""Pictures of a study: one `plot_*` a file, each a pure collection and a drawing; the dashboard; the report."""
